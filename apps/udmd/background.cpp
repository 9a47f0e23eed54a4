#include "apps/udmd/background.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <system_error>

namespace udm::daemon {

std::optional<int> Background::fork() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::system_error{errno, std::system_category(), "pipe"};
    ctl::Fd reading{ends[0]};
    pipe_.reset(ends[1]);
    const pid_t child = ::fork();
    if (child < 0) throw std::system_error{errno, std::system_category(), "fork"};
    if (child != 0) {
        pipe_.reset();
        char byte = 0;
        ssize_t n = 0;
        while ((n = ::read(reading.get(), &byte, 1)) < 0 && errno == EINTR) {
        }
        return n == 1 ? 0 : 1;  // the daemon has said why on standard error
    }
    ::setsid();
    return std::nullopt;
}

void Background::ready() {
    if (!pipe_) return;
    const ctl::Fd null{::open("/dev/null", O_RDWR | O_CLOEXEC)};
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) ::dup2(null.get(), fd);
    [[maybe_unused]] const ssize_t n = ::write(pipe_.get(), "r", 1);
    pipe_.reset();
}

}  // namespace udm::daemon
