// Everything that comes from one seed: time, disks, chaos, and the machine that runs on them until its power is cut.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "sim/chaos.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_lost_stores.hpp"
#include "sim/timeline.hpp"

namespace udm {

class Machine;

class World {
  public:
    struct Options {
        std::uint64_t seed = 1;
        std::vector<std::string> without{};    // cares that are not taken
        bool keeps_trace_lines = false;
    };

    explicit World(const Options& options);
    World(const World&) = delete;
    World& operator=(const World&) = delete;
    ~World();

    Timeline& timeline() noexcept { return timeline_; }
    Prng& random() noexcept { return random_; }
    SimChaos& chaos() noexcept { return chaos_; }
    SimLostStores& lost_stores() noexcept { return lost_stores_; }
    std::uint64_t seed() const noexcept { return options_.seed; }

    // A disk that may be cut, with wild effects; its draws come from the world's seed and its name.
    SimDisk& add_disk(SimDisk::Options options);
    SimDisk& disk(std::string_view name) noexcept;
    const std::vector<std::unique_ptr<SimDisk>>& disks() const noexcept { return disks_; }

    // There is one machine at a time, with its disks under their names.
    Machine& power_on(unsigned reactors = 1);
    Machine& machine() noexcept {
        ASSERT(machine_ != nullptr);
        return *machine_;
    }
    bool is_on() const noexcept { return machine_ != nullptr; }
    // What is under way stops where it is; the disks keep what they must and perhaps more.
    void cut_power();
    std::uint64_t cuts() const noexcept { return cuts_; }

    // Into the trace: an event of a story, with a line for people made only when somebody keeps them.
    template <class F>
    void note(std::uint64_t word, F&& text) {
        timeline_.trace().add(word);
        if (timeline_.trace().keeps_lines()) {
            timeline_.trace().line(std::to_string(timeline_.now()) + " -- " + text());
        }
    }
    // Requests that rules of disks have failed or stalled.
    std::uint64_t faults() const noexcept;

  private:
    Options options_;
    Prng random_;
    Timeline timeline_;
    SimChaos chaos_;
    SimLostStores lost_stores_;
    std::vector<std::unique_ptr<SimDisk>> disks_;
    std::unique_ptr<Machine> machine_;
    std::uint64_t cuts_ = 0;
};

}  // namespace udm
