#include "targets/mirror/failures.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "targets/mirror/leg_io.hpp"
#include "targets/mirror/reads.hpp"
#include "targets/mirror/resync.hpp"

namespace udm::mirror {
namespace {

constexpr std::string_view kDoing[] = {"read", "copy", "write", "flush"};    // by LegError

}  // namespace

Failures::Failures(Set& set, Writes& writes, Reads& reads, Resync& resync) : set_{set}, writes_{writes}, reads_{reads}, resync_{resync} {
    for (unsigned leg = 0; leg < kLegsMax; ++leg) {
        returns_[leg].failures = this;
        returns_[leg].leg = leg;
    }
}

Failures::~Failures() {
    if (!Abandoning::now()) stop();
}

// --- what a failure means -------------------------------------------------------------------------------------------

IoStatus Failures::judge(const Write& write) noexcept {
    const LegError kind = write.region ? LegError::write : LegError::flush;
    return judge(write.sent, write.failed, write.refused, write.status, kind, write.region ? &write.region->region : nullptr);
}

IoStatus Failures::judge(LegMask sent, LegMask failed, LegMask refused, IoStatus status, LegError kind, const Region* region) noexcept {
    const LegMask source = leg_bit(set_.legs.source());
    const LegMask others = without(set_.legs.all(), source);
    if (failed == 0) {
        // Some have zeroed it and some can't: nobody is to blame (defect M11), and the source counts until they are equal again.
        if (refused != sent) {
            set_.map.lose(*region, others);
            resync_.look_again();
        }
        return IoStatus::unsupported;
    }
    for_each_leg(failed, [&](unsigned leg) { tell(leg, kind, status); });
    const LegMask done = without(without(sent, failed), refused) & set_.legs.alive();
    bool moves = false;
    if ((failed & source) != 0) {
        const auto next = closing_ ? std::nullopt : next_source(done);
        if (!next) {    // it failed on all that have everything: what the source has there counts
            only_source_counts(region);
            return status;
        }
        set_.legs.set_source(*next);
        moves = true;
    } else if ((sent & source) == 0) {
        // It was sent when another leg was the source, which could not be recorded: the data that count now lack it.
        for_each_leg(failed, [&](unsigned leg) { goes_away(leg); });
        if (region) set_.map.lose(*region, others);
        resync_.look_again();
        return status;
    } else if (done == 0) {
        only_source_counts(region);
        return status;
    }
    for_each_leg(failed, [&](unsigned leg) { goes_away(leg); });
    if (region) set_.map.lose(*region, static_cast<LegMask>(failed | refused));
    if (moves) start_settling();    // reads may wait for it, and nobody else
    return refused != 0 ? IoStatus::unsupported : IoStatus::ok;
}

// A flush that failed may succeed the next time, although what it was about is lost: on legs that were told to write it some have it,
// and some do not. So it is copied before it counts as in sync again.
void Failures::only_source_counts(const Region* region) noexcept {
    const LegMask others = without(set_.legs.all(), leg_bit(set_.legs.source()));
    if (region) {
        set_.map.lose(*region, others);
    } else {
        for_each_leg(others & set_.legs.alive(), [&](unsigned leg) { set_.map.lose_unflushed(leg); });
    }
    resync_.look_again();
}

std::optional<unsigned> Failures::next_source(LegMask of) const noexcept {
    std::optional<unsigned> next;
    for_each_leg(of, [&](unsigned leg) {
        if (!next && set_.map.has_all(leg)) next = leg;
    });
    return next;
}

void Failures::copy_failed(LegMask legs, IoStatus status) noexcept {
    for_each_leg(legs & set_.legs.alive(), [&](unsigned leg) {
        tell(leg, LegError::sync, status);
        if (leg == set_.legs.source()) return;    // it became so meanwhile
        goes_away(leg);
    });
}

Job<IoStatus> Failures::flush_legs() {
    if (!set_.env.chaos.keeps("mirror.flush_legs_before_clear")) co_return IoStatus::ok;
    const LegMask legs = set_.legs.alive();
    LegIo io{set_, legs, Op::flush};
    const LegResult result = co_await io;
    if (result.failed != 0) static_cast<void>(judge(legs, result.failed, 0, result.status, LegError::flush, nullptr));
    co_return (legs & leg_bit(set_.legs.source())) != 0 ? result.status : IoStatus::io_error;    // the source may be another by now
}

void Failures::tell(unsigned leg, LegError error, IoStatus status) noexcept {
    const bool first = set_.legs.note_error(leg, error);
    if (!first || !set_.features.handle_errors) return;
    set_.events.raise(EventKind::target, fmt::format("{}: {} failed: {}", set_.leg_name(leg), kDoing[static_cast<unsigned>(error)], to_string(status)));
}

void Failures::goes_away(unsigned leg) noexcept {
    ASSERT(leg != set_.legs.source());
    if (set_.legs[leg].away) return;
    set_.legs.set_away(leg, true);
    if (set_.legs.disk(leg).limits().volatile_cache) set_.map.lose_unflushed(leg);
    resync_.drop_leg(leg);
    ++count_;
    plan_return(leg);
}

// --- what must be durable -------------------------------------------------------------------------------------------

void Failures::settle(Write& write) noexcept {
    write.failures = count_;
    settling_.push_back(write);
    start_settling();
}

void Failures::start_settling() noexcept {
    if (std::exchange(settles_, true)) return;
    set_.jobs.begin();
    set_.env.reactor.jobs().spawn(settle_all());
}

Job<void> Failures::settle_all() {
    do {
        auto settling = settle_waiting();
        static_cast<void>(co_await settling);
    } while (!settling_.empty() || source_moves());
    settles_ = false;
    set_.jobs.end();
}

Job<IoStatus> Failures::settle_waiting() {
    auto settling = settle_now();
    const IoStatus status = co_await settling;
    List<Write> ready;
    while (!settling_.empty() && (status != IoStatus::ok || settling_.front().failures <= settled_)) ready.push_back(settling_.pop_front());
    while (Write* write = ready.pop_front_or_null()) writes_.settled(*write, status);
    co_return status;
}

// What was copied to a leg that is the source now may still be in its cache only, while the leg that had it is away: so the new
// source is flushed before the record says that it is the source.
Job<IoStatus> Failures::settle_now() {
    while (source_moves()) {
        const unsigned source = set_.legs.source();
        LegIo io{set_, leg_bit(source), Op::flush};
        const LegResult result = co_await io;
        if (source != set_.legs.source()) continue;
        if (result.failed == 0) break;
        // One more may have everything, and is tried then.
        const IoStatus judged = judge(set_.legs.alive(), result.failed, 0, result.status, LegError::flush, nullptr);
        if (judged == IoStatus::ok) continue;
        take_source_back();
        co_return result.status;
    }
    const unsigned source = set_.legs.source();
    const std::uint64_t count = count_;
    record();
    dirty_log::FlushWait wait{*set_.log};
    const IoStatus status = co_await wait;
    if (status == IoStatus::ok) {
        settled_ = std::max(settled_, count);
        durable_source_ = source;
        reads_.go_on();
    } else {
        take_source_back();
    }
    co_return status;
}

// Nothing was acknowledged that it lacks, and nothing read.
void Failures::take_source_back() noexcept {
    if (source_moves()) {
        set_.legs.set_away(durable_source_, false);
        set_.legs.set_source(durable_source_);
        set_.map.trust_source_only();
        resync_.spoil_copies();    // they may be of the other leg's data
        record();
        resync_.retry();
    }
    reads_.go_on();
}

// Without a record the first leg is the source after a restart, and so it is with Linux.
void Failures::record() noexcept {
    if (!set_.env.chaos.keeps("mirror.source_recorded")) return;
    if (set_.legs.source() == 0 && !set_.log->record_may_be_found()) return;
    set_.log->record(record_now());
}

dirty_log::LegRecord Failures::record_now() const noexcept {
    dirty_log::LegRecord record{.leg_count = static_cast<std::uint8_t>(set_.legs.count()),
                                .source = static_cast<std::uint8_t>(set_.legs.source()),
                                .failed = set_.legs.away()};
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) record.tags[leg] = tag(leg);
    return record;
}

// A hash (FNV-1a) of where the leg is: the same after a restart.
std::uint64_t Failures::tag(unsigned leg) const noexcept {
    std::uint64_t hash = 0xcbf29ce484222325;
    const auto add = [&hash](std::uint64_t byte) { hash = (hash ^ (byte & 0xff)) * 0x100000001b3; };
    for (const char c : set_.legs[leg].device->words()) add(static_cast<unsigned char>(c));
    for (unsigned shift = 0; shift < 64; shift += 8) add(set_.legs[leg].start.v >> shift);
    return hash;
}

void Failures::drop_record() noexcept {
    if (!set_.log->leg_record() || !set_.map.all_in_sync() || set_.legs.away() != 0 || set_.regions.writes() != 0) return;
    if (set_.log->in_doubt()) return;
    set_.legs.set_source(0);
    durable_source_ = 0;    // any is as good
    set_.log->record(std::nullopt);
}

// --- life -----------------------------------------------------------------------------------------------------------

void Failures::resumed() noexcept {
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) set_.legs.set_away(leg, false);
    hold_over_ = closing_ = false;
    const auto& record = set_.log->leg_record();
    if (record && set_.env.chaos.keeps("mirror.source_recorded")) set_.legs.set_source(recorded_source(*record));
    durable_source_ = set_.legs.source();
}

void Failures::hand_source(unsigned leg) noexcept {
    const unsigned before = set_.legs.source();
    set_.legs.set_source(leg);
    set_.map.source_keeps_all(before);
    ++count_;
}

void Failures::start_with_source(unsigned leg) noexcept {
    set_.legs.set_source(leg);
    durable_source_ = leg;
    record();
}

Job<Result<void>> Failures::start_without_those_away() {
    LegMask away = 0;
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        if (set_.legs[leg].device->is_away()) away |= leg_bit(leg);
    }
    if (away == 0) co_return Result<void>{};
    const unsigned source = set_.legs.source();
    const auto next = next_source(without(set_.legs.all(), away));
    const bool moves = (away & leg_bit(source)) != 0;
    if (moves && !next) {
        co_return fail(Errc::io, fmt::format("{} is away, and what is out of sync is on no other; it goes on when that leg is back, or with a table without it",
                                             set_.leg_name(source)));
    }
    if (moves) set_.legs.set_source(*next);
    for_each_leg(away, [&](unsigned leg) {
        tell(leg, LegError::write, IoStatus::io_error);
        goes_away(leg);
    });
    if (!moves) co_return Result<void>{};
    auto settling = settle_now();
    if (const IoStatus status = co_await settling; status != IoStatus::ok) {
        co_return fail(Errc::io, fmt::format("{} is away, and it cannot be recorded that another counts: {}", set_.leg_name(source), to_string(status)));
    }
    co_return Result<void>{};
}

unsigned Failures::recorded_source(const dirty_log::LegRecord& record) const noexcept {
    std::optional<unsigned> known, good;    // legs that the record is about, and those that had not failed
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        for (unsigned was = 0; was < record.leg_count; ++was) {
            if (tag(leg) != record.tags[was]) continue;
            if (was == record.source) return leg;
            if (!known) known = leg;
            if (!good && (record.failed & leg_bit(was)) == 0) good = leg;
        }
    }
    if (!known) return record.leg_count == set_.legs.count() ? record.source : 0;    // all under other names
    const unsigned leg = good ? *good : *known;
    set_.events.raise(EventKind::target, fmt::format("the leg with the newest data is not in the table; {} counts now", set_.leg_name(leg)));
    return leg;
}

void Failures::start() noexcept {
    for_each_leg(set_.legs.away(), [&](unsigned leg) { plan_return(leg); });
}

void Failures::stop() noexcept {
    for (ReturnTimer& timer : returns_) set_.env.reactor.cancel(timer);
    set_.env.reactor.cancel(hold_timer_);
}

void Failures::in_sync() noexcept {
    set_.legs.clear_errors();
    hold_over_ = false;
    for (ReturnTimer& timer : returns_) timer.wait = 0;
    set_.events.raise(EventKind::target, "mirror is in sync");
    drop_record();
}

// --- legs that come back --------------------------------------------------------------------------------------------

Nanoseconds Failures::first_wait() const noexcept {
    if (leg_retry_) return *leg_retry_;
    return set_.features.handle_errors && !set_.features.keep_log ? 0 : kRetryFirst;
}

void Failures::plan_return(unsigned leg) noexcept {
    const Nanoseconds first = first_wait();
    if (first == 0 || set_.stopping) return;
    ReturnTimer& timer = returns_[leg];
    timer.wait = timer.wait == 0 ? first : std::clamp<Nanoseconds>(timer.wait * 2, first, std::max(first, kRetryMost));
    set_.env.reactor.arm(timer, set_.env.reactor.now() + timer.wait);
}

void Failures::try_to_return(unsigned leg) noexcept {
    if (set_.stopping || !set_.legs[leg].away) return;
    set_.jobs.begin();
    set_.env.reactor.jobs().spawn(return_by_itself(leg));
}

Job<void> Failures::return_by_itself(unsigned leg) {
    auto probing = probe(leg);
    const IoStatus status = co_await probing;
    if (set_.legs[leg].away && !set_.stopping) {
        if (status == IoStatus::ok) {
            is_back(leg);
        } else {
            plan_return(leg);
        }
    }
    set_.jobs.end();
}

Job<Result<void>> Failures::bring_back(unsigned leg) {
    if (!set_.legs[leg].away) co_return fail(Errc::bad_argument, fmt::format("{} is not away", set_.leg_name(leg)));
    if (set_.stopping) co_return fail(Errc::bad_argument, "the mirror is suspended: resume it, and its legs are tried again");
    auto probing = probe(leg);
    const IoStatus status = co_await probing;
    if (status != IoStatus::ok) co_return fail(Errc::io, fmt::format("{} cannot be used yet: {}", set_.leg_name(leg), to_string(status)));
    if (set_.legs[leg].away) is_back(leg);
    co_return Result<void>{};
}

Job<Result<void>> Failures::make_source(unsigned leg) {
    if (set_.legs[leg].away) co_return fail(Errc::bad_argument, fmt::format("{} is away: leg_return {} first", set_.leg_name(leg), leg));
    if (set_.stopping) co_return fail(Errc::bad_argument, "the mirror is suspended: resume it first");
    if (set_.regions.count() != 0 || settles_) co_return fail(Errc::busy, "regions are being written or copied: try again when they rest");
    set_.legs.set_source(leg);
    set_.map.trust_source_only();
    ++count_;
    settles_ = true;    // writes that come meanwhile rest on it
    set_.jobs.begin();
    auto settling = settle_waiting();
    const IoStatus status = co_await settling;
    settles_ = false;
    if (!settling_.empty() || source_moves()) start_settling();
    set_.jobs.end();
    if (status != IoStatus::ok) co_return fail(Errc::io, fmt::format("it cannot be recorded that {} is the source: {}", set_.leg_name(leg), to_string(status)));
    resync_.retry();
    co_return Result<void>{};
}

// Whether it answers at all. What else is wrong with it will be seen when it is copied to.
Job<IoStatus> Failures::probe(unsigned leg) {
    const Limits& limits = set_.legs.disk(leg).limits();
    const std::size_t bytes = limits.logical_block;
    std::byte* const buffer = set_.env.reactor.buffers().take(bytes);
    LegIo io{set_, leg_bit(leg), Op::read, {set_.extent.first, whole_sectors(bytes)}, buffer};
    const LegResult result = co_await io;
    set_.env.reactor.buffers().give(buffer, bytes);
    co_return result.status;
}

void Failures::is_back(unsigned leg) noexcept {
    set_.env.reactor.cancel(returns_[leg]);
    set_.legs.set_away(leg, false);
    set_.legs[leg].latency = 0;
    set_.legs[leg].weight = 1;
    if (set_.map.all_in_sync()) {    // it has missed nothing
        set_.legs.clear_errors();
        drop_record();
    }
    set_.log->retry_failed();
    resync_.look_again();
}

void Failures::set_leg_retry(std::optional<Nanoseconds> first) noexcept {
    leg_retry_ = first;
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        returns_[leg].wait = 0;
        set_.env.reactor.cancel(returns_[leg]);
        if (set_.legs[leg].away) plan_return(leg);
    }
}

// --- held requests --------------------------------------------------------------------------------------------------

void Failures::hold(Io& io) noexcept {
    ++held_count_;
    held_.push_back(io);
    if (set_.stopping) {
        end_held();
    } else if (hold_timeout_ != 0 && !hold_timer_.armed()) {
        set_.env.reactor.arm(hold_timer_, set_.env.reactor.now() + hold_timeout_);
    }
}

// `requeue` becomes an error in the device, unless it is a suspend with noflush.
void Failures::end_held() noexcept {
    held_count_ = 0;
    while (Io* io = held_.pop_front_or_null()) set_.env.reactor.complete_later(*io, IoStatus::requeue);
}

// From now on the mirror behaves as with keep_log, until it is in sync again or suspended.
void Failures::hold_ends() noexcept {
    hold_over_ = true;
    held_count_ = 0;
    List<Io> held;
    held.take_all(held_);
    while (Io* io = held.pop_front_or_null()) writes_.start(*io);
}

void Failures::set_hold_timeout(Nanoseconds timeout) noexcept {
    hold_timeout_ = timeout;
    set_.env.reactor.cancel(hold_timer_);
    if (timeout != 0 && held_count_ != 0) set_.env.reactor.arm(hold_timer_, set_.env.reactor.now() + timeout);
}

}  // namespace udm::mirror
