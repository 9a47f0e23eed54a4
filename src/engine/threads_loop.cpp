#include "engine/threads_loop.hpp"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

namespace udm {
namespace {

constexpr int kEventsMax = 256;

bool is_input(const Operation& op) {
    return op.kind != Operation::Kind::send && op.kind != Operation::Kind::writable;
}

// As poll() without waiting; -EAGAIN when nothing is ready.
int look(int fd, short events) noexcept {
    pollfd polled{fd, events, 0};
    const int n = ::poll(&polled, 1, 0);
    return n < 0 ? -errno : n == 0 ? -EAGAIN : polled.revents;
}

// The system call, without waiting.
int attempt(Operation& op) noexcept {
    const int fd = op.file->fd;
    ssize_t n = 0;
    switch (op.kind) {
        case Operation::Kind::receive:
            n = ::recv(fd, op.vec->iov_base, op.vec->iov_len, MSG_DONTWAIT);
            break;
        case Operation::Kind::send:
            n = ::sendmsg(fd, op.message, MSG_DONTWAIT | MSG_NOSIGNAL);
            break;
        case Operation::Kind::readable:
            return look(fd, POLLIN);
        case Operation::Kind::writable:
            return look(fd, POLLOUT);
        case Operation::Kind::accept:
            n = ::accept4(fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
            break;
        default:
            UNREACHABLE();
    }
    return n < 0 ? -errno : static_cast<int>(n);
}

}  // namespace

ThreadsLoop::~ThreadsLoop() { ASSERT(epoll_ < 0); }

Result<void> ThreadsLoop::open() {
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    if (epoll_ < 0) return fail(static_cast<Errc>(errno), "epoll_create1 failed");
    // Edge-triggered: it never has to be read.
    epoll_event event{};
    event.events = EPOLLIN | EPOLLET;
    event.data.fd = wake_fd();
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, wake_fd(), &event) != 0)
        return fail(static_cast<Errc>(errno), "epoll_ctl failed");
    return {};
}

void ThreadsLoop::close() noexcept {
    attempts_.abandon();
    if (epoll_ >= 0) ::close(std::exchange(epoll_, -1));
}

void ThreadsLoop::attach(File&) noexcept {}

void ThreadsLoop::detach(File& file) noexcept {
    if (static_cast<std::size_t>(file.fd) >= sockets_.size()) return;
    Socket& socket = sockets_[static_cast<std::size_t>(file.fd)];
    ASSERT(!socket.input && !socket.output);
    if (socket.watched && epoll_ >= 0) ::epoll_ctl(epoll_, EPOLL_CTL_DEL, file.fd, nullptr);
    socket.watched = false;
}

void ThreadsLoop::start(Operation& op) noexcept {
    ASSERT(is_current());
    switch (op.kind) {
        case Operation::Kind::receive:
        case Operation::Kind::send:
        case Operation::Kind::readable:
        case Operation::Kind::writable:
        case Operation::Kind::accept:
            return attempts_.push_back(op);
        default:
            return perform_later(op);
    }
}

void ThreadsLoop::cancel(Operation& op) noexcept {
    ASSERT(is_current());
    if (op.linked()) {
        op.unlink();
    } else {
        Socket& socket = socket_of(op.file->fd);
        Operation*& waiting = is_input(op) ? socket.input : socket.output;
        ASSERT(waiting == &op);
        waiting = nullptr;
    }
    op.more = false;
    finished(op, -ECANCELED);
}

ThreadsLoop::Socket& ThreadsLoop::socket_of(int fd) {
    const auto index = static_cast<std::size_t>(fd);
    if (index >= sockets_.size()) sockets_.resize(index + 64);
    return sockets_[index];
}

void ThreadsLoop::wait_for_socket(Operation& op) noexcept {
    Socket& socket = socket_of(op.file->fd);
    Operation*& waiting = is_input(op) ? socket.input : socket.output;
    ASSERT(!waiting);
    waiting = &op;
    if (socket.watched) return;
    epoll_event event{};
    event.events = EPOLLIN | EPOLLOUT | EPOLLRDHUP | EPOLLET;
    event.data.fd = op.file->fd;
    if (::epoll_ctl(epoll_, EPOLL_CTL_ADD, op.file->fd, &event) == 0) {
        socket.watched = true;
    } else {
        waiting = nullptr;
        finished(op, -errno);
    }
}

// Those there are now: what done() starts comes in the next round.
void ThreadsLoop::attempt_round() noexcept {
    List<Operation> round;
    round.take_all(attempts_);
    while (Operation* op = round.pop_front_or_null()) {
        const int result = attempt(*op);
        if (result == -EAGAIN) {
            wait_for_socket(*op);
        } else {
            op->more = false;
            op->done(result);
        }
    }
}

void ThreadsLoop::turn(bool wait, Nanoseconds deadline) noexcept {
    attempt_round();
    if (has_timers()) deadline = std::min(deadline, next_deadline());  // one may have been armed by that
    const bool idle = wait && !has_ready() && attempts_.empty();
    if (idle && fall_asleep()) {
        collect(true, deadline);
        wake_up();
    } else {
        collect(false, 0);
    }
    attempt_round();
}

int ThreadsLoop::epoll(epoll_event* events, int max, bool wait, Nanoseconds deadline) noexcept {
    if (!wait) return ::epoll_wait(epoll_, events, max, 0);
    if (deadline == kForever) return ::epoll_wait(epoll_, events, max, -1);
    const Nanoseconds time = now();
    const Nanoseconds left = deadline > time ? deadline - time : 0;
    if (!whole_milliseconds_) {
        const timespec timeout{static_cast<time_t>(left / kSecond), static_cast<long>(left % kSecond)};
        const int n = ::epoll_pwait2(epoll_, events, max, &timeout, nullptr);
        if (n >= 0 || errno != ENOSYS) return n;
        whole_milliseconds_ = true;  // Linux 5.10 and older
    }
    const Nanoseconds ms = (left + kMillisecond - 1) / kMillisecond;
    return ::epoll_wait(epoll_, events, max, ms < 1'000'000 ? static_cast<int>(ms) : 1'000'000);
}

void ThreadsLoop::collect(bool wait, Nanoseconds deadline) noexcept {
    epoll_event events[kEventsMax];
    const int n = epoll(events, kEventsMax, wait, deadline);
    for (int i = 0; i < n; ++i) {
        if (events[i].data.fd == wake_fd()) continue;
        Socket& socket = socket_of(events[i].data.fd);
        constexpr std::uint32_t kInput = EPOLLIN | EPOLLRDHUP | EPOLLHUP | EPOLLERR;
        constexpr std::uint32_t kOutput = EPOLLOUT | EPOLLHUP | EPOLLERR;
        if ((events[i].events & kInput) != 0 && socket.input)
            attempts_.push_back(*std::exchange(socket.input, nullptr));
        if ((events[i].events & kOutput) != 0 && socket.output)
            attempts_.push_back(*std::exchange(socket.output, nullptr));
    }
}

}  // namespace udm
