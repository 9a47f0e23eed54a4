#include "targets/snapshot/copy_job.hpp"

#include <algorithm>
#include <cstring>
#include <utility>

#include "targets/snapshot/copies.hpp"
#include "targets/snapshot/origin_group.hpp"
#include "targets/snapshot/snapshot.hpp"

namespace udm::snapshot {
namespace {
constexpr Sectors kPiece{1024};    // 512 KiB (decision 19)

// The longest piece a device takes, if `most` is not less.
Sectors at_most(Sectors most, const Disk& disk) noexcept {
    const Sectors takes = disk.limits().max_transfer;
    return takes ? std::min(most, takes) : most;
}
}  // namespace

void Part::written(IoStatus status) noexcept { job->part_written(*this, status); }

void Part::let_go() noexcept {
    List<Waiter> waiting;
    waiting.take_all(waiters);
    OriginGroup& group = snapshot->group();
    snapshot->remove_part(*this);
    group.end(*this);
    while (Waiter* waiter = waiting.pop_front_or_null()) waiter->woken(IoStatus::ok);
}

CopyJob::CopyJob(OriginGroup& group, Disk& source, Data data, Io* io) noexcept
    : group_{group}, source_{source}, data_{data}, io_{io},
      longest_{at_most(std::min(kPiece, group.copies().longest_piece()), source)} {}

void CopyJob::add(Part& part) noexcept {
    part.source = part.snapshot->origin_extent(part.first, part.count);
    part.snapshot->add_part(part);
    if (io_) snapshot_ = part.snapshot;
    join(part);
}

void CopyJob::join(Part& part) noexcept {
    part.job = this;
    if (!parts_) {
        range_ = part.source;
    } else {
        ASSERT(part.source.first >= range_.first);
        range_.length = std::max(range_.end(), part.source.end()) - range_.first;
    }
    longest_ = at_most(longest_, part.snapshot->cow().disk());
    part.next = nullptr;
    part.link = last_link_;
    *last_link_ = &part;
    last_link_ = &part.next;
}

bool CopyJob::takes(const Part& part) const noexcept {
    if (part.source.first > range_.end()) return false;
    return std::max(range_.end(), part.source.end()) - range_.first <= at_most(longest_, part.snapshot->cow().disk());
}

std::uint64_t CopyJob::memory() const noexcept {
    return data_ == Data::request ? 0 : to_bytes(std::min(longest_, range_.length));
}

std::uint64_t CopyJob::memory_with(const Part& part) const noexcept {
    return to_bytes(std::max(range_.end(), part.source.end()) - range_.first);    // one piece: takes() says so
}

StoreAccount& CopyJob::lead() const noexcept { return parts_->snapshot->account(); }

bool CopyJob::pointless() const noexcept { return !parts_->snapshot->valid(); }

void CopyJob::count(Part& part) noexcept {
    Copies& copies = group_.copies();
    copies.take(memory() - memory_);
    memory_ = memory();
    part.memory = memory_;
    part.counted = true;
    copies.begin(part.snapshot->account(), part.memory);
}

void CopyJob::uncount(Part& part) noexcept {
    if (!part.counted) return;
    part.counted = false;
    group_.copies().end(part.snapshot->account(), part.memory);
}

void CopyJob::start() noexcept {
    if (pointless()) {
        status_ = IoStatus::io_error;
        while (parts_) part_ends(*parts_, false);
        end();
        return;
    }
    copying_ = copies_data();
    if (copying_) group_.copies().copying(true);
    at_ = range_.first;
    next_piece();
}

void CopyJob::cancel() noexcept {
    io_ = nullptr;
    while (parts_) part_ends(*parts_, false);
    end();
}

void CopyJob::next_piece() noexcept {
    if (data_ == Data::request) {
        piece_ = range_.length;
        piece_ready();
        return;
    }
    piece_ = std::min(longest_, range_.end() - at_);
    if (!buffer_) {
        buffer_bytes_ = static_cast<std::size_t>(to_bytes(piece_));
        buffer_ = group_.env().reactor.buffers().take(buffer_bytes_);
        if (data_ == Data::zeroes) std::memset(buffer_, 0, buffer_bytes_);
    }
    fill_piece();
}

void CopyJob::fill_piece() noexcept {
    if (data_ == Data::zeroes) {
        piece_ready();
        return;
    }
    Io& io = group_.env().reactor.take_io();
    io.op = Op::read;
    io.extent = {at_, piece_};
    io.set_memory(buffer_, to_bytes(piece_));
    io.push(*this);
    source_.submit(io);
}

void CopyJob::on_complete(Io& io, Frame&) noexcept {
    const IoStatus status = io.status;
    group_.env().reactor.give_io(io);
    if (status != IoStatus::ok) {
        piece_unreadable(status);
        return;
    }
    if (data_ == Data::origin_patched) {
        const Sector first = std::max(at_, io_->extent.first);
        const Sector end = std::min(at_ + piece_, io_->extent.end());
        if (first < end) {
            std::byte* to = buffer_ + to_bytes(first - at_);
            const std::uint64_t bytes = to_bytes(end - first);
            if (io_->op == Op::write) {
                io_->buffers.advanced(to_bytes(first - io_->extent.first)).copy_to(to, bytes);
            } else {
                std::memset(to, 0, bytes);
            }
        }
    }
    piece_ready();
}

// The old content of some chunk cannot be had. A write to the snapshot fails; snapshots that need it for a write to the
// origin are lost, they alone, and the write goes on (decision 11, defect N15).
void CopyJob::piece_unreadable(IoStatus status) noexcept {
    Part& first = *parts_;
    if (io_) {
        status_ = status;
        ASSERT(!first.next);    // a request that is copied for is of one chunk
        first.snapshot->store().give_back({first.cow_first, first.count});    // or tries without end would fill it
        part_ends(first, false);
        end();
        return;
    }
    if (first.next) {    // who needs what of it? Each tries by itself.
        Part* rest = std::exchange(first.next, nullptr);
        last_link_ = &first.next;
        range_ = first.source;
        while (Part* part = rest) {
            rest = part->next;
            uncount(*part);
            CopyJob& job = group_.new_job(source_, data_, nullptr);
            job.join(*part);
            group_.copies().wait(job);
        }
        group_.copies().look_again();
        next_piece();
        return;
    }
    first.snapshot->invalidate("the origin cannot be read where a chunk must be copied", true);
    part_ends(first, false);
    end();
}

void CopyJob::piece_ready() noexcept {
    const Extent piece{at_, piece_};
    pending_ = 1;
    for (Part* part = parts_; part; part = part->next) {
        if (!part->source.overlaps(piece)) continue;
        const Sector first = std::max(piece.first, part->source.first);
        const Sector end = std::min(piece.end(), part->source.end());
        const Sector cow_start = part->snapshot->chunk().start(part->cow_first);
        part->extent = {cow_start + (first - part->source.first), end - first};
        if (data_ == Data::request) {
            part->buffers = io_->buffers.advanced(to_bytes(first - io_->extent.first));
        } else {
            part->segment = {buffer_ + to_bytes(first - at_), static_cast<std::size_t>(to_bytes(end - first))};
            part->buffers = Buffers{&part->segment, 1};
        }
        ++pending_;
        part->snapshot->gather().add(*part);
    }
    if (--pending_ == 0) piece_done();    // those that need it have failed
}

void CopyJob::part_written(Part& part, IoStatus status) noexcept {
    const bool failed = status != IoStatus::ok;
    if (failed) {
        status_ = first_error(status_, status);
        if (io_ && part.snapshot->overflows_below(status)) {
            part.snapshot->store().give_back({part.cow_first, part.count});
        } else {
            part.snapshot->invalidate(std::string{"the COW device cannot be written: "} + to_string(status), !io_);
        }
    }
    if (failed || part.source.end() <= at_ + piece_) part_ends(part, !failed);
    ASSERT(pending_ > 0);
    if (--pending_ == 0) piece_done();
}

void CopyJob::piece_done() noexcept {
    at_ += piece_;
    if (at_ < range_.end() && parts_) {
        next_piece();
    } else {
        end();
    }
}

// A part leaves the job: copied, or it never will be.
void CopyJob::part_ends(Part& part, bool copied) noexcept {
    *part.link = part.next;
    if (part.next) {
        part.next->link = part.link;
    } else {
        last_link_ = part.link;
    }
    uncount(part);
    if (copied && part.snapshot->valid()) {
        part.snapshot->publish(part);
        if (io_) part.snapshot->found_room();
        // What a write to the origin waits for must be durable; a write to the snapshot needs no more than this.
        part.durable.part = &part;
        if (!io_ && part.snapshot->store().when_durable(part.durable)) return;
    }
    part.let_go();
}

void CopyJob::end() noexcept {
    if (buffer_) group_.env().reactor.buffers().give(buffer_, buffer_bytes_);
    if (copying_) group_.copies().copying(false);
    group_.copies().give(memory_);
    Snapshot* const snapshot = snapshot_;
    Io* const io = io_;
    const IoStatus status = status_;
    group_.end(*this);
    if (io) snapshot->finish_write(*io, status);
}

}  // namespace udm::snapshot
