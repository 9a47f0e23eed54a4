// Requests that go down as several: cut into pieces, in copies, to all targets of the table, or as writes of zeroes.
//
// A fan sends its children in order, at most kFanWidth under way, and ends when all it has sent came back. After an
// error it sends no more, but for flushes, which go wherever they still can. The first error wins; `requeue` beats
// errors, since the whole request is then tried again.
#include <cstdint>

#include "core/device.hpp"
#include "core/split.hpp"

namespace udm {
namespace {

// Zeroes are written from one block of memory, many times over.
constexpr std::size_t kZeroBytes = std::size_t{64} << 10;
constexpr std::size_t kZeroSegments = 16;
constexpr Sectors kZeroWrite = whole_sectors(kZeroBytes * kZeroSegments);
alignas(4096) constinit const std::byte zero_bytes[kZeroBytes]{};

struct ZeroSegments {
    iovec segments[kZeroSegments];
    constexpr ZeroSegments() : segments{} {
        // Nobody writes to the memory of a write.
        for (iovec& segment : segments) segment = {const_cast<std::byte*>(&zero_bytes[0]), kZeroBytes};
    }
};
constinit const ZeroSegments zero_memory{};

// A child's frame: `a` is the fan, `b` the child's op and whether its zeroes are being written by hand.
constexpr std::uint64_t kByHand = 0x100;

IoStatus combined(IoStatus before, IoStatus now) {
    if (before == IoStatus::requeue || now == IoStatus::requeue) return IoStatus::requeue;
    return first_error(before, now);
}

}  // namespace

void Device::start_fan(Io& parent, bool counted, bool as_writes, bool inside_submit) noexcept {
    Fan& fan = fans_.take(Fan{.parent = &parent,
                              .rest = parent.extent,
                              .op = parent.op,
                              .counted = counted,
                              .as_writes = as_writes});
    const bool may_split_early = parent.op == Op::read || parent.op == Op::write;
    if (splits_early_ && may_split_early) {
        const Sectors block = whole_sectors(limits().logical_block);
        fan.longest = {block.v * env_.random.between(1, parent.extent.length.v / block.v)};
    }
    issue(fan, inside_submit);
}

bool Device::has_more(const Fan& fan) noexcept {
    if (fan.op == Op::flush) return fan.entry < live_->entries().size();
    return fan.status == IoStatus::ok && fan.rest.length.v != 0;
}

void Device::issue(Fan& fan, bool inside_submit) noexcept {
    ASSERT(!fan.issuing);
    fan.issuing = true;
    while (fan.under_way < fan_width_ && has_more(fan)) {
        if (fan.op == Op::flush) {
            issue_flush(fan);
        } else {
            issue_piece(fan);
        }
    }
    fan.issuing = false;
    if (fan.under_way == 0) end_fan(fan, inside_submit);
}

void Device::issue_piece(Fan& fan) noexcept {
    Table::Entry& entry = live_->at(fan.rest.first);
    const TargetTraits& traits = entry.traits;
    const IoFlags flags = fan.parent->flags;
    const bool writes_zeroes = fan.op == Op::write_zeroes && (fan.as_writes || !traits.zeroes_natively);
    if ((writes_zeroes && flags.fast_only) || (fan.op == Op::discard && traits.discard_copies == 0)) {
        fan.status = combined(fan.status, IoStatus::unsupported);
        return;
    }

    Io& child = env_.reactor.take_io();
    child.op = writes_zeroes ? Op::write : fan.op;
    child.flags = flags;
    child.extent = clipped_to(fan.rest, entry.extent);
    child.copy = static_cast<std::uint16_t>(fan.copy);
    Sectors longest = fan.longest;
    const auto at_most = [&longest](Sectors limit) {
        if (limit && (!longest || limit < longest)) longest = limit;
    };
    if (child.op == Op::read || child.op == Op::write) at_most(limits().max_transfer);
    if (writes_zeroes) {
        at_most(kZeroWrite);
        child.flags.no_hole = false;
        child.buffers = Buffers{zero_memory.segments, kZeroSegments};
    } else if (!fan.parent->buffers.empty()) {
        child.buffers = fan.parent->buffers.advanced(to_bytes(fan.rest.first - fan.parent->extent.first));
    }
    // Clipped before the target is asked: what it says it takes is then what it gets.
    if (longest && child.extent.length > longest) child.extent.length = longest;
    if (fan.copy == 0) {
        const Sectors taken = traits.takes_whole ? child.extent.length : entry.target->fits(child);
        fan.piece = first_piece(child.extent.length, taken, {});
    }
    child.extent.length = fan.piece;
    child.push(fan_layer_, reinterpret_cast<std::uintptr_t>(&fan), static_cast<std::uint64_t>(child.op));

    if (fan.op == Op::extent_status) {
        child.answer = fan.parent->answer;
        fan.rest.length = {};
    } else if (fan.op == Op::discard && fan.copy + 1 < traits.discard_copies) {
        ++fan.copy;
    } else {
        fan.copy = 0;
        fan.rest.first += fan.piece;
        fan.rest.length -= fan.piece;
    }
    ++fan.under_way;
    Disk* disk = entry.target->map(child).disk();
    if (!disk) return;
    if (child.op == Op::extent_status && child.answer.place) {
        locate(entry, child, *disk);
    } else {
        disk->submit(child);
    }
}

void Device::issue_flush(Fan& fan) noexcept {
    Table::Entry& entry = live_->entries()[fan.entry];
    const unsigned copy = fan.copy;
    if (++fan.copy >= entry.traits.flush_copies) {
        fan.copy = 0;
        ++fan.entry;
    }
    if (copy >= entry.traits.flush_copies) return;    // no copies at all

    Io& child = env_.reactor.take_io();
    child.op = Op::flush;
    child.flags = fan.parent->flags;
    child.copy = static_cast<std::uint16_t>(copy);
    child.push(fan_layer_, reinterpret_cast<std::uintptr_t>(&fan), static_cast<std::uint64_t>(Op::flush));
    ++fan.under_way;
    Disk* disk = entry.target->map(child).disk();
    if (!disk) return;
    // A table of many lines on one disk needs one flush of it, unless a target wants to see its own come back.
    if (child.depth() == 1) {
        for (std::size_t i = 0; i < fan.flushed_count; ++i) {
            if (fan.flushed[i] != disk) continue;
            --fan.under_way;
            env_.reactor.give_io(child);
            return;
        }
        if (fan.flushed_count < fan.flushed.size()) fan.flushed[fan.flushed_count++] = disk;
    }
    disk->submit(child);
}

void Device::child_done(Io& child, Frame& frame) noexcept {
    Fan& fan = *reinterpret_cast<Fan*>(frame.a);
    child.op = static_cast<Op>(frame.b & 0xff);
    const bool by_hand = (frame.b & kByHand) != 0;
    if (child.op == Op::extent_status) {
        settle_answer(child, child.extent.length);
        fan.parent->answer = child.answer;
    } else if (child.op == Op::write_zeroes && child.status == IoStatus::unsupported && !child.flags.fast_only && !by_hand) {
        // The disk below can't: this piece is written by hand, and comes back here once more.
        child.push(fan_layer_, frame.a, frame.b | kByHand);
        start_fan(child, false, true, false);
        return;
    }
    fan.status = combined(fan.status, child.status);
    env_.reactor.give_io(child);
    ASSERT(fan.under_way > 0);
    --fan.under_way;
    if (!fan.issuing) issue(fan, false);
}

void Device::end_fan(Fan& fan, bool inside_submit) noexcept {
    Io& parent = *fan.parent;
    const IoStatus status = fan.status;
    const bool counted = fan.counted;
    fans_.give(fan);
    if (counted) {
        finish(parent, status, inside_submit);
    } else {
        parent.complete(status);
    }
}

}  // namespace udm
