// A control plane over the real engine, without its socket, for tests: devices on two reactors, a state that can be
// closed and opened again.
#pragma once

#include <gtest/gtest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstring>
#include <fstream>
#include <functional>
#include <semaphore>

#include "apps/udmd/engine_host.hpp"
#include "ctl/call_on.hpp"
#include "ctl/devices.hpp"
#include "ctl/snapshots.hpp"
#include "test/support/temp_folder.hpp"

namespace udm::ctl {

// Tells a test of what is about to be done: something is opened, or a reactor is asked.
class WatchedHost final : public daemon::EngineHost {
  public:
    using EngineHost::EngineHost;
    Env& env(unsigned reactor) override {
        if (asked) asked();
        return EngineHost::env(reactor);
    }
    DeviceOpener& opener(unsigned reactor) override {
        if (opening) opening();
        return EngineHost::opener(reactor);
    }
    std::function<void()> opening, asked;    // by who changes devices; what they throw, the step throws
};

// While it lives, the state directory has no room for another record, as on a full disk. Files stay as they are below 64 KiB.
class FullState {
  public:
    explicit FullState(State& state) {
        ::getrlimit(RLIMIT_FSIZE, &former_);
        must(state.commit({{"padding", Json{{"text", std::string(kRoom, 'x')}}}}));    // so that a shorter file has none, either
        const rlimit small{kRoom, former_.rlim_max};
        handler_ = std::signal(SIGXFSZ, SIG_IGN);
        ::setrlimit(RLIMIT_FSIZE, &small);
    }
    ~FullState() {
        ::setrlimit(RLIMIT_FSIZE, &former_);
        std::signal(SIGXFSZ, handler_);
    }
    FullState(const FullState&) = delete;
    FullState& operator=(const FullState&) = delete;

  private:
    static constexpr std::size_t kRoom = 64 << 10;
    rlimit former_{};
    void (*handler_)(int) = nullptr;
};

class World : public testing::Test {
  protected:
    World() { start(); }
    ~World() override { stop(); }

    void start() {
        EngineConfig config;
        config.reactors = 2;
        config.log = [](const std::string&) {};
        auto engine = Engine::start(config);
        if (!engine) throw std::runtime_error{engine.error().message};
        host = std::make_unique<WatchedHost>(std::move(*engine));
        state = std::make_unique<State>();
        must(state->open(folder / "state"));
        devices = std::make_unique<Devices>(*host, hub, *state);
        devices->restore();
        snapshots = std::make_unique<Snapshots>(*devices);
    }
    void stop() {
        if (!devices) return;
        devices->stop();    // its worker may be ending a merge
        snapshots.reset();
        devices.reset();
        state.reset();
        host.reset();
    }
    void restart() {
        stop();
        start();
    }

    // When what the worker has been told is done.
    void settle() {
        std::binary_semaphore settled{0};
        devices->worker().post([&] { settled.release(); });
        settled.acquire();
    }

    static DeviceKey named(const std::string& name) {
        DeviceKey key;
        key.name = name;
        return key;
    }
    RecordPtr create(const std::string& name, const std::string& table) {
        return devices->create({.name = name, .uuid = "", .minor = {}, .read_only = false, .table = lines_of_text(table)});
    }
    RecordPtr bare(const std::string& name) {
        return devices->create({.name = name, .uuid = "", .minor = {}, .read_only = false, .table = {}});
    }
    Json info(const std::string& name) { return devices->info(*devices->registry().find(named(name))); }
    std::string table(const std::string& name, bool inactive = false) { return text(devices->table(named(name), inactive)); }
    std::string status(const std::string& name) { return text(devices->status(named(name), false)); }
    static std::string text(const Json& lines) {
        std::string all;
        for (const Json& line : lines) {
            all += (all.empty() ? "" : "\n") + std::to_string(line["start"].get<int>()) + ' ' +
                   std::to_string(line["length"].get<int>()) + ' ' + line["type"].get<std::string>() + ' ' + line["text"].get<std::string>();
        }
        return all;
    }
    std::string file(const std::string& name, std::uint64_t bytes = 1 << 20) {
        const std::string path = folder / name;
        std::ofstream{path, std::ios::binary | std::ios::app};
        std::filesystem::resize_file(path, bytes);
        return path;
    }

    // The error of what must fail.
    template <class F>
    Error refusal(F&& f) {
        try {
            f();
        } catch (const Failure& failure) {
            return failure.error();
        }
        ADD_FAILURE() << "nothing was refused";
        return {};
    }

    // One sector, filled with a letter; or its first letter.
    IoStatus write(const std::string& name, std::uint64_t sector, char letter) { return transfer(name, Op::write, sector, letter); }
    char read(const std::string& name, std::uint64_t sector) {
        char letter = '?';
        EXPECT_EQ(transfer(name, Op::read, sector, letter), IoStatus::ok) << name;
        return letter;
    }
    void flush(const std::string& name) {
        const RecordPtr record = devices->registry().find(named(name));
        devices->flush_step(*record);
    }
    IoStatus transfer(const std::string& name, Op op, std::uint64_t sector, char& letter) {
        const RecordPtr record = devices->registry().find(named(name));
        Reactor& reactor = host->env(record->home).reactor;
        Request request{&reactor, record->device, op, sector, nullptr};
        alignas(4096) static thread_local char memory[4096];
        request.memory = memory;
        const std::size_t bytes = record->device->limits().logical_block;
        request.sectors = bytes / kSectorSize;
        std::memset(memory, op == Op::write ? letter : 0, bytes);
        const IoStatus status = call_on(reactor, [&] { return run(&request); });
        if (op == Op::read) letter = memory[0];
        return status;
    }

    test::TempFolder folder;
    EventHub hub;
    std::unique_ptr<WatchedHost> host;
    std::unique_ptr<State> state;
    std::unique_ptr<Devices> devices;
    std::unique_ptr<Snapshots> snapshots;

  private:
    struct Request {
        Reactor* reactor;
        Device* device;
        Op op;
        std::uint64_t sector;
        char* memory;
        std::uint64_t sectors = 1;
    };
    static Job<IoStatus> run(Request* r) {
        IoWait wait{*r->reactor, *r->device, r->op, Extent{{r->sector}, {r->sectors}}, r->memory};
        const IoStatus status = co_await wait;
        co_return status;
    }
};

}  // namespace udm::ctl
