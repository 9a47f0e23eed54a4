#include "ctl/worker.hpp"

#include <exception>

#include "ctl/log.hpp"

namespace udm::ctl {

Worker::Worker() : thread_{[this] { run(); }} {}
Worker::~Worker() { stop(); }

void Worker::post(std::function<void()> work) {
    const std::lock_guard lock{mutex_};
    if (stopping_) return;
    queue_.push_back(std::move(work));
    wake_.notify_one();
}

void Worker::stop() {
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
}

void Worker::run() {
    std::unique_lock lock{mutex_};
    for (;;) {
        wake_.wait(lock, [this] { return stopping_ || !queue_.empty(); });
        if (queue_.empty()) return;
        const auto work = std::move(queue_.front());
        queue_.pop_front();
        lock.unlock();
        try {
            work();
        } catch (const std::exception& error) {
            log_error("", "internal error in background work: {}", error.what());
        }
        lock.lock();
    }
}

}  // namespace udm::ctl
