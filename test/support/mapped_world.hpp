// A small simulated machine for tests of mapped devices: one reactor, disks and devices by name, tables as text.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "core/device.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_opener.hpp"
#include "sim/sim_reactor.hpp"
#include "targets/all.hpp"

namespace udm {

// Memory of whole sectors.
struct Memory {
    std::vector<std::uint8_t> bytes;
    explicit Memory(std::uint64_t sectors, std::uint8_t fill = 0) : bytes(sectors * kSectorSize, fill) {}
    void* at(std::uint64_t sector = 0) { return bytes.data() + sector * kSectorSize; }
    std::uint8_t& sector(std::uint64_t n) { return bytes[n * kSectorSize]; }
    bool all(std::uint8_t byte) const {
        return std::all_of(bytes.begin(), bytes.end(), [byte](std::uint8_t b) { return b == byte; });
    }
    bool operator==(const Memory&) const = default;
};

// Chaos of a test: the sites it names fire, always.
class ScriptedChaos final : public Chaos {
  public:
    std::vector<std::string> sites;
    bool fires(const char* site) noexcept override { return std::find(sites.begin(), sites.end(), site) != sites.end(); }
};

class MappedWorld final : private Device::Observer {
  public:
    struct Event {
        std::string device;
        std::uint32_t number;
        EventKind kind;
        std::string what;
    };

    SimReactor reactor;
    Prng random{1};
    ScriptedChaos chaos;
    Env env{reactor, random, chaos};
    TargetTypes types;
    std::map<std::string, std::unique_ptr<SimDisk>> disks;
    SimOpener opener;
    std::vector<Event> events;

    MappedWorld() { add_all_targets(types, env); }
    ~MappedWorld() {
        while (!devices_.empty()) devices_.pop_back();
        if (!Abandoning::now()) reactor.run_until_idle();    // snapshots end after their targets
    }

    SimDisk& disk(const std::string& name, std::uint64_t sectors = 16384) {
        auto& made = disks[name];
        made = std::make_unique<SimDisk>(reactor, Sectors{sectors});
        opener.add(name, *made);
        return *made;
    }
    SimDisk& disk(const std::string& name, const Limits& limits) {
        auto& made = disks[name];
        made = std::make_unique<SimDisk>(reactor, SimDisk::Options{.limits = limits, .name = name});
        opener.add(name, *made);
        return *made;
    }
    Device& device(const std::string& name) {
        const DiskId id = opener.next_mapped();
        auto& made = devices_.emplace_back(std::unique_ptr<Device>{new Device{env, name, id, this}});
        opener.add_mapped(name, *made, id);
        return *made;
    }

    // A line a target: "0 8192 linear a 0".
    static std::vector<TableLine> lines(const std::string& text) {
        std::vector<TableLine> lines;
        std::istringstream in{text};
        for (std::string line; std::getline(in, line);) {
            std::istringstream words{line};
            TableLine made;
            words >> made.begin.v >> made.length.v >> made.type;
            std::getline(words, made.params);
            lines.push_back(made);
        }
        return lines;
    }
    Result<std::unique_ptr<Table>> build(Device& device, const std::string& text, TableMode mode = TableMode::read_write) {
        const Table::Context context{.env = env,
                                     .types = types,
                                     .opener = opener,
                                     .events = device,
                                     .lost_stores = nullptr,
                                     .device_name = device.name(),
                                     .self = device.id(),
                                     .major = 253,
                                     .minor = static_cast<std::uint32_t>(device.id().inode)};
        return Table::build(lines(text), mode, context);
    }
    Result<void> load(Device& device, const std::string& text, TableMode mode = TableMode::read_write) {
        auto table = build(device, text, mode);
        if (!table) return fail(table);
        auto loaded = reactor.run((*table)->load());
        if (!loaded) return fail(loaded);
        device.set_inactive(std::move(*table));
        return {};
    }
    Result<void> suspend(Device& device, SuspendFlags flags = {}) { return reactor.run(device.suspend(flags)); }
    Result<void> resume(Device& device) { return reactor.run(device.resume()); }
    // Loaded and resumed, or the test fails.
    Device& start(Device& device, const std::string& text, TableMode mode = TableMode::read_write) {
        auto loaded = load(device, text, mode);
        EXPECT_TRUE(loaded.has_value()) << loaded.error().message;
        if (loaded) {
            auto resumed = resume(device);
            EXPECT_TRUE(resumed.has_value()) << resumed.error().message;
        }
        return device;
    }
    Device& start(const std::string& name, const std::string& text, TableMode mode = TableMode::read_write) {
        return start(device(name), text, mode);
    }
    // Why a table is refused; "" if it isn't.
    std::string refusal(const std::string& text, TableMode mode = TableMode::read_write) {
        Device& bad = device("bad" + std::to_string(devices_.size()));
        auto loaded = load(bad, text, mode);
        return loaded ? std::string{} : loaded.error().message;
    }
    Result<std::string> message(Device& device, std::uint64_t sector, const std::vector<std::string>& words) {
        return reactor.run(device.message({sector}, &words));
    }

    IoStatus io(Disk& disk, Op op, std::uint64_t first = 0, std::uint64_t length = 0, void* memory = nullptr, IoFlags flags = {}) {
        return reactor.io(disk, op, {{first}, {length}}, memory, flags);
    }
    IoStatus write(Disk& disk, std::uint64_t first, std::uint64_t length, std::uint8_t byte, IoFlags flags = {}) {
        Memory memory{length, byte};
        return io(disk, Op::write, first, length, memory.at(), flags);
    }
    // The one byte all of it consists of; -1: several; -2: failed.
    int read(Disk& disk, std::uint64_t first, std::uint64_t length) {
        Memory memory{length, 0xee};
        if (io(disk, Op::read, first, length, memory.at()) != IoStatus::ok) return -2;
        return memory.all(memory.bytes[0]) ? memory.bytes[0] : -1;
    }
    std::unique_ptr<SimRequest> submit(Disk& disk, Op op, std::uint64_t first = 0, std::uint64_t length = 0, void* memory = nullptr,
                                       IoFlags flags = {}) {
        return std::make_unique<SimRequest>(reactor, disk, op, Extent{{first}, {length}}, memory, flags);
    }

    static std::string table_text(Device& device) {
        std::string text;
        for (const Table::Entry& entry : device.live()->entries()) text += line_start(entry) + entry.target->table() + "\n";
        return text;
    }
    static std::string status_text(Device& device) {
        std::string text;
        for (const Table::Entry& entry : device.live()->entries()) text += line_start(entry) + entry.target->status() + "\n";
        return text;
    }

  private:
    static std::string line_start(const Table::Entry& entry) {
        return std::to_string(entry.extent.first.v) + " " + std::to_string(entry.extent.length.v) + " " +
               std::string{entry.type->name()} + " ";
    }
    void device_event(Device& device, std::uint32_t number, EventKind kind, std::string_view what) noexcept override {
        events.push_back({device.name(), number, kind, std::string{what}});
    }
    std::vector<std::unique_ptr<Device>> devices_;
};

}  // namespace udm
