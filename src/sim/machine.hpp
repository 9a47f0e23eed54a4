// What dies in a power cut: reactors, target types, mapped devices with their tables and all that is under way. It does
// what the daemon's control plane does, without its protocol: loads tables from text, suspends, resumes, removes.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/device.hpp"
#include "sim/sim_opener.hpp"
#include "sim/sim_reactor.hpp"
#include "sim/world.hpp"

namespace udm {

class Machine {
  public:
    // One reactor with what lives on it.
    struct Node {
        Node(World& world, std::uint64_t number);
        SimReactor reactor;
        Prng random;
        Env env;
        TargetTypes types;
    };
    struct Mapped {
        std::string name;
        std::unique_ptr<Device> device;
        Node* node;
        DiskId id;
        std::uint32_t minor;
    };

    Machine(World& world, unsigned reactors);
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;
    ~Machine();

    SimReactor& reactor(unsigned node = 0) noexcept { return nodes_[node]->reactor; }
    SimOpener& opener() noexcept { return opener_; }

    // Of the target types of all reactors.
    void set_parameter(std::string_view name, std::uint64_t value) noexcept {
        for (const auto& node : nodes_) node->types.set_parameter(name, value);
    }

    Mapped& create(std::string name, unsigned node = 0);
    Mapped* find(std::string_view name) noexcept;

    // The parts of table lines, one a line: "0 8 linear sim:a 0".
    static Result<std::vector<TableLine>> parse(std::string_view text);
    // Builds and loads a table into the inactive slot. References must stay good until it ends.
    Job<Result<void>> load(Mapped& mapped, const std::string& text, TableMode mode);
    // Load and resume.
    Job<Result<void>> swap(Mapped& mapped, const std::string& text, TableMode mode);
    // Detaches and destroys; nobody may use it or have it open any more.
    Job<void> remove(Mapped& mapped);
    // "snapshot 16/128 8": type and INFO of the live table's only target; empty without one.
    static std::string status(Mapped& mapped);

  private:
    World& world_;
    std::vector<std::unique_ptr<Node>> nodes_;
    SimOpener opener_;
    std::vector<std::unique_ptr<Mapped>> mapped_;
};

}  // namespace udm
