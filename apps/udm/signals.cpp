#include "apps/udm/signals.hpp"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

namespace udm::app {
namespace {

volatile std::sig_atomic_t stopped = 0;
int ends[2] = {-1, -1};  // of a pipe: the handler writes, waits read

void stop(int) {
    const int saved = errno;
    stopped = 1;
    const char byte = 0;
    static_cast<void>(!::write(ends[1], &byte, 1));  // full: a byte is there already
    errno = saved;
}

}  // namespace

void catch_signals() {
    if (ends[0] >= 0 || ::pipe2(ends, O_CLOEXEC | O_NONBLOCK) != 0) return;
    struct sigaction action {};
    action.sa_handler = stop;  // without SA_RESTART, so that waits end
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
}

bool stop_requested() noexcept { return stopped != 0; }
int stop_descriptor() noexcept { return ends[0]; }

bool sleep_unless_stopped(std::chrono::milliseconds time, int other) {
    const auto end = std::chrono::steady_clock::now() + time;
    while (!stop_requested()) {
        const auto left =
            std::chrono::ceil<std::chrono::milliseconds>(end - std::chrono::steady_clock::now());
        if (left.count() <= 0) return true;
        pollfd wanted[]{{ends[0], POLLIN, 0}, {other, POLLIN, 0}};
        if (::poll(wanted, 2, static_cast<int>(left.count())) > 0 && wanted[1].revents != 0) return true;
    }
    return false;
}

}  // namespace udm::app
