// A small simulated machine for fuzzers: two disks, `a` and `b`, and mapped devices on them. Made anew for each input.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "core/device.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_opener.hpp"
#include "sim/sim_reactor.hpp"
#include "targets/all.hpp"

namespace udm::test {

class Machine {
  public:
    explicit Machine(Sectors size_of_a, Sectors size_of_b) : a{reactor, size_of_a}, b{reactor, size_of_b} {
        opener.add("a", a);
        opener.add("b", b);
        add_all_targets(*types, env);
    }
    ~Machine() {
        while (!devices.empty()) {
            reactor.run(devices.back()->detach());
            opener.remove(devices.back()->name());
            devices.pop_back();
        }
        reactor.run_until_idle();
        types.reset();
    }
    Machine(const Machine&) = delete;
    Machine& operator=(const Machine&) = delete;

    Device& add(std::string name) {
        devices.push_back(std::make_unique<Device>(env, name, opener.next_mapped()));
        opener.add_mapped(std::move(name), *devices.back(), devices.back()->id());
        return *devices.back();
    }
    Result<std::unique_ptr<Table>> build(Device& device, const std::vector<TableLine>& lines) {
        return Table::build(lines, TableMode::read_write,
                            {env, *types, opener, device, nullptr, device.name(), device.id(), 253, 0});
    }
    // Builds, loads and resumes; what refuses says why.
    Result<void> start(Device& device, const std::vector<TableLine>& lines) {
        auto table = build(device, lines);
        if (!table) return fail(table);
        auto loaded = reactor.run((*table)->load());
        if (!loaded) return loaded;
        device.set_inactive(std::move(*table));
        return reactor.run(device.resume());
    }
    // One request of up to 64 sectors, or nothing if it does not end within an hour (delay has such tables).
    void request(Device& device, Op op, Extent extent) {
        requests.push_back(std::make_unique<SimRequest>(reactor, device, op, extent, memory.data()));
        reactor.run_until([&] { return requests.back()->done(); });
    }

    SimReactor reactor;
    Prng random{1};
    Chaos chaos;
    Env env{reactor, random, chaos};
    SimDisk a, b;
    SimOpener opener;
    std::unique_ptr<TargetTypes> types = std::make_unique<TargetTypes>();
    std::array<std::byte, 64 * kSectorSize> memory{};
    std::vector<std::unique_ptr<SimRequest>> requests;
    std::vector<std::unique_ptr<Device>> devices;
};

}  // namespace udm::test
