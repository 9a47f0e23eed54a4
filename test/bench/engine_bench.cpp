// What a request to the engine's disks costs, with nothing above them: CPU time of the process (kernel
// workers included) and requests per second.
//
//   engine_bench [--engine uring|threads] [--seconds N] [--depth N] [--size BYTES] [--plain-memory] DEVICE...
//
// DEVICE as in a table line: a path, ram:SIZE. Files are overwritten.
#include <fmt/format.h>
#include <sys/resource.h>

#include <cstring>
#include <future>
#include <string>
#include <vector>

#include "base/parse.hpp"
#include "base/prng.hpp"
#include "engine/engine.hpp"

namespace {

using namespace udm;

struct Options {
    EngineConfig::Kind kind = EngineConfig::Kind::automatic;
    double seconds = 2;
    unsigned depth = 32;
    std::uint64_t size = 4096;
    bool plain_memory = false;
    std::vector<std::string> devices;
};

double cpu_seconds() {
    rusage usage{};
    ::getrusage(RUSAGE_SELF, &usage);
    auto seconds = [](const timeval& t) {
        return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) * 1e-6;
    };
    return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

// Keeps `depth` requests under way until the time is over.
class Load final : public Layer, public Task {
  public:
    Load(Reactor& reactor, Disk& disk, Op op, const Options& options)
        : reactor_{reactor}, disk_{disk}, op_{op}, options_{options} {}
    std::uint64_t run_and_wait() {
        auto over = over_.get_future();
        reactor_.post_remote(*this);
        over.get();
        return count_;
    }

  private:
    void run() noexcept override {
        places_ = to_bytes(disk_.limits().size) / options_.size;
        end_ = reactor_.now() + static_cast<Nanoseconds>(options_.seconds * 1e9);
        under_way_ = options_.depth;
        for (unsigned i = 0; i < options_.depth; ++i) {
            std::byte* memory = options_.plain_memory
                                    ? static_cast<std::byte*>(std::aligned_alloc(4096, options_.size))
                                    : reactor_.buffers().take(options_.size);
            std::memset(memory, static_cast<int>(i), options_.size);
            next(reactor_.take_io(), memory);
        }
    }
    void next(Io& io, std::byte* memory) noexcept {
        io.op = op_;
        io.extent = {Sector{random_.below(places_) * options_.size / kSectorSize},
                     whole_sectors(options_.size)};
        io.set_memory(memory, options_.size);
        io.push(*this, reinterpret_cast<std::uint64_t>(memory));
        disk_.submit(io);
    }
    void on_complete(Io& io, Frame& frame) noexcept override {
        if (io.status != IoStatus::ok) {
            fmt::print(stderr, "{} failed: {}\n", to_string(op_), udm::to_string(io.status));
            std::exit(1);
        }
        auto* memory = reinterpret_cast<std::byte*>(frame.a);
        // The clock is read once for 64 requests.
        if ((++count_ & 63) == 0 && reactor_.now() >= end_) ended_ = true;
        if (!ended_) return next(io, memory);
        reactor_.give_io(io);
        if (options_.plain_memory) {
            std::free(memory);
        } else {
            reactor_.buffers().give(memory, options_.size);
        }
        if (--under_way_ == 0) over_.set_value();
    }

    Reactor& reactor_;
    Disk& disk_;
    const Op op_;
    const Options& options_;
    Prng random_{1};
    std::uint64_t places_ = 0, count_ = 0;
    Nanoseconds end_ = 0;
    unsigned under_way_ = 0;
    bool ended_ = false;
    std::promise<void> over_;
};

void fill(Reactor& reactor, Disk& disk) {
    struct Fill final : Layer, Task {
        void run() noexcept override {
            memory.assign(1u << 20, 7);
            next();
        }
        void next() {
            const Sectors left = disk->limits().size - (Sector{at} - Sector{0});
            if (!left) return over.set_value();
            const Sectors length = left < Sectors{2048} ? left : Sectors{2048};
            Io& io = reactor->take_io();
            io.op = Op::write;
            io.extent = {Sector{at}, length};
            io.set_memory(memory.data(), to_bytes(length));
            at += length.v;
            io.push(*this);
            disk->submit(io);
        }
        void on_complete(Io& io, Frame&) noexcept override {
            reactor->give_io(io);
            next();
        }
        Reactor* reactor = nullptr;
        Disk* disk = nullptr;
        std::vector<char> memory;
        std::uint64_t at = 0;
        std::promise<void> over;
    } task;
    task.reactor = &reactor;
    task.disk = &disk;
    reactor.post_remote(task);
    task.over.get_future().get();
}

int measure(const Options& options) {
    auto engine = Engine::start({.reactors = 1, .kind = options.kind});
    if (!engine) {
        fmt::print(stderr, "engine_bench: {}\n", engine.error().message);
        return 1;
    }
    Reactor& reactor = (*engine)->reactor(0);
    fmt::print("{}, {} bytes, depth {}\n", (*engine)->kind_name(), options.size, options.depth);
    for (const std::string& warning : (*engine)->warnings()) fmt::print("  {}\n", warning);
    for (const std::string& words : options.devices) {
        auto device = (*engine)->opener(0).open(words, OpenMode::write);
        if (!device) {
            fmt::print(stderr, "engine_bench: {}\n", device.error().message);
            return 1;
        }
        Disk& disk = (*device)->disk();
        fill(reactor, disk);
        for (const Op op : {Op::read, Op::write}) {
            Load load{reactor, disk, op, options};
            const double cpu = cpu_seconds();
            const Nanoseconds start = reactor.now();
            const std::uint64_t count = load.run_and_wait();
            const double used = cpu_seconds() - cpu;
            const double time = static_cast<double>(reactor.now() - start) * 1e-9;
            fmt::print("  {:5} {:7.3f} us CPU {:9.0f}/s  {:8.1f} MB/s  {}\n", to_string(op),
                       used / static_cast<double>(count) * 1e6, static_cast<double>(count) / time,
                       static_cast<double>(count * options.size) / time * 1e-6, words);
        }
        struct Close final : Task {
            void run() noexcept override {
                device->reset();
                over.set_value();
            }
            std::unique_ptr<OpenDevice>* device = nullptr;
            std::promise<void> over;
        } close;
        close.device = &*device;
        reactor.post_remote(close);
        close.over.get_future().get();
    }
    (*engine)->stop();
    return 0;
}

}  // namespace

int main(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; ++i) {
        const std::string word = argv[i];
        const std::string value = i + 1 < argc ? argv[i + 1] : "";
        if (word == "--plain-memory") {
            options.plain_memory = true;
        } else if (word == "--engine") {
            options.kind = value == "threads" ? EngineConfig::Kind::threads : EngineConfig::Kind::uring;
            ++i;
        } else if (word == "--seconds") {
            options.seconds = std::stod(value);
            ++i;
        } else if (word == "--depth") {
            options.depth = static_cast<unsigned>(std::stoul(value));
            ++i;
        } else if (word == "--size") {
            options.size = parse_size(value).value_or(4096);
            ++i;
        } else {
            options.devices.push_back(word);
        }
    }
    if (options.devices.empty()) {
        fmt::print(stderr,
                   "engine_bench [--engine uring|threads] [--seconds N] [--depth N] [--size BYTES] "
                   "[--plain-memory] DEVICE...\n");
        return 2;
    }
    return measure(options);
}
