#include "engine/loop.hpp"

#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <future>

#include "engine/file_request.hpp"

namespace udm {

Loop::Loop(EngineShared& shared)
    : shared_{shared}, file_requests_{new FileRequests}, wake_fd_{::eventfd(0, EFD_CLOEXEC)} {
    ASSERT(wake_fd_ >= 0);
}

Loop::~Loop() {
    ASSERT(!running());
    while (Leftover* leftover = leftovers_.pop_front_or_null()) delete leftover;
    remote_.abandon();
    finished_.abandon();
    ::close(wake_fd_);
}

Nanoseconds Loop::now() const noexcept {
    timespec t;
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return static_cast<Nanoseconds>(t.tv_sec) * kSecond + static_cast<Nanoseconds>(t.tv_nsec);
}

void Loop::signal() noexcept {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n =
        ::write(wake_fd_, &one, sizeof one);  // the counter never gets near its limit
}

void Loop::post_remote(Task& task) noexcept {
    {
        const std::lock_guard lock{mutex_};
        remote_.push_back(task);
    }
    rouse();
}

void Loop::finished(Operation& op, int n) noexcept {
    {
        const std::lock_guard lock{mutex_};
        op.result = n;
        finished_.push_back(op);
    }
    rouse();
}

// Either the loop sees the flag before it sleeps, or this sees that it sleeps: both are sequentially
// consistent.
void Loop::rouse() noexcept {
    remote_pending_.store(true);
    if (asleep_.exchange(false)) signal();
}

bool Loop::fall_asleep() noexcept {
    asleep_.store(true);
    if (!remote_pending_.load()) return true;
    asleep_.store(false);
    return false;
}

void Loop::wake_up() noexcept { asleep_.store(false, std::memory_order_relaxed); }

void Loop::take_remote() noexcept {
    if (!remote_pending_.load(std::memory_order_acquire)) return;
    List<Task> tasks;
    List<Operation> operations;
    {
        const std::lock_guard lock{mutex_};
        remote_pending_.store(false);
        tasks.take_all(remote_);
        operations.take_all(finished_);
    }
    while (Task* task = tasks.pop_front_or_null()) post(*task);
    while (Operation* op = operations.pop_front_or_null()) op->done(op->result);
}

void Loop::perform_later(Operation& op) noexcept {
    op.loop = this;
    shared_.workers().submit(op);
}

Result<void> Loop::launch(unsigned index) {
    std::promise<Result<void>> ready;
    auto answer = ready.get_future();
    // The promise moves: here it would be gone while the thread is still setting it.
    thread_ = std::thread{[this, index, ready = std::move(ready)]() mutable {
        sigset_t all;
        ::sigfillset(&all);
        ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
        ::pthread_setname_np(::pthread_self(), ("udm-reactor" + std::to_string(index)).c_str());
        set_current();
        Result<void> opened = open();
        const bool ok = opened.has_value();
        ready.set_value(std::move(opened));
        if (ok) run();
        close();
        clear_current();
    }};
    Result<void> opened = answer.get();
    if (!opened) thread_.join();
    return opened;
}

// Gives large unused buffers' pages back a while after they were used; returns when to look again.
Nanoseconds Loop::trim_buffers() noexcept {
    const Nanoseconds time = now();
    if (trim_at_ == 0) trim_at_ = time + kTrimAfter;
    if (time < trim_at_) return trim_at_;
    buffers().trim();
    trim_at_ = 0;
    return kForever;
}

void Loop::run() noexcept {
    for (;;) {
        take_remote();
        run_ready(kBudget);
        if (has_timers()) run_expired(now());
        if (stopping_.load(std::memory_order_acquire) && !has_ready() &&
            !remote_pending_.load(std::memory_order_acquire)) {
            break;
        }
        Nanoseconds deadline = has_timers() ? next_deadline() : kForever;
        if (buffers().trimmable()) deadline = std::min(deadline, trim_buffers());
        turn(!has_ready(), deadline);
    }
    timespec t;
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    const std::lock_guard lock{mutex_};
    cpu_at_end_ = static_cast<std::uint64_t>(t.tv_sec) * kSecond + static_cast<std::uint64_t>(t.tv_nsec);
}

void Loop::stop() noexcept {
    if (!running()) return;
    stopping_.store(true);
    rouse();
    thread_.join();
}

std::uint64_t Loop::cpu_ns() const noexcept {
    if (!running()) return cpu_at_end_;
    clockid_t clock;
    timespec t;
    if (::pthread_getcpuclockid(const_cast<std::thread&>(thread_).native_handle(), &clock) != 0) return 0;
    if (::clock_gettime(clock, &t) != 0) return 0;
    return static_cast<std::uint64_t>(t.tv_sec) * kSecond + static_cast<std::uint64_t>(t.tv_nsec);
}

}  // namespace udm
