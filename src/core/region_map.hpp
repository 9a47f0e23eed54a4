// What the regions of a target are like that keeps copies of its data: for pictures and for people. Regions lie in cells, each
// of which stands for several adjacent ones.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/units.hpp"

namespace udm {

struct RegionMap {
    struct Counts {
        std::uint64_t clean = 0;         // the same on all legs, and known to be after a crash, too
        std::uint64_t dirty = 0;         // in sync, and written of late: a crash now would cost a copy
        std::uint64_t recovering = 0;    // out of sync, and being copied
        std::uint64_t nosync = 0;        // out of sync, not being copied
    };
    struct Leg {
        std::string device;    // as in the table
        Sector start;
        char health = 'A';     // as in the status line
        bool source = false;   // it counts where regions are out of sync
        bool away = false;     // nothing is sent there
        bool slow = false;
        std::uint64_t lacks = 0;               // regions that it does not have
        std::vector<std::uint64_t> in_cells;   // of those, in each cell
    };

    Sectors region_size{};
    std::uint64_t regions = 0;
    std::vector<Counts> cells;
    std::vector<Leg> legs;
    std::string log_kind, log_device;    // "disk"; as in the table
    char log_health = 'A';

    // A cell's first region; of the cell behind the last one: `regions`.
    std::uint64_t start_of(std::size_t cell) const noexcept { return regions * cell / cells.size(); }
    std::size_t cell_of(std::uint64_t region) const noexcept {
        std::size_t cell = static_cast<std::size_t>(region * cells.size() / regions);
        while (cell + 1 < cells.size() && start_of(cell + 1) <= region) ++cell;
        return cell;
    }
    static constexpr std::size_t kCellsMax = 4096;
};

}  // namespace udm
