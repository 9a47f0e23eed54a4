// What the regions of a device's mirrors are like.
#include "ctl/call_on.hpp"
#include "ctl/devices.hpp"

namespace udm::ctl {
namespace {

struct LineRegions {
    Extent extent;
    std::string_view type;
    RegionMap map;
    std::vector<TargetDetail> details;
};

Json json_of(const RegionMap& map) {
    static constexpr std::pair<const char*, std::uint64_t RegionMap::Counts::*> kCounts[] = {{"clean", &RegionMap::Counts::clean},
                                                                                           {"dirty", &RegionMap::Counts::dirty},
                                                                                           {"recovering", &RegionMap::Counts::recovering},
                                                                                           {"nosync", &RegionMap::Counts::nosync}};
    Json json = {{"region_size", to_bytes(map.region_size)}, {"regions", map.regions}};
    for (const auto& [name, count] : kCounts) {
        Json cells = Json::array();
        std::uint64_t all = 0;
        for (const RegionMap::Counts& cell : map.cells) {
            cells.push_back(cell.*count);
            all += cell.*count;
        }
        json[name] = all;
        json["cells"][name] = std::move(cells);
    }
    json["legs"] = Json::array();
    for (const RegionMap::Leg& leg : map.legs) {
        json["legs"].push_back({{"device", leg.device},
                                {"offset", leg.start.v * kSectorSize},
                                {"health", std::string(1, leg.health)},
                                {"source", leg.source},
                                {"away", leg.away},
                                {"slow", leg.slow},
                                {"lacks", leg.lacks},
                                {"cells", leg.in_cells}});
    }
    json["log"] = {{"kind", map.log_kind}, {"device", map.log_device.empty() ? Json{} : Json(map.log_device)}, {"health", std::string(1, map.log_health)}};
    return json;
}

}  // namespace

Json Devices::regions(const Record& record, std::size_t cells) const {
    Json lines = Json::array();
    const Located at = locate(record);
    if (!at.device) return lines;
    std::vector<LineRegions> found;
    run_on(host_.env(at.home).reactor, [&] {
        Device* there = device_at(record, at.home);
        if (!there || !there->live()) return;
        for (const Table::Entry& entry : there->live()->entries()) {
            if (auto map = entry.target->region_map(cells)) found.push_back({entry.extent, entry.type->name(), std::move(*map), entry.target->details()});
        }
    });
    for (const LineRegions& line : found) {
        Json json = json_of(line.map);
        json["device"] = name_of(record);
        json["start"] = line.extent.first.v;
        json["length"] = line.extent.length.v;
        json["type"] = line.type;
        for (const TargetDetail& detail : line.details) json["details"][std::string{detail.name}] = detail.value;
        lines.push_back(std::move(json));
    }
    return lines;
}

}  // namespace udm::ctl
