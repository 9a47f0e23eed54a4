// How a request ended: one byte on the data plane. The only table to and from errno.
#pragma once

#include <cstdint>

namespace udm {

enum class [[nodiscard]] IoStatus : std::uint8_t {
    ok,
    io_error,       // EIO
    no_space,       // ENOSPC
    unsupported,    // EOPNOTSUPP
    invalid,        // EINVAL: outside of the device, not aligned
    read_only,      // EROFS
    timed_out,      // ETIMEDOUT
    removed,        // ENODEV: the device or file is gone
    corrupt,        // EILSEQ: what was read cannot be right
    requeue,        // a target could not do it now; core defers it (noflush suspend) or fails it
};

// The first error wins.
constexpr IoStatus first_error(IoStatus a, IoStatus b) { return a != IoStatus::ok ? a : b; }

int to_errno(IoStatus status) noexcept;              // positive; 0 for ok
IoStatus status_from_errno(int error) noexcept;      // of a positive errno
const char* to_string(IoStatus status) noexcept;     // for people: "I/O error"

}  // namespace udm
