// Origins and snapshots on simulated disks, for tests of the snapshot family.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/parse.hpp"
#include "core/device.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_opener.hpp"
#include "sim/sim_reactor.hpp"
#include "targets/snapshot/format.hpp"
#include "targets/snapshot/type.hpp"

namespace udm::test {

// One request under way, for tests that do something meanwhile.
class Request final : Layer {
  public:
    Request(Reactor& reactor, Disk& disk, Op op, Extent extent, std::uint8_t fill = 0, IoFlags flags = {})
        : reactor_{reactor}, memory_(to_bytes(extent.length), std::byte{fill}), io_{reactor.take_io()} {
        io_.op = op;
        io_.extent = extent;
        io_.flags = flags;
        if (!memory_.empty()) io_.set_memory(memory_.data(), memory_.size());
        io_.push(*this);
        disk.submit(io_);
    }
    bool done() const { return done_; }
    IoStatus status() const { return status_; }
    const std::vector<std::byte>& memory() const { return memory_; }

  private:
    void on_complete(Io& io, Frame&) noexcept override {
        status_ = io.status;
        done_ = true;
        reactor_.give_io(io);
    }
    Reactor& reactor_;
    std::vector<std::byte> memory_;
    Io& io_;
    bool done_ = false;
    IoStatus status_{IoStatus::ok};
};

struct EventLog final : Device::Observer {
    std::vector<std::string> words;
    void device_event(Device& device, std::uint32_t, EventKind, std::string_view what) noexcept override {
        words.push_back(device.name() + ": " + std::string{what});
    }
    bool has(std::string_view text) const {
        for (const auto& w : words) {
            if (w.find(text) != std::string::npos) return true;
        }
        return false;
    }
};

// What the daemon keeps about lost stores.
struct LostList final : LostStores {
    std::vector<DiskId> lost;
    Reactor* reactor = nullptr;
    bool broken = false;
    void record(const DiskId& store, const std::string&, Recorded& done) noexcept override {
        if (!broken) lost.push_back(store);
        done.recorded(broken ? IoStatus::io_error : IoStatus::ok);
    }
    bool is_lost(const DiskId& store) const noexcept override { return std::find(lost.begin(), lost.end(), store) != lost.end(); }
    void forget(const DiskId& store) noexcept override { std::erase(lost, store); }
};

// Chaos of a test: the sites it names fire, always.
struct SiteChaos final : Chaos {
    std::vector<std::string> sites;
    bool fires(const char* site) noexcept override { return std::find(sites.begin(), sites.end(), site) != sites.end(); }
};

class SnapshotTest : public ::testing::Test {
  public:
    SnapshotTest() { snapshot::add_types(*types, env); }
    ~SnapshotTest() override {
        while (!devices.empty()) remove(devices.begin()->first);
        reactor.run_until_idle();
        types.reset();
    }

    SimDisk& disk(const std::string& name, std::uint64_t sectors, SimDisk::Options options = {}) {
        options.limits.size = {sectors};
        options.limits.discard = true;
        options.name = name;
        auto& made = disks[name] = std::make_unique<SimDisk>(reactor.timeline(), options);
        opener.add(name, *made);
        return *made;
    }

    Result<std::unique_ptr<Table>> table(const std::string& name, std::uint64_t length, const std::string& type,
                                         const std::string& params, std::uint64_t begin = 0) {
        Device& device = *devices.at(name);
        std::vector<TableLine> lines;
        lines.push_back({{begin}, {length}, type, params});
        return Table::build(lines, TableMode::read_write,
                            {env, *types, opener, device, &lost, device.name(), device.id(), 253, 0});
    }
    // Builds and loads; the device exists.
    Result<void> load(const std::string& name, std::uint64_t length, const std::string& type, const std::string& params) {
        auto built = table(name, length, type, params);
        if (!built) return fail(built);
        auto loaded = reactor.run((*built)->load());
        if (!loaded) {
            reactor.run_until_idle();
            return fail(loaded);
        }
        devices.at(name)->set_inactive(std::move(*built));
        return {};
    }
    // Creates, loads and resumes. Fails the test when that fails.
    Device& make(const std::string& name, std::uint64_t length, const std::string& type, const std::string& params) {
        add(name);
        auto loaded = load(name, length, type, params);
        EXPECT_TRUE(loaded) << (loaded ? "" : loaded.error().message);
        if (loaded) {
            auto resumed = reactor.run(devices.at(name)->resume());
            EXPECT_TRUE(resumed) << (resumed ? "" : resumed.error().message);
        }
        return *devices.at(name);
    }
    Device& add(const std::string& name) {
        auto& device = devices[name];
        device = std::make_unique<Device>(env, name, opener.next_mapped(), &events);
        opener.add_mapped(name, *device, device->id());
        return *device;
    }
    std::string error_of(std::uint64_t length, const std::string& type, const std::string& params) {
        add("bad");
        auto loaded = load("bad", length, type, params);
        const std::string message = loaded ? "no error" : loaded.error().message;
        remove("bad");
        return message;
    }
    void remove(const std::string& name) {
        reactor.run(devices.at(name)->detach());
        opener.remove(name);
        devices.erase(name);
        reactor.run_until_idle();
    }
    void set_parameter(const char* name, std::uint64_t value) { types->set_parameter(name, value); }
    Device& operator[](const std::string& name) { return *devices.at(name); }
    std::string status(const std::string& name) { return devices.at(name)->live()->entries()[0].target->status(); }
    std::string table_of(const std::string& name) { return devices.at(name)->live()->entries()[0].target->table(); }

    IoStatus write(const std::string& name, std::uint64_t first, std::uint64_t count, std::uint8_t fill, IoFlags flags = {}) {
        return run(Op::write, name, first, count, fill, flags);
    }
    IoStatus run(Op op, const std::string& name, std::uint64_t first, std::uint64_t count, std::uint8_t fill = 0, IoFlags flags = {}) {
        Request request{reactor, *devices.at(name), op, {{first}, {count}}, fill, flags};
        EXPECT_TRUE(reactor.run_until([&] { return request.done(); }));
        return request.status();
    }
    // One that is kept in `requests`, and not waited for.
    Request& start(Op op, const std::string& name, std::uint64_t first, std::uint64_t count, std::uint8_t fill = 0) {
        requests.push_back(std::make_unique<Request>(reactor, (*this)[name], op, Extent{{first}, {count}}, fill));
        return *requests.back();
    }
    IoStatus flush(const std::string& name) { return reactor.flush(*devices.at(name)); }
    // One byte a sector: the first of each (a sector is filled with one byte in these tests).
    std::vector<int> read(const std::string& name, std::uint64_t first, std::uint64_t count) {
        Request request{reactor, *devices.at(name), Op::read, {{first}, {count}}, 0xee};
        EXPECT_TRUE(reactor.run_until([&] { return request.done(); }));
        if (request.status() != IoStatus::ok) return {-1};
        return bytes_of(request.memory());
    }
    static std::vector<int> bytes_of(const std::vector<std::byte>& memory) {
        std::vector<int> bytes;
        for (std::size_t at = 0; at < memory.size(); at += kSectorSize) {
            bytes.push_back(static_cast<int>(memory[at]));
            EXPECT_EQ(memory[at], memory[at + kSectorSize - 1]) << "a torn sector";
        }
        return bytes;
    }
    static std::vector<int> all(std::size_t n, int value) { return std::vector<int>(n, value); }

    SimReactor reactor;
    Prng random{1};
    SiteChaos chaos;
    Env env{reactor, random, chaos};
    EventLog events;
    LostList lost;
    std::map<std::string, std::unique_ptr<SimDisk>> disks;
    SimOpener opener;
    std::unique_ptr<TargetTypes> types = std::make_unique<TargetTypes>();
    std::map<std::string, std::unique_ptr<Device>> devices;
    std::vector<std::unique_ptr<Request>> requests;
};

}  // namespace udm::test
