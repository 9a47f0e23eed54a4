#include "targets/mirror/resync.hpp"

#include <algorithm>

#include "targets/mirror/leg_io.hpp"

namespace udm::mirror {

Resync::Resync(Set& set, Writes& writes, Failures& failures, const std::uint64_t& throttle)
    : set_{set}, writes_{writes}, failures_{failures}, pace_{throttle}, changed_{set.env.reactor} {}

Resync::~Resync() {
    ASSERT((!running_ && under_way_.empty()) || Abandoning::now());
    if (Abandoning::now()) return;
    set_.env.reactor.cancel(turn_timer_);
    set_.env.reactor.cancel(retry_timer_);
}

// --- life -----------------------------------------------------------------------------------------------------------

void Resync::start() noexcept {
    ASSERT(!running_);
    running_ = true;
    back_off_ = 0;
    pace_.restart(set_.env.reactor.now());
    set_.jobs.begin();
    set_.env.reactor.jobs().spawn(run());
}

Job<void> Resync::stop() {
    ASSERT(set_.stopping);
    set_.env.reactor.cancel(retry_timer_);
    while (running_) {
        look_again();
        auto wait = changed_.wait();
        co_await wait;
    }
    set_.env.reactor.cancel(turn_timer_);
}

void Resync::look_again() noexcept {
    again_ = true;
    changed_.notify_all();
}

void Resync::retry() noexcept {
    set_.env.reactor.cancel(retry_timer_);
    set_.log->retry_failed();
    look_again();
}

void Resync::set_paused(bool paused) noexcept {
    paused_ = paused;
    look_again();
}

void Resync::drop_leg(unsigned leg) noexcept {
    for (Copy& copy : under_way_) copy.to = without(copy.to, leg_bit(leg));
}

void Resync::spoil_copies() noexcept {
    for (Copy& copy : under_way_) copy.spoiled = true;
}

void Resync::plan_retry() noexcept {
    if (retry_timer_.armed() || set_.stopping) return;
    back_off_ = back_off_ == 0 ? kBackOffFirst : std::min(back_off_ * 2, kBackOffMost);
    set_.env.reactor.arm(retry_timer_, set_.env.reactor.now() + back_off_);
}

// --- runs of regions ------------------------------------------------------------------------------------------------

LegMask Resync::lacking(RegionRun run) const noexcept {
    LegMask legs = 0;
    for (Region region = run.first; region < run.end(); region += Regions{1}) {
        legs |= without(set_.legs.alive(), set_.map.having(region));
    }
    return legs;
}

LegMask Resync::having_all(RegionRun run) const noexcept {
    LegMask legs = set_.legs.alive();
    for (Region region = run.first; region < run.end(); region += Regions{1}) legs &= set_.map.having(region);
    return legs;
}

Job<void> Resync::run() {
    std::uint64_t most = std::max<std::uint64_t>(kRun.v / set_.size().sectors().v, 1);
    if (set_.env.chaos.fires("mirror.small_copies")) most = 1;
    while (!set_.stopping) {
        again_ = false;
        RegionRun run;
        if (!paused_ && copies_.out() < pace_.pieces_alone() && std::popcount(set_.legs.alive()) > 1) {
            auto asking = set_.log->resync_work({most});
            run = co_await asking;
            // Nothing, though there is something: the log can't be written, which may pass.
            if (!run && under_way_.empty() && (set_.log->sync_count() + set_.log->failed_count()) < set_.log->region_count()) plan_retry();
        }
        if (!run) {
            if (again_) continue;
            auto wait = changed_.wait();
            co_await wait;
            continue;
        }
        const LegMask to = lacking(run);
        if (to == 0) {    // whoever lacks them is away
            for (Region region = run.first; region < run.end(); region += Regions{1}) set_.log->set_sync(region, false);
            continue;
        }
        Copy& copy = copies_.take();
        copy.run = run;
        copy.to = to;
        begin(copy);
        set_.env.reactor.jobs().spawn(copy_run(&copy));
    }
    while (!under_way_.empty()) {
        auto wait = changed_.wait();
        co_await wait;
    }
    running_ = false;
    changed_.notify_all();
    set_.jobs.end();
}

void Resync::begin(Copy& copy) noexcept {
    under_way_.push_back(copy);
    for (Region region = copy.run.first; region < copy.run.end(); region += Regions{1}) {
        RegionEntry& entry = set_.regions.find_or_add(region);
        entry.to(RegionState::recovering);
        entry.copy = &copy;
    }
}

Job<void> Resync::copy_run(Copy* copy) {
    const Extent whole = set_.extent_of(copy->run);
    bool copied = true;
    for (Sector at = whole.first; copied && at < whole.end();) {
        const Extent piece{at, std::min(set_.piece, whole.end() - at)};
        auto turn = wait_turn();
        co_await turn;
        if (set_.stopping || copy->spoiled || copy->to == 0) {
            copied = false;
            break;
        }
        ++pieces_;
        const Nanoseconds began = set_.env.reactor.now();
        pace_.begins(began, to_bytes(piece.length));
        auto copying = copy_piece(copy, piece);
        copied = co_await copying;
        --pieces_;
        const Nanoseconds now = set_.env.reactor.now();
        pace_.ends(now, now - began, copied ? to_bytes(piece.length) : 0, set_.foreground != 0);
        at = piece.end();
        changed_.notify_all();
    }
    end(*copy, copied && !copy->spoiled && copy->to != 0);
}

// Until the piece may begin; or the resync is to stop.
Job<void> Resync::wait_turn() {
    while (!set_.stopping) {
        const Nanoseconds now = set_.env.reactor.now();
        const Nanoseconds at = paused_ ? ~Nanoseconds{0} : pace_.may_begin(now, pieces_, set_.foreground != 0);
        if (at == 0) break;
        if (at != ~Nanoseconds{0} && !turn_timer_.armed()) set_.env.reactor.arm(turn_timer_, at);
        auto wait = changed_.wait();
        co_await wait;
    }
}

Job<bool> Resync::copy_piece(Copy* copy, Extent piece) {
    BufferPool& buffers = set_.env.reactor.buffers();
    const std::size_t bytes = to_bytes(piece.length);
    std::byte* const data = buffers.take(bytes);
    Claim claim{writes_, piece};
    co_await claim;
    bool copied = false;
    // The source, or where it can't be read another leg that has all of it.
    for (LegMask from = having_all(copy->run); !copied && from != 0 && copy->to != 0;) {
        const LegMask source = leg_bit(set_.legs.source());
        const unsigned leg = lowest((from & source) != 0 ? source : from);
        LegIo read{set_, leg_bit(leg), Op::read, piece, data};
        const LegResult was_read = co_await read;
        if (was_read.failed != 0) {
            failures_.copy_source_failed(leg, was_read.status);
            from = without(from, leg_bit(leg));
            continue;
        }
        if (copy->to == 0) break;
        LegIo write{set_, copy->to, Op::write, piece, data};
        const LegResult written = co_await write;
        if (written.failed != 0) {
            const LegMask failed = written.failed;
            copy->to = without(copy->to, failed);
            failures_.copy_failed(failed, written.status);
        }
        copied = copy->to != 0;
        break;
    }
    claim.release();
    buffers.give(data, bytes);
    co_return copied;
}

void Resync::end(Copy& copy, bool copied) noexcept {
    const bool untried = set_.stopping && !copied;
    for (Region region = copy.run.first; region < copy.run.end(); region += Regions{1}) {
        RegionEntry& entry = *set_.regions.find(region);
        entry.copy = nullptr;
        if (copied && set_.map.gain(region, copy.to)) {
            entry.to(entry.writes != 0 ? RegionState::dirty : RegionState::clean);
            if (entry.writes == 0) set_.log->clear(region);
        } else {
            // A leg that came back meanwhile lacks it still.
            const bool lacked = copied && lacking({region, {1}}) != 0;
            if (lacked) set_.log->give_back({region, {1}});
            if (!lacked && !untried) set_.log->set_sync(region, false);
            entry.to(RegionState::nosync);
        }
        set_.regions.settle(entry);
    }
    if (untried) set_.log->give_back(copy.run);
    if (copied) {
        back_off_ = 0;
        if (set_.map.all_in_sync()) failures_.in_sync();
    } else if (std::popcount(set_.legs.alive()) > 1) {
        plan_retry();
    }
    List<Copy>::remove(copy);
    copies_.give(copy);
    look_again();
}

// --- for people -----------------------------------------------------------------------------------------------------

std::uint64_t Resync::bytes_left() const noexcept {
    const std::uint64_t left = (set_.log->region_count() - set_.log->sync_count()).v * set_.size().sectors().v;
    return to_bytes(std::min(Sectors{left}, set_.extent.length));
}

std::uint64_t Resync::bytes_per_second() const noexcept {
    return running_ && !paused_ && !const_cast<List<Copy>&>(under_way_).empty() ? pace_.bytes_per_second(set_.env.reactor.now()) : 0;
}

}  // namespace udm::mirror
