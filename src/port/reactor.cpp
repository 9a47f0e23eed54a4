#include "port/reactor.hpp"

#include "port/job.hpp"

namespace udm {
namespace {
thread_local Reactor* current_of_thread = nullptr;
}

Reactor::Reactor() : jobs_{new JobList} {}
Reactor::~Reactor() {
    abandon();
    delete jobs_;
}

Reactor* Reactor::current() noexcept { return current_of_thread; }
void Reactor::set_current() noexcept { current_of_thread = this; }
void Reactor::clear_current() noexcept { current_of_thread = nullptr; }

bool Reactor::run_ready(unsigned budget) noexcept {
    bool any = false;
    while (budget != 0 && has_ready()) {
        any = true;
        if (!completed_.empty() && (tasks_.empty() || ++overtaken_ <= kOvertakenMax)) {
            Io& io = completed_.pop_front();
            io.complete(io.status);
            --budget;
            continue;
        }
        overtaken_ = 0;
        // One round of the tasks there are now: those they post come after the completions they cause.
        List<Task> round;
        round.take_all(tasks_);
        while (Task* task = round.pop_front_or_null()) task->run();
        --budget;
    }
    return any;
}

void Reactor::place(std::size_t slot, Timer& timer) noexcept {
    timers_[slot] = &timer;
    timer.slot_ = slot;
}

void Reactor::sift_up(std::size_t slot) noexcept {
    Timer& timer = *timers_[slot];
    while (slot > 0 && sooner(timer, *timers_[(slot - 1) / 2])) {
        place(slot, *timers_[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    place(slot, timer);
}

void Reactor::sift_down(std::size_t slot) noexcept {
    Timer& timer = *timers_[slot];
    for (;;) {
        std::size_t child = 2 * slot + 1;
        if (child >= timers_.size()) break;
        if (child + 1 < timers_.size() && sooner(*timers_[child + 1], *timers_[child])) ++child;
        if (!sooner(*timers_[child], timer)) break;
        place(slot, *timers_[child]);
        slot = child;
    }
    place(slot, timer);
}

void Reactor::arm(Timer& timer, Nanoseconds deadline) noexcept {
    cancel(timer);
    timer.deadline_ = deadline;
    timer.order_ = ++timer_order_;
    timers_.push_back(&timer);
    sift_up(timers_.size() - 1);
}

void Reactor::cancel(Timer& timer) noexcept {
    if (!timer.armed()) return;
    const std::size_t slot = timer.slot_;
    ASSERT(timers_[slot] == &timer);
    timer.slot_ = Timer::kIdle;
    Timer* last = timers_.back();
    timers_.pop_back();
    if (last == &timer) return;
    place(slot, *last);
    sift_up(slot);
    sift_down(last->slot_);
}

bool Reactor::run_expired(Nanoseconds now) noexcept {
    bool any = false;
    while (!timers_.empty() && timers_.front()->deadline_ <= now) {
        Timer& timer = *timers_.front();
        cancel(timer);
        timer.expired();
        any = true;
    }
    return any;
}

void Reactor::abandon() noexcept {
    // Jobs first: their frames may hold timers and requests that are linked below.
    jobs_->destroy_all();
    completed_.abandon();
    tasks_.abandon();
    for (Timer* timer : timers_) timer->slot_ = Timer::kIdle;
    timers_.clear();
}

}  // namespace udm
