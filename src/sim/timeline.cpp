#include "sim/timeline.hpp"

#include <algorithm>

#include "sim/sim_reactor.hpp"

namespace udm {

Timeline::~Timeline() {
    ASSERT(reactors_.empty());
    for (SimEvent* event : events_) event->slot_ = SimEvent::kIdle;
}

void Timeline::place(std::size_t slot, SimEvent& event) noexcept {
    events_[slot] = &event;
    event.slot_ = slot;
}

void Timeline::sift_up(std::size_t slot) noexcept {
    SimEvent& event = *events_[slot];
    while (slot > 0 && sooner(event, *events_[(slot - 1) / 2])) {
        place(slot, *events_[(slot - 1) / 2]);
        slot = (slot - 1) / 2;
    }
    place(slot, event);
}

void Timeline::sift_down(std::size_t slot) noexcept {
    SimEvent& event = *events_[slot];
    for (;;) {
        std::size_t child = 2 * slot + 1;
        if (child >= events_.size()) break;
        if (child + 1 < events_.size() && sooner(*events_[child + 1], *events_[child])) ++child;
        if (!sooner(*events_[child], event)) break;
        place(slot, *events_[child]);
        slot = child;
    }
    place(slot, event);
}

void Timeline::schedule(SimEvent& event, Nanoseconds time) noexcept {
    cancel(event);
    event.time_ = std::max(time, now_);
    event.order_ = ++order_;
    events_.push_back(&event);
    sift_up(events_.size() - 1);
}

void Timeline::cancel(SimEvent& event) noexcept {
    if (!event.scheduled()) return;
    const std::size_t slot = event.slot_;
    ASSERT(events_[slot] == &event);
    event.slot_ = SimEvent::kIdle;
    SimEvent* last = events_.back();
    events_.pop_back();
    if (last == &event) return;
    place(slot, *last);
    sift_up(slot);
    sift_down(last->slot_);
}

void Timeline::add(SimReactor& reactor) {
    reactors_.push_back(&reactor);
}

void Timeline::remove(SimReactor& reactor) noexcept {
    std::erase(reactors_, &reactor);
    if (outside_ == &reactor) outside_ = nullptr;
    turn_ = 0;
}

bool Timeline::idle() const noexcept {
    Nanoseconds time = 0;
    if (next_time(time)) return false;
    return std::none_of(reactors_.begin(), reactors_.end(), [](const SimReactor* r) { return r->has_ready(); });
}

SimReactor* Timeline::pick_ready() noexcept {
    const std::size_t count = reactors_.size();
    if (count == 0) return nullptr;
    if (random_ && count > 1) turn_ = random_->below(count);
    for (std::size_t i = 0; i < count; ++i) {
        turn_ = turn_ + 1 < count ? turn_ + 1 : 0;
        if (reactors_[turn_]->has_ready()) return reactors_[turn_];
    }
    return nullptr;
}

bool Timeline::next_time(Nanoseconds& time) const noexcept {
    bool any = false;
    if (!events_.empty()) {
        time = events_.front()->time_;
        any = true;
    }
    for (const SimReactor* reactor : reactors_) {
        if (!reactor->has_timers()) continue;
        const Nanoseconds deadline = reactor->next_deadline();
        if (!any || deadline < time) time = deadline;
        any = true;
    }
    if (any && time < now_) time = now_;
    return any;
}

void Timeline::happen_next(Nanoseconds time) noexcept {
    ASSERT(time >= now_);
    now_ = time;
    if (!events_.empty() && events_.front()->time_ <= time) {
        // What is due at one moment comes in one batch, as an engine reaps completions.
        while (!events_.empty() && events_.front()->time_ <= time) {
            SimEvent& event = *events_.front();
            cancel(event);
            event.happen();
        }
        return;
    }
    for (SimReactor* reactor : reactors_) {
        if (!reactor->has_timers() || reactor->next_deadline() > time) continue;
        reactor->set_current();
        reactor->run_expired(now_);
        return;
    }
    UNREACHABLE();
}

bool Timeline::step() noexcept { return step_until(~Nanoseconds{0}); }

bool Timeline::step_until(Nanoseconds limit) noexcept {
    Nanoseconds time = 0;
    const bool any_event = next_time(time) && time <= limit;
    SimReactor* ready = pick_ready();
    if (!ready && !any_event) {
        if (limit != ~Nanoseconds{0} && limit > now_) now_ = limit;
        return false;
    }
    ++steps_;
    // The processor is not infinitely fast: what the disks finish may come before work that was ready.
    if (ready && !(any_event && random_ && random_->chance(1, 5))) {
        ready->set_current();
        ready->run_ready(1);
    } else {
        happen_next(time);
    }
    if (outside_) outside_->set_current();
    return true;
}

}  // namespace udm
