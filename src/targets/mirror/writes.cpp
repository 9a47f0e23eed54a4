#include "targets/mirror/writes.hpp"

#include "targets/mirror/copy.hpp"
#include "targets/mirror/failures.hpp"

namespace udm::mirror {

void Write::flushed(IoStatus s) noexcept { owner.flushed(*this, s); }

// --- marks ----------------------------------------------------------------------------------------------------------

void Writes::start(Io& io) noexcept {
    if (failures_.holds()) [[unlikely]] {
        failures_.hold(io);
        return;
    }
    ++set_.foreground;
    Write& write = writes_.take(*this, io);
    if (io.op == Op::flush) {
        send(write);
        return;
    }
    const Region region = set_.region_of(io.extent.first);
    write.region = &set_.regions.enter(region);
    if (!set_.log->mark(region) && set_.env.chaos.keeps("mirror.mark_before_legs")) {
        set_.log->flush(write);
    } else {
        order(write);
    }
}

void Writes::flushed(Write& write, IoStatus status) noexcept {
    if (status == IoStatus::ok) {
        order(write);
        return;
    }
    // Not marked: no leg may get it (defect M5).
    Io& io = write.io;
    set_.regions.leave(*write.region);
    write.region = nullptr;
    if (failures_.holds_without_log()) {
        --set_.foreground;
        writes_.give(write);
        failures_.hold(io);
    } else {
        end(write, status, true);
    }
}

// --- order ----------------------------------------------------------------------------------------------------------

bool Writes::touches(const RegionEntry& entry, const Extent& extent) const noexcept {
    for (const Write& write : const_cast<List<Write>&>(entry.under_way)) {
        if (write.io.extent.overlaps(extent)) return true;
    }
    return false;
}

void Writes::order(Write& write) noexcept {
    RegionEntry& entry = *write.region;
    const Extent& extent = write.io.extent;
    bool waits = touches(entry, extent);
    for (const Write& before : entry.waiting) waits = waits || before.io.extent.overlaps(extent);
    if (waits) waits = set_.env.chaos.keeps("mirror.overlapping_writes_wait");
    if (!claims_.empty()) [[unlikely]] {
        for (const Claim& claim : claims_) waits = waits || claim.extent_.overlaps(extent);
    }
    if (waits) {
        entry.waiting.push_back(write);
    } else {
        send(write);
    }
}

// A write to the region has ended, or a claim was given up.
void Writes::wake(RegionEntry& entry) noexcept {
    List<Write> waiting;
    waiting.take_all(entry.waiting);
    while (Write* write = waiting.pop_front_or_null()) order(*write);
}

bool Writes::grant(Claim& claim) noexcept {
    for (Claim& before : claims_) {
        if (&before == &claim) break;
        if (before.extent_.overlaps(claim.extent_)) return false;
    }
    const Region last = set_.region_of(claim.extent_.end() - Sectors{1});
    for (Region region = set_.region_of(claim.extent_.first); region <= last; region += Regions{1}) {
        const RegionEntry* entry = set_.regions.find(region);
        if (entry && touches(*entry, claim.extent_)) return false;
    }
    claim.granted_ = true;
    return true;
}

void Writes::wake_claims(const Extent& extent) noexcept {
    for (Claim& claim : claims_) {
        if (!claim.granted_ && claim.extent_.overlaps(extent) && grant(claim)) set_.env.reactor.post(claim.wake_);
    }
}

bool Claim::await_ready() noexcept {
    writes_.claims_.push_back(*this);
    return writes_.grant(*this);
}

void Claim::release() noexcept {
    unlink();
    Set& set = writes_.set_;
    const Region last = set.region_of(extent_.end() - Sectors{1});
    for (Region region = set.region_of(extent_.first); region <= last; region += Regions{1}) {
        RegionEntry* entry = set.regions.find(region);
        if (entry && !entry->waiting.empty()) writes_.wake(*entry);
    }
    writes_.wake_claims(extent_);
}

// --- to the legs ----------------------------------------------------------------------------------------------------

LegMask Writes::targets(RegionEntry& entry) noexcept {
    // From now on the legs that are away lack something here, also where they had all so far and others did not. The mark is
    // durable: after a crash the region is out of sync as well.
    if (const LegMask away = set_.legs.away()) set_.map.lose(entry.region, away);
    LegMask legs = set_.map.having(entry.region);    // in sync: all in use
    if (entry.copy) legs |= static_cast<LegMask>(entry.copy->to & set_.legs.alive());
    return legs;
}

void Writes::send(Write& write) noexcept {
    const Io& io = write.io;
    if (write.region) {
        write.region->under_way.push_back(write);
        write.sent = targets(*write.region);
    } else {
        write.sent = set_.legs.alive();
    }
    write.pending = static_cast<std::uint8_t>(std::popcount(write.sent));
    for_each_leg(write.sent, [&](unsigned leg) {
        Io& child = children_.take();
        child.op = io.op == Op::discard ? Op::write_zeroes : io.op;    // or the legs might differ afterwards
        child.flags = io.flags;
        if (write.region) child.extent = set_.on_leg(leg, io.extent);
        child.buffers = io.buffers;
        child.push(*this, reinterpret_cast<std::uintptr_t>(&write), leg);
        set_.legs.disk(leg).submit(child);
    });
}

void Writes::on_complete(Io& child, Frame& frame) noexcept {
    Write& write = *reinterpret_cast<Write*>(frame.a);
    if (child.status != IoStatus::ok) [[unlikely]] {
        const LegMask leg = leg_bit(static_cast<unsigned>(frame.b));
        const bool refused = child.status == IoStatus::unsupported && (child.op == Op::write_zeroes);
        (refused ? write.refused : write.failed) |= leg;
        if (!refused) write.status = first_error(write.status, child.status);
    }
    children_.give(child);
    ASSERT(write.pending > 0);
    if (--write.pending == 0) answered(write);
}

void Writes::answered(Write& write) noexcept {
    IoStatus status = IoStatus::ok;
    if (write.region) List<Write>::remove(write);
    const bool failed = (write.failed | write.refused) != 0;
    if (!failed && (write.sent & leg_bit(set_.legs.source())) == 0) [[unlikely]] {
        // It was sent when another leg was the source, which could not be recorded: the leg that counts lacks it.
        send(write);
        return;
    }
    if (failed) [[unlikely]] status = failures_.judge(write);
    if (RegionEntry* entry = write.region) {
        write.region = nullptr;
        if (!set_.env.chaos.keeps("mirror.nosync_stays_nosync") && entry->state == RegionState::nosync) {
            set_.log->set_sync(entry->region, true);
            entry->state = RegionState::dirty;
        }
        while (Io* read = entry->reads.pop_front_or_null()) set_.env.reactor.complete_later(*read, read->status);
        if (!entry->waiting.empty()) wake(*entry);
        if (!claims_.empty()) [[unlikely]] wake_claims(write.io.extent);
        set_.regions.leave(*entry);
    }
    settle(write, status);
}

// All legs have answered, and `status` is what it comes to.
void Writes::settle(Write& write, IoStatus status) noexcept {
    if (status == IoStatus::ok && failures_.unsettled()) [[unlikely]] {
        write.acknowledging = true;
        failures_.settle(write);
        return;
    }
    conclude(write, status, false);
}

// `later`: nothing may end inside this call.
void Writes::conclude(Write& write, IoStatus status, bool later) noexcept {
    const bool degraded = write.failed != 0 && status == IoStatus::ok && failures_.holds();
    const bool unrecorded = write.acknowledging && status != IoStatus::ok && failures_.holds_without_log();
    if (!degraded && !unrecorded) [[likely]] {
        end(write, status, later);
        return;
    }
    Io& io = write.io;
    --set_.foreground;
    writes_.give(write);
    failures_.hold(io);
}

void Writes::end(Write& write, IoStatus status, bool later) noexcept {
    Io& io = write.io;
    writes_.give(write);
    --set_.foreground;
    if (later) {
        set_.env.reactor.complete_later(io, status);
    } else {
        io.complete(status);
    }
}

}  // namespace udm::mirror
