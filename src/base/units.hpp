// Affine types for what is counted: Point - Point = Count, Point + Count = Point, and no implicit way in
// or out, so that a sector is never taken for a chunk or for a byte.
#pragma once

#include <bit>
#include <compare>
#include <cstdint>

#include "base/assert.hpp"

namespace udm {

template <class U>
struct Count {
    std::uint64_t v{};
    constexpr auto operator<=>(const Count&) const = default;
    constexpr explicit operator bool() const { return v != 0; }
    friend constexpr Count operator+(Count a, Count b) { return {a.v + b.v}; }
    friend constexpr Count operator-(Count a, Count b) {
        ASSERT(a.v >= b.v);
        return {a.v - b.v};
    }
    constexpr Count& operator+=(Count b) { return *this = *this + b; }
    constexpr Count& operator-=(Count b) { return *this = *this - b; }
};

template <class U>
struct Point {
    std::uint64_t v{};
    constexpr auto operator<=>(const Point&) const = default;
    friend constexpr Point operator+(Point p, Count<U> n) { return {p.v + n.v}; }
    friend constexpr Point operator-(Point p, Count<U> n) {
        ASSERT(p.v >= n.v);
        return {p.v - n.v};
    }
    friend constexpr Count<U> operator-(Point a, Point b) {
        ASSERT(a.v >= b.v);
        return {a.v - b.v};
    }
    constexpr Point& operator+=(Count<U> n) { return *this = *this + n; }
};

using Sector = Point<struct SectorUnit>;   // 512 bytes, as in device mapper tables
using Sectors = Count<struct SectorUnit>;
using Chunk = Point<struct ChunkUnit>;     // of a snapshot: an origin chunk or a COW chunk, as named
using Chunks = Count<struct ChunkUnit>;

inline constexpr unsigned kSectorShift = 9;
inline constexpr std::uint32_t kSectorSize = 512;

constexpr std::uint64_t to_bytes(Sectors n) { return n.v << kSectorShift; }
constexpr std::uint64_t to_bytes(Sector s) { return s.v << kSectorShift; }
constexpr Sectors whole_sectors(std::uint64_t bytes) { return {bytes >> kSectorShift}; }

struct Extent {
    Sector first;
    Sectors length;
    constexpr Sector end() const { return first + length; }
    constexpr bool overlaps(const Extent& o) const { return first < o.end() && o.first < end(); }
    constexpr bool contains(const Extent& o) const { return first <= o.first && o.end() <= end(); }
    constexpr bool operator==(const Extent&) const = default;
};

// The only place where a sector becomes a chunk. Chunks count from device sector 0 (decision 14).
class ChunkSize {
  public:
    static constexpr ChunkSize of_sectors(std::uint32_t sectors) {
        ASSERT(std::has_single_bit(sectors));    // tables and headers are validated before
        return ChunkSize{static_cast<unsigned>(std::countr_zero(sectors))};
    }
    constexpr Sectors sectors() const { return {std::uint64_t{1} << shift_}; }
    constexpr std::uint64_t bytes() const { return to_bytes(sectors()); }
    constexpr Chunk of(Sector s) const { return {s.v >> shift_}; }
    constexpr Chunks covering(Sectors n) const { return {(n.v + sectors().v - 1) >> shift_}; }
    constexpr Chunks whole(Sectors n) const { return {n.v >> shift_}; }
    constexpr Sector start(Chunk c) const { return {c.v << shift_}; }
    constexpr Sectors offset(Sector s) const { return {s.v & (sectors().v - 1)}; }
    constexpr Extent extent(Chunk c, Chunks n = {1}) const { return {start(c), {n.v << shift_}}; }
    constexpr bool operator==(const ChunkSize&) const = default;

  private:
    explicit constexpr ChunkSize(unsigned shift) : shift_{shift} {}
    unsigned shift_;
};

// Nanoseconds of a monotonic clock whose zero means nothing.
using Nanoseconds = std::uint64_t;
inline constexpr Nanoseconds kMillisecond = 1'000'000;
inline constexpr Nanoseconds kSecond = 1'000'000'000;

}  // namespace udm
