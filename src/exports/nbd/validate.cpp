#include "exports/nbd/validate.hpp"

namespace udm::nbd {
namespace {

constexpr Refusal kFlags{WireError::inval, "a flag that doesn't go with this command"};
constexpr Refusal kNotOffered{WireError::inval, "the export doesn't offer this command"};
constexpr Refusal kReadOnlyExport{WireError::perm, "the export is read-only"};
constexpr Refusal kUnaligned{WireError::inval, "offset or length isn't a multiple of the minimum block size"};
constexpr Refusal kTooLong{WireError::inval, "longer than the maximum block size"};
constexpr Refusal kEmpty{WireError::inval, "a block status request needs a length"};
constexpr Refusal kNoContext{WireError::inval, "no metadata context was selected"};
constexpr Refusal kFlushExtent{WireError::inval, "a flush has neither offset nor length"};
constexpr Refusal kBeyondEnd{WireError::inval, "beyond the end of the export"};
constexpr Refusal kNoSpace{WireError::nospc, "beyond the end of the export"};
constexpr Refusal kUnknown{WireError::inval, "this server doesn't know that command"};

bool fits(const Request& r, const Shape& shape) {
    return r.offset <= shape.size && r.length <= shape.size - r.offset;
}
bool aligned(const Request& r, const Shape& shape) {
    return ((r.offset | r.length) & (shape.block_min - 1)) == 0;
}

// What all commands with an extent have in common.
Refusal extent(const Request& r, const Shape& shape, bool bounded, const Refusal& beyond) {
    if (bounded && r.length > shape.block_max) return kTooLong;
    if (!fits(r, shape)) return beyond;
    if (!aligned(r, shape)) return kUnaligned;
    return {};
}

Refusal write_extent(const Request& r, const Shape& shape, std::uint16_t flags, bool bounded,
                     const Refusal& beyond) {
    if (r.flags & ~flags) return kFlags;
    if (shape.flags & kReadOnly) return kReadOnlyExport;
    return extent(r, shape, bounded, beyond);
}

}  // namespace

Refusal validate(const Request& r, const Shape& shape) noexcept {
    // FUA goes with every command, whether it means something or not.
    switch (static_cast<Command>(r.command)) {
        case Command::read: {
            const std::uint16_t flags = kCmdFua | ((shape.flags & kSendDf) ? kCmdDf : 0);
            if (r.flags & ~flags) return kFlags;
            return extent(r, shape, true, kBeyondEnd);
        }
        case Command::write:
            return write_extent(r, shape, kCmdFua, true, kNoSpace);
        case Command::disconnect:
            return {};
        case Command::flush:
            if (r.flags & ~kCmdFua) return kFlags;
            if (r.offset != 0 || r.length != 0) return kFlushExtent;
            return {};
        case Command::trim:
            if ((shape.flags & (kSendTrim | kReadOnly)) == 0) return kNotOffered;
            return write_extent(r, shape, kCmdFua, false, kBeyondEnd);
        case Command::cache:
            if (r.flags & ~kCmdFua) return kFlags;
            return extent(r, shape, true, kBeyondEnd);
        case Command::write_zeroes: {
            if ((shape.flags & (kSendWriteZeroes | kReadOnly)) == 0) return kNotOffered;
            const std::uint16_t fast = (shape.flags & kSendFastZero) ? kCmdFastZero : 0;
            const std::uint16_t flags = kCmdFua | kCmdNoHole | fast;
            // The block size bounds payloads, and this has none: nbdcopy zeroes gigabytes with one request.
            return write_extent(r, shape, flags, false, kNoSpace);
        }
        case Command::block_status:
            if (!shape.structured || shape.contexts == 0) return kNoContext;
            if (r.flags & ~(kCmdFua | kCmdReqOne)) return kFlags;
            if (r.length == 0) return kEmpty;
            return extent(r, shape, false, kBeyondEnd);
    }
    return kUnknown;
}

}  // namespace udm::nbd
