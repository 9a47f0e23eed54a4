// Coroutines for what is a story: table load, metadata open, suspend, commit loops. Never a layer of the data plane.
//
// GCC 12 destroys some temporaries of awaited expressions twice. Hence the rules, checked by tools/tidy.py and by
// the static_assert below: parameters of a coroutine are pointers, references or trivially destructible values;
// what is awaited has a name of its own (`auto job = f(x); auto r = co_await job;`); no lambda coroutines; no
// statement expressions.
#pragma once

#include <coroutine>
#include <exception>
#include <optional>
#include <type_traits>
#include <utility>

#include "base/intrusive.hpp"
#include "port/disk.hpp"
#include "port/frame_pool.hpp"
#include "port/reactor.hpp"

namespace udm {

template <class T>
class Job;

namespace detail {

struct PromiseBase : ListHook {
    std::coroutine_handle<> continuation;    // who awaits this job
    JobList* list = nullptr;                 // set when the job was spawned
    std::coroutine_handle<> self;

    static void* operator new(std::size_t bytes) { return take_frame(bytes); }
    static void operator delete(void* frame, std::size_t bytes) noexcept { give_frame(frame, bytes); }

    std::suspend_always initial_suspend() const noexcept { return {}; }
    struct FinalAwaiter {
        bool await_ready() const noexcept { return false; }
        template <class P>
        std::coroutine_handle<> await_suspend(std::coroutine_handle<P> handle) const noexcept {
            PromiseBase& promise = handle.promise();
            if (promise.list) {    // nobody awaits a spawned job: it ends itself
                promise.unlink();
                handle.destroy();
                return std::noop_coroutine();
            }
            return promise.continuation ? promise.continuation : std::noop_coroutine();
        }
        void await_resume() const noexcept {}
    };
    FinalAwaiter final_suspend() const noexcept { return {}; }
    [[noreturn]] void unhandled_exception() const noexcept { UNREACHABLE(); }
};

template <class T>
struct Promise : PromiseBase {
    std::optional<T> value;
    Job<T> get_return_object() noexcept;
    template <class V>
    void return_value(V&& v) noexcept {
        value.emplace(std::forward<V>(v));
    }
    T take() noexcept { return std::move(*value); }
};

template <>
struct Promise<void> : PromiseBase {
    Job<void> get_return_object() noexcept;
    void return_void() const noexcept {}
    void take() const noexcept {}
};

}  // namespace detail

// Starts when awaited or spawned; destroyed with the object (which must not be running then).
template <class T>
class [[nodiscard]] Job {
  public:
    using promise_type = detail::Promise<T>;
    explicit Job(std::coroutine_handle<promise_type> handle) noexcept : handle_{handle} {}
    Job(Job&& other) noexcept : handle_{std::exchange(other.handle_, nullptr)} {}
    Job& operator=(Job&&) = delete;
    ~Job() {
        if (handle_) handle_.destroy();
    }
    bool await_ready() const noexcept { return false; }
    std::coroutine_handle<> await_suspend(std::coroutine_handle<> awaiting) noexcept {
        handle_.promise().continuation = awaiting;
        return handle_;
    }
    T await_resume() noexcept { return handle_.promise().take(); }

  private:
    friend class JobList;
    std::coroutine_handle<promise_type> release() noexcept { return std::exchange(handle_, nullptr); }
    std::coroutine_handle<promise_type> handle_;
};

namespace detail {
template <class T>
Job<T> Promise<T>::get_return_object() noexcept {
    auto handle = std::coroutine_handle<Promise<T>>::from_promise(*this);
    self = handle;
    return Job<T>{handle};
}
inline Job<void> Promise<void>::get_return_object() noexcept {
    auto handle = std::coroutine_handle<Promise<void>>::from_promise(*this);
    self = handle;
    return Job<void>{handle};
}
template <class A>
inline constexpr bool kSafeParameter = std::is_reference_v<A> || std::is_trivially_destructible_v<A>;
}  // namespace detail

// The jobs nobody awaits. One list a reactor.
class JobList {
  public:
    JobList() = default;
    ~JobList() { destroy_all(); }
    // Runs it until it first waits; it ends itself.
    void spawn(Job<void> job) noexcept {
        auto handle = job.release();
        auto& promise = handle.promise();
        promise.list = this;
        jobs_.push_back(promise);
        handle.resume();
    }
    bool empty() const noexcept { return jobs_.empty(); }
    void destroy_all() noexcept {
        while (detail::PromiseBase* promise = jobs_.pop_front_or_null()) promise->self.destroy();
    }

  private:
    List<detail::PromiseBase> jobs_;
};

// co_await of one request: `IoWait wait{env.reactor, disk, Op::read, extent, memory}; IoStatus s = co_await wait;`
class IoWait final : Layer {
  public:
    IoWait(Reactor& reactor, Disk& disk, Op op, Extent extent, void* memory = nullptr, IoFlags flags = {}) noexcept
        : reactor_{reactor}, disk_{disk}, io_{reactor.take_io()} {
        io_.op = op;
        io_.extent = extent;
        io_.flags = flags;
        if (memory) io_.set_memory(memory, to_bytes(extent.length));
    }
    IoWait(const IoWait&) = delete;
    IoWait& operator=(const IoWait&) = delete;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) noexcept {
        awaiting_ = awaiting;
        io_.push(*this);
        disk_.submit(io_);
    }
    IoStatus await_resume() const noexcept { return status_; }
    const ExtentAnswer& answer() const noexcept { return answer_; }

  private:
    void on_complete(Io& io, Frame&) noexcept override {
        status_ = io.status;
        answer_ = io.answer;
        reactor_.give_io(io);
        awaiting_.resume();
    }
    Reactor& reactor_;
    Disk& disk_;
    Io& io_;
    std::coroutine_handle<> awaiting_;
    IoStatus status_{IoStatus::ok};
    ExtentAnswer answer_{};
};

// co_await until a time: `Sleep nap{env.reactor, deadline}; co_await nap;`
class Sleep final : Timer {
  public:
    Sleep(Reactor& reactor, Nanoseconds deadline) noexcept : reactor_{reactor}, deadline_{deadline} {}
    ~Sleep() { reactor_.cancel(*this); }
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) noexcept {
        awaiting_ = awaiting;
        reactor_.arm(*this, deadline_);
    }
    void await_resume() const noexcept {}

  private:
    void expired() noexcept override { awaiting_.resume(); }
    Reactor& reactor_;
    Nanoseconds deadline_;
    std::coroutine_handle<> awaiting_;
};

// A condition that jobs wait for: `auto wait = signal.wait(); co_await wait;`. notify_all() lets go all that wait
// now, each as a task of its own, so that the notifier is never re-entered.
class Signal {
  public:
    explicit Signal(Reactor& reactor) noexcept : reactor_{reactor} {}
    Signal(const Signal&) = delete;
    Signal& operator=(const Signal&) = delete;

    class Wait final : public Task {
      public:
        explicit Wait(Signal& signal) noexcept : signal_{signal} {}
        ~Wait() {
            if (linked()) unlink();
        }
        bool await_ready() const noexcept { return false; }
        void await_suspend(std::coroutine_handle<> awaiting) noexcept {
            awaiting_ = awaiting;
            signal_.waiting_.push_back(*this);
        }
        void await_resume() const noexcept {}

      private:
        void run() noexcept override { awaiting_.resume(); }
        Signal& signal_;
        std::coroutine_handle<> awaiting_;
    };
    Wait wait() noexcept { return Wait{*this}; }
    void notify_all() noexcept {
        while (Wait* waiting = waiting_.pop_front_or_null()) reactor_.post(*waiting);
    }
    bool waited_for() const noexcept { return !waiting_.empty(); }

  private:
    Reactor& reactor_;
    List<Wait> waiting_;
};

}  // namespace udm

// Rule 1, checked: see the top of this file. The implicit object parameter is a reference and passes.
template <class T, class... Args>
struct std::coroutine_traits<udm::Job<T>, Args...> {
    static_assert((udm::detail::kSafeParameter<Args> && ...), "coroutine parameters: pointers, references or trivial values");
    using promise_type = typename udm::Job<T>::promise_type;
};
