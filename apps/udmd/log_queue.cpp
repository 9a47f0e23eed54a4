#include "apps/udmd/log_queue.hpp"

#include <pthread.h>
#include <time.h>

#include <condition_variable>
#include <csignal>
#include <deque>
#include <mutex>
#include <utility>

namespace udm::daemon {

// Also the thread's, which may outlive the queue.
struct LogQueue::Shared {
    const Write write;
    std::mutex mutex;
    std::condition_variable wake;
    std::deque<Line> lines;
    std::size_t bytes = 0;      // of the lines
    std::size_t dropped = 0;    // since the last of them
    bool stopping = false;
    std::atomic<bool> busy{false};     // there are lines, or some are being written
    std::atomic<bool> ended{false};    // the thread
};

namespace {
std::size_t weight(const LogQueue::Line& line) { return sizeof line + line.text.size(); }

// For a signal handler: it may take no lock.
bool wait_until(const std::atomic<bool>& flag, bool wanted) noexcept {
    constexpr timespec kStep{.tv_sec = 0, .tv_nsec = 1'000'000};
    for (auto left = LogQueue::kPatience.count(); left > 0; --left) {
        if (flag.load() == wanted) return true;
        ::nanosleep(&kStep, nullptr);
    }
    return flag.load() == wanted;
}
}  // namespace

// Signals are for the thread that waits for them.
LogQueue::LogQueue(std::size_t bytes_max, Write write)
    : bytes_max_{bytes_max}, shared_{std::make_shared<Shared>(std::move(write))} {
    sigset_t all, former;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, &former);
    thread_ = std::thread{[shared = shared_] { run(shared); }};
    ::pthread_sigmask(SIG_SETMASK, &former, nullptr);
}

bool LogQueue::end() noexcept {
    if (!thread_.joinable()) return true;
    {
        const std::lock_guard lock{shared_->mutex};
        shared_->stopping = true;
        shared_->wake.notify_one();
    }
    const bool ended = wait_until(shared_->ended, true);
    ended ? thread_.join() : thread_.detach();
    return ended;
}

void LogQueue::put(Line line) noexcept {
    const std::lock_guard lock{shared_->mutex};
    const std::size_t bytes = weight(line);
    if (!shared_->lines.empty() && (shared_->dropped != 0 || shared_->bytes + bytes > bytes_max_)) {
        ++shared_->dropped;
        return;
    }
    try {
        shared_->lines.push_back(std::move(line));
    } catch (const std::bad_alloc&) {
        ++shared_->dropped;
        return;
    }
    shared_->bytes += bytes;
    shared_->busy = true;
    shared_->wake.notify_one();
}

void LogQueue::run(const std::shared_ptr<Shared>& shared) {
    std::unique_lock lock{shared->mutex};
    for (;;) {
        shared->wake.wait(lock, [&] { return shared->stopping || !shared->lines.empty(); });
        if (shared->lines.empty()) break;
        std::deque<Line> lines;
        lines.swap(shared->lines);
        shared->bytes = 0;
        const std::size_t dropped = std::exchange(shared->dropped, 0);
        lock.unlock();
        for (const Line& line : lines) shared->write(line);
        if (dropped != 0) {
            shared->write({lines.back().when, ctl::LogLevel::warning,
                           fmt::format("{} log lines are missing here: the log took what came before them too slowly", dropped)});
        }
        lock.lock();
        if (shared->lines.empty()) shared->busy = false;
    }
    shared->ended = true;
}

bool LogQueue::wait_written() const noexcept { return wait_until(shared_->busy, false); }

}  // namespace udm::daemon
