// The mirror's log on disk. All integers little-endian.
//
//   byte 0      header, 16 bytes
//   byte 16     our note, 92 bytes; Linux leaves it as it is
//   byte 1024   the bitmap: region r is bit r % 8 of byte 1024 + r / 8; 1: clean; a multiple of 8 bytes, the rest 0
//
// Header and note lie in one sector, which a power cut leaves old or new, never mixed. The note's leg part counts only under
// version 1, which Linux takes and turns into 2 whenever it resumes a mirror (decision 5).
// Source: docs/formats/disk_log.md; why the checksum covers that sector only: docs/decisions/0030-what-the-note-covers.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/endian.hpp"
#include "services/dirty_log/dirty_log.hpp"

namespace udm::dirty_log {

struct DiskHeader {
    le32 magic;      // 0
    le32 version;    // 4
    le64 regions;    // 8: how many the bitmap knew when it was last written
};
static_assert(sizeof(DiskHeader) == 16);
static_assert(offsetof(DiskHeader, version) == 4 && offsetof(DiskHeader, regions) == 8);

struct DiskNote {
    le32 magic;                        // 0 (16 in the sector)
    le32 region_size;                  // 4: sectors
    std::uint8_t leg_count;            // 8: 0: no leg is behind
    std::uint8_t source;               // 9
    le16 failed;                       // 10: bit i: leg i
    le64 tags[LegRecord::kLegsMax];    // 12
    le32 reserved;                     // 84: 0
    le32 checksum;                     // 88: CRC-32C of the sector up to here
};
static_assert(sizeof(DiskNote) == 92);
static_assert(offsetof(DiskNote, leg_count) == 8 && offsetof(DiskNote, failed) == 10 && offsetof(DiskNote, tags) == 12 &&
              offsetof(DiskNote, reserved) == 84 && offsetof(DiskNote, checksum) == 88);

inline constexpr std::uint32_t kMagic = 0x4D695272;        // "rRiM"
inline constexpr std::uint32_t kVersion = 2;
inline constexpr std::uint32_t kVersionOfRecords = 1;      // and of Linux before 2.6.20
inline constexpr std::uint32_t kNoteMagic = 0x6E6D6475;    // "udmn"
inline constexpr std::uint64_t kNoteOffset = 16;
inline constexpr std::uint64_t kBitmapOffset = 1024;

// Where the bits lie, for so many regions and a disk with such logical blocks. Blocks are what is written at a time.
class Layout {
  public:
    Layout() = default;
    Layout(Regions regions, std::uint32_t logical_block) noexcept
        : regions_{regions}, logical_block_{logical_block}, block_{logical_block > 4096 ? logical_block : 4096} {}
    std::uint64_t bitmap_bytes() const noexcept { return (regions_.v + 63) / 64 * 8; }
    // Header and bitmap, in whole logical blocks: what the disk must have.
    std::uint64_t bytes() const noexcept { return (kBitmapOffset + bitmap_bytes() + logical_block_ - 1) / logical_block_ * logical_block_; }
    std::uint64_t block_bytes() const noexcept { return block_; }
    std::uint64_t blocks() const noexcept { return (bytes() + block_ - 1) / block_; }
    std::uint64_t block_of(Region region) const noexcept { return (kBitmapOffset + region.v / 8) / block_; }
    // The regions whose bits lie in a block: multiples of 64, but for the end.
    Region first_of(std::uint64_t block) const noexcept { return {block == 0 ? 0 : (block * block_ - kBitmapOffset) * 8}; }
    Region end_of(std::uint64_t block) const noexcept {
        const std::uint64_t end = ((block + 1) * block_ - kBitmapOffset) * 8;
        return {end < regions_.v ? end : regions_.v};
    }
    // The first logical block: header, note, and perhaps the first bits. A power cut leaves it old or new.
    std::uint64_t header_bytes() const noexcept { return logical_block_; }

  private:
    Regions regions_{};
    std::uint32_t logical_block_ = kSectorSize;
    std::uint64_t block_ = 4096;
};

// What header and note say. Nothing is taken for granted: any bytes may come.
struct Judged {
    enum class Kind : std::uint8_t {
        blank,       // all zeroes: no log was ever here
        log,
        foreign,     // other data
        unknown,     // a log, but not one to be understood: another version, or a note that is damaged
    } kind = Kind::blank;
    std::uint32_t version = 0;
    std::uint64_t regions = 0;
    std::uint32_t region_size = 0;       // sectors; 0: not known
    std::optional<LegRecord> legs{};     // only if it counts
    std::string why{};                   // foreign, unknown: for people
};
// `start`: the device's first bytes, a sector at least; blank is judged by all of them.
Judged judge(std::span<const std::byte> start);

// The device's first sector; zeroes follow up to the bitmap.
void put_header(std::byte* sector, Regions regions, RegionSize region_size, const std::optional<LegRecord>& legs) noexcept;

}  // namespace udm::dirty_log
