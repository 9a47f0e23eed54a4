#include "engine/file_disk.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <sys/uio.h>
#include <unistd.h>

#include <cerrno>

#include "engine/file_request.hpp"

namespace udm {
namespace {

// Up to here a copy from or to a file in memory is made by the loop itself; a larger one is worth a thread of
// the kernel's (measured: docs/benchmarks.md).
constexpr std::uint64_t kInPlaceMax = std::uint64_t{128} << 10;
// Freeing pages is quicker than copying them.
constexpr std::uint64_t kPunchInPlaceMax = std::uint64_t{2} << 20;
constexpr unsigned kInPlacePieces = 32;

}  // namespace

IoStatus file_status(int error) noexcept {
    switch (error) {
        case EFBIG:
            return IoStatus::no_space;  // the file may not grow
        // What the system itself finds wrong with a request that we checked is trouble of the file.
        case EINVAL:
        case EBADF:
            return IoStatus::io_error;
        default:
            return status_from_errno(error);
    }
}

FileDisk::FileDisk(Loop& loop, const OpenedFile& file, std::string name)
    : loop_{loop},
      file_{file.fd, -1},
      limits_{file.traits.limits},
      block_device_{file.traits.block_device},
      memory_{file.traits.memory},
      direct_{file.traits.direct},
      no_discard_{!file.traits.limits.discard},
      name_{std::move(name)} {}

FileDisk::~FileDisk() { ASSERT(file_.fd < 0); }

void FileDisk::release() noexcept {
    ASSERT(under_way_ == 0);
    if (attached_ && loop_.running()) loop_.detach(file_);
    file_.fd = -1;
}

void FileDisk::refresh() noexcept {
    const std::int64_t bytes = file_bytes(file_.fd, block_device_);
    if (bytes < 0) return;
    const auto size = static_cast<std::uint64_t>(bytes);
    limits_.size = whole_sectors(size - size % limits_.logical_block);
    shrunk_ = false;
}

// Not by end(), which could wrap around.
bool FileDisk::fits(const Extent& extent) const noexcept {
    return extent.length <= limits_.size && extent.first.v <= limits_.size.v - extent.length.v;
}

void FileDisk::submit(Io& io) noexcept {
    ASSERT(loop_.is_current());
    if (io.op != Op::flush) {
        const std::uint64_t sectors = limits_.logical_block >> kSectorShift;
        const bool aligned =
            sectors == 1 || (io.extent.first.v % sectors == 0 && io.extent.length.v % sectors == 0);
        // Not in the size known: perhaps in the one it has now.
        if (!fits(io.extent)) refresh();
        if (!fits(io.extent) || !aligned) return loop_.complete_later(io, IoStatus::invalid);
        if (io.is_write() && limits_.read_only) return loop_.complete_later(io, IoStatus::read_only);
        if (!io.extent.length) return loop_.complete_later(io, IoStatus::ok);
    } else if (memory_ || limits_.read_only) {
        return loop_.complete_later(io, IoStatus::ok);
    }
    if (memory_ && serve_in_place(io)) return;
    if (!attached_) {
        loop_.attach(file_);
        attached_ = true;
    }
    ++under_way_;
    loop_.file_requests().take(*this, io).begin();
}

bool FileDisk::serve_in_place(Io& io) noexcept {
    const std::uint64_t bytes = to_bytes(io.extent.length);
    switch (io.op) {
        case Op::read:
        case Op::write:
            return bytes <= kInPlaceMax && transfer_in_place(io);
        case Op::discard:
        case Op::write_zeroes: {
            const bool no_hole = io.op == Op::write_zeroes && io.flags.no_hole;
            if (bytes > kPunchInPlaceMax || no_punch_ || no_hole) return false;
            const int rc =
                ::fallocate(file_.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                            static_cast<off_t>(to_bytes(io.extent.first)), static_cast<off_t>(bytes));
            if (rc != 0) return false;  // the long way finds out what to do
            loop_.complete_later(io, IoStatus::ok);
            return true;
        }
        case Op::extent_status: {
            const int rc = find_extent_status(file_.fd, io.extent, io.answer);
            loop_.complete_later(io, rc < 0 ? file_status(-rc) : IoStatus::ok);
            return true;
        }
        case Op::flush:
            break;
    }
    UNREACHABLE();
}

// False: not finished here. What was read or written stays; the long way does it again.
bool FileDisk::transfer_in_place(Io& io) noexcept {
    const std::uint64_t bytes = to_bytes(io.extent.length);
    const auto offset = static_cast<off_t>(to_bytes(io.extent.first));
    const bool read = io.op == Op::read;
    ssize_t n;
    if (io.buffers.contiguous() >= bytes) {
        n = read ? ::pread(file_.fd, io.buffers.data(), bytes, offset)
                 : ::pwrite(file_.fd, io.buffers.data(), bytes, offset);
    } else {
        iovec pieces[kInPlacePieces];
        const std::uint32_t count = io.buffers.to_iovecs(pieces, kInPlacePieces, bytes);
        if (count == 0) return false;
        n = read ? ::preadv(file_.fd, pieces, static_cast<int>(count), offset)
                 : ::pwritev(file_.fd, pieces, static_cast<int>(count), offset);
    }
    if (n != static_cast<ssize_t>(bytes)) return false;
    loop_.complete_later(io, IoStatus::ok);
    return true;
}

void FileDisk::report_shrunk() noexcept {
    if (std::exchange(shrunk_, true)) return;
    const std::int64_t bytes = file_bytes(file_.fd, block_device_);
    loop_.shared().log(
        fmt::format("{}: is shorter than when it was opened: {} bytes, not {}: reads beyond its end fail",
                    name_, bytes, to_bytes(limits_.size)));
}

int find_extent_status(int fd, const Extent& extent, ExtentAnswer& answer) noexcept {
    const auto first = static_cast<off_t>(to_bytes(extent.first));
    const auto end = static_cast<off_t>(to_bytes(extent.end()));
    const off_t data = ::lseek(fd, first, SEEK_DATA);
    if (data < 0 && errno != ENXIO) {
        if (errno != EINVAL && errno != EOPNOTSUPP) return -errno;
        answer = {extent.length, false, false};  // a file system that doesn't know
        return 0;
    }
    // Whole sectors only: one that holds any data is data.
    const std::uint64_t hole =
        data < 0 || data >= end ? to_bytes(extent.length) : static_cast<std::uint64_t>(data - first);
    if (const Sectors sectors = whole_sectors(hole)) {
        answer = {sectors, true, true};
        return 0;
    }
    off_t next = ::lseek(fd, first, SEEK_HOLE);
    if (next < 0 || next > end) next = end;
    const std::uint64_t bytes = static_cast<std::uint64_t>(next - first) + kSectorSize - 1;
    const Sectors sectors = whole_sectors(bytes);
    answer = {sectors < Sectors{1} ? Sectors{1} : sectors, false, false};
    if (answer.length > extent.length) answer.length = extent.length;
    return 0;
}

}  // namespace udm
