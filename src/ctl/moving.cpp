// Beginning a move, taking it back, and what is said of it. How it ends is in moving_end.cpp.
#include "ctl/moving.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <list>

#include "base/parse.hpp"
#include "ctl/call_on.hpp"
#include "ctl/failure.hpp"
#include "ctl/interposing.hpp"
#include "ctl/log.hpp"
#include "ctl/mirror_log.hpp"
#include "ctl/moving_table.hpp"
#include "ctl/new_leg.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

// While DEST's server is away, requests of the volume wait so long for it, and go on without it then.
constexpr const char* kPatience = "10";
constexpr std::size_t kLinesMost = 64;    // each has a log of its own

Failure refusal(const std::string& name, std::string why, Errc code = Errc::bad_argument) { return Failure{code, fmt::format("{} {}", name, why), name}; }

bool is_live_layer(const Record& record) { return record.snapshot.is_object() && record.snapshot.contains("layer_of"); }

// The registry's mutex is held.
void check_may_move(const Record& record) {
    const auto refuse = [&](std::string why, Errc code = Errc::bad_argument) { throw refusal(record.name, std::move(why), code); };
    if (!record.held_because.empty()) refuse(fmt::format("is held: {}", record.held_because));
    if (!record.live) refuse("has no table, and so nothing to move");
    if (!record.moving.is_null())
        refuse(fmt::format("is being moved already, to {}; `udm move {} --abort` ends that", record.moving.value("to", ""), record.name), Errc::busy);
    if (!record.merging.is_null()) refuse("has a merge under way; move it when that has ended", Errc::busy);
    if (record.suspended || record.inactive) refuse("is suspended or has a table that waits to be resumed; resume or clear it first", Errc::busy);
    if (record.still) refuse("is a still image that a redirected volume stands on, and does not move");
    if (is_live_layer(record)) refuse("is the layer of a redirected volume, and does not move");
    for (const TableLine& line : record.live->lines) {
        if (line.type == "snapshot" || line.type == "snapshot-merge") refuse("is a snapshot, whose store does not move: move its origin");
        if (line.type == "mirror") refuse("is a mirror: `udm mirror replace-leg` moves one of its legs");
        if (line.type != "linear") refuse(fmt::format("has a table of type {}; what moves is linear", line.type));
        const std::string from = words_of(line)[0];
        if (from.starts_with("ram:") && from.find(':', 4) == std::string::npos)
            refuse(fmt::format("has its data in memory that is its own ({}); use ram:NAME:SIZE to have volumes that move", from));
    }
    if (record.live->lines.size() > kLinesMost) refuse(fmt::format("has a table of {} lines; volumes of {} at most move", record.live->lines.size(), kLinesMost));
    if (record.live->read_only) refuse("is read-only, and a copy needs to be written: create it again without that");
}

// A redirected volume is linear over its layer.
void check_not_redirected(const Registry& registry, const Record& record) {
    std::string below, name;
    {
        const std::lock_guard lock{registry.mutex};
        name = record.name;
        if (record.live && record.live->lines.size() == 1) {
            if (const auto words = words_of(record.live->lines[0]); !words.empty()) below = words[0];
        }
    }
    const RecordPtr lower = find_mapped(registry, below);
    if (!lower) return;
    const std::lock_guard lock{registry.mutex};
    if (is_live_layer(*lower)) throw refusal(name, "is redirected: what is written goes to the stores of its layers, which do not move. Drop its still images first (`udm snapshot list`)");
}

}  // namespace

// The device that moves: below an origin, what it stands on.
RecordPtr Moving::carrier_of(const DeviceKey& volume) const {
    const RecordPtr record = devices_.registry().find(volume);
    std::string base;
    bool merges = false;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        const auto& slot = record->live ? record->live : record->kept;
        if (!slot || slot->lines.size() != 1 || !writes_base(slot->lines[0])) return record;
        merges = slot->lines[0].type != "snapshot-origin";
        base = snapshot_base(slot->lines[0]);
    }
    const RecordPtr below = find_mapped(devices_.registry(), base);
    if (!below) return record;
    const std::lock_guard lock{devices_.registry().mutex};
    return merges && below->moving.is_null() ? record : below;    // a merge may begin while it moves, no move while it merges
}

RecordPtr Moving::moving_carrier(const DeviceKey& volume) const {
    RecordPtr record = carrier_of(volume);
    const std::lock_guard lock{devices_.registry().mutex};
    if (record->moving.is_null()) throw Failure{Errc::bad_argument, fmt::format("{} does not move now", volume.text()), volume.text()};
    return record;
}

Json Moving::start(const DeviceKey& volume, const std::string& to, const std::optional<std::string>& rate) {
    const std::lock_guard starting{starting_};
    if (rate && !parse_size(*rate)) throw Failure{Errc::bad_argument, fmt::format("rate '{}' is not a number of bytes per second (10M, 1G; 0: no limit)", *rate), volume.text()};
    const RecordPtr asked = devices_.registry().find(volume);
    RecordPtr record = carrier_of(volume);
    std::optional<Interposing> between;
    bool is_origin = false;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        is_origin = record->live && record->live->lines.size() == 1 && record->live->lines[0].type == "snapshot-origin";
    }
    NewLeg::Volume about;
    if (is_origin) {    // over a file
        between.emplace(devices_, record);
        record = between->below();
    }
    std::unique_lock operation{record->operation, std::defer_lock};
    if (!between) operation.lock();
    devices_.check_there(*record);
    check_not_redirected(devices_.registry(), *record);
    SlotText before;
    Json settings;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        check_may_move(*record);
        before = *record->live;
        settings = record->settings;
        about = {.name = asked->name, .size = record->size, .logical_block = kSectorSize, .home = record->home};
    }
    run_on(devices_.host().env(about.home).reactor, [&] { about.logical_block = record->owned->limits().logical_block; });
    if (const RecordPtr below = find_mapped(devices_.registry(), to); below && (below == record || below == asked))
        throw Failure{Errc::bad_argument, fmt::format("{} cannot move to itself", about.name), about.name};

    NewLeg leg{devices_, to, about};
    std::list<MirrorLog> logs;
    std::vector<TableLine> mirrors;
    Json paths = Json::array();
    std::string from;
    for (const TableLine& line : before.lines) {
        const auto words = words_of(line);
        const MirrorLog& log = logs.emplace_back(devices_, fmt::format("move-{}-{}", record->minor, logs.size()), line.length);
        if (!log.path().empty()) paths.push_back(log.path());
        mirrors.push_back({line.begin, line.length, "mirror",
                           fmt::format("{} 2 {} {} {} {} 2 handle_errors keep_log", log.words(), quote_word(words[0]), words[1], quote_word(to), line.begin.v)});
        if (from.empty()) from = words[0];
        else if (from != words[0] && !from.ends_with(" and others")) from += " and others";
    }
    const Json noted = {{"from", from}, {"to", to}, {"made", leg.made()}, {"logs", paths}, {"volume", asked->minor}, {"mirrors", text_of_lines(mirrors)},
                        {"then", json_of_lines({{Sector{0}, about.size, "linear", quote_word(to) + " 0"}})}, {"back", json_of_lines(before.lines)},
                        {"paused", false}, {"rate_before", settings.value("resync_rate", Json{})}};
    if (between) between->commit();
    bool stated = false;    // or nobody knows
    try {
        {
            const std::lock_guard lock{devices_.registry().mutex};
            record->moving = noted;
            if (rate) record->settings["resync_rate"] = *rate;
        }
        devices_.load_step(record, mirrors, false, before.minors);
        stated = true;
        devices_.commit({devices_.change_of(*record, true)});
        devices_.resume_step(record);
    } catch (...) {
        if (!swap_back(record, noted, stated)) {
            leg.keep();
            for (MirrorLog& log : logs) log.keep();
            log_error(about.name, "{} and the move's logs stay: after a restart the state may name them still", to);
        }
        throw;
    }
    leg.keep();
    for (MirrorLog& log : logs) log.keep();
    devices_.publish(*record, "table", "moving to " + to);
    log_info(about.name, "moves from {} to {}", from, to);
    watch(record);
    return describe(record);    // still locked: it cannot have ended
}

// The volume must not hang, whatever else fails. True: neither a table nor the state has the new leg and the log any more.
bool Moving::swap_back(const RecordPtr& record, const Json& noted, bool stated) noexcept {
    bool done = true;
    const auto attempt = [&](const auto& step) {
        try {
            step();
        } catch (const std::exception& error) {
            done = false;
            log_error(devices_.name_of(*record), "taking the move back: {}", error.what());
        }
    };
    bool swapped = false;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        swapped = is_move_table(*record, noted);
        end_note(*record, noted);
    }
    attempt([&] {
        if (swapped) devices_.load_step(record, lines_of_json(noted["back"]), false, minors_of(devices_, *record));
        else devices_.clear_step(*record);
    });
    attempt([&] { devices_.resume_step(record); });
    if (stated) attempt([&] { devices_.commit({devices_.change_of(*record)}); });
    return done;
}

// The leg that is new may be on a server that goes away, and the volume has another one: it does not wait long. `moves`: of the table
// in use; else of the one that comes, as usual again.
void Moving::set_patience(const RecordPtr& record, const std::string& to, bool moves) const {
    unsigned home = 0;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        if (!record->device || record->settings.contains("nbd_timeout")) return;
        home = record->home;
    }
    run_on(devices_.host().env(home).reactor, [&] {
        Table* const table = moves ? record->owned->live() : record->owned->inactive();
        if (!table) return;
        for (OpenDevice* below : table->devices()) {
            if (below->words() == to) static_cast<void>(below->set("nbd_timeout", moves ? kPatience : "default"));
        }
    });
}

// --- taking it back -------------------------------------------------------------------------------------------------

Json Moving::abort(const DeviceKey& volume) {
    const std::lock_guard starting{starting_};
    const RecordPtr record = moving_carrier(volume);
    const std::lock_guard operation{record->operation};
    devices_.check_there(*record);
    Json noted;
    std::string name;
    std::optional<SlotText> held;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        noted = record->moving;
        name = record->name;
        if (noted.is_null()) throw Failure{Errc::bad_argument, fmt::format("{} does not move any more", name), name};
        held = record->kept;
        if (!held && (record->suspended || record->inactive || !is_move_table(*record, noted)))
            throw refusal(name, "is suspended or has a table that waits to be resumed; resume or clear it first", Errc::busy);
    }
    std::string lost;
    if (held && !logs_trust_from(noted, lost) && !lost.empty()) {
        throw refusal(name, fmt::format("has lost its move's log {}, which alone knows whether {} has all that was written. Bring that file back; or, if {} never failed: "
                                        "`udmsetup load {} --table '{}'`, then `udmsetup resume {}`",
                                        lost, noted.value("from", ""), noted.value("from", ""), name, text_of_lines(lines_of_json(noted["back"])), name), Errc::io);
    }
    if (held && !logs_trust_from(noted, lost)) {
        throw refusal(name, fmt::format("cannot come up without {}, which may have what {} lacks: the move can be ended when both are there", noted.value("to", ""),
                                        noted.value("from", "")), Errc::busy);
    }
    devices_.load_step(record, lines_of_json(noted["back"]), false, held ? held->minors : minors_of(devices_, *record));
    try {
        devices_.suspend_step(*record, {});
        if (!held && has_failed(details_of(*record))) {
            throw Failure{Errc::io, fmt::format("{} has failed, and only {} has what was written since: the move cannot be taken back. It ends by itself when {} has all",
                                                noted.value("from", ""), noted.value("to", ""), noted.value("to", "")), name};
        }
        devices_.commit({change_at_end(devices_, *record, noted)});
        devices_.resume_step(record);
    } catch (...) {
        if (!held) go_on_with_mirror(devices_, record, noted);
        throw;
    }
    {
        const std::lock_guard lock{devices_.registry().mutex};
        end_note(*record, noted);
    }
    remove_logs(devices_, noted);
    bool removed = false;
    if (noted.value("made", false)) removed = remove_if_free(devices_, noted.value("to", ""));
    devices_.publish(*record, "table", "the move to " + noted.value("to", "") + " was taken back");
    log_info(name, "the move to {} was taken back", noted.value("to", ""));
    return {{"device", name_of_volume(devices_, *record, noted)}, {"from", noted["from"]}, {"to", noted["to"]}, {"removed", removed}};
}

// --- pauses ---------------------------------------------------------------------------------------------------------

void Moving::tell_paused(const RecordPtr& record, bool paused) const {
    const std::vector<std::string> words{paused ? "resync_pause" : "resync_resume"};
    std::vector<Sector> starts;
    unsigned home = 0;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        home = record->home;
        if (!record->device || !record->live) return;
        for (const TableLine& line : record->live->lines) starts.push_back(line.begin);
    }
    for (const Sector start : starts) static_cast<void>(must(call_on(devices_.host().env(home).reactor, [&] { return record->owned->message(start, &words); })));
}

Json Moving::pause(const DeviceKey& volume, bool paused) {
    const RecordPtr record = moving_carrier(volume);
    const std::lock_guard operation{record->operation};
    devices_.check_there(*record);
    {
        const std::lock_guard lock{devices_.registry().mutex};
        if (record->moving.is_null()) throw Failure{Errc::bad_argument, fmt::format("{} does not move any more", record->name), record->name};
        record->moving["paused"] = paused;
    }
    devices_.commit({devices_.change_of(*record)});
    tell_paused(record, paused);
    return describe(record);
}

// --- for people -----------------------------------------------------------------------------------------------------

// Of each mirror as table.status has them, with the letters of both legs and of the log.
Json Moving::details_of(const Record& record) const {
    DeviceKey key;
    key.minor = record.minor;
    Json list = Json::array();
    for (const Json& line : devices_.status(key, false)) {
        if (line["type"] != "mirror") return Json::array();
        Json details = line.value("details", Json::object());
        const auto words = split_words(line["text"].get<std::string>());
        if (words && words->size() > 6 && (*words)[5].size() == 2) details["health"] = (*words)[5] + words->back();
        list.push_back(std::move(details));
    }
    return list;
}

bool has_failed(const Json& mirrors) {
    return std::any_of(mirrors.begin(), mirrors.end(), [](const Json& mirror) { return mirror.value("source_leg", 0) != 0; });
}

namespace {

// What keeps it from ending, for people; empty: nothing.
std::string obstacle_of(const std::string& volume, const Json& noted, const Json& mirrors) {
    const std::string from = noted.value("from", ""), to = noted.value("to", "");
    if (has_failed(mirrors)) return fmt::format("{} has failed; {} has all there is", from, to);
    for (const Json& mirror : mirrors) {
        const std::string health = mirror.value("health", "AAA");
        if (mirror.contains("legs_away")) return fmt::format("{0} fails; {1} goes on from {2} alone, and the move goes on by itself when {0} is back", to, volume, from);
        if (health[2] == 'D' || health[2] == 'F') return fmt::format("the move's log cannot be written: writes may fail. Make room in the state directory, or `udm move {} --abort`", volume);
        if (health[0] != 'A') return fmt::format("{} cannot be read everywhere: what is left is tried again and again. `udm move {} --abort` ends that", from, volume);
    }
    return {};
}

}  // namespace

Json Moving::describe(const RecordPtr& record) const {
    Json noted, held;
    std::string carrier;
    std::uint64_t bytes = 0;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        noted = record->moving;
        if (record->gone || noted.is_null()) return nullptr;
        carrier = record->name;
        if (!record->held_because.empty()) held = record->held_because;
        for (const TableLine& line : lines_of_json(noted["then"])) bytes += to_bytes(line.length);
    }
    Json about = {{"device", name_of_volume(devices_, *record, noted)}, {"carrier", carrier}, {"from", noted["from"]}, {"to", noted["to"]}, {"bytes", bytes}};
    if (!held.is_null()) {
        about.update({{"state", "held"}, {"because", held}});
        return about;
    }
    Json mirrors;
    try {
        mirrors = details_of(*record);
    } catch (const Failure&) {    // it has just gone
        return nullptr;
    }
    std::uint64_t left = 0, speed = 0;
    for (const Json& mirror : mirrors) {
        left += mirror.value("resync_left_bytes", std::uint64_t{0});
        speed += mirror.value("resync_bytes_per_second", std::uint64_t{0});
    }
    about["left_bytes"] = left;
    std::string failed;
    if (is_all_there(mirrors)) {
        const std::lock_guard lock{mutex_};
        if (const auto end = failed_.find(record->serial); end != failed_.end())
            failed = fmt::format("all is in {}, but the move cannot end: {}. It is tried again after 1, 2, 4 … 60 s", noted.value("to", ""), end->second.because);
    }
    if (speed != 0) about.update({{"bytes_per_second", speed}, {"seconds_left", (left + speed - 1) / speed}});
    const std::string obstacle = failed.empty() ? obstacle_of(about["device"], noted, mirrors) : failed;
    about["state"] = !failed.empty() || (!obstacle.empty() && left != 0) ? "waiting" : noted.value("paused", false) ? "paused" : "copying";
    if (!obstacle.empty()) about["because"] = obstacle;
    return about;
}

Json Moving::list(const std::optional<DeviceKey>& volume) const {
    Json list = Json::array();
    std::vector<RecordPtr> records;
    if (volume) {
        records.push_back(carrier_of(*volume));
    } else {
        const std::lock_guard lock{mutex_};
        for (const auto& [serial, record] : watched_) records.push_back(record);
    }
    for (const RecordPtr& record : records) {
        if (Json about = describe(record); !about.is_null()) list.push_back(std::move(about));
    }
    std::stable_sort(list.begin(), list.end(), [](const Json& a, const Json& b) { return a["device"] < b["device"]; });
    return list;
}

}  // namespace udm::ctl
