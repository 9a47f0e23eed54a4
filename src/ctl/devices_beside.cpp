// What else there is on a disk that is to be written. Refuses a table that would write past somebody else's snapshots. Linux leaves that to the user, and so does udmsetup; `udm
// create` asks for it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <deque>
#include <set>

#include "ctl/devices.hpp"
#include "ctl/failure.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

constexpr std::size_t kNamed = 4;

// What relies on one disk that the new table would write.
struct Reliant {
    std::string origin, still, still_of, store;    // names
    std::vector<std::string> snapshots;
    std::size_t snapshot_count = 0;
};

std::string list_of(const std::vector<std::string>& names, std::size_t count) {
    std::string text = fmt::format("{}", fmt::join(names, ", "));
    if (count > names.size()) text += fmt::format(" and {} more", count - names.size());
    return text;
}

// Why not; empty: nothing is in the way.
std::string refusal(const std::string& word, const Reliant& found) {
    const std::string snapshots = list_of(found.snapshots, found.snapshot_count);
    if (!found.store.empty()) return fmt::format("{} is the store of {}: writing to it would destroy that", word, found.store);
    if (!found.origin.empty()) {
        return fmt::format("{0} is what the volume {1} stands on: what is written past {1} would break {2}. Use {1} instead", word, found.origin,
                           snapshots.empty() ? "its snapshots" : "its snapshots: " + snapshots);
    }
    if (!found.still.empty())
        return fmt::format("{} is what the still image {} stands on: writing to it would change that. Use {} instead", word, found.still, found.still_of);
    if (snapshots.empty()) return {};
    return fmt::format("{} is what these snapshots stand on: {}; writing to it would change them", word, snapshots);
}

}  // namespace

RecordPtr Devices::held_user_of(const std::string& words) const {
    const DiskId id = identity_of(words);
    for (const RecordPtr& record : registry_.held()) {
        const auto table = held_table(*record);
        if (!table) continue;
        for (const auto& [word, minor] : table->minors) {
            if (id == DiskId{DiskId::Kind::mapped, kMajor, minor}) return record;
        }
        for (const TableLine& line : table->lines) {
            for (const std::string& word : words_of(line)) {
                if (word == words || (id.kind != DiskId::Kind::none && may_be_device(word) && identity_of(word) == id)) return record;
            }
        }
    }
    return nullptr;
}

bool Devices::is_free(const std::string& path) const { return registry_.users_of(host_.identify(path)).empty() && !held_user_of(path); }

// Up from the disk, through whatever plain devices stand on it.
void Devices::check_beside(const std::vector<TableLine>& lines) const {
    for (const TableLine& line : lines) {
        if (!snapshot_base(line).empty()) continue;    // one of the family: it looks after the others
        for (const std::string& word : words_of(line)) {
            const DiskId id = may_be_device(word) ? identity_of(word) : DiskId{};
            if (id.kind == DiskId::Kind::none) continue;
            Reliant found;
            std::set<DiskId> seen{id};
            for (std::deque<DiskId> ways{id}; !ways.empty(); ways.pop_front()) {
                for (const RecordPtr& user : registry_.users_of(ways.front())) {
                    if (found.snapshot_count > 4 * kNamed) break;    // of a fleet: it is clear by now
                    std::vector<TableLine> theirs;
                    std::string name;
                    DeviceKey volume;
                    {
                        const std::lock_guard lock{registry_.mutex};
                        if (user->gone || !user->live) continue;
                        theirs = user->live->lines;
                        name = user->name;
                        if (user->still) found.still = name;
                        volume.minor = user->snapshot_of;
                    }
                    if (found.still == name && volume.minor) {
                        const RecordPtr whose = registry_.try_find(volume);
                        found.still_of = whose ? name_of(*whose) : "its volume";
                    }
                    bool plain = true;
                    for (const TableLine& other : theirs) {
                        if (snapshot_base(other).empty()) continue;
                        plain = false;
                        const std::string cow = snapshot_cow(other);
                        if (!cow.empty() && identity_of(cow) == ways.front()) {
                            found.store = name;
                        } else if (writes_base(other)) {
                            found.origin = name;
                        } else if (++found.snapshot_count <= kNamed) {
                            found.snapshots.push_back(name);
                        }
                    }
                    if (plain && seen.insert(user->id()).second) ways.push_back(user->id());
                }
            }
            if (std::string why = refusal(word, found); !why.empty()) throw Failure{Errc::busy, std::move(why)};
        }
    }
}

}  // namespace udm::ctl
