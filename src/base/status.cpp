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
        case IoStatus::io_error: return "I/O error";
        case IoStatus::no_space: return "no space left";
        case IoStatus::unsupported: return "not supported";
        case IoStatus::invalid: return "outside of the device, or not aligned";
        case IoStatus::read_only: return "read-only";
        case IoStatus::timed_out: return "timed out";
        case IoStatus::removed: return "the device is gone";
        case IoStatus::corrupt: return "what was read cannot be right";
        case IoStatus::requeue: return "requeue";
    }
    UNREACHABLE();
}

}  // namespace udm
