// The verbs. Steps and questions are in devices_steps.cpp and devices_questions.cpp, restarts in
// devices_restore.cpp.
#include "ctl/devices.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/parse.hpp"
#include "ctl/call_on.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"
#include "ctl/whole_export.hpp"

namespace udm::ctl {

Devices::Locked Devices::lock(const DeviceKey& key) const {
    RecordPtr record = registry_.find(key);
    std::unique_lock operation{record->operation};
    check_there(*record);  // it may have been removed while we waited
    return {std::move(record), std::move(operation)};
}

void Devices::check_there(const Record& record) const {
    const std::lock_guard lock{registry_.mutex};
    if (record.gone) throw Failure{Errc::not_found, fmt::format("no device {}", record.name), record.name};
}

RecordPtr Devices::create(const Creation& creation) {
    if (!creation.of.empty()) {
        const WholeExport whole{host_, home_of_export(identity_of(creation.of)), creation.of, creation.read_only};
        Creation with_table = creation;
        with_table.of.clear();
        with_table.table = whole.table();
        return create(with_table);
    }
    if (creation.careful && creation.table && !creation.read_only) check_beside(*creation.table);
    const RecordPtr record = make(creation.name, creation.uuid, creation.minor);
    const std::lock_guard operation{record->operation};
    check_there(*record);  // others see it already, and may have removed it
    std::vector<RecordPtr> givers;
    try {
        if (creation.table) load_step(record, *creation.table, creation.read_only);
        givers = note_givers(*record);
        commit(changes_of(*record, givers));
    } catch (const Failure&) {
        forget_givers(givers);
        registry_.begin_removal(*record);
        destroy_step(*record);
        throw;
    }
    publish(*record, "created");
    if (!creation.table) return record;
    try {
        resume_step(record);
    } catch (const Failure&) {  // or nothing at all
        registry_.begin_removal(*record);
        forget_givers(givers);
        auto changes = changes_of(*record, givers);
        changes[0] = removal_of(*record);
        commit(changes);
        destroy_step(*record);
        publish(*record, "removed");
        throw;
    }
    return record;
}

// The state forgets it first: a crash in between leaves a device that the user wanted to be gone, gone.
void Devices::remove_locked(const RecordPtr& record) {
    registry_.begin_removal(*record);
    try {
        commit(changes_at_removal(*record));
    } catch (const Failure&) {
        registry_.undo_removal(*record);
        throw;
    }
    std::string table;
    {
        const std::lock_guard lock{registry_.mutex};
        if (record->live) table = text_of_lines(record->live->lines);
    }
    finish_removal(*record);
    log_info(record->name, "removed; its table was: {}", table.empty() ? "none" : table);
}

std::vector<State::Change> Devices::changes_at_removal(const Record& record) const {
    std::vector<State::Change> changes = {removal_of(record)};
    if (removal_watcher_) {
        const auto more = removal_watcher_->changes_at_removal(record);
        changes.insert(changes.end(), more.begin(), more.end());
    }
    return changes;
}

void Devices::finish_removal(Record& record) {
    registry_.free_names(record);
    if (removal_watcher_) removal_watcher_->removed(record);
    destroy_step(record);
    publish(record, "removed");
}

void Devices::remove(const RecordPtr& record) {
    const std::lock_guard operation{record->operation};
    check_there(*record);
    remove_locked(record);
}

bool Devices::remove(const DeviceKey& key, const Removal& how, std::string* kept) {
    const auto [record, operation] = lock(key);
    if (how.careful && !how.deferred) registry_.check_unused(*record);
    const RecordPtr layer = layer_under(*record);
    if (kept && layer) {
        const std::lock_guard lock{registry_.mutex};
        *kept = layer->snapshot.value("cow", "");
    }
    if (how.force) replace_by_error(record);
    try {
        remove_locked(record);
        if (layer) remove_later(layer);    // one that is held is opened by nobody, so nobody's close takes it away
        return false;
    } catch (const Failure& failure) {
        if (!how.deferred || failure.error().code != Errc::busy) throw;
    }
    {
        const std::lock_guard lock{registry_.mutex};
        record->deferred_remove = true;
    }
    commit({change_of(*record)});
    // Its last user may have gone between the two.
    remove_later(record);
    return true;
}

void Devices::remove_later(RecordPtr record) {
    if (stopping_) return;  // its users go because the daemon does, and come back with it
    worker_.post([this, record] {
        const std::lock_guard operation{record->operation};
        {
            const std::lock_guard lock{registry_.mutex};
            if (!(record->deferred_remove || record->internal) || record->gone || record->table_opens != 0 ||
                record->exports != 0)
                return;
            // What it is merged into would stay half of each: the end of the merge comes back here.
            if (record->merging.contains("still")) return;
            if (stopping_) return;  // began while this waited: its users are gone for that reason only
        }
        if (needed_by_held(*record)) return;
        try {
            remove_locked(record);
        } catch (const Failure& failure) {
            log_warning(name_of(*record), "deferred removal failed: {}", failure.what());
        }
    });
}

// A device that could not come up has nothing open, but will want what it stands on.
bool Devices::needed_by_held(const Record& lower) const {
    const auto records = registry_.held();
    const std::lock_guard lock{registry_.mutex};
    return std::any_of(records.begin(), records.end(), [&](const RecordPtr& record) {
        if (!record->kept) return false;
        const auto& minors = record->kept->minors;
        return std::any_of(minors.begin(), minors.end(),
                           [&](const auto& use) { return use.second == lower.minor; });
    });
}

// Of a redirected volume: it goes with it, and what was written since the still image is nowhere but in its store. Null of others.
RecordPtr Devices::layer_under(const Record& volume) const {
    std::map<std::string, std::uint32_t> below;
    {
        const std::lock_guard lock{registry_.mutex};
        const auto& slot = volume.live ? volume.live : volume.kept;
        if (slot) below = slot->minors;
    }
    for (const auto& [word, minor] : below) {
        DeviceKey key;
        key.minor = minor;
        const RecordPtr lower = registry_.try_find(key);
        const std::lock_guard lock{registry_.mutex};
        if (lower && lower->snapshot.is_object() && lower->snapshot.value("layer_of", ~0u) == volume.minor) return lower;
    }
    return nullptr;
}

Devices::Removed Devices::remove_all(const Removal& how) {
    Removed result;
    // Those that use others first: one round is enough, unless somebody adds more meanwhile.
    for (const RecordPtr& record : registry_.top_down()) {
        DeviceKey key;
        key.minor = record->minor;
        const std::string name = name_of(*record);
        try {
            (remove(key, how) ? result.busy : result.removed).push_back(name);
        } catch (const Failure& failure) {
            if (failure.error().code == Errc::not_found) continue;
            result.busy.push_back(name);
        }
    }
    return result;
}

// What dmsetup's --force does: an error table of the same size, so that whoever waits for it is let go.
void Devices::replace_by_error(const RecordPtr& record) {
    Sectors size;
    {
        const std::lock_guard lock{registry_.mutex};
        if (!record->live) return;
        size = record->size;
    }
    if (!size) return;
    load_step(record, {{Sector{0}, size, "error", ""}}, false);
    suspend_step(*record, {.noflush = true});
    commit({change_of(*record, true)});
    resume_step(record);
}

RecordPtr Devices::rename(const DeviceKey& key, const std::string& new_name) {
    const auto [record, operation] = lock(key);
    const std::string old_name = name_of(*record);
    rename_step(*record, new_name);
    try {
        commit({change_of(*record)});
    } catch (const Failure&) {
        rename_step(*record, old_name);
        throw;
    }
    const Located at = locate(*record);
    if (at.device) {
        run_on(host_.env(at.home).reactor, [&] {
            if (at.device->live()) at.device->raise(EventKind::table, "renamed");
        });
    }
    publish(*record, "renamed", old_name + " is " + new_name + " now");
    log_info(new_name, "renamed from {}", old_name);
    return record;
}

RecordPtr Devices::set_uuid(const DeviceKey& key, const std::string& new_uuid) {
    const auto [record, operation] = lock(key);
    registry_.set_uuid(*record, new_uuid);
    try {
        commit({change_of(*record)});
    } catch (const Failure&) {
        registry_.unset_uuid(*record);
        throw;
    }
    const Located at = locate(*record);
    if (at.device) {
        run_on(host_.env(at.home).reactor, [&] {
            if (at.device->live()) at.device->raise(EventKind::table, "renamed");
        });
    }
    publish(*record, "renamed", "uuid " + new_uuid);
    return record;
}

RecordPtr Devices::suspend(const DeviceKey& key, bool noflush) {
    const auto [record, operation] = lock(key);
    suspend_step(*record, {.noflush = noflush});
    publish(*record, "suspended");
    return record;
}

RecordPtr Devices::resume(const DeviceKey& key) {
    const RecordPtr record = registry_.find(key);
    bool held = false;
    {
        const std::lock_guard lock{registry_.mutex};
        held = record->kept.has_value() && !record->inactive;
    }
    if (held) {  // what was missing at the restart may be there now
        std::vector<RecordPtr> all_held;
        for (const RecordPtr& other : registry_.held()) {
            const std::lock_guard lock{registry_.mutex};
            if (other->kept) all_held.push_back(other);
        }
        bring_up(all_held);
        const std::lock_guard lock{registry_.mutex};
        if (record->kept)
            throw Failure{Errc::no_device,
                          fmt::format("{} cannot come up: {}", record->name, record->held_because),
                          record->name};
        return record;
    }
    const std::lock_guard operation{record->operation};
    check_there(*record);
    bool swaps = false;
    bool was_running = false;
    {
        const std::lock_guard lock{registry_.mutex};
        swaps = record->inactive.has_value();
        was_running = record->live && !record->suspended;
    }
    std::vector<RecordPtr> givers;
    if (swaps) {
        // The old table is quiet before the state says that the new one counts, and that is on the disk
        // before the new one takes a request: whichever a crash leaves is the one that has the data.
        if (was_running) suspend_step(*record, {});
    }
    try {
        givers = note_givers(*record);
        if (swaps || !givers.empty()) commit(changes_of(*record, givers));
        resume_step(record);
    } catch (const Failure&) {
        forget_givers(givers);
        if (!givers.empty()) commit(changes_of(*record, givers));
        throw;
    }
    publish(*record, "resumed");
    return record;
}

RecordPtr Devices::load(const DeviceKey& key, const std::vector<TableLine>& lines, bool read_only) {
    const auto [record, operation] = lock(key);
    {
        const std::lock_guard lock{registry_.mutex};
        if (record->still && record->table_opens != 0 && !read_only) {
            throw Failure{
                Errc::not_permitted,
                fmt::format("{} is a still image that a volume stands on: it takes read-only tables only",
                            record->name),
                record->name};
        }
    }
    check_held_mirrors(*record, lines);
    load_step(record, lines, read_only);
    publish(*record, "table", "loaded");
    return record;
}

RecordPtr Devices::clear(const DeviceKey& key) {
    const auto [record, operation] = lock(key);
    clear_step(*record);
    publish(*record, "table", "cleared");
    return record;
}

std::optional<std::string> Devices::message(const DeviceKey& key, Sector sector, const std::string& text) {
    auto [record, operation] = lock(key);
    const std::string name = name_of(*record);
    const std::vector<std::string> words = must(split_words(text), name);
    if (words.empty()) throw Failure{Errc::bad_argument, "Empty message", name};
    if (words[0] == "@cancel_deferred_remove" && words.size() == 1) {
        {
            const std::lock_guard lock{registry_.mutex};
            record->deferred_remove = false;
        }
        commit({change_of(*record)});
        return std::nullopt;
    }
    if (words[0] == "set" && words.size() == 3) {  // the same as device.set
        Json wanted = Json::object();
        wanted[words[1]] = words[2] == "default" ? Json{} : Json(words[2]);
        operation.unlock();
        set(key, wanted);
        return std::nullopt;
    }
    const Located at = locate(*record);
    if (!at.device)
        throw Failure{Errc::bad_argument, fmt::format("{} has no table to send a message to", name), name};
    auto reply =
        must(call_on(host_.env(at.home).reactor, [&] { return at.device->message(sector, &words); }), name);
    if (reply.empty()) return std::nullopt;
    return reply;
}

}  // namespace udm::ctl
