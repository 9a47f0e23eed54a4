#include "engine/engine.hpp"

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>

#include <cstring>
#include <thread>

#include "engine/file_probe.hpp"
#include "engine/network.hpp"
#include "engine/opener.hpp"
#include "engine/threads_loop.hpp"
#include "engine/uring_loop.hpp"

namespace udm {
namespace {

// Where there is a ring, only what it cannot do goes to helpers.
constexpr unsigned kHelpers = 4;
constexpr unsigned kHelpersForAll = 16;

void raise_file_limit(EngineShared& shared) {
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) != 0) return;
    files.rlim_cur = files.rlim_max;
    if (::setrlimit(RLIMIT_NOFILE, &files) != 0) {
        shared.warn(fmt::format("the limit of open files stays where it is: {}", std::strerror(errno)));
    } else if (files.rlim_max < 16384) {
        shared.warn(fmt::format("at most {} files may be open (`ulimit -Hn`): each image and each snapshot's store is one",
                                files.rlim_max));
    }
}

class RealEngine final : public Engine {
  public:
    RealEngine(bool uring, const EngineConfig& config)
        : uring_{uring}, shared_{uring ? kHelpers : kHelpersForAll, config.log}, locks_{shared_, config.patience_with_locks} {}
    ~RealEngine() override { stop(); }

    Result<void> launch(const EngineConfig& config) {
        raise_file_limit(shared_);
        unsigned count = config.reactors != 0 ? config.reactors : std::thread::hardware_concurrency();
        if (count == 0) count = 1;
        for (unsigned i = 0; i < count; ++i) {
            auto& unit = *units_.emplace_back(std::make_unique<Unit>(make_loop(config), locks_, memory_, servers_));
            CHECK(unit.loop->launch(i));
        }
        return {};
    }

    unsigned size() const noexcept override { return static_cast<unsigned>(units_.size()); }
    Reactor& reactor(unsigned i) noexcept override { return *unit(i).loop; }
    Network& network(unsigned i) noexcept override { return unit(i).network; }
    DeviceOpener& opener(unsigned i) noexcept override { return unit(i).opener; }
    Result<DiskId> identify(std::string_view words) override { return identify_device(words, memory_); }
    const char* kind_name() const noexcept override { return uring_ ? "uring" : "threads"; }
    std::vector<std::string> warnings() const override { return shared_.warnings(); }
    void warn(const std::string& warning) { shared_.warn(warning); }
    OpenFiles open_files() const override {
        rlimit files{};
        ::getrlimit(RLIMIT_NOFILE, &files);
        return {count_open_files(), files.rlim_cur == RLIM_INFINITY ? 0 : files.rlim_cur};
    }
    std::vector<std::uint64_t> cpu_ns() const override {
        std::vector<std::uint64_t> times;
        for (const auto& unit : units_) times.push_back(unit->loop->cpu_ns());
        return times;
    }
    void stop() noexcept override {
        for (const auto& unit : units_) unit->loop->stop();
        shared_.workers().stop();
        servers_.stop();
    }
    void stop_connecting() noexcept override { servers_.stop_connecting(); }
    NbdSettings& nbd_settings() noexcept override { return servers_.settings(); }

  private:
    struct Unit {
        Unit(std::unique_ptr<Loop> its_loop, FileLocks& locks, NamedMemory& memory, NbdServers& servers)
            : loop{std::move(its_loop)}, network{*loop}, opener{*loop, locks, memory, servers} {}
        const std::unique_ptr<Loop> loop;
        LoopNetwork network;
        Opener opener;
    };
    std::unique_ptr<Loop> make_loop(const EngineConfig& config) {
        if (uring_) return std::make_unique<UringLoop>(shared_, config.plain_ring);
        return std::make_unique<ThreadsLoop>(shared_);
    }
    Unit& unit(unsigned i) noexcept {
        ASSERT(i < units_.size());
        return *units_[i];
    }

    const bool uring_;
    EngineShared shared_;
    FileLocks locks_;
    NamedMemory memory_;
    NbdServers servers_;
    std::vector<std::unique_ptr<Unit>> units_;
};

Result<std::unique_ptr<Engine>> start_kind(bool uring, const EngineConfig& config,
                                           const std::string& warning) {
    auto engine = std::make_unique<RealEngine>(uring, config);
    if (!warning.empty()) engine->warn(warning);
    CHECK(engine->launch(config));
    return std::unique_ptr<Engine>{std::move(engine)};
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::start(const EngineConfig& config) {
    if (config.kind == EngineConfig::Kind::threads) return start_kind(false, config, "");
    Result<void> usable = UringLoop::probe();
    if (usable) {
        auto engine = start_kind(true, config, "");
        if (engine || config.kind == EngineConfig::Kind::uring) return engine;
        usable = fail(engine);
    }
    if (config.kind == EngineConfig::Kind::uring) return fail(usable);
    return start_kind(false, config,
                      usable.error().message + "; threads do its work, which costs more CPU time");
}

}  // namespace udm
