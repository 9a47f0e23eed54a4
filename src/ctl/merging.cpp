#include "ctl/merging.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "base/parse.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

// The operation locks of two devices, in the order of their serials.
std::vector<std::unique_lock<std::mutex>> lock_both(const RecordPtr& a, const RecordPtr& b) {
    std::vector<std::unique_lock<std::mutex>> locks;
    const bool in_order = !b || a->serial < b->serial;
    for (const RecordPtr* each : {in_order ? &a : &b, in_order ? &b : &a}) {
        if (*each) locks.emplace_back((*each)->operation);
    }
    return locks;
}

RecordPtr find_minor(const Registry& registry, const Json& minor) {
    DeviceKey key;
    key.minor = minor.get<std::uint32_t>();
    return registry.try_find(key);
}

// The layer of a redirected volume that stands on no still image. The registry's mutex is held.
bool is_bare_layer(const Record& record) {
    const Json& noted = record.snapshot;
    if (record.gone || !record.merging.is_null() || !noted.is_object() || !noted.contains("layer_of") || !record.live) return false;
    return std::none_of(record.live->lines.begin(), record.live->lines.end(),
                        [](const TableLine& line) { return !snapshot_cow(line).empty(); });
}

}  // namespace

// One table for another: `merging` gets snapshot-merge, and `leaving`, if it goes now, gives its store away.
struct Merging::Switch {
    RecordPtr merging;
    RecordPtr leaving;
    RecordPtr still;       // what it is merged into, if that goes at the end; noted as such already
    SlotText still_before;
    std::string name;      // of the snapshot
    TableLine line;
    SlotText before;       // of `merging`
    std::map<std::string, std::uint32_t> minors;
    Json noted;
};

Merging::~Merging() {
    if (!watched_.empty()) devices_.hub().remove(*this);
}

// --- beginning ------------------------------------------------------------------------------------------------------

Json Merging::merge(const RecordPtr& snapshot) {
    Registry& registry = devices_.registry();
    RecordPtr volume;
    std::string base;
    Json of_snapshot;
    {
        const std::lock_guard lock{registry.mutex};
        of_snapshot = snapshot->snapshot;
        if (snapshot->live && snapshot->live->lines.size() == 1) base = snapshot_base(snapshot->live->lines[0]);
    }
    if (of_snapshot.is_object() && of_snapshot.contains("origin")) volume = find_minor(registry, of_snapshot["origin"]);
    for (const RecordPtr& other : volume ? std::vector<RecordPtr>{} : registry.all()) {    // one that was made by hand
        const std::lock_guard lock{registry.mutex};
        if (!other->live || other->live->lines.size() != 1 || other->live->lines[0].type != "snapshot-origin") continue;
        if (snapshot_base(other->live->lines[0]) == base) volume = other;
    }
    const std::string name = devices_.name_of(*snapshot);
    if (of_snapshot.is_object() && of_snapshot.value("redirect", false)) {
        throw Failure{Errc::bad_argument,
                      fmt::format("{0} is the still image of a redirected volume: {1} keeps what was written since, elsewhere. `udm snapshot drop {0}` "
                                  "merges that into it",
                                  name, volume ? devices_.name_of(*volume) : "the volume"),
                      name};
    }
    if (!volume || volume == snapshot) {
        throw Failure{Errc::bad_argument, (base.empty() ? name + " is no snapshot" : "no volume stands on the origin of " + name) + ": there is nothing to merge it into", name};
    }
    const auto locks = lock_both(snapshot, volume);
    devices_.check_there(*snapshot);
    devices_.check_there(*volume);
    if (is_lost(*snapshot)) {
        throw Failure{Errc::bad_argument, fmt::format("{} is invalid: what it had is lost for good, and there is nothing to merge. {} stays as it is; "
                                                      "`udm snapshot drop {}` deletes what is left of the snapshot", name, devices_.name_of(*volume), name),
                      name};
    }
    Switch change{.merging = volume, .leaving = snapshot, .still = nullptr, .still_before = {}, .name = name, .line = {}, .before = {}, .minors = {}, .noted = {}};
    {
        const std::lock_guard lock{registry.mutex};
        const auto refuse = [&](std::string why) { return Failure{Errc::bad_argument, std::move(why), name}; };
        if (!snapshot->live || snapshot->live->lines.size() != 1 || snapshot->live->lines[0].type != "snapshot") {
            throw refuse(fmt::format("{} is no snapshot with a store of its own", name));
        }
        if (!volume->live || volume->live->lines.size() != 1 || volume->live->lines[0].type != "snapshot-origin") {
            throw refuse(fmt::format("{} is no snapshot-origin now: has it a merge under way? Then wait for its end", volume->name));
        }
        if (volume->inactive || volume->suspended) {
            throw refuse(fmt::format("{} is suspended or has a table that waits to be resumed; resume or clear it first", volume->name));
        }
        if (snapshot->exports != 0 || snapshot->table_opens != 0) {
            throw Failure{Errc::busy, fmt::format("{} is in use; end its exports first: udm unexport {}", name, name), name};
        }
        change.before = *volume->live;
        change.line = snapshot->live->lines[0];
        change.line.type = "snapshot-merge";
        change.minors = snapshot->live->minors;
        change.minors.insert(volume->live->minors.begin(), volume->live->minors.end());
        change.noted = {{"snapshot", name},
                        {"volume", volume->minor},
                        {"cow", of_snapshot.is_object() ? of_snapshot.value("cow", "") : snapshot_cow(change.line)},
                        {"made", of_snapshot.is_object() && of_snapshot.value("made", false)},
                        {"taken", of_snapshot.is_object() ? of_snapshot.value("taken", Json{}) : Json{}},
                        {"then", json_of_lines(change.before.lines)},
                        {"minors", change.before.minors}};
    }
    registry.begin_removal(*snapshot);
    return begin(change);
}

Json Merging::merge_down(const RecordPtr& still) {
    Registry& registry = devices_.registry();
    const std::string name = devices_.name_of(*still);
    RecordPtr layer;
    {
        Json noted;
        {
            const std::lock_guard lock{registry.mutex};
            noted = still->snapshot;
        }
        if (noted.is_object() && noted.contains("layer")) layer = find_minor(registry, noted["layer"]);
    }
    if (!layer) throw Failure{Errc::bad_argument, fmt::format("{} is no still image of a redirected volume", name), name};
    const auto locks = lock_both(still, layer);
    devices_.check_there(*still);
    devices_.check_there(*layer);
    const std::string layer_name = devices_.name_of(*layer);
    if (is_lost(*layer)) {
        throw Failure{Errc::bad_argument, fmt::format("what was written since {} is invalid and lost for good; {} is all that is left: keep it", name, name), name};
    }
    Switch change{.merging = layer, .leaving = nullptr, .still = still, .still_before = {}, .name = name, .line = {}, .before = {}, .minors = {}, .noted = {}};
    {    // Nobody comes between the look and the note: from the note on tables and exports are refused it.
        const std::lock_guard lock{registry.mutex};
        const auto busy = [&](std::string why) { return Failure{Errc::busy, std::move(why), name}; };
        for (const auto& [serial, user] : still->used_by) {
            if (user != layer.get()) throw busy(fmt::format("{} stands on {}, too: remove it first", user->name, name));
        }
        if (still->exports != 0) throw busy(fmt::format("{} is in use; end its exports first: udm unexport {}", name, name));
        if (!layer->live || layer->live->lines.size() != 1 || layer->live->lines[0].type != "snapshot") {
            throw busy(fmt::format("what stands on {} is being merged already", name));
        }
        if (!still->live || !still->merging.is_null()) throw busy(fmt::format("{} is being merged into what it stands on; drop it when that is done", name));
        for (const Record* each : {layer.get(), still.get()}) {
            if (each->inactive || each->suspended)
                throw busy(fmt::format("{} is suspended or has a table that waits to be resumed; resume or clear it first", each->name));
        }
        change.still_before = *still->live;
        change.before = *layer->live;
        change.line = change.before.lines[0];
        change.line.type = "snapshot-merge";
        change.minors = change.before.minors;
        change.noted = {{"snapshot", name},
                        {"volume", still->snapshot.value("origin", 0u)},
                        {"cow", layer->snapshot.is_object() ? layer->snapshot.value("cow", "") : ""},
                        {"made", layer->snapshot.is_object() && layer->snapshot.value("made", false)},
                        {"taken", still->snapshot.value("taken", Json{})},
                        {"still", still->minor},
                        {"then", json_of_lines(change.still_before.lines)},
                        {"minors", change.still_before.minors}};
        still->merging = {{"layer", layer->minor}};
    }
    return begin(change);
}

// Of a way back: what fails of it is said, and the rest is done all the same.
void Merging::attempt(const char* what, const RecordPtr& record, const std::function<void()>& step) const {
    try {
        step();
    } catch (const std::exception& error) {
        log_error(devices_.name_of(*record), "{}: {}", what, error.what());
    }
}

// A still image is written while something is merged into it, and else by nobody.
void Merging::set_read_only(const RecordPtr& record, const SlotText& table, bool read_only) {
    devices_.load_step(record, table.lines, read_only, table.minors);
    try {
        devices_.resume_step(record);
    } catch (...) {
        devices_.clear_step(*record);
        throw;
    }
}

// The state first: what a crash leaves of a merge is half a merge, which only going on with it mends.
Json Merging::begin(Switch& change) {
    const RecordPtr& merging = change.merging;
    Registry& registry = devices_.registry();
    const auto note = [&](Json what) {
        const std::lock_guard lock{registry.mutex};
        if (change.still) change.still->merging = what.is_null() ? Json{} : Json{{"layer", merging->minor}};
        merging->merging = std::move(what);
    };
    const bool opened_up = change.still && change.still_before.read_only;
    bool committed = false, suspended = false;
    try {
        if (opened_up) set_read_only(change.still, change.still_before, false);
        note(change.noted);
        devices_.load_step(merging, {change.line}, change.before.read_only, change.minors);
        std::vector<State::Change> changes{devices_.change_of(*merging, true)};
        if (change.leaving) {
            for (State::Change& each : devices_.changes_at_removal(*change.leaving)) changes.push_back(std::move(each));
        }
        if (change.still) changes.push_back(devices_.change_of(*change.still));
        devices_.commit(changes);
        committed = true;
        if (change.leaving) {
            devices_.suspend_step(*change.leaving, {});
            suspended = true;
        }
        devices_.resume_step(merging);
    } catch (const std::exception& error) {
        log_error(devices_.name_of(*merging), "merging {}: {}", change.name, error.what());
        bool swapped = false;
        {
            const std::lock_guard lock{registry.mutex};
            swapped = merging->live && merging->live->lines.size() == 1 && merging->live->lines[0].type == "snapshot-merge";
        }
        attempt("taking it back", merging, [&] {
            if (swapped) devices_.load_step(merging, change.before.lines, change.before.read_only, change.before.minors);
            else devices_.clear_step(*merging);
        });
        attempt("taking it back", merging, [&] { devices_.resume_step(merging); });
        if (opened_up) attempt("taking it back", merging, [&] { set_read_only(change.still, change.still_before, true); });
        note(nullptr);
        if (change.leaving) {
            registry.undo_removal(*change.leaving);
            if (suspended) attempt("taking it back", merging, [&] { devices_.resume_step(change.leaving); });
        }
        if (committed) {
            std::vector<State::Change> changes{devices_.change_of(*merging)};
            if (change.leaving) changes.push_back(devices_.change_of(*change.leaving));
            if (change.still) changes.push_back(devices_.change_of(*change.still));
            attempt("taking it back", merging, [&] { devices_.commit(changes); });
        }
        throw;
    }
    if (change.leaving) devices_.finish_removal(*change.leaving);
    devices_.publish(*merging, "table", "merging " + change.name);
    log_info(devices_.name_of(*merging), "merging {}", change.name);
    const RecordPtr volume = find_minor(registry, change.noted["volume"]);
    const std::string cow = change.noted["cow"];
    watch(merging);
    devices_.worker().post([this, merging] { look(merging); });    // it may have been quick
    return {{"snapshot", change.name}, {"into", volume ? Json(devices_.name_of(*volume)) : Json(nullptr)}, {"cow", cow}, {"device", devices_.name_of(*merging)}};
}

// --- ending ---------------------------------------------------------------------------------------------------------

void Merging::find_unfinished() {
    for (const RecordPtr& record : devices_.registry().all()) {
        {
            const std::lock_guard lock{devices_.registry().mutex};
            if (!record->merging.contains("then")) {
                if (is_bare_layer(*record)) devices_.worker().post([this, record] { unstack(record); });
                continue;
            }
        }
        watch(record);
        devices_.worker().post([this, record] { look(record); });
    }
}

std::vector<RecordPtr> Merging::under_way() const {
    const std::lock_guard lock{mutex_};
    std::vector<RecordPtr> records;
    for (const auto& [serial, record] : watched_) records.push_back(record);
    return records;
}

void Merging::watch(const RecordPtr& record) {
    const std::lock_guard subscribing{subscribing_};
    bool first = false;
    {
        const std::lock_guard lock{mutex_};
        first = watched_.empty();
        watched_.emplace(record->serial, record);
    }
    if (first) devices_.hub().add(*this);
}

void Merging::forget(const RecordPtr& record) {
    const std::lock_guard subscribing{subscribing_};
    bool last = false;
    {
        const std::lock_guard lock{mutex_};
        last = watched_.erase(record->serial) != 0 && watched_.empty();
    }
    if (last) devices_.hub().remove(*this);
}

void Merging::event(const Event& event, const std::string&) noexcept {
    RecordPtr record;
    {
        const std::lock_guard lock{mutex_};
        const auto found = watched_.find(event.serial);
        if (found == watched_.end()) return;
        record = found->second;
    }
    devices_.worker().post([this, record] { look(record); });
}

bool Merging::is_lost(const Record& snapshot) const {
    DeviceKey key;
    key.minor = snapshot.minor;
    const Json lines = devices_.status(key, false);
    return lines.size() == 1 && lines[0]["type"] == "snapshot" && lines[0]["text"] == "Invalid";
}

bool Merging::is_merged(const Record& record) const {
    DeviceKey key;
    key.minor = record.minor;
    const Json lines = devices_.status(key, false);
    return lines.size() == 1 && lines[0]["type"] == "snapshot-merge" && has_metadata_only(lines[0]["text"].get<std::string>());
}

// On the worker's thread. Whatever has happened: is it time to end?
void Merging::look(const RecordPtr& record) {
    Json noted;
    RecordPtr still;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        noted = record->merging;
    }
    if (noted.is_object() && noted.contains("still")) still = find_minor(devices_.registry(), noted["still"]);
    const auto locks = lock_both(record, still);
    {
        const std::lock_guard lock{devices_.registry().mutex};
        if (record->gone || record->merging.is_null()) {
            noted = nullptr;
        } else if (record->merging != noted) {    // another merge began while this waited for the locks
            devices_.worker().post([this, record] { look(record); });
            return;
        } else if (record->live && record->live->lines.size() == 1 && record->live->lines[0].type != "snapshot-merge") {
            record->merging = nullptr;    // somebody loaded another table: it is theirs now
            noted = nullptr;
        } else if (record->inactive || record->suspended) {
            return;    // somebody is at work on it; its resume is an event, too
        }
    }
    if (noted.is_null()) {
        forget(record);
        return devices_.remove_later(record);
    }
    try {
        if (is_merged(*record)) finish(record, noted);
    } catch (const std::exception& error) {
        log_error(devices_.name_of(*record), "{} is merged, but its table cannot be put back: {}; it can be used as it is, and a restart or "
                  "`udmsetup suspend` and `resume` tries again", noted.value("snapshot", ""), error.what());
    }
}

// The state first: all is merged, so that both tables show the same, whichever a crash leaves; and what the state cannot take
// is not begun.
void Merging::finish(const RecordPtr& record, const Json& noted) {
    Registry& registry = devices_.registry();
    const RecordPtr still = noted.contains("still") ? find_minor(registry, noted["still"]) : nullptr;
    const auto lines = lines_of_json(noted["then"]);
    const auto minors = noted["minors"].is_null() ? std::map<std::string, std::uint32_t>{}
                                                  : noted["minors"].get<std::map<std::string, std::uint32_t>>();
    // What the image that goes stands on may be a still image, too; by its number, since it may have another name now.
    const auto known = still ? minors.find(snapshot_base(lines[0])) : minors.end();
    const RecordPtr below = known != minors.end() ? find_minor(registry, known->second) : nullptr;
    bool read_only = false;
    {
        const std::lock_guard lock{registry.mutex};
        read_only = record->live && record->live->read_only;
    }
    devices_.load_step(record, lines, read_only, minors);
    Json of_record, of_below;
    {
        const std::lock_guard lock{registry.mutex};
        of_record = record->snapshot;
        record->merging = nullptr;
        if (still && record->snapshot.is_object()) {    // it has the store of the image that goes
            record->snapshot["cow"] = still->snapshot.value("cow", "");
            record->snapshot["made"] = still->snapshot.value("made", false);
        }
        if (below) of_below = below->snapshot;
        if (below && below->snapshot.is_object() && below->snapshot.contains("layer")) below->snapshot["layer"] = record->minor;
    }
    bool committed = false;
    try {
        std::vector<State::Change> changes{devices_.change_of(*record, true)};
        if (below) changes.push_back(devices_.change_of(*below));
        if (still) {
            for (State::Change& each : devices_.changes_at_removal(*still)) changes.push_back(std::move(each));
        }
        devices_.commit(changes);
        committed = true;
        devices_.suspend_step(*record, {});
        if (still) devices_.suspend_step(*still, {});    // its store moves to the layer
        devices_.resume_step(record);
    } catch (...) {    // back to the merge, which has nothing left to do: the volume must not hang
        bool swapped = false;
        {
            const std::lock_guard lock{registry.mutex};
            swapped = !record->inactive;
            if (!swapped) {
                record->merging = noted;
                record->snapshot = of_record;
                if (below) below->snapshot = of_below;
            }
        }
        if (still) attempt("resuming", still, [&] { devices_.resume_step(still); });
        attempt("resuming", record, [&] {
            if (!swapped) devices_.clear_step(*record);
            devices_.resume_step(record);
        });
        if (committed && !swapped) {
            std::vector<State::Change> changes{devices_.change_of(*record)};
            for (const RecordPtr& each : {below, still}) {
                if (each) changes.push_back(devices_.change_of(*each));
            }
            attempt("taking it back", record, [&] { devices_.commit(changes); });
        }
        throw;
    }
    if (still) {
        registry.begin_removal(*still);
        devices_.finish_removal(*still);
    }
    if (const std::string cow = noted.value("cow", ""); noted.value("made", false) && !cow.empty()) {
        ::unlink(cow.c_str());
        devices_.lost_stores().forget_words(cow);
    }
    const std::string name = noted.value("snapshot", "");
    log_info(devices_.name_of(*record), "{} is merged", name);
    devices_.publish(*record, "table", name + " is merged");
    forget(record);
    devices_.remove_later(record);    // if its last user went meanwhile
    devices_.worker().post([this, record] { unstack(record); });
}

// A redirected volume whose last still image is gone gets the table that it had before the first one, and its layer goes. On
// the worker's thread; where it cannot be done all stays as it is, which works as well.
void Merging::unstack(const RecordPtr& layer) {
    Registry& registry = devices_.registry();
    Json number;
    {
        const std::lock_guard lock{registry.mutex};
        if (!is_bare_layer(*layer)) return;
        number = layer->snapshot["layer_of"];
    }
    const RecordPtr volume = find_minor(registry, number);
    if (!volume) return;
    const auto locks = lock_both(volume, layer);
    SlotText table;
    bool read_only = false;
    {
        const std::lock_guard lock{registry.mutex};
        if (!is_bare_layer(*layer) || layer->inactive || layer->suspended || layer->table_opens != 1 || layer->exports != 0) return;
        if (volume->gone || volume->suspended || volume->inactive || !volume->live) return;
        const SlotText& now = *volume->live;
        if (now.lines.size() != 1 || now.lines[0].type != "linear" || now.minors.size() != 1 || now.minors.begin()->second != layer->minor) return;
        table = *layer->live;
        read_only = now.read_only;
    }
    try {
        devices_.load_step(volume, table.lines, read_only, table.minors);
        devices_.suspend_step(*volume, {});
        devices_.commit({devices_.change_of(*volume, true)});
        devices_.resume_step(volume);
        registry.begin_removal(*layer);
        devices_.commit(devices_.changes_at_removal(*layer));
        devices_.finish_removal(*layer);
        devices_.publish(*volume, "table", "no still image is left: it has a table of its own again");
    } catch (const std::exception& error) {
        log_warning(devices_.name_of(*volume), "keeps its layer: {}", error.what());
        bool stopped = false;
        {
            const std::lock_guard lock{registry.mutex};
            stopped = volume->suspended;
        }
        try {
            if (stopped) devices_.resume_step(volume);
            else devices_.clear_step(*volume);
        } catch (const std::exception& again) {
            log_error(devices_.name_of(*volume), "{}; `udmsetup resume {}` tries again", again.what(), devices_.name_of(*volume));
        }
    }
}

}  // namespace udm::ctl
