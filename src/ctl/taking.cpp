#include "ctl/taking.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <filesystem>
#include <set>

#include "base/parse.hpp"
#include "ctl/cow_file.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"
#include "ctl/opener.hpp"
#include "ctl/time_text.hpp"
#include "port/nbd_uri.hpp"

namespace udm::ctl {
namespace {

std::string words_for(const std::string& device_name) { return quote_word("udm:" + device_name); }

bool is_whole_linear(const SlotText& table) {
    if (table.lines.size() != 1 || table.lines[0].type != "linear") return false;
    const auto words = words_of(table.lines[0]);
    return words.size() == 2 && words[1] == "0";
}

bool has_store(const SlotText& table) {
    return std::any_of(table.lines.begin(), table.lines.end(),
                       [](const TableLine& line) { return !snapshot_cow(line).empty(); });
}

bool is_plain_file(const std::string& path) {
    struct stat about {};
    return path.starts_with('/') && ::stat(path.c_str(), &about) == 0 && S_ISREG(about.st_mode);
}

// Where the first file is that the table stands on, however far down; empty if there is none.
std::string folder_below(const Registry& registry, const SlotText& table, unsigned depth) {
    for (const TableLine& line : table.lines) {
        for (const std::string& word : words_of(line)) {
            if (is_plain_file(word)) return std::filesystem::path{word}.parent_path();
            const RecordPtr lower = find_mapped(registry, word);
            if (!lower || depth > 64) continue;
            SlotText below;
            {
                const std::lock_guard lock{registry.mutex};
                if (lower->live) below = *lower->live;
            }
            if (std::string found = folder_below(registry, below, depth + 1); !found.empty()) return found;
        }
    }
    return {};
}

}  // namespace

Json Snapshots::Taking::run() {
    now_ = std::chrono::system_clock::now();
    if (request_.origins.empty()) throw Failure{Errc::bad_argument, "no origin is given"};
    if (!std::has_single_bit(request_.chunk) || request_.chunk < 4096 ||
        request_.chunk > (std::uint64_t{1} << 30)) {
        throw Failure{Errc::bad_argument,
                      fmt::format("a chunk of {} bytes cannot be: it is a power of two from 4 KiB to 1 GiB", request_.chunk)};
    }
    if (request_.redirect && !request_.persistent) {
        throw Failure{Errc::bad_argument, "a redirected volume writes to its store, and a transient one would lose all of that when the "
                                          "daemon ends: leave out redirect or make it persistent"};
    }
    resolve();
    try {
        for (Volume& volume : volumes_) {
            choose_names(volume);
            choose_cow(volume);
            request_.redirect ? prepare_redirect(volume) : prepare_copying(volume);
        }
        for (const std::string& file : files_) keep_cow_file(file);
        devices_.commit(changes());
        committed_ = true;
        switch_over();
    } catch (...) {
        undo();
        throw;
    }
    for (const RecordPtr& record : made_) devices_.publish(*record, "created");
    for (const Volume& volume : volumes_) {
        devices_.publish(*volume.origin, "table", "snapshot " + volume.snapshot_name + " taken");
        log_info(
            volume.name, "snapshot {} taken, with a pause of {} us", volume.snapshot_name,
            std::chrono::duration_cast<std::chrono::microseconds>(volume.going - volume.stopped).count());
        // What was written before the moment survives a power cut from here on; nothing waits for it but the
        // caller.
        try {
            devices_.flush_step(*volume.origin);
        } catch (const Failure& failure) {
            log_warning(volume.name, "snapshot {}: {}", volume.snapshot_name, failure.what());
        }
    }
    return answer();
}

// Locks the origins, in the order of their serials: so two that lock several never wait for each other.
void Snapshots::Taking::resolve() {
    Registry& registry = devices_.registry();
    std::set<std::uint64_t> seen;
    for (const Wanted& wanted : request_.origins) {
        Volume volume;
        volume.origin = registry.find(wanted.origin);
        volume.snapshot_name = wanted.snapshot.value_or("");
        volume.cow = wanted.cow.value_or("");
        if (!seen.insert(volume.origin->serial).second) {
            throw Failure{Errc::bad_argument, fmt::format("{} is given twice", wanted.origin.text()),
                          wanted.origin.text()};
        }
        volumes_.push_back(std::move(volume));
    }
    std::vector<RecordPtr> in_order;
    for (const Volume& volume : volumes_) in_order.push_back(volume.origin);
    std::sort(in_order.begin(), in_order.end(),
              [](const auto& a, const auto& b) { return a->serial < b->serial; });
    for (const RecordPtr& record : in_order) operations_.emplace_back(record->operation);
    for (Volume& volume : volumes_) {
        check(volume);
        look_beside(volume);
    }
    for (const Volume& volume : volumes_) {
        const RecordPtr store = volume.cow.empty() ? nullptr : find_mapped(registry, volume.cow);
        if (store && seen.contains(store->serial))
            throw Failure{Errc::bad_argument, fmt::format("{} is taken a snapshot of, and cannot be the store of one", volume.cow), volume.name};
    }
}

void Snapshots::Taking::check(Volume& volume) const {
    devices_.check_there(*volume.origin);
    const std::lock_guard lock{devices_.registry().mutex};
    const Record& origin = *volume.origin;
    volume.name = origin.name;
    const auto refuse = [&](std::string why) {
        return Failure{Errc::bad_argument, fmt::format("{} {}", origin.name, why), origin.name};
    };
    if (!origin.live) throw refuse("has no table to take a snapshot of");
    if (!origin.merging.is_null()) throw refuse(fmt::format("has a merge under way; take the snapshot when it has ended: `udm show {}` says how far it is",
                                                         origin.name));
    if (!origin.moving.is_null()) throw refuse(fmt::format("is being moved; take the snapshot when it has arrived: `udm move {}` waits for that", origin.name));
    if (origin.suspended) throw refuse(fmt::format("is suspended: `udmsetup resume {}` first", origin.name));
    if (origin.inactive) throw refuse(fmt::format("has a table that waits: `udmsetup resume {0}` or `udmsetup clear {0}` first", origin.name));
    if (origin.still && request_.redirect) throw refuse("is a still image and is not written");
    volume.table = *origin.live;
    volume.size = origin.size;
    volume.home = origin.home;
    for (const TableLine& line : volume.table.lines) {
        for (const std::string& word : words_of(line)) {
            if (word.starts_with("ram:") && word.find(':', 4) == std::string::npos) {
                throw refuse(fmt::format(
                    "has its data in memory that is its own ({}); use ram:NAME:SIZE to take snapshots",
                    word));
            }
        }
    }
    if (has_store(volume.table)) {
        throw refuse(
            "is a snapshot itself, whose store cannot move to another device: take snapshots of its origin, "
            "or put a linear device over it and take them of that");
    }
}

// What they write, the volume does not see: it is not kept for a snapshot, which shows a mix of then and now.
void Snapshots::Taking::look_beside(Volume& volume) const {
    const Registry& registry = devices_.registry();
    std::set<DiskId> below;
    {
        const std::lock_guard lock{registry.mutex};
        for (const auto& [id, count] : volume.origin->disks) below.insert(id);
        for (const auto& [lower, count] : volume.origin->uses) {
            if (lower->exports != 0) volume.beside.push_back(lower->name);    // its clients
        }
    }
    for (const DiskId& id : below) {
        for (const RecordPtr& user : registry.writers_of(id)) {
            const std::string name = devices_.name_of(*user);
            if (user != volume.origin && std::find(volume.beside.begin(), volume.beside.end(), name) == volume.beside.end()) volume.beside.push_back(name);
        }
    }
}

void Snapshots::Taking::choose_names(Volume& volume) const {
    if (!volume.snapshot_name.empty()) {
        check_name(volume.snapshot_name);
        DeviceKey key;
        key.name = volume.snapshot_name;
        if (devices_.registry().try_find(key))
            throw Failure{Errc::busy, fmt::format("a device {} exists already", volume.snapshot_name), volume.name};
        return;
    }
    const std::string stem = fmt::format("{}-{}", volume.name, compact_time(now_));
    volume.snapshot_name = stem;
    for (int i = 2;; ++i) {
        DeviceKey key;
        key.name = volume.snapshot_name;
        if (!devices_.registry().try_find(key)) return;
        volume.snapshot_name = fmt::format("{}-{}", stem, i);
    }
}

// Beside the volume's own file unless somebody says otherwise: there is likely to be room, and it moves
// along.
void Snapshots::Taking::choose_cow(Volume& volume) const {
    if (volume.cow.empty()) {
        std::string folder = request_.cow_dir.value_or("");
        if (folder.empty()) {
            folder = folder_below(devices_.registry(), volume.table, 0);
        }
        if (folder.empty() && devices_.state().is_kept()) {
            folder = devices_.state().directory() + "/cow";
            ::mkdir(folder.c_str(), 0700);
        }
        if (folder.empty()) {
            throw Failure{
                Errc::bad_argument,
                fmt::format("say where the store of {} is to be kept: cow_dir or cow", volume.snapshot_name),
                volume.name};
        }
        volume.cow = std::filesystem::path{folder} / (volume.snapshot_name + ".cow");
    }
    volume.cow_words = quote_word(volume.cow);
}

RecordPtr Snapshots::Taking::make(const std::string& name) {
    const RecordPtr record = devices_.make(name, "", std::nullopt);
    operations_.emplace_back(record->operation);
    devices_.check_there(*record);
    made_.push_back(record);
    return record;
}

void Snapshots::Taking::load(const RecordPtr& record, const std::vector<TableLine>& lines, bool read_only,
                             const std::map<std::string, std::uint32_t>& minors,
                             std::optional<unsigned> home) {
    devices_.load_step(record, lines, read_only, minors, home);
}

// What an old store on a device has would be of another moment.
void Snapshots::Taking::check_is_new(const RecordPtr& record, const std::string& cow) const {
    DeviceKey key;
    key.minor = record->minor;
    const Json lines = devices_.status(key, true);
    const std::string text = lines.at(0).at("text");
    if (has_metadata_only(text)) return;
    throw Failure{Errc::exists, fmt::format("{} has a store already ({}); wipe its first 4 KiB if nobody needs it", cow, text), cow};
}

std::string Snapshots::Taking::store_words(const Volume& volume) const {
    // The store of a redirected volume has what nobody else has: full, it must refuse what does not fit and keep the rest.
    return fmt::format("{} {} {}", volume.cow_words, request_.redirect ? "PO" : request_.persistent ? "P" : "N",
                       request_.chunk / kSectorSize);
}

void Snapshots::Taking::note(const RecordPtr& record, Json what, bool internal, bool still) const {
    const std::lock_guard lock{devices_.registry().mutex};
    devices_.registry().note_snapshot_locked(*record, std::move(what));
    record->internal = internal;
    record->still = still;
}

namespace {
// Nobody else's data: a store is made where nothing is, and a device may have no other user.
void check_unused(Devices& devices, const std::string& cow) {
    const RecordPtr lower = find_mapped(devices.registry(), cow);
    std::vector<RecordPtr> users = devices.registry().users_of(lower ? lower->id() : devices.host().identify(cow));
    if (!users.empty()) throw Failure{Errc::busy, fmt::format("{} cannot be a store: {} stands on it", cow, devices.name_of(*users[0])), cow};
    if (!lower) return;
    const std::lock_guard lock{devices.registry().mutex};
    if (lower->exports != 0) throw Failure{Errc::busy, fmt::format("{} cannot be a store: it is exported", cow), cow};
}

// Makes the store's file unless it is a device that is there already; true when it is ours.
bool provide_store(Devices& devices, const std::string& cow, std::uint64_t bytes, bool reserve) {
    check_unused(devices, cow);
    if (find_mapped(devices.registry(), cow) || cow.starts_with("ram:") || is_nbd_uri(cow)) return false;
    if (!cow.starts_with('/')) {
        throw Failure{Errc::bad_argument, fmt::format("the store {} is neither the absolute path of a file or block device, nor udm:NAME, nor "
                                                      "ram:NAME:SIZE, nor an NBD URI", cow), cow};
    }
    struct stat about {};
    if (::stat(cow.c_str(), &about) == 0 && S_ISBLK(about.st_mode)) {
        check_blank(cow);
        return false;
    }
    make_cow_file(cow, bytes, reserve);
    devices.lost_stores().forget_words(cow);
    devices.lost_stores().forget(devices.host().identify(cow));
    return true;
}
}  // namespace

void Snapshots::Taking::prepare_copying(Volume& volume) {
    const SlotText& table = volume.table;
    const bool is_origin = table.lines.size() == 1 && table.lines[0].type == "snapshot-origin";
    std::map<std::string, std::uint32_t> minors;
    if (is_origin || is_whole_linear(table)) {
        volume.base = quote_word(words_of(table.lines[0])[0]);
        minors = table.minors;
    } else {
        volume.real = make(volume.name + "-real");
        note(volume.real, nullptr, true, false);
        load(volume.real, table.lines, table.read_only, table.minors, volume.home);
        devices_.resume_step(volume.real);
        volume.base = words_for(volume.name + "-real");
    }
    volume.made = provide_store(devices_, volume.cow,
                                cow_bytes(request_.size, volume.size, request_.chunk), request_.reserve);
    if (volume.made) files_.push_back(volume.cow);
    volume.snapshot = make(volume.snapshot_name);
    note(volume.snapshot,
         {{"origin", volume.origin->minor},
          {"cow", volume.cow},
          {"made", volume.made},
          {"chunk", request_.chunk},
          {"taken", time_text(now_)},
          {"redirect", false}},
         false, false);
    load(volume.snapshot,
         {{Sector{0}, volume.size, "snapshot", fmt::format("{} {}", volume.base, store_words(volume))}},
         false, minors, volume.home);
    check_is_new(volume.snapshot, volume.cow);
    if (is_origin) return;
    load(volume.origin, {{Sector{0}, volume.size, "snapshot-origin", volume.base}}, table.read_only, minors);
    volume.reloaded = true;
}

void Snapshots::Taking::prepare_redirect(Volume& volume) {
    Registry& registry = devices_.registry();
    const std::string live_name = volume.name + "-live";
    DeviceKey live_key;
    live_key.name = live_name;
    RecordPtr former = registry.try_find(live_key);
    const bool is_layer = former && [&] {
        const std::lock_guard lock{registry.mutex};
        const Json& noted = former->snapshot;
        return noted.is_object() && noted.value("layer_of", ~0u) == volume.origin->minor;
    }();
    if (former && !(is_layer && is_whole_linear(volume.table) && volume.table.minors.contains("udm:" + live_name))) {
        throw Failure{Errc::busy, fmt::format("the name {} is taken", live_name), volume.name};
    }
    std::string still_name = volume.snapshot_name;
    const bool merges = former && [&] {
        const std::lock_guard lock{registry.mutex};
        return !former->merging.is_null();
    }();
    if (merges) throw Failure{Errc::busy, fmt::format("{0} has a merge under way; take the snapshot when it has ended: `udm show {0}` says how far it is", volume.name),
                               volume.name};
    if (former) {
        // What was written so far stays where it is and becomes the still image, under the snapshot's name.
        operations_.emplace_back(former->operation);
        devices_.rename_step(*former, still_name);
        volume.still = former;
        {
            const std::lock_guard lock{registry.mutex};
            volume.previous_note = former->snapshot;
        }
        volume.snapshot = former;
    } else {
        volume.snapshot = make(still_name);
        load(volume.snapshot, volume.table.lines, true, volume.table.minors);
        devices_.resume_step(volume.snapshot);
    }
    volume.made = provide_store(devices_, volume.cow,
                                cow_bytes(request_.size, volume.size, request_.chunk), request_.reserve);
    if (volume.made) files_.push_back(volume.cow);
    volume.layer = make(live_name);
    if (former) {    // what was set for the volume's store holds for the next
        const std::lock_guard lock{registry.mutex};
        volume.layer->settings = former->settings;
    }
    volume.base = words_for(still_name);
    load(volume.layer,
         {{Sector{0}, volume.size, "snapshot", fmt::format("{} {}", volume.base, store_words(volume))}},
         false);
    check_is_new(volume.layer, volume.cow);
    devices_.resume_step(volume.layer);
    note(volume.layer,
         {{"layer_of", volume.origin->minor},
          {"cow", volume.cow},
          {"made", volume.made},
          {"chunk", request_.chunk}},
         true, false);
    Json noted = {{"origin", volume.origin->minor},
                  {"layer", volume.layer->minor},
                  {"chunk", request_.chunk},
                  {"taken", time_text(now_)},
                  {"redirect", true}};
    if (former) {  // the store it has written to so far
        noted["cow"] = volume.previous_note.value("cow", "");
        noted["made"] = volume.previous_note.value("made", false);
    }
    note(volume.snapshot, std::move(noted), false, true);
    load(volume.origin, {{Sector{0}, volume.size, "linear", words_for(live_name) + " 0"}},
         volume.table.read_only);
    volume.reloaded = true;
}

std::vector<State::Change> Snapshots::Taking::changes() const {
    std::vector<State::Change> all;
    for (const RecordPtr& record : made_) all.push_back(devices_.change_of(*record, true));
    for (const Volume& volume : volumes_) {
        if (volume.still) all.push_back(devices_.change_of(*volume.still));
        all.push_back(devices_.change_of(*volume.origin, true));
    }
    return all;
}

// The pause. The origin of a copying snapshot needs no flush here: its flushes go where they went before. A
// redirected volume's go to the new layer only, so what was written below must be durable first; most of it
// is by the first flush.
void Snapshots::Taking::switch_over() {
    if (request_.redirect) {
        for (Volume& volume : volumes_) devices_.flush_step(*volume.origin);
    }
    for (Volume& volume : volumes_) {
        volume.stopped = std::chrono::steady_clock::now();
        volume.suspended = true;
        devices_.suspend_step(*volume.origin, {.noflush = !request_.redirect});
    }
    for (Volume& volume : volumes_) {
        if (!request_.redirect) devices_.resume_step(volume.snapshot);
    }
    for (Volume& volume : volumes_) {
        devices_.resume_step(volume.origin);
        volume.going = std::chrono::steady_clock::now();
    }
}

bool Snapshots::Taking::undo_step(const char* what, const std::function<void()>& step) noexcept {
    try {
        step();
        return true;
    } catch (const std::exception& error) {
        log_error("", "snapshot.take: taking it back: {}: {}", what, error.what());
        return false;
    }
}

// Back to how it was: origins first, since they wait.
void Snapshots::Taking::undo() noexcept {
    std::vector<State::Change> changes;
    for (Volume& volume : volumes_) {
        {
            const std::lock_guard lock{devices_.registry().mutex};
            volume.switched = volume.reloaded && !volume.origin->inactive;
        }
        if (volume.switched) {
            undo_step("loading the former table", [&] {
                devices_.load_step(volume.origin, volume.table.lines, volume.table.read_only,
                                   volume.table.minors);
                devices_.resume_step(volume.origin);
            });
        } else {
            undo_step("clearing the new table", [&] {
                if (volume.reloaded) devices_.clear_step(*volume.origin);
                if (volume.suspended) devices_.resume_step(volume.origin);
            });
        }
    }
    const bool going = undo_step("removing the new devices", [&] {
        devices_.registry().begin_removal(made_);
        for (const RecordPtr& record : made_) {
            devices_.registry().free_names(*record);
            changes.push_back(Devices::removal_of(*record));
        }
    });
    for (Volume& volume : volumes_) {
        if (volume.still) {
            undo_step("giving back a name",
                      [&] { devices_.rename_step(*volume.still, volume.name + "-live"); });
            note(volume.still, volume.previous_note, true, false);
            changes.push_back(devices_.change_of(*volume.still));
        }
        changes.push_back(devices_.change_of(*volume.origin));
    }
    // What the state still speaks of comes back with the next daemon: as a snapshot of that moment, and whole if its store is.
    const bool forgotten = !committed_ || undo_step("the state", [&] { devices_.commit(changes); });
    if (!going) return;
    for (auto record = made_.rbegin(); record != made_.rend(); ++record)    // those that stand on others first
        undo_step("removing a new device", [&] { devices_.destroy_step(**record); });
    if (!forgotten) return;
    for (const std::string& file : files_) ::unlink(file.c_str());
}

Json Snapshots::Taking::answer() const {
    Json answer = Json::array();
    for (const Volume& volume : volumes_) {
        answer.push_back(
            {{"origin", volume.name},
             {"snapshot", volume.snapshot_name},
             {"cow", volume.cow},
             {"chunk", request_.chunk},
             {"redirect", request_.redirect},
             {"beside", volume.beside},
             {"pause_us",
              std::chrono::duration_cast<std::chrono::microseconds>(volume.going - volume.stopped).count()}});
    }
    return answer;
}

}  // namespace udm::ctl
