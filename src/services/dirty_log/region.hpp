// A mirror's regions: pieces of a power of two of sectors, counted from the target's start (decision 14; M4). The last one may
// be shorter.
#pragma once

#include <bit>

#include "base/units.hpp"

namespace udm {

using Region = Point<struct RegionUnit>;
using Regions = Count<struct RegionUnit>;

// Adjacent regions. None when count is 0.
struct RegionRun {
    Region first{};
    Regions count{};
    constexpr Region end() const { return first + count; }
    constexpr explicit operator bool() const { return count.v != 0; }
    constexpr bool operator==(const RegionRun&) const = default;
};

// So many fit into a log (formats of Linux count them in 32 bits).
inline constexpr std::uint64_t kRegionsMax = 0xFFFF'FFFF;

// The only place where a sector becomes a region. Sectors count from the target's start.
class RegionSize {
  public:
    static constexpr RegionSize of_sectors(std::uint32_t sectors) {
        ASSERT(std::has_single_bit(sectors));    // tables and servers' answers are validated before (M37)
        return RegionSize{static_cast<unsigned>(std::countr_zero(sectors))};
    }
    constexpr Sectors sectors() const { return {std::uint64_t{1} << shift_}; }
    constexpr Region of(Sector s) const { return {s.v >> shift_}; }
    constexpr Regions covering(Sectors n) const { return {(n.v + sectors().v - 1) >> shift_}; }
    constexpr Sector start(Region r) const { return {r.v << shift_}; }
    // Whole regions: may end after the target's end.
    constexpr Extent extent(RegionRun run) const { return {start(run.first), {run.count.v << shift_}}; }
    constexpr bool operator==(const RegionSize&) const = default;

  private:
    explicit constexpr RegionSize(unsigned shift) : shift_{shift} {}
    unsigned shift_;
};

}  // namespace udm
