#include "targets/mirror/reads.hpp"

#include <fmt/format.h>

#include <cstring>

#include "targets/mirror/leg_io.hpp"

namespace udm::mirror {

// --- requests -------------------------------------------------------------------------------------------------------

LegMask Reads::having(const Io& io) noexcept {
    const Region region = set_.region_of(io.extent.first);
    const LegMask source = leg_bit(set_.legs.source());
    return being_written(io) ? source : set_.map.having(region);
}

RegionEntry* Reads::being_written(const Io& io) noexcept {
    RegionEntry* entry = set_.regions.find(set_.region_of(io.extent.first));
    if (!entry || !writes_.touches(*entry, io.extent)) return nullptr;
    return set_.env.chaos.keeps("mirror.reads_of_written_from_source") ? entry : nullptr;
}

// The frame: `a` has the leg, and from bit 8 on those that have failed it before; `b` when it began, if it is timed.
void Reads::push(Io& io, unsigned leg, LegMask tried) noexcept {
    Leg& to = set_.legs[leg];
    const bool timed = ++to.begun % kTimed == 0;
    io.push(layer_, leg | static_cast<std::uint64_t>(tried) << 8, timed ? set_.env.reactor.now() : 0);
    ++to.reads;
    to.next_read = io.extent.end();
    io.extent = set_.on_leg(leg, io.extent);
}

// What the new source has and the old one has not, perhaps: nobody may see it before it is the source for good.
bool Reads::waits(const Io& io) noexcept {
    return failures_.source_moves() && (being_written(io) || !set_.map.in_sync(set_.region_of(io.extent.first)));
}

void Reads::go_on() noexcept {
    List<Io> waiting;
    waiting.take_all(waiting_);
    while (Io* io = waiting.pop_front_or_null()) send(*io, set_.legs.choose(having(*io), io->extent.first), 0);
}

Mapped Reads::map(Io& io) noexcept {
    if (waits(io)) [[unlikely]] {
        waiting_.push_back(io);
        return Mapped::taken();
    }
    const unsigned leg = set_.legs.choose(having(io), io.extent.first);
    ++set_.foreground;
    push(io, leg, 0);
    return Mapped::to(set_.legs.disk(leg));
}

void Reads::done(Io& io, Frame& frame) noexcept {
    const auto leg = static_cast<unsigned>(frame.a & 0xff);
    auto tried = static_cast<LegMask>(frame.a >> 8);
    --set_.legs[leg].reads;
    --set_.foreground;
    if (frame.b != 0) {
        const auto slow = set_.legs.note_latency(leg, set_.env.reactor.now() - frame.b);
        if (slow) set_.events.raise(EventKind::target, fmt::format("{} is slow: a read takes {} us", set_.leg_name(*slow), set_.legs[*slow].latency / 1000));
    }
    const bool not_asked_here = io.op == Op::extent_status && io.status == IoStatus::unsupported;
    if (waits(io)) [[unlikely]] {
        waiting_.push_back(io);
        return;
    }
    if (io.status == IoStatus::ok || not_asked_here) [[likely]] {
        if (leg != set_.legs.source() && being_written(io)) [[unlikely]] {
            send(io, set_.legs.source(), 0);
            return;
        }
        if (tried != 0 && io.op == Op::read) repair(io.extent, tried);
        io.complete(io.status);
        return;
    }
    const Region region = set_.region_of(io.extent.first);
    if (RegionEntry* entry = being_written(io)) {
        // Another leg may be ahead of this one, or behind: it comes back here when the write has ended.
        io.push(layer_, frame.a, 0);
        ++set_.legs[leg].reads;
        ++set_.foreground;
        entry->reads.push_back(io);
        return;
    }
    failures_.read_failed(leg, io.status);
    tried |= leg_bit(leg);
    const LegMask left = without(set_.map.having(region), tried);
    if (left == 0) {
        io.complete(io.status);
        return;
    }
    send(io, set_.legs.choose(left, io.extent.first), tried);
}

void Reads::send(Io& io, unsigned leg, LegMask tried) noexcept {
    ++set_.foreground;
    push(io, leg, tried);
    set_.legs.disk(leg).submit(io);
}

// --- bad places -----------------------------------------------------------------------------------------------------

void Reads::repair(const Extent& extent, LegMask bad) noexcept {
    if (set_.stopping || repairs_ >= kRepairs || !set_.map.in_sync(set_.region_of(extent.first))) return;
    ++repairs_;
    set_.jobs.begin();
    set_.env.reactor.jobs().spawn(repair_now(extent, bad));
}

Job<void> Reads::repair_now(Extent extent, LegMask bad) {
    auto rewriting = rewrite(extent, bad);
    static_cast<void>(co_await rewriting);
    --repairs_;
    set_.jobs.end();
}

Job<bool> Reads::rewrite(Extent extent, LegMask bad) {
    bool mended = true;
    while (mended && extent.length) {
        const Sector end = std::min(extent.end(), set_.extent_of({set_.region_of(extent.first), {1}}).end());
        auto rewriting = rewrite_region({extent.first, end - extent.first}, bad);
        mended = co_await rewriting;
        extent = {end, extent.end() - end};
    }
    if (mended) {
        ++repaired_;
        for_each_leg(bad, [&](unsigned leg) { set_.legs.clear_error(leg, LegError::read); });
    }
    co_return mended;
}

// It is a write as any other: should the power fail meanwhile, the region is dirty. Only where the source is what is bad that would
// make it everybody's: there nothing is marked, and the legs are flushed (scrub.hpp).
Job<bool> Reads::rewrite_region(Extent extent, LegMask bad) {
    const Region region = set_.region_of(extent.first);
    const bool logged = (bad & leg_bit(set_.legs.source())) == 0;
    RegionEntry& entry = set_.regions.enter(region);
    IoStatus marked = IoStatus::ok;
    if (logged && !set_.log->mark(region)) {
        dirty_log::FlushWait wait{*set_.log};
        marked = co_await wait;
    }
    bool mended = marked == IoStatus::ok;
    while (mended && extent.length) {
        const Extent piece{extent.first, std::min(extent.length, set_.piece)};
        Claim claim{writes_, piece};
        co_await claim;
        auto rewriting = rewrite_claimed(piece, bad, logged);
        mended = co_await rewriting;
        claim.release();
        extent.first += piece.length;
        extent.length -= piece.length;
    }
    set_.regions.leave(entry);
    if (mended && !logged) {
        auto flushing = failures_.flush_legs();
        mended = co_await flushing == IoStatus::ok;
    }
    co_return mended;
}

Job<bool> Reads::rewrite_claimed(Extent extent, LegMask bad, bool logged) {
    const LegMask source = leg_bit(set_.legs.source());
    const LegMask to = bad & set_.legs.alive();
    const LegMask good = without(set_.legs.alive(), bad);
    if (!set_.map.in_sync(set_.region_of(extent.first)) || good == 0 || to == 0 || logged != ((bad & source) == 0)) co_return false;
    const std::size_t bytes = to_bytes(extent.length);
    BufferPool& buffers = set_.env.reactor.buffers();
    std::byte* const data = buffers.take(bytes);
    std::byte* const back = buffers.take(bytes);
    LegIo read{set_, leg_bit(set_.legs.choose(good, extent.first)), Op::read, extent, data};
    const LegResult was_read = co_await read;
    bool mended = was_read.failed == 0;
    if (mended) {
        LegIo write{set_, to, Op::write, extent, data};
        const LegResult written = co_await write;
        mended = written.failed == 0;
    }
    for (unsigned leg = 0; leg < set_.legs.count() && mended; ++leg) {
        if ((to & leg_bit(leg)) == 0) continue;
        LegIo again{set_, leg_bit(leg), Op::read, extent, back};
        const LegResult read_back = co_await again;
        mended = read_back.failed == 0 && std::memcmp(data, back, bytes) == 0;
    }
    buffers.give(back, bytes);
    buffers.give(data, bytes);
    co_return mended;
}

}  // namespace udm::mirror
