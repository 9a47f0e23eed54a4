// udmd: puts the parts together, brings up what the state directory has, and serves until told to stop.
#include <fcntl.h>
#include <fmt/ranges.h>
#include <malloc.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <filesystem>
#include <utility>

#include "apps/udmd/background.hpp"
#include "apps/udmd/engine_host.hpp"
#include "apps/udmd/logging.hpp"
#include "apps/udmd/nbd_exports.hpp"
#include "apps/udmd/options.hpp"
#include "apps/udmd/stop_deadline.hpp"
#include "ctl/api.hpp"
#include "ctl/failure.hpp"
#include "ctl/fd.hpp"
#include "ctl/file_watch.hpp"
#include "ctl/revival.hpp"
#include "ctl/rpc_server.hpp"
#include "ctl/version.hpp"

namespace udm::daemon {
namespace {

// Where the log is, and where somebody looks who has just started it.
void say_error(const Options& options, const std::string& text) {
    ctl::log_error("", "{}", text);
    if (!options.log_file.empty()) fmt::print(stderr, "udmd: {}\n", text);
}

// The signals that stop the daemon, as a descriptor; blocked in all threads made from here on.
ctl::Fd block_signals() {
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_BLOCK, &stop, nullptr);
    std::signal(SIGPIPE, SIG_IGN);
    std::signal(SIGHUP, SIG_IGN);
    return ctl::Fd{::signalfd(-1, &stop, SFD_CLOEXEC)};
}

// From now on a signal ends the process at once.
void unblock_signals() {
    struct sigaction force {};
    force.sa_handler = [](int) {
        constexpr char kText[] = "udmd: told to stop a second time: ending without waiting\n";
        [[maybe_unused]] const ssize_t n = ::write(STDERR_FILENO, kText, sizeof kText - 1);
        ::_exit(1);
    };
    sigaction(SIGTERM, &force, nullptr);
    sigaction(SIGINT, &force, nullptr);
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGTERM);
    sigaddset(&stop, SIGINT);
    pthread_sigmask(SIG_UNBLOCK, &stop, nullptr);
}

// Only the default's own folder is made: a mistyped --socket shall not leave folders behind.
void make_default_folder(const std::string& socket) {
    const std::filesystem::path folder = std::filesystem::path{socket}.parent_path();
    const std::string last = folder.filename();
    if (last != "udm" && !last.starts_with("udm-")) return;
    if (::mkdir(folder.c_str(), ::geteuid() == 0 ? 0755 : 0700) != 0) return;  // listen() says what is wrong
}

class PidFile {
  public:
    explicit PidFile(const std::string& path) : path_{path} {}
    bool write() {
        if (path_.empty()) return true;
        std::FILE* file = std::fopen(path_.c_str(), "we");
        if (!file) return false;
        fmt::print(file, "{}\n", ::getpid());
        written_ = true;
        return std::fclose(file) == 0;
    }
    ~PidFile() { remove(); }
    void remove() {
        if (std::exchange(written_, false)) ::unlink(path_.c_str());
    }

  private:
    std::string path_;
    bool written_ = false;
};

void wait_for_stop(const ctl::Fd& signals, const ctl::Fd& asked) {
    pollfd polled[2] = {{signals.get(), POLLIN, 0}, {asked.get(), POLLIN, 0}};
    while (::poll(polled, 2, -1) < 0) {
    }
    if (polled[0].revents & POLLIN) {
        signalfd_siginfo what{};
        if (::read(signals.get(), &what, sizeof what) == sizeof what) {
            ctl::log_info("", "{} from process {}: stopping", strsignal(static_cast<int>(what.ssi_signo)),
                          what.ssi_pid);
        }
    } else {
        ctl::log_info("", "asked to stop");
    }
}

// Requests in a device that was suspended below another end only if somebody resumes it, and nobody can any more.
constexpr std::chrono::seconds kPatienceWithSuspended{5};
// At the start: devices of a server that answers later come up later.
constexpr std::chrono::seconds kPatienceWithServers{3};

void stop(const Options& options, ctl::FileWatch& watch, ctl::Devices& devices, ctl::Exports& exports, ctl::Api& api, ctl::RpcServer& server, PidFile& pid_file) {
    std::chrono::seconds patience{options.stop_timeout};
    std::string waits_for;
    if (const auto below = devices.suspended_below(); !below.empty()) {
        patience = std::min(patience, kPatienceWithSuspended);
        waits_for = fmt::format(" ({} suspended below other devices)", fmt::join(below, ", "));
    }
    const StopDeadline deadline{patience, waits_for, [&pid_file] {
                                    pid_file.remove();
                                    flush_log();
                                }};
    sd_notify(0, "STOPPING=1\nSTATUS=ending exports");
    watch.stop();
    exports.begin_stop();
    server.stop();
    api.stop();
    exports.stop();
    sd_notify(0, "STATUS=suspending devices");
    devices.stop();
}

int serve(const Options& options, Background& background) {
    const ctl::Fd signals = block_signals();
    const ctl::Fd stop_asked{::eventfd(0, EFD_CLOEXEC)};
    const auto give_up = [&options](const Error& error) {
        say_error(options, error.message);
        return 1;
    };

    ctl::State state;
    if (!options.state_dir.empty()) {
        if (auto opened = state.open(options.state_dir); !opened) return give_up(opened.error());
    }
    EngineConfig config = options.engine;
    config.log = [](const std::string& text) { ctl::log_warning("", "{}", text); };
    config.patience_with_locks = ctl::kRestorePatience;
    auto engine = Engine::start(config);
    if (!engine) return give_up(engine.error());
    EngineHost host{std::move(*engine)};
    NbdExports nbd{host};
    ctl::EventHub hub;
    ctl::Devices devices{host, hub, state};
    ctl::Exports exports{devices, &nbd};
    ctl::Api api{devices, exports, [&stop_asked] {
                     const std::uint64_t one = 1;
                     [[maybe_unused]] const ssize_t n = ::write(stop_asked.get(), &one, sizeof one);
                 }};
    make_default_folder(options.socket);
    ctl::RpcServer server{
        {.path = options.socket, .group = options.group, .clients_max = options.clients}, api, hub};
    // Clients that come now wait until everything is up.
    if (auto listening = server.listen(); !listening) return give_up(listening.error());

    devices.restore();
    std::atomic<bool> exports_restored = false;
    try {
        for (const auto& [key, value] : options.settings) devices.set_daemon(key, value, false);
    } catch (const ctl::Failure& failure) {
        return give_up(failure.error());
    }
    ctl::Revival revival{devices, [&exports, &exports_restored] {
                             if (exports_restored) exports.serve_waiting();
                         }};
    revival.wait_for_first_look(kPatienceWithServers);
    exports.restore(ctl::kRestorePatience);
    exports_restored = true;
    exports.serve_waiting();
    devices.remove_unused();
    api.go_on();
    server.serve();
    ctl::FileWatch watch{devices};
    watch.start();
    PidFile pid_file{options.pid_file};
    if (!pid_file.write()) ctl::log_error("", "cannot write {}: {}", options.pid_file, std::strerror(errno));
    for (const std::string& warning : host.warnings()) ctl::log_warning("", "{}", warning);
    ctl::log_info("", "udmd {} is ready on {}: {} reactors ({}), {} devices, {} exports{}", ctl::kVersion,
                  options.socket, host.reactor_count(), host.engine_name(), devices.registry().size(),
                  exports.size(), options.state_dir.empty() ? ", nothing is kept over restarts" : "");
    sd_notifyf(0, "READY=1\nSTATUS=%zu devices, %zu exports", devices.registry().size(), exports.size());
    background.ready();

    wait_for_stop(signals, stop_asked);
    unblock_signals();
    host.stop_connecting();
    revival.stop();
    stop(options, watch, devices, exports, api, server, pid_file);
    ctl::log_info("", "stopped");
    return 0;
}

}  // namespace
}  // namespace udm::daemon

int main(int argc, char** argv) {
    using namespace udm::daemon;
    Options options;
    if (const auto status = parse_options(argc, argv, options)) return *status;
    // Many threads that allocate little: two arenas do, and keep the memory small.
    ::mallopt(M_ARENA_MAX, 2);
    try {
        Background background;
        if (options.background) {
            if (const auto status = background.fork()) return *status;
        }
        Logging logging{options.log_level, options.log_file};
        const int status = serve(options, background);
        if (!logging.end()) ::_exit(status);
        return status;
    } catch (const std::exception& error) {
        fmt::print(stderr, "udmd: {}\n", error.what());
        return 1;
    }
}
