#include "engine/file_request.hpp"

#include <fcntl.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>

#include <cerrno>

#include "engine/file_disk.hpp"

namespace udm {
namespace {

constexpr std::size_t kPiecesBytes = 16384;
constexpr std::uint32_t kMorePieces = kPiecesBytes / sizeof(iovec);  // IOV_MAX is the same 1024
static_assert(kMorePieces == 1024);

constexpr std::size_t kZeroes = std::size_t{64} << 10;
alignas(4096) constinit std::byte zeroes[kZeroes]{};  // never written

bool is_unsupported(int error) { return error == EOPNOTSUPP || error == ENOSYS; }

}  // namespace

void FileRequest::begin() noexcept {
    file = &disk_.file_;
    loop = &disk_.loop_;
    total_ = to_bytes(io_.extent.length);
    switch (io_.op) {
        case Op::read:
        case Op::write:
            durable = io_.op == Op::write && io_.flags.fua && !disk_.memory_;
            return next_round();
        case Op::flush:
            total_ = 0;
            stage_ = Stage::sync;
            kind = Kind::sync;
            return loop->start(*this);
        case Op::discard:
            if (disk_.no_discard_) return finish(IoStatus::unsupported);
            [[fallthrough]];
        case Op::write_zeroes:
            return allocate_or_else();
        case Op::extent_status:
            if (disk_.block_device_) {
                io_.answer = {io_.extent.length, false, false};
                return finish(IoStatus::ok);
            }
            stage_ = Stage::call;
            kind = Kind::call;
            return loop->start(*this);
    }
    UNREACHABLE();
}

void FileRequest::next_round() noexcept {
    const std::uint64_t left = total_ - at_;
    kind = io_.op == Op::read ? Kind::read : Kind::write;
    offset = to_bytes(io_.extent.first) + at_;
    count = 0;
    vec = pieces_.data();
    if (stage_ == Stage::zero_fill) {
        plan_zeroes(left);
        return loop->start(*this);
    }
    const Limits& limits = disk_.limits_;
    iovec* out = pieces_.data();
    std::uint32_t room = kPieces;
    std::uint64_t planned = 0;
    Buffers at = io_.buffers.advanced(at_);
    const Buffers start_of_round = at;
    while (planned < left && planned < kRoundMax) {
        ASSERT(!at.empty());
        const std::uint64_t n = at.contiguous() < left - planned ? at.contiguous() : left - planned;
        if (disk_.direct_ && (reinterpret_cast<std::uintptr_t>(at.data()) % limits.memory_alignment != 0 ||
                              n % limits.logical_block != 0)) {
            break;
        }
        if (count == room) {
            if (more_pieces_) break;
            more_pieces_ = loop->buffers().take(kPiecesBytes);
            out = reinterpret_cast<iovec*>(more_pieces_);
            for (std::uint32_t i = 0; i < count; ++i) out[i] = pieces_[i];
            vec = out;
            room = kMorePieces;
        }
        out[count++] = {at.data(), static_cast<std::size_t>(n)};
        planned += n;
        at = at.advanced(n);
    }
    if (count == 0) plan_copy(start_of_round, left);
    loop->start(*this);
}

// Memory that the file doesn't take: through a buffer of ours.
void FileRequest::plan_copy(const Buffers& from, std::uint64_t left) noexcept {
    copy_bytes_ = left < kCopyMax ? left : kCopyMax;
    copy_ = loop->buffers().take(copy_bytes_);
    if (io_.op == Op::write) from.copy_to(copy_, copy_bytes_);
    pieces_[0] = {copy_, static_cast<std::size_t>(copy_bytes_)};
    count = 1;
}

void FileRequest::plan_zeroes(std::uint64_t left) noexcept {
    while (left != 0 && count < kPieces) {
        const std::uint64_t n = left < kZeroes ? left : kZeroes;
        pieces_[count++] = {zeroes, static_cast<std::size_t>(n)};
        left -= n;
    }
}

void FileRequest::give_round_back() noexcept {
    if (copy_) loop->buffers().give(copy_, copy_bytes_);
    if (more_pieces_) loop->buffers().give(more_pieces_, kPiecesBytes);
    copy_ = more_pieces_ = nullptr;
}

void FileRequest::done(int n) noexcept {
    if ((n == -EINTR || n == -EAGAIN) && ++retries_ < kRetriesMax) return loop->start(*this);
    switch (stage_) {
        case Stage::transfer:
        case Stage::zero_fill:
            return transferred(n);
        case Stage::allocate:
            return allocated(n);
        case Stage::call:
            if (n < 0 && is_unsupported(-n) && io_.op == Op::discard) disk_.no_discard_ = true;
            if (n < 0) return finish(file_status(-n));
            return sync_or_finish();
        case Stage::sync:
            return finish(n < 0 ? file_status(-n) : IoStatus::ok);
    }
    UNREACHABLE();
}

void FileRequest::transferred(int n) noexcept {
    if (n > 0) {
        const auto bytes = static_cast<std::uint64_t>(n);
        if (copy_ && io_.op == Op::read) io_.buffers.advanced(at_).copy_from(copy_, bytes);
        at_ += bytes;
    }
    give_round_back();
    if (n < 0) {
        if (durable && is_unsupported(-n)) {  // a file system that knows no RWF_DSYNC: the flush comes after
            durable = false;
            return next_round();
        }
        return finish(file_status(-n));
    }
    if (at_ == total_) return sync_or_finish();
    // Nothing more, or not a whole block: that is the file's end, where it wasn't when we looked.
    const bool at_end = n == 0 || (disk_.direct_ && at_ % disk_.limits_.logical_block != 0);
    if (at_end && io_.op == Op::read) disk_.report_shrunk();
    if (at_end) return finish(IoStatus::io_error);
    next_round();
}

// The next way that isn't known to be unsupported.
void FileRequest::allocate_or_else() noexcept {
    offset = to_bytes(io_.extent.first);
    length = total_;
    kind = Kind::allocate;
    stage_ = Stage::allocate;
    if (io_.op == Op::discard && disk_.block_device_) {
        stage_ = Stage::call;
        kind = Kind::call;
    } else if (!disk_.no_punch_ && (io_.op == Op::discard || !io_.flags.no_hole)) {
        mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
    } else if (io_.op == Op::discard) {
        return finish(IoStatus::unsupported);
    } else if (!disk_.no_zero_range_ &&
               !(io_.flags.fast_only && disk_.block_device_ && !disk_.limits_.fast_zeroes)) {
        // On a block device this may be the kernel's own writing of zeroes, which is not what fast_only asks
        // for.
        mode = FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
    } else if (io_.flags.fast_only) {
        return finish(IoStatus::unsupported);
    } else {
        stage_ = Stage::zero_fill;
        durable = io_.flags.fua && !disk_.memory_;
        return next_round();
    }
    loop->start(*this);
}

void FileRequest::allocated(int n) noexcept {
    if (n == 0) return sync_or_finish();
    if (!is_unsupported(-n)) return finish(file_status(-n));
    ((mode & FALLOC_FL_PUNCH_HOLE) != 0 ? disk_.no_punch_ : disk_.no_zero_range_) = true;
    allocate_or_else();
}

int FileRequest::call() noexcept {
    const int fd = file->fd;
    if (io_.op == Op::extent_status) return find_extent_status(fd, io_.extent, io_.answer);
    ASSERT(io_.op == Op::discard);
    const std::uint64_t range[2] = {offset, length};
    return ::ioctl(fd, BLKDISCARD, range) == 0 ? 0 : -errno;
}

void FileRequest::sync_or_finish() noexcept {
    // `durable` was carried by the writes themselves.
    const bool sync = io_.is_write() && io_.flags.fua && !durable && !disk_.memory_;
    if (!sync) return finish(IoStatus::ok);
    stage_ = Stage::sync;
    kind = Kind::sync;
    loop->start(*this);
}

void FileRequest::finish(IoStatus status) noexcept {
    ASSERT(!copy_ && !more_pieces_);
    Io& io = io_;
    FileDisk& disk = disk_;
    --disk.under_way_;
    disk.loop_.file_requests().give(*this);
    disk.loop_.complete_later(io, status);
}

}  // namespace udm
