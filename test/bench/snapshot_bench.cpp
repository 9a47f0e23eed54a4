// What a first-touch write costs in the target alone, without an export: CPU per 4 KiB write on memory, plain,
// to an origin with 0, 1 and 8 snapshots, and to a writable snapshot of a still base.
//   snapshot_bench [MIB] [CHUNK_SECTORS] [DEPTH]
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <condition_variable>
#include <cstdlib>
#include <map>
#include <mutex>
#include <numeric>
#include <optional>
#include <vector>

#include "core/device.hpp"
#include "engine/engine.hpp"
#include "targets/all.hpp"

namespace udm {
namespace {

std::uint64_t cpu_of_process() {
    timespec t{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * kSecond + static_cast<std::uint64_t>(t.tv_nsec);
}
std::uint64_t wall() {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<std::uint64_t>(t.tv_sec) * kSecond + static_cast<std::uint64_t>(t.tv_nsec);
}

class Opener final : public DeviceOpener {
  public:
    explicit Opener(DeviceOpener& engine) : engine_{engine} {}
    Result<std::unique_ptr<OpenDevice>> open(std::string_view words, OpenMode mode) override { return engine_.open(words, mode); }

  private:
    DeviceOpener& engine_;
};

// Runs a function on the reactor and waits for it.
class Call final : public Task {
  public:
    Call(Reactor& reactor, std::function<void(Call&)> f) : f_{std::move(f)} {
        reactor.post_remote(*this);
        std::unique_lock lock{mutex_};
        ended_.wait(lock, [this] { return done_; });
    }
    void done() {
        const std::scoped_lock lock{mutex_};
        done_ = true;
        ended_.notify_one();
    }

  private:
    void run() noexcept override { f_(*this); }
    std::function<void(Call&)> f_;
    std::mutex mutex_;
    std::condition_variable ended_;
    bool done_ = false;
};

template <class T>
Job<void> keep(Job<T>* job, std::optional<T>* result, Call* call) {
    auto value = co_await *job;
    result->emplace(std::move(value));
    call->done();
}
template <class T>
T run(Reactor& reactor, std::function<Job<T>()> make) {
    std::optional<T> result;
    std::optional<Job<T>> job;
    Call call{reactor, [&](Call& c) {
                  job.emplace(make());
                  reactor.jobs().spawn(keep<T>(&*job, &result, &c));
              }};
    return std::move(*result);
}

// Writes each block of a list once, so many at a time.
class Writer final : Layer {
  public:
    Writer(Reactor& reactor, Disk& disk, const std::vector<std::uint32_t>& blocks, unsigned depth, Call& call)
        : reactor_{reactor}, disk_{disk}, blocks_{blocks}, call_{call}, memory_{reactor.buffers().take(4096)} {
        for (unsigned i = 0; i < depth; ++i) next();
    }
    ~Writer() { reactor_.buffers().give(memory_, 4096); }
    unsigned failed = 0;

  private:
    void next() {
        if (at_ == blocks_.size()) return;
        Io& io = reactor_.take_io();
        io.op = Op::write;
        io.extent = {{std::uint64_t{blocks_[at_++]} * 8}, {8}};
        io.set_memory(memory_, 4096);
        io.push(*this);
        ++out_;
        disk_.submit(io);
    }
    void on_complete(Io& io, Frame&) noexcept override {
        failed += io.status != IoStatus::ok;
        reactor_.give_io(io);
        --out_;
        next();
        if (out_ == 0) call_.done();
    }
    Reactor& reactor_;
    Disk& disk_;
    const std::vector<std::uint32_t>& blocks_;
    Call& call_;
    std::byte* memory_;
    std::size_t at_ = 0;
    unsigned out_ = 0;
};

struct Bench {
    Engine& engine;
    Reactor& reactor = engine.reactor(0);
    Prng random{1};
    Chaos chaos;
    Env env{reactor, random, chaos};
    TargetTypes types;
    Opener opener{engine.opener(0)};
    std::map<std::string, std::unique_ptr<Device>> devices;

    unsigned depth;

    Bench(Engine& e, unsigned at_once) : engine{e}, depth{at_once} {
        Call call{reactor, [this](Call& c) {
                      add_all_targets(types, env);
                      c.done();
                  }};
    }
    Device& make(const std::string& name, std::uint64_t sectors, const std::string& type, const std::string& params) {
        Call create{reactor, [&](Call& c) {
                        devices[name] = std::make_unique<Device>(env, name, DiskId{DiskId::Kind::mapped, 253, devices.size()});
                        c.done();
                    }};
        Device& device = *devices[name];
        std::vector<TableLine> lines;
        lines.push_back({{0}, {sectors}, type, params});
        auto table = Table::build(lines, TableMode::read_write, {env, types, opener, device, nullptr, device.name(), device.id(), 253, 0});
        if (!table) die(table.error().message);
        auto loaded = run<Result<void>>(reactor, [&] { return (*table)->load(); });
        if (!loaded) die(loaded.error().message);
        Call set{reactor, [&](Call& c) {
                     device.set_inactive(std::move(*table));
                     c.done();
                 }};
        auto resumed = run<Result<void>>(reactor, [&] { return device.resume(); });
        if (!resumed) die(resumed.error().message);
        return device;
    }
    static Job<Result<int>> detach(Device* device) {
        auto job = device->detach();
        co_await job;
        co_return 0;
    }
    void remove_all() {
        for (auto it = devices.rbegin(); it != devices.rend(); ++it) {
            static_cast<void>(run<Result<int>>(reactor, [&] { return detach(it->second.get()); }));
        }
        Call drop{reactor, [this](Call& c) {
                      devices.clear();
                      c.done();
                  }};
    }
    [[noreturn]] static void die(const std::string& why) {
        fmt::print(stderr, "snapshot_bench: {}\n", why);
        std::exit(1);
    }
    void measure(const std::string& what, Device& device, const std::vector<std::uint32_t>& blocks) {
        const std::uint64_t cpu = cpu_of_process(), start = wall();
        std::unique_ptr<Writer> writer;
        Call call{reactor, [&](Call& c) { writer = std::make_unique<Writer>(reactor, device, blocks, depth, c); }};
        const double n = static_cast<double>(blocks.size());
        fmt::print("{:42} {:7.0f} ns/write  {:8.0f} writes/s{}\n", what, static_cast<double>(cpu_of_process() - cpu) / n,
                   n * 1e9 / static_cast<double>(wall() - start), writer->failed ? fmt::format("  {} FAILED", writer->failed) : "");
        Call drop{reactor, [&](Call& c) {
                      writer.reset();
                      c.done();
                  }};
    }
};

}  // namespace
}  // namespace udm

int main(int argc, char** argv) {
    using namespace udm;
    const std::uint64_t mib = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 256;
    const std::string chunk = argc > 2 ? argv[2] : "8";
    const std::uint64_t sectors = mib * 2048;
    auto engine = Engine::start({.reactors = 1});
    if (!engine) {
        fmt::print(stderr, "snapshot_bench: {}\n", engine.error().message);
        return 1;
    }
    std::vector<std::uint32_t> blocks(sectors / 8);
    std::iota(blocks.begin(), blocks.end(), 0u);
    Prng random{3};
    for (std::size_t i = blocks.size(); i > 1; --i) std::swap(blocks[i - 1], blocks[random.below(i)]);

    Bench bench{**engine, argc > 3 ? static_cast<unsigned>(std::strtoul(argv[3], nullptr, 10)) : 32};
    const std::string origin = fmt::format("ram:origin:{}M", mib);
    const std::string store = fmt::format("{}M", mib * 5 / 4 + 16);
    Device& plain = bench.make("plain", sectors, "linear", origin + " 0");
    bench.measure("plain, memory not yet touched", plain, blocks);
    bench.measure("plain", plain, blocks);
    Device& o = bench.make("o", sectors, "snapshot-origin", origin);
    bench.measure("origin, 0 snapshots", o, blocks);
    bench.make("s0", sectors, "snapshot", fmt::format("{} ram:c0:{} P {}", origin, store, chunk));
    bench.measure("origin, 1 snapshot, first touch", o, blocks);
    bench.measure("origin, 1 snapshot, again", o, blocks);
    for (int i = 1; i < 9; ++i) {
        bench.make("s" + std::to_string(i), sectors, "snapshot", fmt::format("{} ram:c{}:{} P {}", origin, i, store, chunk));
    }
    bench.measure("origin, 8 more snapshots, first touch", o, blocks);
    bench.measure("origin, 9 snapshots, again", o, blocks);
    Device& still = bench.make("w", sectors, "snapshot", fmt::format("ram:base:{}M ram:wcow:{} P {}", mib, store, chunk));
    bench.measure("snapshot of a still base, first touch", still, blocks);
    bench.measure("snapshot of a still base, again", still, blocks);
    bench.remove_all();
    (*engine)->stop();
    return 0;
}
