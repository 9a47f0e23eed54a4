// Bringing the devices of the state up (decision 12).
//
// Each comes up from its own metadata, after what it stands on. One that cannot is held: it is there under
// its name, without its table, and says why; resuming it tries again. Two kinds never try again:
//   - what had its data in memory, or a store without anything on a disk: that is gone. Held, so that nobody
//   takes a
//     blank device for the old one;
//   - a snapshot that cannot come up when its origin does: from the first write to the origin on it would
//   show data of
//     no moment in time. Before the origin is let go, the state records that its store is lost, for good.
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <set>

#include "base/parse.hpp"
#include "ctl/devices.hpp"
#include "ctl/failure.hpp"
#include "ctl/fd.hpp"
#include "ctl/log.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

constexpr std::string_view kStandsOnHeld = ", which is held";

SlotText slot_of(const Json& value) {
    SlotText slot;
    slot.lines = lines_of_json(value.at("table"));
    slot.read_only = value.value("read_only", false);
    if (const auto minors = value.find("minors"); minors != value.end()) {
        slot.minors = minors->get<std::map<std::string, std::uint32_t>>();
    }
    return slot;
}

// Why what this table had is gone with the daemon that had it; empty if it isn't.
std::string lost_with_memory(const std::vector<TableLine>& lines) {
    for (const TableLine& line : lines) {
        const auto words = words_of(line);
        for (const std::string& word : words) {
            if (word.starts_with("ram:"))
                return fmt::format("its data was in memory ({}) and went with the daemon that had it", word);
        }
        const bool transient =
            line.type == "snapshot" && words.size() > 2 && (words[2][0] == 'N' || words[2][0] == 'n');
        if (transient) return "its store was a transient one (N) and went with the daemon that had it";
    }
    return {};
}

// A store that had its header when the snapshot was made and is blank now is not a new one.
std::string lost_store(const std::vector<TableLine>& lines) {
    for (const TableLine& line : lines) {
        const std::string cow = snapshot_cow(line);
        if (!cow.starts_with('/')) continue;
        const Fd fd{::open(cow.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
        if (!fd) continue;  // opening it for the table will say why
        char magic[4] = {};
        struct stat about {};
        const ssize_t n = ::pread(fd.get(), magic, sizeof magic, 0);
        const bool blank = std::all_of(std::begin(magic), std::end(magic), [](char c) { return c == 0; });
        if (::fstat(fd.get(), &about) == 0 && (n != sizeof magic || blank)) {
            return fmt::format("its store {} is empty where it had its header", cow);
        }
    }
    return {};
}

}  // namespace

void Devices::restore() {
    lost_.load();
    restore_daemon_settings();
    if (!state_.warning().empty()) log_error("", "{}", state_.warning());
    std::vector<RecordPtr> records;
    for (const auto& [key, value] : state_.all("device/")) {
        const auto minor = parse_u32(std::string_view{key}.substr(7));
        try {
            const RecordPtr record =
                registry_.create(value.at("name"), value.value("uuid", std::string{}), minor);
            const std::lock_guard lock{registry_.mutex};
            record->settings = value.value("settings", Json::object());
            registry_.note_snapshot_locked(*record, value.value("snapshot", Json{}));
            record->merging = value.value("merging", Json{});
            record->moving = value.value("moving", Json{});
            record->scrub = value.value("scrub", std::string{});
            record->mirroring = value.value("mirroring", Json{});
            record->internal = value.value("internal", false);
            record->still = value.value("still", false);
            record->deferred_remove = value.value("deferred", false);
            record->stale_because = value.value("stale", std::string{});
            if (value.contains("table")) {
                record->kept = slot_of(value);
                record->held_because = "not brought up yet";
                registry_.note_held_locked(*record);
                record->suspended = true;
                records.push_back(record);
            }
        } catch (const std::exception& error) {
            const std::string warning = fmt::format("{} of the state cannot be used: {}", key, error.what());
            log_error("", "{}", warning);
            const std::lock_guard lock{warnings_mutex_};
            warnings_.push_back(warning);
        }
    }
    set_remote_aside(records);
    Patience patience{kRestorePatience};
    bring_up(records, &patience);
    for (const RecordPtr& record : records) load_error_table(record);  // of those that turned out to be lost
}

bool Devices::knows_whole_state() const {
    {
        const std::lock_guard lock{warnings_mutex_};
        if (!state_.warning().empty() || !warnings_.empty()) return false;
    }
    std::error_code error;
    for (std::filesystem::directory_iterator file{state_.directory(), error}, end; !error && file != end; file.increment(error)) {
        if (file->path().filename().string().starts_with("state.log.damaged-")) return false;
    }
    return !error;
}

void Devices::remove_unused() {
    for (const RecordPtr& record : registry_.all()) remove_later(record);
}

// Below first: devices of ours that the words name, and snapshots before the origin they depend on.
std::vector<RecordPtr> Devices::in_order(const std::vector<RecordPtr>& records) const {
    std::map<std::string, std::vector<RecordPtr>> snapshots;  // by the words of their origin
    for (const RecordPtr& record : records) {
        const std::lock_guard lock{registry_.mutex};
        if (!record->kept) continue;
        for (const TableLine& line : record->kept->lines) {
            if (!snapshot_cow(line).empty()) snapshots[snapshot_base(line)].push_back(record);
        }
    }
    const std::set<RecordPtr> wanted{records.begin(), records.end()};
    std::set<RecordPtr> seen;
    std::vector<RecordPtr> order;
    const std::function<void(const RecordPtr&)> visit = [&](const RecordPtr& record) {
        if (!wanted.contains(record) || !seen.insert(record).second) return;
        SlotText slot;
        {
            const std::lock_guard lock{registry_.mutex};
            if (record->kept) slot = *record->kept;
        }
        for (const TableLine& line : slot.lines) {
            for (const std::string& word : words_of(line)) {
                DeviceKey key;
                const auto known = slot.minors.find(word);
                if (known != slot.minors.end()) key.minor = known->second;
                if (const RecordPtr lower =
                        key.minor ? registry_.try_find(key) : find_mapped(registry_, word))
                    visit(lower);
            }
            if (writes_base(line)) {
                for (const RecordPtr& snapshot : snapshots[snapshot_base(line)]) visit(snapshot);
            }
        }
        order.push_back(record);
    };
    for (const RecordPtr& record : records) visit(record);
    return order;
}

// Snapshots come up before their origin: they must not be spread over the reactors then.
void Devices::expect_origins(const std::vector<RecordPtr>& held) {
    std::set<std::string> bases;
    for (const RecordPtr& record : held) {
        const std::lock_guard lock{registry_.mutex};
        if (!record->kept) continue;
        for (const TableLine& line : record->kept->lines) {
            if (line.type == "snapshot-origin" || line.type == "snapshot-merge") bases.insert(snapshot_base(line));
        }
    }
    for (const std::string& base : bases) {
        const DiskId id = identity_of(base);
        const std::lock_guard lock{registry_.mutex};
        expected_origins_.insert(id);
    }
}

void Devices::bring_up(const std::vector<RecordPtr>& held, Patience* patience) {
    expect_origins(held);
    for (const RecordPtr& record : in_order(held)) {
        const std::lock_guard operation{record->operation};
        {
            const std::lock_guard lock{registry_.mutex};
            if (record->gone || !record->kept) continue;
        }
        for (bool again = true; again;) {
            again = false;
            try {
                bring_up_one(record);
                log_info(name_of(*record), "is back");
            } catch (const Failure& failure) {
                again = patience && is_in_use(failure.error()) && patience->wait();
                if (!again) hold(*record, failure.what());
            } catch (const std::exception& failure) {
                hold(*record, failure.what());
            }
        }
    }
}

// Its operation lock is held. Throws the reason why it cannot come up.
void Devices::bring_up_one(const RecordPtr& record, const Away& away) {
    SlotText slot;
    std::string name, stale;
    {
        const std::lock_guard lock{registry_.mutex};
        slot = *record->kept;
        name = record->name;
        stale = record->stale_because;
    }
    for (const auto& [word, minor] : slot.minors) {
        DeviceKey key;
        key.minor = minor;
        const RecordPtr lower = registry_.try_find(key);
        if (!lower)
            throw Failure{Errc::no_device, fmt::format("{}, which it stands on, is not there", word), name};
        const std::lock_guard lock{registry_.mutex};
        if (lower->kept)
            throw Failure{Errc::no_device, fmt::format("it stands on {}{}", lower->name, kStandsOnHeld), name};
    }
    if (stale.empty()) {
        if (const std::string why = lost_with_memory(slot.lines); !why.empty())
            throw Failure{Errc::no_device, why, name};
        if (const std::string why = lost_store(slot.lines); !why.empty())
            throw Failure{Errc::no_device, why, name};
    }
    load_step(record, slot.lines, slot.read_only, slot.minors, {}, away);
    try {
        resume_step(record);
    } catch (const Failure&) {
        // The new table is live and suspended; nobody is to take it for a device that works.
        const std::lock_guard lock{registry_.mutex};
        record->kept = slot;
        registry_.note_held_locked(*record);
        throw;
    }
    if (!stale.empty()) {
        const std::lock_guard lock{registry_.mutex};
        record->held_because = stale;
        registry_.note_held_locked(*record);
    }
}

// What to do about it. The registry's mutex is held.
std::string Devices::advice_for_held_locked(const Record& record) const {
    if (record.held_because.ends_with(kStandsOnHeld)) return "it comes up with that one";
    const bool snapshot = record.snapshot.is_object() || (record.kept && std::any_of(record.kept->lines.begin(), record.kept->lines.end(),
                                                                                     [](const TableLine& line) { return !snapshot_cow(line).empty(); }));
    const std::string away = snapshot && !record.internal ? "`udm snapshot drop " + record.name + "`" : "`udm remove " + record.name + "`";
    if (!record.stale_because.empty() || (record.kept && !lost_with_memory(record.kept->lines).empty()))
        return fmt::format("nothing brings that back: {} takes away what is left of it", away);
    return fmt::format("mend that, then `udmsetup resume {}` tries again", record.name) +
           (record.internal ? "" : fmt::format("; {} if nobody needs it", away));
}

void Devices::hold(Record& record, const std::string& why, bool tell) {
    if (tell) log_error(name_of(record), "held: {}", why);
    const std::lock_guard lock{registry_.mutex};
    record.suspended = true;
    record.held_because = why;
    registry_.note_held_locked(record);
}

// Called before a table with these lines is let go: snapshots of the same origin that are held are lost from
// here on.
void Devices::mark_snapshots_stale(const Record& origin, const std::vector<TableLine>& lines) {
    for (const TableLine& line : lines) {
        if (!writes_base(line)) continue;
        const std::string base = snapshot_base(line);
        std::optional<DiskId> base_id;
        for (const RecordPtr& record : registry_.held()) {
            SlotText slot;
            std::string why;
            {
                const std::lock_guard lock{registry_.mutex};
                if (record.get() == &origin || !record->kept || !record->stale_because.empty()) continue;
                slot = *record->kept;
                why = record->held_because;
            }
            for (const TableLine& theirs : slot.lines) {
                if (theirs.type != "snapshot") continue;
                if (!base_id) base_id = identity_of(base);
                if (snapshot_base(theirs) != base && identity_of(snapshot_base(theirs)) != *base_id) continue;
                if (!others_with_store(*record, snapshot_cow(theirs)).empty()) continue;    // it misses nothing there
                make_stale(
                    record,
                    fmt::format("the snapshot is lost: it could not come up when its origin did ({})", why));
                break;
            }
        }
    }
}

// Durable when it returns: its table is an error table from now on, and its store is not trusted again.
void Devices::make_stale(const RecordPtr& snapshot, const std::string& why) {
    std::vector<State::Change> changes;
    SlotText former;
    {
        const std::lock_guard lock{registry_.mutex};
        former = *snapshot->kept;
        Sectors size;
        for (const TableLine& line : former.lines) size += line.length;
        snapshot->kept = SlotText{{{Sector{0}, size, "error", ""}}, former.read_only, {}};
        snapshot->stale_because = why;
        snapshot->held_because = why;
    }
    changes.push_back(change_of(*snapshot));
    std::vector<State::Change> lost;
    for (const TableLine& line : former.lines) {
        const std::string cow = snapshot_cow(line);
        if (!cow.empty() && !cow.starts_with("ram:"))
            lost.push_back(lost_.change_for(cow, host_.identify(cow)));
    }
    changes.insert(changes.end(), lost.begin(), lost.end());
    for (const State::Change& change : lost) lost_.note_lost(change);  // in memory even if it cannot be kept
    commit(changes);
    log_error(name_of(*snapshot), "{}", why);
    publish(*snapshot, "target", why);
    worker_.post([this, snapshot] { load_error_table(snapshot); });  // not with another device's lock held
}

void Devices::load_error_table(const RecordPtr& record) {
    const std::lock_guard operation{record->operation};
    {
        const std::lock_guard lock{registry_.mutex};
        if (record->gone || !record->kept || record->stale_because.empty()) return;
    }
    try {
        bring_up_one(record);
    } catch (const Failure& failure) {
        hold(*record, failure.what());
    }
}

}  // namespace udm::ctl
