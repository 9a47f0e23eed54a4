// The persistent snapshot store on disk, version 1. All integers little-endian, all positions in chunks.
//
//   chunk 0                header
//   chunk 1                area 0: E = chunk bytes / 16 exceptions
//   chunks 2 .. E+1        data of area 0
//   chunk E+2              area 1, and so on
//
// Example, 4 KiB chunks: E = 256; areas at chunks 1, 258, 515.
// An exception whose new chunk is 0 ends the list (0 is the header, so it is never data).
// Source: docs/formats/snapshot.md.
#pragma once

#include <cstddef>
#include <cstdint>

#include "base/endian.hpp"
#include "base/units.hpp"

namespace udm::snapshot {

struct DiskHeader {
    le32 magic;         // 0
    le32 valid;         // 4: 1 or 0
    le32 version;       // 8
    le32 chunk_size;    // 12: sectors; the rest of chunk 0 is zero
};
static_assert(sizeof(DiskHeader) == 16);
static_assert(offsetof(DiskHeader, valid) == 4 && offsetof(DiskHeader, version) == 8 &&
              offsetof(DiskHeader, chunk_size) == 12);

struct DiskException {
    le64 old_chunk;    // 0: of the origin
    le64 new_chunk;    // 8: of the COW device
};
static_assert(sizeof(DiskException) == 16 && offsetof(DiskException, new_chunk) == 8);

inline constexpr std::uint32_t kMagic = 0x70416E53;    // "SnAp"
inline constexpr std::uint32_t kVersion = 1;
inline constexpr std::uint32_t kDefaultChunkSectors = 32;
inline constexpr std::uint32_t kChunkSectorsMax = 1u << 21;    // 1 GiB

// Where areas and their data lie, for one chunk size.
class Geometry {
  public:
    explicit constexpr Geometry(ChunkSize chunk) : chunk_{chunk}, per_area_{chunk.bytes() / sizeof(DiskException)} {}
    constexpr ChunkSize chunk() const { return chunk_; }
    constexpr std::uint64_t exceptions_per_area() const { return per_area_; }
    constexpr Chunk area(std::uint64_t index) const { return {1 + index * (per_area_ + 1)}; }
    constexpr bool is_metadata(Chunk c) const { return c.v == 0 || c.v % (per_area_ + 1) == 1 % (per_area_ + 1); }
    // Areas that lie within a device of so many chunks.
    constexpr std::uint64_t areas_within(std::uint64_t chunks) const {
        return chunks < 2 ? 0 : (chunks - 2) / (per_area_ + 1) + 1;
    }
    // Exceptions a device of so many chunks can list: one place stays free to end the list, since a reader that
    // finds the last area full goes on to one that isn't there (defect N21).
    constexpr std::uint64_t capacity(std::uint64_t chunks) const {
        const std::uint64_t areas = areas_within(chunks);
        return areas == 0 ? 0 : areas * per_area_ - 1;
    }
    // Metadata is read and written in pieces of this size (decision 19).
    constexpr std::uint64_t piece_bytes() const { return chunk_.bytes() < 4096 ? chunk_.bytes() : 4096; }
    constexpr std::uint64_t exceptions_per_piece() const { return piece_bytes() / sizeof(DiskException); }
    // The piece on disk that has exception `index` (counted over all areas).
    constexpr Extent piece(std::uint64_t index) const {
        const std::uint64_t in_area = index % per_area_ / exceptions_per_piece();
        const Sectors length = whole_sectors(piece_bytes());
        return {chunk_.start(area(index / per_area_)) + Sectors{in_area * length.v}, length};
    }

  private:
    ChunkSize chunk_;
    std::uint64_t per_area_;
};

}  // namespace udm::snapshot
