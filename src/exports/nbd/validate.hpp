// Which requests are good: the rules of the protocol for one request, against what the export is. Pure.
//   source   doc/proto.md, "Block size constraints", "Command flags", "Request types", "Error values"
#pragma once

#include "exports/nbd/codec.hpp"

namespace udm::nbd {

// What was promised to the client at the end of the handshake.
struct Shape {
    std::uint64_t size = 0;
    std::uint16_t flags = 0;        // transmission flags
    std::uint32_t block_min = 512;  // a power of two
    std::uint32_t block_max = 32 << 20;
    bool structured = false;
    std::uint32_t contexts = 0;  // metadata contexts selected
};

struct Refusal {
    WireError error = WireError::none;
    std::string_view text{};  // for people; a literal
};

// NBD_CMD_DISC is never refused. A request of length 0 is good where the others would be (but for block
// status, which must answer something).
Refusal validate(const Request& request, const Shape& shape) noexcept;

}  // namespace udm::nbd
