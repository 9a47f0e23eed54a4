// A persistent snapshot store as somebody else has left it, made from docs/formats/snapshot.md and not by the target: so
// histories can start where stores get interesting, near the end of an area.
#pragma once

#include <cstdint>

#include "sim/sim_disk.hpp"

namespace udm {

struct PremadeStore {
    std::uint64_t chunk = 8;             // sectors
    std::uint64_t exceptions = 0;        // the origin's first chunks, one after the other
    std::uint64_t origin_sectors = 0;
    std::uint64_t content = 0;           // the write (ShadowDisk::fill) whose data the origin has
};

// After the list's end the current and the next area hold what torn commits may leave there: entries nobody may believe.
void write_premade_store(SimDisk& cow, const PremadeStore& store);

}  // namespace udm
