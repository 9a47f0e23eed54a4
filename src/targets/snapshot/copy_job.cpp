#include "targets/snapshot/copy_job.hpp"

#include <algorithm>
#include <cstring>

#include "targets/snapshot/origin_group.hpp"
#include "targets/snapshot/snapshot.hpp"

namespace udm::snapshot {
namespace {
constexpr Sectors kPiece{1024};    // 512 KiB (decision 19)
}

void Part::Durable::woken(IoStatus) noexcept { part->job->part_durable(); }
void Part::written(IoStatus status) noexcept { job->part_written(*this, status); }

void CopyJob::add(Part& part) noexcept {
    part.job = this;
    part.source = part.snapshot->origin_extent(part.first, part.count);
    if (!parts_) {
        parts_ = &part;
        range_ = part.source;
    } else {
        ASSERT(part.source.first >= range_.first);
        last_part_->next = &part;
        range_.length = std::max(range_.end(), part.source.end()) - range_.first;
    }
    last_part_ = &part;
    part.snapshot->add_part(part);
}

void CopyJob::start() noexcept {
    at_ = range_.first;
    next_piece();
}

void CopyJob::cancel() noexcept {
    io_ = nullptr;
    drop_parts();
    group_.end(*this);
}

void CopyJob::next_piece() noexcept {
    if (data_ == Data::request) {
        piece_ = range_.length;
        piece_ready();
        return;
    }
    piece_ = std::min(kPiece, range_.end() - at_);
    const auto at_most = [this](const Disk& disk) {
        if (const Sectors most = disk.limits().max_transfer) piece_ = std::min(piece_, most);
    };
    at_most(source_);
    for (const Part* part = parts_; part; part = part->next) at_most(part->snapshot->cow().disk());
    for (const Part* part = parts_; one_by_one_ && part; part = part->next) {
        for (const Sector edge : {part->source.first, part->source.end()}) {
            if (at_ < edge && edge < at_ + piece_) piece_ = edge - at_;
        }
    }
    if (buffer_) {
        fill_piece();
        return;
    }
    buffer_bytes_ = static_cast<std::size_t>(to_bytes(piece_));
    if (group_.take_memory(*this, buffer_bytes_)) memory_given();
}

void CopyJob::memory_given() noexcept {
    buffer_ = group_.env().reactor.buffers().take(buffer_bytes_);
    if (data_ == Data::zeroes) std::memset(buffer_, 0, buffer_bytes_);
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
    if (io_) {
        status_ = status;
        ASSERT(!parts_->next);    // a request that is copied for is of one chunk
        parts_->failed = true;
        parts_->snapshot->store().give_back({parts_->cow_first, parts_->count});    // or tries without end would fill it
        copied();
        return;
    }
    if (parts_->next && !one_by_one_) {    // who needs what of it?
        one_by_one_ = true;
        next_piece();
        return;
    }
    for (Part* part = parts_; part; part = part->next) {
        if (part->failed || !part->source.overlaps({at_, piece_})) continue;
        part->failed = true;
        part->snapshot->invalidate("the origin cannot be read where a chunk must be copied");
    }
    piece_done();
}

void CopyJob::piece_ready() noexcept {
    const Extent piece{at_, piece_};
    pending_ = 1;
    for (Part* part = parts_; part; part = part->next) {
        if (part->failed || !part->source.overlaps(piece)) continue;
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
    if (status != IoStatus::ok) {
        part.failed = true;
        status_ = first_error(status_, status);
        part.snapshot->invalidate(std::string{"the COW device cannot be written: "} + to_string(status));
    }
    ASSERT(pending_ > 0);
    if (--pending_ == 0) piece_done();
}

void CopyJob::piece_done() noexcept {
    at_ += piece_;
    const bool all_failed = [this] {
        for (Part* p = parts_; p; p = p->next) {
            if (!p->failed) return false;
        }
        return true;
    }();
    if (at_ < range_.end() && !all_failed) {
        next_piece();
    } else {
        copied();
    }
}

void CopyJob::give_buffer() noexcept {
    if (!buffer_) return;
    group_.env().reactor.buffers().give(buffer_, buffer_bytes_);
    buffer_ = nullptr;
    group_.give_memory(buffer_bytes_);
}

void CopyJob::copied() noexcept {
    give_buffer();
    for (Part* part = parts_; part; part = part->next) {
        if (!part->failed && part->snapshot->valid()) part->snapshot->publish(*part);
    }
    pending_ = 1;
    for (Part* part = parts_; part; part = part->next) {
        // What a write to the origin waits for must be durable; a write to the snapshot needs no more than this.
        if (io_ || !part->snapshot->valid()) continue;
        part->durable.part = part;
        if (part->snapshot->store().when_durable(part->durable)) ++pending_;
    }
    part_durable();
}

void CopyJob::part_durable() noexcept {
    if (--pending_ == 0) done();
}

void CopyJob::drop_parts() noexcept {
    while (Part* part = parts_) {
        parts_ = part->next;
        part->snapshot->remove_part(*part);
        group_.end(*part);
    }
}

void CopyJob::done() noexcept {
    Snapshot* const snapshot = parts_->snapshot;
    Io* const io = io_;
    const IoStatus status = status_;
    List<Waiter> waiters;
    waiters.take_all(waiters_);
    drop_parts();
    group_.end(*this);
    if (io) snapshot->finish_write(*io, status);
    while (Waiter* waiter = waiters.pop_front_or_null()) waiter->woken(IoStatus::ok);
}

}  // namespace udm::snapshot
