// From a client's thread into a reactor and back: runs something on the home reactor and waits for it.
#pragma once

#include <condition_variable>
#include <mutex>
#include <optional>
#include <type_traits>
#include <utility>

#include "port/job.hpp"
#include "port/reactor.hpp"

namespace udm::ctl {
namespace detail {

template <class T>
struct Slot {  // what came back; void becomes bool
    using Value = std::conditional_t<std::is_void_v<T>, bool, T>;
    void set(Value&& result) {
        // Notified under the lock: once it is free the waiter may take the slot away.
        const std::lock_guard lock{mutex};
        value.emplace(std::move(result));
        done.notify_one();
    }
    Value wait() {
        std::unique_lock lock{mutex};
        done.wait(lock, [this] { return value.has_value(); });
        return std::move(*value);
    }
    std::mutex mutex;
    std::condition_variable done;
    std::optional<Value> value;
};

template <class F>
struct RunTask final : Task {
    using Value = std::invoke_result_t<F&>;
    explicit RunTask(F& function) noexcept : f{function} {}
    void run() noexcept override {
        if constexpr (std::is_void_v<Value>) {
            f();
            slot.set(true);
        } else {
            slot.set(f());
        }
    }
    F& f;
    Slot<Value> slot;
};

template <class T>
struct JobValue;
template <class T>
struct JobValue<Job<T>> {
    using Type = T;
};

template <class F>
struct JobTask final : Task {
    using Value = typename JobValue<std::invoke_result_t<F&>>::Type;
    JobTask(Reactor& home, F& function) noexcept : reactor{home}, f{function} {}
    void run() noexcept override { reactor.jobs().spawn(drive(this)); }
    static Job<void> drive(JobTask* self) {
        auto job = self->f();
        if constexpr (std::is_void_v<Value>) {
            co_await job;
            self->slot.set(true);
        } else {
            auto value = co_await job;
            self->slot.set(std::move(value));
        }
    }
    Reactor& reactor;
    F& f;
    Slot<Value> slot;
};

}  // namespace detail

// Runs f() there; it must not wait nor throw. Not from a reactor.
template <class F>
std::invoke_result_t<F&> run_on(Reactor& reactor, F f) {
    ASSERT(Reactor::current() == nullptr);
    detail::RunTask<F> task{f};
    reactor.post_remote(task);
    if constexpr (std::is_void_v<std::invoke_result_t<F&>>) {
        task.slot.wait();
    } else {
        return task.slot.wait();
    }
}

// f() makes a Job there (f itself is no coroutine); waits for its result. Not from a reactor.
template <class F>
typename detail::JobTask<F>::Value call_on(Reactor& reactor, F f) {
    ASSERT(Reactor::current() == nullptr);
    detail::JobTask<F> task{reactor, f};
    reactor.post_remote(task);
    if constexpr (std::is_void_v<typename detail::JobTask<F>::Value>) {
        task.slot.wait();
    } else {
        return task.slot.wait();
    }
}

}  // namespace udm::ctl
