// A device's requests that go down in one piece, and the door they all come through.
#include "core/device.hpp"

#include <utility>

#include "core/split.hpp"

namespace udm {
namespace {

// The device's frame: `a` has what targets may change and core puts back, `b` the limit of an extent's answer.
std::uint64_t packed(const Io& io) {
    return static_cast<std::uint64_t>(io.op) | static_cast<std::uint64_t>(io.copy) << 8;
}
void unpack(Io& io, std::uint64_t word) {
    io.op = static_cast<Op>(word & 0xff);
    io.copy = static_cast<std::uint16_t>(word >> 8);
}

}  // namespace

Device::Device(Env& env, std::string name, DiskId id, Observer* observer)
    : env_{env},
      splits_early_{env.chaos.fires("core.split_early")},
      fan_width_{env.chaos.fires("core.narrow_fan") ? 1 : kFanWidth},
      name_{std::move(name)},
      id_{id},
      observer_{observer},
      event_signal_{env.reactor},
      idle_signal_{env.reactor},
      turn_signal_{env.reactor} {}

Device::~Device() {
    if (Abandoning::now()) return;
    ASSERT(counters_.in_flight == 0);
    ASSERT(counters_.held_back == 0);
    if (release_task_.linked()) release_task_.unlink();
}

void Device::refresh() noexcept {
    if (live_) live_->refresh();
}

bool Device::reaches(const DiskId& id) const noexcept {
    return (live_ && live_->reaches(id)) || (inactive_ && inactive_->reaches(id));
}

unsigned Device::levels() const noexcept {
    const unsigned live = live_ ? live_->levels() : 0;
    const unsigned inactive = inactive_ ? inactive_->levels() : 0;
    return 1 + (live < inactive ? inactive : live);
}

// Nearly all requests: plain, in the line that the last one was in, in one piece. All checks are here; what fails one
// is looked at again by those below.
void Device::submit(Io& io) noexcept {
    if (fast_) [[likely]] {
        Table::Entry& entry = live_->hint();
        if (passes(entry, io)) [[likely]] {
            DeviceCounters::PerOp& of_op = counter(io.op);
            ++of_op.requests;
            of_op.sectors += io.extent.length.v;
            ++counters_.in_flight;
            send(entry, io);
            return;
        }
    }
    submit_slowly(io);
}

void Device::expect(Sector at) const noexcept {
    if (!fast_) return;
    const Table::Entry& entry = live_->hint();
    if (at.v - entry.extent.first.v < entry.extent.length.v) entry.target->expect(at);
}

// True: it lies in this line, is allowed and aligned, and goes down as it is.
inline bool Device::passes(Table::Entry& entry, const Io& io) noexcept {
    const std::uint64_t offset = io.extent.first.v - entry.extent.first.v;    // huge if it lies before
    const std::uint64_t length = io.extent.length.v;
    if (offset >= entry.extent.length.v || length - 1 >= entry.extent.length.v - offset) return false;    // 0 - 1 is huge
    if (length > entry.plain[static_cast<std::size_t>(io.op)]) return false;
    if (((io.extent.first.v | length) & block_mask_) != 0) return false;
    if (io.frames_left() < Io::kFramesPerDevice) return false;
    return entry.traits.takes_whole || entry.target->fits(io) >= io.extent.length;
}

inline void Device::send(Table::Entry& entry, Io& io, std::uint64_t asked) noexcept {
    io.push(*this, packed(io), asked);
    io.copy = 0;
    if (asked != 0) io.extent.length = {asked};
    Disk* disk = entry.target->map(io).disk();
    if (!disk) return;
    if (asked != 0 && io.answer.place) {
        locate(entry, io, *disk);
    } else {
        disk->submit(io);
    }
}

// The target has just said where it is: on this disk, at that sector. A mapped device goes on asking its own table.
void Device::locate(Table::Entry& entry, Io& io, Disk& disk) noexcept {
    for (const TargetDevice& used : entry.target->devices()) {
        if (&used.device->disk() != &disk || used.device->id().kind == DiskId::Kind::mapped) continue;
        io.answer.place->disk = used.device->id();
        io.answer.place->sector = io.extent.first;
        io.answer.length = io.extent.length;
        env_.reactor.complete_later(io, IoStatus::ok);
        return;
    }
    disk.submit(io);
}

void Device::submit_slowly(Io& io) noexcept {
    if (open_) {
        start(io);
        return;
    }
    ASSERT(env_.reactor.is_current());
    if (lifecycle_.state() == Lifecycle::State::detached) {
        env_.reactor.complete_later(io, IoStatus::removed);
        return;
    }
    held_back_.push_back(io);
    ++counters_.held_back;
}

void Device::Door::submit(Io& io) noexcept {
    ++device_.counters_.in_flight;
    device_.dispatch(io);
}

void Device::start(Io& io) noexcept {
    DeviceCounters::PerOp& of_op = counter(io.op);
    ++of_op.requests;
    if (const IoStatus refused = refusal(io); refused != IoStatus::ok) {
        ++of_op.errors;
        env_.reactor.complete_later(io, refused);
        return;
    }
    of_op.sectors += io.extent.length.v;
    ++counters_.in_flight;
    dispatch(io);
}

IoStatus Device::refusal(const Io& io) const noexcept {
    if (io.op == Op::flush) return IoStatus::ok;
    const Limits& limits = live_->limits();
    const std::uint64_t first = io.extent.first.v;
    const std::uint64_t length = io.extent.length.v;
    if (length == 0 || first >= limits.size.v || length > limits.size.v - first) return IoStatus::invalid;
    if (((first | length) & block_mask_) != 0) return IoStatus::invalid;
    if (limits.read_only && io.is_write()) return IoStatus::io_error;
    return IoStatus::ok;
}

// Counted as in flight by the caller; admitted and in range.
void Device::dispatch(Io& io) noexcept {
    if (io.op == Op::flush) {
        unflushed_ = false;
        Table::Entry& only = live_->entries().front();
        if (live_->entries().size() == 1 && only.traits.flush_copies == 1 && io.frames_left() >= Io::kFramesPerDevice) {
            send(only, io);
        } else {
            start_fan(io, true, false, true);
        }
        return;
    }
    Table::Entry& entry = live_->at(io.extent.first);
    if (io.op == Op::extent_status && io.frames_left() >= Io::kFramesPerDevice) {
        // Never cut in two: the answer is about the first piece, and the asker asks on.
        const Extent whole = io.extent;
        io.extent = clipped_to(io.extent, entry.extent);
        const Sectors taken = entry.traits.takes_whole ? io.extent.length : entry.target->fits(io);
        const Sectors piece = first_piece(io.extent.length, taken, {});
        io.extent = whole;
        send(entry, io, piece.v);
        return;
    }
    const bool split_anyway = splits_early_ && env_.random.chance(1, 4);
    if (!split_anyway && passes(entry, io)) {
        send(entry, io);
    } else {
        start_fan(io, true, false, true);
    }
}

void Device::on_complete(Io& io, Frame& frame) noexcept {
    unpack(io, frame.a);
    if (io.status == IoStatus::ok && (io.op == Op::read || io.op == Op::write)) [[likely]] {
        unflushed_ |= io.op == Op::write;
        ASSERT(counters_.in_flight > 0);
        if (--counters_.in_flight == 0) idle_signal_.notify_all();
        io.complete(IoStatus::ok);
        return;
    }
    if (io.op == Op::extent_status) {
        settle_answer(io, {frame.b});
    } else if (io.status == IoStatus::unsupported && io.op == Op::write_zeroes && !io.flags.fast_only) {
        start_fan(io, true, true, false);
        return;
    }
    finish(io, io.status, false);
}

// Who doesn't know says that there is data; nobody says more than was asked of him.
void Device::settle_answer(Io& io, Sectors asked) noexcept {
    if (io.status == IoStatus::unsupported) {
        io.status = IoStatus::ok;
        io.answer = {};
    }
    if (!io.answer.length) io.answer = {asked, false, false};
    if (asked < io.answer.length) io.answer.length = asked;
}

// The request has come back from below, or never got there. The device's frame is popped.
void Device::finish(Io& io, IoStatus status, bool inside_submit) noexcept {
    ASSERT(counters_.in_flight > 0);
    --counters_.in_flight;
    if (status == IoStatus::ok) [[likely]] {
        if (io.is_write()) unflushed_ = true;
        if (io.op == Op::flush && owed_flush_error_ != IoStatus::ok) [[unlikely]] {
            status = std::exchange(owed_flush_error_, IoStatus::ok);
        }
    } else if (status == IoStatus::requeue && lifecycle_.noflush()) {
        DeviceCounters::PerOp& of_op = counter(io.op);
        --of_op.requests;    // it will be counted when it starts again
        of_op.sectors -= io.extent.length.v;
        requeued_.push_back(io);
        ++counters_.held_back;
        if (counters_.in_flight == 0) idle_signal_.notify_all();
        return;
    } else {
        // It was in range and aligned when it went down: a disk below is not what it was.
        if (status == IoStatus::requeue || status == IoStatus::invalid) status = IoStatus::io_error;
        if (io.op == Op::flush) unflushed_ = wrote_something();
        ++counter(io.op).errors;
    }
    if (counters_.in_flight == 0) idle_signal_.notify_all();
    if (inside_submit) {
        env_.reactor.complete_later(io, status);
    } else {
        io.complete(status);
    }
}

bool Device::wrote_something() noexcept {
    for (const Op op : {Op::write, Op::write_zeroes, Op::discard}) {
        if (counter(op).requests > counter(op).errors) return true;
    }
    return false;
}

// Lets go what was held back, in the order in which it came.
void Device::release() noexcept {
    block_mask_ = limits().logical_block / kSectorSize - 1;    // the table may be a new one
    while (lifecycle_.admits()) {
        Io* io = requeued_.pop_front_or_null();
        if (!io) io = held_back_.pop_front_or_null();
        if (!io) break;
        --counters_.held_back;
        start(*io);
    }
    update_open();
}

void Device::update_open() noexcept {
    open_ = lifecycle_.admits() && requeued_.empty() && held_back_.empty();
    fast_ = open_ && !splits_early_;
}

}  // namespace udm
