#include "apps/udm/private_daemon.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "apps/udm/context.hpp"
#include "apps/udm/progress.hpp"
#include "apps/udm/signals.hpp"

namespace udm::app {
namespace {

namespace fs = std::filesystem;
constexpr auto kStartTime = std::chrono::seconds{20};

// Beside this program, else where it would be installed.
std::string find_udmd() {
    std::error_code ignored;
    const fs::path self = fs::read_symlink("/proc/self/exe", ignored);
    for (const fs::path& place :
         {self.parent_path() / "udmd", self.parent_path().parent_path() / "sbin/udmd",
          fs::path{"/usr/sbin/udmd"}, fs::path{"/usr/local/sbin/udmd"}, fs::path{"/usr/bin/udmd"}}) {
        if (::access(place.c_str(), X_OK) == 0) return place.string();
    }
    throw Refusal{"no daemon runs, and udmd is not to be found", "start udmd, or install it beside udm"};
}

std::string last_words(const std::string& log) {
    std::ifstream stream{log};
    std::string text{std::istreambuf_iterator<char>{stream}, {}};
    while (text.ends_with('\n')) text.pop_back();
    return text.size() > 2000 ? text.substr(text.size() - 2000) : text;
}

}  // namespace

PrivateDaemon::PrivateDaemon() {
    const std::string program = find_udmd();
    std::string pattern = (fs::temp_directory_path() / "udm-serve-XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr)
        throw Refusal{fmt::format("{}: {}", pattern, std::strerror(errno))};
    folder_ = pattern;
    try {
        start(program);
    } catch (...) {
        end();
        throw;
    }
}

PrivateDaemon::~PrivateDaemon() { end(); }

void PrivateDaemon::end() noexcept {
    if (alive()) {
        ::kill(pid_, SIGTERM);
        while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) {
        }
        pid_ = -1;
    }
    std::error_code ignored;
    fs::remove_all(folder_, ignored);
}

bool PrivateDaemon::alive() {
    if (pid_ > 0 && ::waitpid(pid_, nullptr, WNOHANG) != 0) pid_ = -1;
    return pid_ > 0;
}

void PrivateDaemon::start(const std::string& program) {
    const std::string log = folder_ + "/udmd.log", path = socket();
    const int out = ::open(log.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    if (out < 0) throw Refusal{fmt::format("{}: {}", log, std::strerror(errno))};
    const pid_t parent = ::getpid();
    pid_ = ::fork();
    if (pid_ == 0) {
        ::setpgid(0, 0);                     // Ctrl-C is ours to deal with
        ::prctl(PR_SET_PDEATHSIG, SIGTERM);  // should we be killed, it ends in order
        if (::getppid() != parent) ::_exit(127);
        ::dup2(out, STDOUT_FILENO);
        ::dup2(out, STDERR_FILENO);
        ::execl(program.c_str(), "udmd", "--socket", path.c_str(), static_cast<char*>(nullptr));
        ::_exit(127);
    }
    ::close(out);
    if (pid_ < 0) throw Refusal{fmt::format("cannot start {}: {}", program, std::strerror(errno))};

    const Progress progress{"starting udmd"};
    const auto give_up = std::chrono::steady_clock::now() + kStartTime;
    while (alive() && std::chrono::steady_clock::now() < give_up) {
        try {
            const ctl::Client probe{path};
            return;
        } catch (const ctl::NoDaemon&) {
        }
        if (!sleep_unless_stopped(std::chrono::milliseconds{5})) throw Refusal{"interrupted"};
    }
    throw Refusal{fmt::format("{} did not start: {}", program, last_words(log))};
}

}  // namespace udm::app
