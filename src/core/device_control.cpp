// The life of a device: its tables, suspend and resume, messages, events. See the table in lifecycle.cpp.
//
// One of suspend, resume, detach and message runs at a time, in the order in which they came. Quiesce is apart from
// them: it only counts, holds back and waits.
#include <fmt/format.h>

#include <utility>

#include "core/device.hpp"

namespace udm {

void Device::set_inactive(std::unique_ptr<Table> table) noexcept {
    ASSERT(env_.reactor.is_current());
    inactive_ = std::move(table);
}

void Device::clear_inactive() noexcept {
    ASSERT(env_.reactor.is_current());
    inactive_.reset();
}

Job<void> Device::take_turn() {
    ASSERT(env_.reactor.is_current());
    while (busy_) {
        auto turn = turn_signal_.wait();
        co_await turn;
    }
    busy_ = true;
}

void Device::give_turn() noexcept {
    ASSERT(busy_);
    busy_ = false;
    turn_signal_.notify_all();
}

Job<void> Device::drain() {
    while (counters_.in_flight != 0) {
        auto idle = idle_signal_.wait();
        co_await idle;
    }
}

void Device::tell_draining(bool begins, bool noflush) noexcept {
    for (const Table::Entry& entry : live_->entries()) {
        for (const TargetDevice& used : entry.target->devices()) used.device->draining(begins, noflush);
    }
}

Job<Result<void>> Device::suspend(SuspendFlags flags) {
    auto turn = take_turn();
    co_await turn;
    auto suspending = suspend_in_turn(flags);
    auto result = co_await suspending;
    give_turn();
    co_return result;
}

Job<Result<void>> Device::suspend_in_turn(SuspendFlags flags) {
    if (lifecycle_.state() == Lifecycle::State::detached) co_return fail(Errc::not_found, "the device is being removed");
    fresh_ = false;
    if (lifecycle_.is_suspended()) co_return Result<void>{};
    lifecycle_.set_noflush(flags.noflush);
    for (Table::Entry& entry : live_->entries()) {
        auto step = entry.target->presuspend(flags);
        co_await step;
    }
    lifecycle_.to(Lifecycle::State::suspending);
    update_open();
    tell_draining(true, flags.noflush);
    auto drained = drain();
    co_await drained;
    if (!flags.noflush && unflushed_) {
        IoWait flush{env_.reactor, door_, Op::flush, Extent{}};
        const IoStatus status = co_await flush;
        if (status != IoStatus::ok) owed_flush_error_ = status;
    }
    for (Table::Entry& entry : live_->entries()) {
        auto step = entry.target->postsuspend(flags);
        co_await step;
    }
    tell_draining(false, flags.noflush);
    lifecycle_.to(Lifecycle::State::suspended);
    co_return Result<void>{};
}

Job<Result<void>> Device::resume() {
    auto turn = take_turn();
    co_await turn;
    auto resuming = resume_in_turn();
    auto result = co_await resuming;
    give_turn();
    co_return result;
}

Job<Result<void>> Device::resume_in_turn() {
    if (lifecycle_.state() == Lifecycle::State::detached) co_return fail(Errc::not_found, "the device is being removed");
    if (!inactive_) {
        if (!lifecycle_.is_suspended()) co_return Result<void>{};
        if (!live_ && fresh_) co_return Result<void>{};
        if (!live_) co_return fail(Errc::bad_argument, fmt::format("{} has no table to resume with: load one first", name_));
    } else if (!lifecycle_.is_suspended()) {
        auto suspending = suspend_in_turn(SuspendFlags{});
        auto suspended = co_await suspending;
        if (!suspended) co_return fail(suspended);
    }
    fresh_ = false;
    // The old table lives until the new one runs: targets may hand their state over. (Read after the suspend, during
    // which another table may have been loaded, or this one cleared.)
    std::unique_ptr<Table> old;
    if (inactive_) old = std::exchange(live_, std::move(inactive_));
    lifecycle_.to(Lifecycle::State::resuming);
    for (Table::Entry& entry : live_->entries()) {
        auto step = entry.target->preresume();
        auto ready = co_await step;
        if (!ready) {
            lifecycle_.to(Lifecycle::State::suspended);
            if (old) {
                auto closing = old->close();
                co_await closing;
            }
            co_return fail(ready.error().code, fmt::format("{}: {}", entry.type->name(), ready.error().message));
        }
    }
    for (Table::Entry& entry : live_->entries()) entry.target->resume();
    lifecycle_.set_noflush(false);
    lifecycle_.to(Lifecycle::State::live);
    release();
    if (old) {
        auto closing = old->close();
        co_await closing;
    }
    co_return Result<void>{};
}

Job<void> Device::detach() {
    auto turn = take_turn();
    co_await turn;
    if (lifecycle_.state() != Lifecycle::State::detached) {
        auto suspending = suspend_in_turn(SuspendFlags{});
        auto suspended = co_await suspending;
        ASSERT(suspended.has_value());
        lifecycle_.to(Lifecycle::State::detached);
        counters_.held_back = 0;
        while (Io* io = requeued_.pop_front_or_null()) env_.reactor.complete_later(*io, IoStatus::removed);
        while (Io* io = held_back_.pop_front_or_null()) env_.reactor.complete_later(*io, IoStatus::removed);
        if (inactive_) {
            auto closing = inactive_->close();
            co_await closing;
        }
        if (live_) {
            auto closing = live_->close();
            co_await closing;
        }
        inactive_.reset();
        live_.reset();
        event_signal_.notify_all();
    }
    give_turn();
}

Job<void> Device::quiesce() {
    ASSERT(env_.reactor.is_current());
    lifecycle_.quiesce();
    update_open();
    auto drained = drain();
    co_await drained;
}

void Device::unquiesce() noexcept {
    ASSERT(env_.reactor.is_current());
    lifecycle_.unquiesce();
    // Not from here: who calls this may be a target in the middle of something.
    if (lifecycle_.admits() && !release_task_.linked()) env_.reactor.post(release_task_);
}

Job<Result<std::string>> Device::message(Sector sector, const std::vector<std::string>* words) {
    auto turn = take_turn();
    co_await turn;
    auto answering = message_in_turn(sector, words);
    auto answer = co_await answering;
    give_turn();
    co_return answer;
}

Job<Result<std::string>> Device::message_in_turn(Sector sector, const std::vector<std::string>* words) {
    if (words->empty()) co_return fail(Errc::bad_argument, "Empty message");
    if (words->front().starts_with('@')) {
        co_return fail(Errc::bad_argument, fmt::format("Unsupported message sent to DM core: {}", words->front()));
    }
    if (!live_) co_return fail(Errc::bad_argument, "The device has no table.");
    if (sector.v >= live_->size().v) {
        co_return fail(Errc::bad_argument, fmt::format("Target message sector outside device.: sector {} of {}", sector.v,
                                                       live_->size().v));
    }
    auto answering = live_->at(sector).target->message(words);
    auto answer = co_await answering;
    co_return answer;
}

void Device::raise(EventKind kind, std::string_view what) noexcept {
    ++event_number_;
    if (observer_) observer_->device_event(*this, event_number_, kind, what);
    event_signal_.notify_all();
}

}  // namespace udm
