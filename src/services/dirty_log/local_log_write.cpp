// LocalLog's turns: what is written when, and what becomes clean.
#include <bit>
#include <utility>

#include "services/dirty_log/local_log.hpp"

namespace udm::dirty_log {

// --- writing --------------------------------------------------------------------------------------------------------

void LocalLog::flush(Waiter& waiter) noexcept {
    waiter.wanted = noted_;
    waiting_.push_back(waiter);
    kick();
}

void LocalLog::kick() noexcept {
    if (!in_turn_ && !linked()) env_.reactor.post(*this);
}

void LocalLog::run() noexcept {
    if (!in_turn_) env_.reactor.jobs().spawn(write_loop());
}

void LocalLog::release(std::uint64_t upto, IoStatus status) noexcept {
    List<Waiter> due;    // one that asks again waits for the next turn
    while (!waiting_.empty() && waiting_.front().wanted <= upto) due.push_back(waiting_.pop_front());
    while (Waiter* waiter = due.pop_front_or_null()) waiter->flushed(status);
}

Job<void> LocalLog::write_loop() {
    in_turn_ = true;
    while (!waiting_.empty() || to_clean_) {
        to_clean_ = false;
        const std::uint64_t upto = noted_;
        auto turn = write_turn();
        const IoStatus status = co_await turn;
        release(upto, status);
    }
    in_turn_ = false;
    ended_.notify_all();
}

void LocalLog::became_known(std::uint64_t block) noexcept {
    const std::uint64_t end = (layout_.end_of(block).v + 63) / 64;
    for (std::uint64_t w = layout_.first_of(block).v / 64; w < end; ++w) device_clean_.words()[w] = clean_.word(w) | late_.word(w);
}

// One write of what is touched, and the flush that makes its marks durable.
Job<IoStatus> LocalLog::write_turn() {
    if (!disk_) co_return IoStatus::ok;
    if (distrusted_) co_return IoStatus::io_error;
    const std::uint64_t upto = noted_;
    const bool whole = whole_;
    if (whole) touched_.set_all();
    if (touched_.none()) co_return IoStatus::ok;
    const bool drops_record = !device_legs_ && touched_.test(0);
    std::swap(touched_, writing_);    // writing_ was empty
    auto writing = whole ? disk_->write_all(&clean_, &device_legs_) : disk_->write(&writing_, &clean_, &device_legs_);
    IoStatus status = co_await writing;
    if (status != IoStatus::ok) worsen(Health::failed, "log device failed");
    if (status == IoStatus::ok && !whole && env_.chaos.keeps("dirty_log.flush")) {
        auto flushing = disk_->flush();
        status = co_await flushing;
        if (status != IoStatus::ok) worsen(Health::flush_failed, "log device flush failed");
    }
    for (std::uint64_t b = writing_.find(0); b < writing_.size(); b = writing_.find(b + 1)) {
        if (status == IoStatus::ok) {
            became_known(b);
        } else {
            touched_.set(b);
        }
    }
    writing_.reset_all();
    for (std::uint64_t b = touched_.find(0); b < touched_.size(); b = touched_.find(b + 1)) {
        const std::uint64_t end = (layout_.end_of(b).v + 63) / 64;
        for (std::uint64_t w = layout_.first_of(b).v / 64; w < end; ++w) late_.words()[w] = 0;
    }
    if (status == IoStatus::ok) {
        durable_ = upto;
        whole_ = false;
        if (drops_record && !device_legs_) record_on_device_ = false;
        if (std::exchange(broken_, false)) owner_->log_recovered();
    }
    co_return status;
}

void LocalLog::worsen(Health health, const char* what) noexcept {
    const bool worse = health > health_;
    broken_ = true;
    if (!worse) return;
    health_ = health;
    owner_->log_failed(what);
}

// --- resting --------------------------------------------------------------------------------------------------------

void LocalLog::arm_tick() noexcept {
    if (armed() || ticking_ || stopped_) return;
    const bool now = env_.chaos.fires("dirty_log.no_rest");
    env_.reactor.arm(*this, env_.reactor.now() + (now ? 0 : rest_ / kTicks));
    if (now) ticks_ = kTicks;
}

void LocalLog::expired() noexcept {
    const bool quiet = !marked_;
    marked_ = false;
    if (!quiet && ++ticks_ < kTicks) {
        arm_tick();
        return;
    }
    ticks_ = 0;
    env_.reactor.jobs().spawn(tick_job(quiet));
}

Job<void> LocalLog::tick_job(bool all) {
    ticking_ = true;
    auto cleaning = clean_rested(all);
    static_cast<void>(co_await cleaning);
    ticking_ = false;
    if (resting_ != 0 || (!legs_ && device_legs_)) arm_tick();
    ended_.notify_all();
}

void LocalLog::forget_rests() noexcept {
    young_.reset_all();
    old_.reset_all();
    with_rests_.reset_all();
    resting_ = 0;
}

template <class F>
void LocalLog::for_each_block(const Bitmap& blocks, F&& f) noexcept {
    for (std::uint64_t b = blocks.find(0); b < blocks.size(); b = blocks.find(b + 1)) {
        f(b, layout_.first_of(b).v, layout_.end_of(b).v);
    }
}

Job<IoStatus> LocalLog::clean_rested(bool all) {
    bool any = false;
    for_each_block(with_rests_, [&](std::uint64_t, std::uint64_t first, std::uint64_t end) {
        for (std::uint64_t w = first / 64; w < (end + 63) / 64; ++w) {
            if (all) {
                old_.words()[w] |= young_.word(w);
                young_.words()[w] = 0;
            }
            any |= old_.word(w) != 0;
        }
    });
    const bool drops_record = !legs_ && device_legs_;
    if (any || drops_record) {
        IoStatus status = IoStatus::ok;
        if (env_.chaos.keeps("dirty_log.flush_legs")) {
            auto flushing = owner_->flush_legs();
            status = co_await flushing;
        }
        if (status != IoStatus::ok) {
            // They may have lost what was written to any of these: dirty they stay until they are written or copied again.
            forget_rests();
            co_return status;
        }
        if (drops_record && !legs_) {
            device_legs_.reset();
            touched_.set(0);
        }
    }
    for_each_block(with_rests_, [&](std::uint64_t b, std::uint64_t first, std::uint64_t end) {
        std::uint64_t left = 0;
        for (std::uint64_t w = first / 64; w < (end + 63) / 64; ++w) {
            if (const std::uint64_t rested = old_.word(w); rested != 0) {
                clean_.words()[w] |= rested;
                if (disk_) device_clean_.words()[w] |= rested;
                resting_ -= static_cast<std::uint64_t>(std::popcount(rested));
                touched_.set(b);
            }
            old_.words()[w] = young_.word(w);
            young_.words()[w] = 0;
            left |= old_.word(w);
        }
        if (left == 0) with_rests_.reset(b);
    });
    if (disk_ && !touched_.none()) {
        to_clean_ = true;
        kick();
    }
    co_return IoStatus::ok;
}

}  // namespace udm::dirty_log
