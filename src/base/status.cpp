#include "base/status.hpp"

#include <cerrno>

#include "base/assert.hpp"

namespace udm {

int to_errno(IoStatus status) noexcept {
    switch (status) {
        case IoStatus::ok: return 0;
        case IoStatus::io_error: return EIO;
        case IoStatus::no_space: return ENOSPC;
        case IoStatus::unsupported: return EOPNOTSUPP;
        case IoStatus::invalid: return EINVAL;
        case IoStatus::read_only: return EROFS;
        case IoStatus::timed_out: return ETIMEDOUT;
        case IoStatus::removed: return ENODEV;
        case IoStatus::corrupt: return EILSEQ;
        case IoStatus::requeue: return EAGAIN;
    }
    UNREACHABLE();
}

IoStatus status_from_errno(int error) noexcept {
    switch (error) {
        case 0: return IoStatus::ok;
        case ENOSPC:
        case EDQUOT: return IoStatus::no_space;
        case EOPNOTSUPP:
        case ENOSYS: return IoStatus::unsupported;
        case EINVAL: return IoStatus::invalid;
        case EROFS:
        case EPERM: return IoStatus::read_only;
        case ETIMEDOUT: return IoStatus::timed_out;
        case ENODEV:
        case ENXIO: return IoStatus::removed;
        case EILSEQ: return IoStatus::corrupt;
        default: return IoStatus::io_error;
    }
}

const char* to_string(IoStatus status) noexcept {
    switch (status) {
        case IoStatus::ok: return "ok";
        case IoStatus::io_error: return "io_error";
        case IoStatus::no_space: return "no_space";
        case IoStatus::unsupported: return "unsupported";
        case IoStatus::invalid: return "invalid";
        case IoStatus::read_only: return "read_only";
        case IoStatus::timed_out: return "timed_out";
        case IoStatus::removed: return "removed";
        case IoStatus::corrupt: return "corrupt";
        case IoStatus::requeue: return "requeue";
    }
    UNREACHABLE();
}

}  // namespace udm
