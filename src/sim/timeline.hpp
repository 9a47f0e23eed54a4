// Virtual time, and what happens in it. One thread, one order: an event with the earlier time comes first, of two at
// the same time the one scheduled first. Several reactors may live on one timeline; with a generator of random
// numbers, which of them goes on and whether an event overtakes work that is ready is drawn from it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/assert.hpp"
#include "base/prng.hpp"
#include "base/units.hpp"
#include "sim/trace.hpp"

namespace udm {

class SimReactor;

// Something that happens at a time. The owner keeps it alive until it happened or was cancelled.
class SimEvent {
  public:
    SimEvent() = default;
    SimEvent(const SimEvent&) = delete;
    SimEvent& operator=(const SimEvent&) = delete;
    virtual void happen() noexcept = 0;
    bool scheduled() const noexcept { return slot_ != kIdle; }

  protected:
    virtual ~SimEvent() { ASSERT(!scheduled()); }

  private:
    friend class Timeline;
    static constexpr std::size_t kIdle = ~std::size_t{0};
    std::size_t slot_ = kIdle;
    Nanoseconds time_ = 0;
    std::uint64_t order_ = 0;
};

class Timeline {
  public:
    explicit Timeline(Prng* random = nullptr) noexcept : random_{random} {}
    Timeline(const Timeline&) = delete;
    Timeline& operator=(const Timeline&) = delete;
    ~Timeline();

    Nanoseconds now() const noexcept { return now_; }
    Trace& trace() noexcept { return trace_; }

    void schedule(SimEvent& event, Nanoseconds time) noexcept;    // a time that is past means now
    void cancel(SimEvent& event) noexcept;                        // harmless when it isn't scheduled

    // One event, one completion, one round of tasks, or the timers of one time. False: there is nothing at all.
    bool step() noexcept;
    // As step(), but only what happens no later than `limit`; time stands at `limit` when there is no more.
    bool step_until(Nanoseconds limit) noexcept;
    std::uint64_t steps() const noexcept { return steps_; }
    bool idle() const noexcept;
    // How long until something happens by itself; nothing ready is looked at. False: nothing will.
    bool time_to_next(Nanoseconds& time) const noexcept {
        if (!next_time(time)) return false;
        time -= now_;
        return true;
    }

  private:
    friend class SimReactor;
    void add(SimReactor& reactor);
    void remove(SimReactor& reactor) noexcept;

    static bool sooner(const SimEvent& a, const SimEvent& b) noexcept {
        return a.time_ != b.time_ ? a.time_ < b.time_ : a.order_ < b.order_;
    }
    void place(std::size_t slot, SimEvent& event) noexcept;
    void sift_up(std::size_t slot) noexcept;
    void sift_down(std::size_t slot) noexcept;
    SimReactor* pick_ready() noexcept;
    bool next_time(Nanoseconds& time) const noexcept;
    void happen_next(Nanoseconds time) noexcept;

    Prng* random_;
    Trace trace_;
    Nanoseconds now_ = 1;    // zero is nobody's time
    std::uint64_t order_ = 0;
    std::uint64_t steps_ = 0;
    std::vector<SimEvent*> events_;    // a heap
    std::vector<SimReactor*> reactors_;
    std::size_t turn_ = 0;
    SimReactor* outside_ = nullptr;    // current between steps
};

}  // namespace udm
