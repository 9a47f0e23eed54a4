#include "engine/workers.hpp"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <cerrno>

#include "engine/loop.hpp"

namespace udm {

int perform(Operation& op) noexcept {
    ssize_t n = 0;
    switch (op.kind) {
        case Operation::Kind::read:
            n = ::preadv(op.file->fd, op.vec, static_cast<int>(op.count), static_cast<off_t>(op.offset));
            break;
        case Operation::Kind::write:
            n = ::pwritev2(op.file->fd, op.vec, static_cast<int>(op.count), static_cast<off_t>(op.offset),
                           op.durable ? RWF_DSYNC : 0);
            break;
        case Operation::Kind::sync:
            n = ::fdatasync(op.file->fd);
            break;
        case Operation::Kind::allocate:
            n = ::fallocate(op.file->fd, op.mode, static_cast<off_t>(op.offset),
                            static_cast<off_t>(op.length));
            break;
        case Operation::Kind::call:
            return op.call();
        case Operation::Kind::receive:
        case Operation::Kind::send:
        case Operation::Kind::readable:
        case Operation::Kind::writable:
        case Operation::Kind::accept:
            UNREACHABLE();
    }
    return n < 0 ? -errno : static_cast<int>(n);
}

namespace {
void perform_and_return(Operation& op) noexcept {
    Loop* loop = op.loop;  // without one the operation is gone after call()
    const int result = perform(op);
    if (loop) loop->finished(op, result);
}
}  // namespace

void Workers::submit(Operation& op) noexcept {
    {
        const std::lock_guard lock{mutex_};
        if (!stopped_ && have_threads()) {
            queue_.push_back(op);
            ++queued_;
            wanted_.notify_one();
            return;
        }
    }
    perform_and_return(op);
}

// For one operation more; another may block for long, so each waiting thread counts once. False: there are none.
bool Workers::have_threads() noexcept {
    if (queued_ < idle_ || threads_.size() >= threads_max_) return true;
    const auto begin = [](void* self) -> void* {
        static_cast<Workers*>(self)->run();
        return nullptr;
    };
    pthread_t thread;
    // Not std::thread, which ends the process where the system has no more.
    if (::pthread_create(&thread, nullptr, begin, this) == 0) threads_.push_back(thread);
    return !threads_.empty();
}

void Workers::run() noexcept {
    // Signals are the main thread's; SIGXFSZ in particular would end the process where a write should fail.
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_BLOCK, &all, nullptr);
    ::pthread_setname_np(::pthread_self(), "udm-helper");
    std::unique_lock lock{mutex_};
    for (;;) {
        ++idle_;
        wanted_.wait(lock, [this] { return stopped_ || !queue_.empty(); });
        --idle_;
        Operation* op = queue_.pop_front_or_null();
        if (!op) return;
        --queued_;
        lock.unlock();
        perform_and_return(*op);
        lock.lock();
    }
}

void Workers::stop() noexcept {
    std::vector<pthread_t> threads;
    {
        const std::lock_guard lock{mutex_};
        stopped_ = true;
        threads.swap(threads_);
        wanted_.notify_all();
    }
    for (const pthread_t thread : threads) ::pthread_join(thread, nullptr);
}

}  // namespace udm
