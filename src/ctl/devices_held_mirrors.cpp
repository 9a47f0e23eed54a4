// A held device has no mirror that could say what its legs have (targets/mirror/succession.hpp): it was not loaded since the daemon's
// start. What the table on record names as legs is all that is known, and the log is of these.
#include <fmt/format.h>

#include <algorithm>

#include "base/parse.hpp"
#include "ctl/devices.hpp"
#include "ctl/failure.hpp"
#include "ctl/mirror_of.hpp"

namespace udm::ctl {
namespace {

// The device of a mirror's log and whether everything is copied whatever it says; no device: it is in memory.
struct LogWords {
    std::string device;
    bool copies_all = false;
};

LogWords log_of(const TableLine& line) {
    const auto words = words_of(line);
    const auto count = words.size() > 2 ? parse_u32(words[1]) : std::nullopt;
    if (!count || words[0] != "disk" || *count > words.size() - 2) return {};
    const auto last = words.begin() + 2 + *count;
    return {words[2], std::find(words.begin() + 3, std::max(last, words.begin() + 3), "sync") != last};
}

}  // namespace

// Throws where a leg that was not there would count, or be taken for in sync. The operation lock is held.
void Devices::check_held_mirrors(const Record& record, const std::vector<TableLine>& lines) const {
    const auto held = held_table(record);
    if (!held) return;
    const auto same = [this](const std::string& a, const std::string& b) {
        if (a == b) return true;
        const DiskId id = identity_of(a);
        return id.kind != DiskId::Kind::none && id == identity_of(b);
    };
    for (const TableLine& line : lines) {
        const auto was = std::ranges::find_if(held->lines, [&](const TableLine& other) { return other.begin == line.begin && other.type == "mirror"; });
        if (line.type != "mirror" || was == held->lines.end()) continue;
        const LogWords log = log_of(line);
        if (log.device.empty() || !same(log.device, log_of(*was).device)) continue;
        const auto legs = legs_of(line), before = legs_of(*was);
        const auto is_new = [&](const MirrorOf::Leg& leg) {
            return std::ranges::none_of(before, [&](const MirrorOf::Leg& other) { return leg.offset == other.offset && same(leg.words, other.words); });
        };
        const auto first_new = std::ranges::find_if(legs, is_new);
        if (first_new == legs.end() || std::ranges::all_of(legs, is_new)) continue;
        const std::string name = name_of(record);
        if (first_new == legs.begin()) {
            throw Failure{Errc::bad_argument, fmt::format("{} is new, and what a mirror's first leg has is taken for its data: list it behind those that were there",
                                                          first_new->words), name};
        }
        if (log.copies_all) continue;
        throw Failure{Errc::bad_argument, fmt::format("{} is new, and the log of the mirror, which is held, would call it in sync: give the log the word sync, and "
                                                      "it is copied to", first_new->words), name};
    }
}

}  // namespace udm::ctl
