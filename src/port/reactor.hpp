// One thread's event loop, as the layers above see it: tasks, timers, completions and pools. The real one is in
// engine/, the one with virtual time in sim/.
//
// A turn: reap what the system completed, run the completions queued, run the tasks posted, expire timers,
// submit what was prepared, wait. A task posted while completions are queued runs after all of them (up to a
// bound): that is how batches form without waiting for one.
#pragma once

#include <cstdint>
#include <vector>

#include "base/abandon.hpp"
#include "base/intrusive.hpp"
#include "base/pool.hpp"
#include "base/prng.hpp"
#include "base/units.hpp"
#include "port/buffer_pool.hpp"
#include "port/chaos.hpp"
#include "port/io.hpp"

namespace udm {

// Something to run once. The owner keeps it alive until it ran or was unlinked.
class Task : public ListHook {
  public:
    virtual void run() noexcept = 0;

  protected:
    ~Task() = default;
};

class Timer {
  public:
    Timer() = default;
    Timer(const Timer&) = delete;
    Timer& operator=(const Timer&) = delete;
    virtual void expired() noexcept = 0;
    bool armed() const noexcept { return slot_ != kIdle; }

  protected:
    virtual ~Timer() { ASSERT(!armed() || Abandoning::now()); }

  private:
    friend class Reactor;
    static constexpr std::size_t kIdle = ~std::size_t{0};
    std::size_t slot_ = kIdle;
    Nanoseconds deadline_ = 0;
    std::uint64_t order_ = 0;
};

class JobList;

class Reactor {
  public:
    Reactor();
    Reactor(const Reactor&) = delete;
    Reactor& operator=(const Reactor&) = delete;
    virtual ~Reactor();

    virtual Nanoseconds now() const noexcept = 0;
    // From any thread: runs the task on this reactor. The only member that other threads may call.
    virtual void post_remote(Task& task) noexcept = 0;

    // This thread only, from here on.
    bool is_current() const noexcept { return current() == this; }
    static Reactor* current() noexcept;

    // Ends the request later in this turn with `status`.
    void complete_later(Io& io, IoStatus status) noexcept {
        io.status = status;
        completed_.push_back(io);
    }
    void post(Task& task) noexcept { tasks_.push_back(task); }
    // `deadline` as of now(). Arming an armed timer moves it.
    void arm(Timer& timer, Nanoseconds deadline) noexcept;
    void cancel(Timer& timer) noexcept;    // harmless when it isn't armed

    Io& take_io() { return ios_.take(); }
    void give_io(Io& io) noexcept { ios_.give(io); }
    std::size_t ios_out() const noexcept { return ios_.out(); }
    BufferPool& buffers() noexcept { return buffers_; }
    JobList& jobs() noexcept { return *jobs_; }

  protected:
    void set_current() noexcept;
    static void clear_current() noexcept;
    // For the loop: true when there was something to do. `budget` bounds one call.
    bool run_ready(unsigned budget) noexcept;
    bool has_ready() const noexcept { return !completed_.empty() || !tasks_.empty(); }
    bool run_expired(Nanoseconds now) noexcept;
    bool has_timers() const noexcept { return !timers_.empty(); }
    Nanoseconds next_deadline() const noexcept { return timers_.front()->deadline_; }
    // For a simulated power cut: forgets all that is queued, and destroys what jobs are suspended.
    void abandon() noexcept;

  private:
    static bool sooner(const Timer& a, const Timer& b) noexcept {
        return a.deadline_ != b.deadline_ ? a.deadline_ < b.deadline_ : a.order_ < b.order_;
    }
    void place(std::size_t slot, Timer& timer) noexcept;
    void sift_up(std::size_t slot) noexcept;
    void sift_down(std::size_t slot) noexcept;

    // Completions that cause others without end (a copy in memory) would keep tasks from running.
    static constexpr unsigned kOvertakenMax = 1024;

    List<Io> completed_;
    List<Task> tasks_;
    unsigned overtaken_ = 0;    // completions run since tasks began to wait
    std::vector<Timer*> timers_;    // a heap
    std::uint64_t timer_order_ = 0;
    Pool<Io> ios_{256};
    BufferPool buffers_;
    JobList* jobs_;
};

// All nondeterminism, by reference.
struct Env {
    Reactor& reactor;
    Prng& random;
    Chaos& chaos;
};

}  // namespace udm
