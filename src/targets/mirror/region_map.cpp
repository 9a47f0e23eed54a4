// The mirror's regions as a picture. All is counted by words of the bitmaps: a reactor is kept for less than a millisecond by
// four million regions.
#include "targets/mirror/mirror.hpp"

namespace udm::mirror {

std::optional<RegionMap> Mirror::region_map(std::size_t cells) const {
    RegionMap map;
    map.region_size = set_.size().sectors();
    map.regions = set_.log->region_count().v;
    map.cells.resize(std::clamp<std::size_t>(cells, 1, std::min<std::uint64_t>(map.regions, RegionMap::kCellsMax)));

    const std::string letters = set_.legs.health();
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        const Leg& l = set_.legs[leg];
        map.legs.push_back({.device = l.device->words(), .start = l.start, .health = letters[leg], .source = leg == set_.legs.source(), .away = l.away,
                            .slow = l.slow, .lacks = 0, .in_cells = std::vector<std::uint64_t>(map.cells.size())});
    }
    for (std::size_t cell = 0; cell < map.cells.size(); ++cell) {
        const Region first{map.start_of(cell)};
        const RegionRun run{first, Region{map.start_of(cell + 1)} - first};
        const dirty_log::Known known = set_.log->count(run);
        map.cells[cell] = {.clean = known.clean.v, .dirty = (known.in_sync - known.clean).v, .recovering = 0, .nosync = (run.count - known.in_sync).v};
        for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
            const Regions lacks = set_.map.lacked_by(leg, run, run.count - known.in_sync);
            map.legs[leg].in_cells[cell] = lacks.v;
            map.legs[leg].lacks += lacks.v;
        }
    }
    set_.regions.for_each([&map](const RegionEntry& entry) {
        if (entry.state != RegionState::recovering) return;
        RegionMap::Counts& cell = map.cells[map.cell_of(entry.region.v)];
        ++cell.recovering;
        --cell.nosync;
    });

    static constexpr char kHealth[] = {'A', 'F', 'D'};
    map.log_health = kHealth[static_cast<std::size_t>(set_.log->health())];
    const OpenDevice* device = set_.log->device();
    map.log_kind = device ? "disk" : "core";
    if (device) map.log_device = device->words();
    return map;
}

}  // namespace udm::mirror
