#include "ctl/mirror_of.hpp"

#include <fmt/format.h>

#include "base/parse.hpp"
#include "ctl/failure.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {

std::vector<MirrorOf::Leg> legs_of(const TableLine& line) {
    const auto words = words_of(line);
    const auto log_words = words.size() > 1 ? parse_u32(words[1]) : std::nullopt;
    std::vector<MirrorOf::Leg> legs;
    if (!log_words || words.size() < std::size_t{3} + *log_words) return legs;
    const std::size_t at = std::size_t{2} + *log_words;
    const std::size_t count = parse_u32(words[at]).value_or(0);
    for (std::size_t i = at + 1; i + 1 < words.size() && legs.size() < count; i += 2) legs.push_back({words[i], words[i + 1]});
    return legs;
}

MirrorOf find_mirror(Devices& devices, const DeviceKey& key) {
    Registry& registry = devices.registry();
    const RecordPtr asked = registry.find(key);
    for (RecordPtr at = asked; at;) {
        std::string below;
        {
            const std::lock_guard lock{registry.mutex};
            if (!at->live) break;
            std::vector<TableLine> mirrors;
            for (const TableLine& line : at->live->lines) {
                if (line.type == "mirror") mirrors.push_back(line);
            }
            if (mirrors.size() == 1) return {at, mirrors[0], legs_of(mirrors[0])};
            if (mirrors.size() > 1) {
                throw Failure{Errc::bad_argument, fmt::format("{} has {} mirrors in its table: `udmsetup message {} SECTOR …` reaches each of them", at->name,
                                                              mirrors.size(), at->name), at->name};
            }
            if (at->live->lines.size() != 1) break;
            const TableLine& line = at->live->lines[0];
            const auto words = words_of(line);
            if ((line.type != "linear" && line.type != "snapshot-origin") || words.empty()) break;
            below = words[0];
        }
        at = find_mapped(registry, below);
    }
    const std::string name = devices.name_of(*asked);
    throw Failure{Errc::bad_argument, fmt::format("{} is no mirror", name), name};
}

}  // namespace udm::ctl
