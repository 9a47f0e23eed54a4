// What the bytes of a mirror's log say, read after the page on formats and nothing else: the story "mirror" judges with
// it what the target wrote, so it shares no code with it.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace udm {

struct MirrorLogBytes {
    static constexpr std::uint32_t kMagic = 0x4D695272;
    static constexpr std::size_t kBitmapAt = 1024;

    bool known = false;               // the magic is right, and the version one that Linux takes (1 or 2)
    std::uint32_t version = 0;
    std::uint64_t regions = 0;        // as of the last write of the header
    std::vector<bool> clean;          // of the regions asked for; false beyond those that the header counts

    static MirrorLogBytes parse(std::span<const std::byte> bytes, std::uint64_t regions);
    // A log for tests to start from: version 2, these regions clean.
    static std::vector<std::byte> make(const std::vector<bool>& clean);
    static std::uint64_t bytes_for(std::uint64_t regions) { return kBitmapAt + (regions + 63) / 64 * 8; }
};

}  // namespace udm
