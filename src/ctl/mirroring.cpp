#include "ctl/mirroring.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <optional>
#include <set>

#include "base/parse.hpp"
#include "ctl/call_on.hpp"
#include "ctl/content.hpp"
#include "ctl/failure.hpp"
#include "ctl/interposing.hpp"
#include "ctl/log.hpp"
#include "ctl/mirror_log.hpp"
#include "ctl/mirror_words.hpp"
#include "ctl/new_leg.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

constexpr std::size_t kLegsMost = 9;
constexpr const char* kLogPrefix = "mirror-";

Json leg_json(const MirrorOf::Leg& leg) { return {{"device", leg.words}, {"offset", leg.offset}}; }

}  // namespace

// --- the words ------------------------------------------------------------------------------------------------------

MirrorWords::MirrorWords(const TableLine& line) {
    const auto words = words_of(line);
    const std::size_t log_words = words.size() > 1 ? 2 + std::size_t{parse_u32(words[1]).value_or(0)} : 0;
    if (log_words == 0 || words.size() <= log_words) return;
    log.assign(words.begin(), words.begin() + static_cast<std::ptrdiff_t>(log_words));
    const std::size_t count = parse_u32(words[log_words]).value_or(0);
    std::size_t at = log_words + 1;
    for (; at + 1 < words.size() && legs.size() < count; at += 2) legs.push_back({words[at], words[at + 1]});
    features.assign(words.begin() + static_cast<std::ptrdiff_t>(std::min(at, words.size())), words.end());
}

std::string MirrorWords::text() const {
    std::string text;
    for (const std::string& word : log) text += quote_word(word) + " ";
    text += std::to_string(legs.size());
    for (const MirrorOf::Leg& leg : legs) text += " " + quote_word(leg.words) + " " + leg.offset;
    for (const std::string& word : features) text += " " + word;
    return text;
}

// --- one change -----------------------------------------------------------------------------------------------------

struct Mirroring::Work {
    std::string name;                      // of the volume that was asked for
    RecordPtr record;                      // whose table it is
    std::optional<Interposing> between;    // has the lock then
    std::unique_lock<std::mutex> operation;
    SlotText before;
    MirrorWords mirror;                    // no legs: it is linear
    Json note;                             // as it is to be: {"log": a path that is ours, "replacing": {"old", "new"}}
    unsigned home = 0;
    bool may_be_named = false;             // it failed, and a table or the state may have the new leg and log still

    Work(Devices& devices, const DeviceKey& volume, bool may_be_plain);
    Work(Devices& devices, const RecordPtr& of);    // of a replacement under way; the table is not looked at
    void read();
    const TableLine& line() const { return before.lines[0]; }
    TableLine line_with(const MirrorWords& words) const {
        TableLine made = line();
        made.type = "mirror";
        made.params = words.text();
        return made;
    }
    std::size_t find(const Devices& devices, const std::string& leg) const;
    std::size_t find(const Json& leg) const;    // as noted; legs.size(): not there
    [[noreturn]] void refuse(const std::string& why, Errc code = Errc::bad_argument) const { throw Failure{code, name + " " + why, name}; }
};

Mirroring::Work::Work(Devices& devices, const DeviceKey& volume, bool may_be_plain) {
    Registry& registry = devices.registry();
    record = registry.find(volume);
    name = devices.name_of(*record);
    bool on_file = false;
    try {
        record = find_mirror(devices, volume).record;
    } catch (const Failure&) {
        if (!may_be_plain) throw;
        std::string base;
        {
            const std::lock_guard lock{registry.mutex};
            if (record->live && record->live->lines.size() == 1 && record->live->lines[0].type == "snapshot-origin") base = snapshot_base(record->live->lines[0]);
        }
        const RecordPtr below = base.empty() ? nullptr : find_mapped(registry, base);
        on_file = !base.empty() && !below;
        if (below) record = below;
    }
    if (on_file) {
        between.emplace(devices, record);
        record = between->below();
    } else {
        operation = std::unique_lock{record->operation};
        devices.check_there(*record);
    }
    const std::lock_guard lock{registry.mutex};
    if (!record->held_because.empty()) refuse(fmt::format("is held: {}", record->held_because));
    if (!record->moving.is_null()) refuse(fmt::format("is being moved; `udm move {}` waits for that, `udm move {} --abort` takes it back", name, name), Errc::busy);
    if (!record->merging.is_null()) refuse("has a merge under way; try again when that has ended", Errc::busy);
    if (!record->live) refuse("has no table");
    if (record->suspended || record->inactive) refuse("is suspended or has a table that waits to be resumed; resume or clear it first", Errc::busy);
    if (record->still || (record->snapshot.is_object() && record->snapshot.contains("layer_of"))) refuse("is a layer of a redirected volume; its stores cannot be mirrored");
    if (record->live->read_only) refuse("is read-only, and a leg needs to be written: create it again without that");
    if (record->live->lines.size() != 1) refuse(fmt::format("has a table of {} lines; change it with udmsetup", record->live->lines.size()));
    const std::string& type = record->live->lines[0].type;
    if (type == "snapshot" || type == "snapshot-merge") refuse("is a snapshot; add the leg to its origin");
    if (type != "mirror" && type != "linear") refuse(fmt::format("has a table of type {}; only linear ones become mirrors", type));
    read();
    if (type != "linear") return;
    if (const auto words = words_of(line()); words[0].starts_with("ram:") && words[0].find(':', 4) == std::string::npos) {
        refuse(fmt::format("has its data in memory that is its own ({}); use ram:NAME:SIZE to have volumes that become mirrors", words[0]));
    }
}

Mirroring::Work::Work(Devices& devices, const RecordPtr& of) : record{of}, operation{of->operation} {
    const std::lock_guard lock{devices.registry().mutex};
    name = of->name;
    if (of->live && of->live->lines.size() == 1) read();
}

// The registry's mutex is held.
void Mirroring::Work::read() {
    before = *record->live;
    note = record->mirroring.is_object() ? record->mirroring : Json::object();
    home = record->home;
    mirror = before.lines[0].type == "mirror" ? MirrorWords{before.lines[0]} : MirrorWords{};
}

std::size_t Mirroring::Work::find(const Devices& devices, const std::string& leg) const {
    if (const auto number = parse_u32(leg); number && *number < mirror.legs.size()) return *number;
    const RecordPtr mapped = find_mapped(devices.registry(), leg);
    const DiskId id = mapped ? mapped->id() : const_cast<Devices&>(devices).host().identify(leg);
    std::vector<std::string> names;
    for (std::size_t i = 0; i < mirror.legs.size(); ++i) {
        const std::string& words = mirror.legs[i].words;
        names.push_back(fmt::format("{} ({})", i, words));
        if (words == leg) return i;
        const RecordPtr theirs = find_mapped(devices.registry(), words);
        if (id.kind != DiskId::Kind::none && (theirs ? theirs->id() : const_cast<Devices&>(devices).host().identify(words)) == id) return i;
    }
    refuse(fmt::format("has no leg {}: there are {}", leg, fmt::join(names, ", ")));
}

std::size_t Mirroring::Work::find(const Json& leg) const {
    std::size_t i = 0;
    while (i < mirror.legs.size() && leg_json(mirror.legs[i]) != leg) ++i;
    return i;
}

// The state first, with nothing under way: whichever table a crash leaves has the data.
void Mirroring::swap(Work& work, const TableLine& line, const Json& note, const std::function<void()>& check) {
    devices_.load_step(work.record, {line}, work.before.read_only, work.before.minors);
    bool stated = false;    // or nobody knows
    try {
        devices_.suspend_step(*work.record, {});
        if (check) check();
        {
            const std::lock_guard lock{devices_.registry().mutex};
            work.record->mirroring = note.empty() ? Json{} : note;
        }
        stated = true;
        devices_.commit({devices_.change_of(*work.record, true)});
        devices_.resume_step(work.record);
    } catch (const std::exception& error) {
        log_warning(work.name, "its table stays: {}", error.what());
        take_back(work, line, stated);
        throw;
    }
    const std::lock_guard lock{devices_.registry().mutex};
    work.read();
}

// The volume must not hang, whatever else fails.
void Mirroring::take_back(Work& work, const TableLine& line, bool stated) noexcept {
    const auto attempt = [&](const auto& step) {
        try {
            step();
        } catch (const std::exception& error) {
            work.may_be_named = true;
            log_error(work.name, "going back to the old table: {}", error.what());
        }
    };
    bool swapped = false;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        swapped = !work.record->inactive && work.record->live && work.record->live->lines[0].params == line.params;
        work.record->mirroring = work.note.empty() ? Json{} : work.note;
    }
    attempt([&] {
        if (swapped) devices_.load_step(work.record, work.before.lines, work.before.read_only, work.before.minors);
        else devices_.clear_step(*work.record);
    });
    attempt([&] { devices_.resume_step(work.record); });
    if (stated) attempt([&] { devices_.commit({devices_.change_of(*work.record)}); });
}

namespace {
Result<std::string> message(Devices& devices, const RecordPtr& record, Sector sector, const std::vector<std::string>& words) {
    unsigned home = 0;
    {
        const std::lock_guard lock{devices.registry().mutex};
        home = record->home;
    }
    return call_on(devices.host().env(home).reactor, [&] { return record->owned->message(sector, &words); });
}
}  // namespace

void Mirroring::tell(const Work& work, const std::string& text) const {
    must(message(devices_, work.record, work.line().begin, must(split_words(text))), work.name);
}

// "source", "complete", "behind" or "away", of each leg.
std::vector<std::string> Mirroring::states(const Work& work) const {
    auto words = must(split_words(must(message(devices_, work.record, work.line().begin, {"legs"}), work.name)));
    words.resize(work.mirror.legs.size());
    return words;
}

Json Mirroring::answer(const Work& work) const {
    Json legs = Json::array();
    for (const MirrorOf::Leg& leg : work.mirror.legs) legs.push_back(leg.words);
    if (work.mirror.legs.empty()) legs.push_back(words_of(work.line())[0]);
    const std::string log = work.mirror.log_device();
    Json made{{"device", devices_.name_of(*work.record)}, {"legs", std::move(legs)}, {"log", work.mirror.legs.empty() ? Json{} : Json(log.empty() ? "core" : log)}};
    if (work.note.contains("replacing")) made["replacing"] = work.note["replacing"]["old"]["device"];
    return made;
}

// --- adding and replacing -------------------------------------------------------------------------------------------

// Beside all, perhaps to replace one; or at once instead of one.
Json Mirroring::add(Work& work, const NewOne& wanted, std::optional<std::size_t> instead_of, std::optional<std::size_t> replaces) {
    const bool plain = work.mirror.legs.empty();
    if (!plain && wanted.log) work.refuse("is a mirror, and has its log already");
    if (work.mirror.legs.size() >= kLegsMost && !instead_of) work.refuse(fmt::format("has {} legs, and a mirror can have no more: drop one first", kLegsMost));
    MirrorWords words = work.mirror;
    if (plain) {
        const auto linear = words_of(work.line());
        words.legs.push_back({linear[0], linear[1]});
        words.features = {"2", "handle_errors", "keep_log"};
    }
    const MirrorOf::Leg leg{wanted.device, std::to_string(wanted.offset.v)};
    const RecordPtr mapped = find_mapped(devices_.registry(), leg.words);
    const DiskId id = mapped ? mapped->id() : devices_.host().identify(leg.words);
    for (const MirrorOf::Leg& old : words.legs) {
        const RecordPtr theirs = find_mapped(devices_.registry(), old.words);
        const DiskId old_id = theirs ? theirs->id() : devices_.host().identify(old.words);
        if (old.words == leg.words || (id.kind != DiskId::Kind::none && id == old_id)) work.refuse(fmt::format("stands on {} already", leg.words), Errc::exists);
    }
    NewLeg::Volume about{.name = work.name, .size = work.line().length + Sectors{wanted.offset.v}, .logical_block = kSectorSize, .home = work.home};
    run_on(devices_.host().env(work.home).reactor, [&] { about.logical_block = work.record->owned->limits().logical_block; });
    NewLeg device{devices_, leg.words, about};
    if (!device.made() && !wanted.overwrite) {
        const std::string content = content_of(devices_, leg.words, wanted.offset, work.home);
        if (!content.empty()) {
            throw Failure{Errc::exists, fmt::format("{} holds {}, which would be lost: all of it is overwritten with what {} has", leg.words, content, work.name), work.name};
        }
    }
    std::optional<MirrorLog> log;
    if (plain) {
        log.emplace(devices_, fmt::format("{}{}", kLogPrefix, work.record->minor), work.line().length, wanted.log);
        words.log = must(split_words(log->words()), work.name);
    }
    Json note = work.note;
    if (log && log->made()) note["log"] = log->path();
    if (instead_of) words.legs.erase(words.legs.begin() + static_cast<std::ptrdiff_t>(*instead_of));
    words.legs.push_back(leg);
    if (replaces) note["replacing"] = {{"old", leg_json(work.mirror.legs[*replaces])}, {"new", leg_json(leg)}};
    if (work.between) work.between->commit();
    try {
        swap(work, work.line_with(words), note);
    } catch (const std::exception&) {
        if (work.may_be_named) {
            device.keep();
            if (log) log->keep();
            log_error(work.name, "{} and the mirror's log stay: after a restart the state may name them still", leg.words);
        }
        throw;
    }
    device.keep();
    if (log) log->keep();
    devices_.publish(*work.record, "table", "new leg " + leg.words);
    log_info(work.name, "has a new leg {}", leg.words);
    Json made = answer(work);
    made["made"] = device.made();
    return made;
}

Json Mirroring::add_leg(const DeviceKey& volume, const NewOne& wanted) {
    const std::lock_guard starting{starting_};
    Work work{devices_, volume, true};
    return add(work, wanted);
}

Json Mirroring::replace_leg(const DeviceKey& volume, const std::string& leg, const NewOne& wanted) {
    const std::lock_guard starting{starting_};
    Work work{devices_, volume, false};
    const std::size_t old = work.find(devices_, leg);
    if (work.note.contains("replacing")) {
        work.refuse(fmt::format("has a leg that is being replaced already, {}; drop its successor to end that", work.note["replacing"]["old"]["device"].get<std::string>()),
                    Errc::busy);
    }
    if (states(work)[old] == "away") return add(work, wanted, old);
    Json begun = add(work, wanted, std::nullopt, old);
    watch(work.record);
    devices_.worker().post([this, record = work.record] { look(record); });    // it may have been quick
    return begun;
}

// --- dropping -------------------------------------------------------------------------------------------------------

// The leg that stays is all there is then. What was copied to it may be in its cache only: all legs are flushed before, and what is written
// from then on by the suspend.
void Mirroring::make_plain(Work& work, std::size_t dropped) {
    const std::size_t stays = 1 - dropped;
    const auto check = [&] {
        const std::string state = states(work)[stays];
        if (state == "source" || state == "complete") return;
        throw Failure{Errc::busy, fmt::format("{} is {}, and {} alone has everything: {}", work.mirror.legs[stays].words, state, work.mirror.legs[dropped].words,
                                              state == "away" ? fmt::format("`udm mirror readd {}` first", work.name) : "wait until they are in sync"),
                      work.name};
    };
    check();
    devices_.flush_step(*work.record);
    TableLine line = work.line();
    line.type = "linear";
    line.params = fmt::format("{} {}", quote_word(work.mirror.legs[stays].words), work.mirror.legs[stays].offset);
    const std::string log = work.note.value("log", "");
    const bool ours = !log.empty() && log == work.mirror.log_device();
    swap(work, line, Json::object(), check);
    if (ours && devices_.is_free(log)) ::unlink(log.c_str());
}

Json Mirroring::drop_leg(const DeviceKey& volume, const std::string& leg) {
    const std::lock_guard starting{starting_};
    Work work{devices_, volume, false};
    const std::size_t dropped = work.find(devices_, leg);
    const MirrorOf::Leg gone = work.mirror.legs[dropped];
    if (work.mirror.legs.size() == 2) {
        make_plain(work, dropped);
    } else {
        MirrorWords words = work.mirror;
        words.legs.erase(words.legs.begin() + static_cast<std::ptrdiff_t>(dropped));
        Json note = work.note;
        if (note.contains("replacing")) {
            const Json& replacing = note["replacing"];
            if (replacing["old"] == leg_json(gone) || replacing["new"] == leg_json(gone)) note.erase("replacing");
        }
        swap(work, work.line_with(words), note);
    }
    devices_.publish(*work.record, "table", "dropped leg " + gone.words);
    log_info(work.name, "leg {} is dropped", gone.words);
    Json made = answer(work);
    made["dropped"] = gone.words;
    return made;
}

Json Mirroring::readd(const DeviceKey& volume, const std::optional<std::string>& leg) {
    Work work{devices_, volume, false};
    const auto now = states(work);
    std::vector<std::size_t> wanted;
    if (leg) wanted.push_back(work.find(devices_, *leg));
    for (std::size_t i = 0; !leg && i < now.size(); ++i) {
        if (now[i] == "away") wanted.push_back(i);
    }
    if (wanted.empty()) work.refuse("misses no leg: none is away");
    Json back = Json::array();
    for (const std::size_t i : wanted) {
        tell(work, fmt::format("leg_return {}", i));
        back.push_back(work.mirror.legs[i].words);
    }
    Json made = answer(work);
    made["readded"] = std::move(back);
    return made;
}

// --- replacements ---------------------------------------------------------------------------------------------------

Mirroring::~Mirroring() {
    if (!watched_.empty()) devices_.hub().remove(*this);
}

void Mirroring::go_on() {
    std::set<std::string> named;    // in any table
    for (const RecordPtr& record : devices_.registry().all()) {
        {
            const std::lock_guard lock{devices_.registry().mutex};
            for (const auto* slot : {&record->live, &record->kept}) {
                for (const TableLine& line : *slot ? (*slot)->lines : std::vector<TableLine>{}) {
                    for (std::string& word : words_of(line)) named.insert(std::move(word));
                }
            }
            if (!record->mirroring.contains("replacing")) continue;
        }
        watch(record);
        devices_.worker().post([this, record] { look(record); });
    }
    remove_logs_but(devices_, kLogPrefix, named);    // those of mirrors that were removed
}

void Mirroring::watch(const RecordPtr& record) {
    const std::lock_guard subscribing{subscribing_};
    bool first = false;
    {
        const std::lock_guard lock{mutex_};
        first = watched_.empty();
        watched_.emplace(record->serial, record);
    }
    if (first) devices_.hub().add(*this);
}

void Mirroring::forget(const RecordPtr& record) {
    const std::lock_guard subscribing{subscribing_};
    bool last = false;
    {
        const std::lock_guard lock{mutex_};
        last = watched_.erase(record->serial) != 0 && watched_.empty();
    }
    if (last) devices_.hub().remove(*this);
}

void Mirroring::event(const Event& event, const std::string&) noexcept {
    RecordPtr record;
    {
        const std::lock_guard lock{mutex_};
        const auto found = watched_.find(event.serial);
        if (found == watched_.end()) return;
        record = found->second;
    }
    devices_.worker().post([this, record] { look(record); });
}

// On the worker's thread. Whatever has happened: does the old leg go now? It does when the new one has everything, or the old one is away.
void Mirroring::look(const RecordPtr& record) {
    try {
        Work work{devices_, record};
        {
            const std::lock_guard lock{devices_.registry().mutex};
            if (!record->gone && record->mirroring.contains("replacing")) {
                if (!record->live || record->suspended || record->inactive) return;    // its resume is an event, too
            } else {
                work.note = nullptr;
            }
        }
        if (work.note.is_null()) return forget(record);
        const Json replacing = work.note["replacing"];
        const std::size_t old = work.find(replacing["old"]), fresh = work.find(replacing["new"]);
        Json note = work.note;
        note.erase("replacing");
        if (old == work.mirror.legs.size() || fresh == work.mirror.legs.size()) {    // somebody loaded another table: it is theirs now
            {
                const std::lock_guard lock{devices_.registry().mutex};
                record->mirroring = note.empty() ? Json{} : note;
            }
            devices_.commit({devices_.change_of(*record)});
            return forget(record);
        }
        const auto now = states(work);
        if (now[old] != "away" && now[fresh] != "complete" && now[fresh] != "source") return;
        MirrorWords words = work.mirror;
        words.legs.erase(words.legs.begin() + static_cast<std::ptrdiff_t>(old));
        swap(work, work.line_with(words), note);
        const std::string gone = replacing["old"]["device"], come = replacing["new"]["device"];
        log_info(work.name, "leg {} is replaced by {}", gone, come);
        devices_.publish(*record, "table", fmt::format("leg {} is replaced by {}", gone, come));
        forget(record);
    } catch (const std::exception& error) {
        log_warning(devices_.name_of(*record), "a leg that is to be replaced stays for now: {}; it is tried again when something happens to the mirror", error.what());
    }
}

}  // namespace udm::ctl
