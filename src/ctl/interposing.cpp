#include "ctl/interposing.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/parse.hpp"
#include "ctl/call_on.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"

namespace udm::ctl {
namespace {

// The same lines over another base. A name in a table is quoted as a path is.
std::vector<TableLine> with_base(const std::vector<TableLine>& lines, const std::string& base) {
    std::vector<TableLine> changed = lines;
    for (TableLine& line : changed) {
        std::vector<std::string> words = words_of(line);
        words[0] = base;
        line.params.clear();
        for (const std::string& word : words) line.params += (line.params.empty() ? "" : " ") + quote_word(word);
    }
    return changed;
}

// The registry's mutex is held.
void check_member(const Record& record, const std::string& base) {
    const auto refuse = [&](std::string why) { throw Failure{Errc::busy, fmt::format("{} {}", record.name, why), record.name}; };
    if (record.gone) refuse("was just removed; try again");
    if (!record.held_because.empty()) refuse(fmt::format("is held: {}", record.held_because));
    if (record.suspended || record.inactive || !record.live) refuse("is suspended or has a table that waits to be resumed; resume or clear it first");
    const bool family = record.live->lines.size() == 1 && !snapshot_base(record.live->lines[0]).empty();
    if (!family) refuse(fmt::format("stands on {}, too, and would be left there: remove it first", base));
    if (record.still || !record.merging.is_null() || record.live->lines[0].type == "snapshot-merge") refuse("has a merge under way; try again when that has ended");
    const auto words = words_of(record.live->lines[0]);
    if (words.size() > 2 && (words[2][0] == 'N' || words[2][0] == 'n')) refuse("has a store that does not last (N), and would lose it: drop that snapshot first");
}

}  // namespace

Interposing::Interposing(Devices& devices, const RecordPtr& origin) : devices_{devices} {
    Registry& registry = devices_.registry();
    std::string base, name;
    unsigned home = 0;
    Sectors size;
    {
        const std::lock_guard lock{registry.mutex};
        base = snapshot_base(origin->live->lines[0]);
        name = origin->name;
        home = origin->home;
        size = origin->size;
    }
    std::vector<RecordPtr> all = registry.users_of(devices_.host().identify(base));    // in the order of their serials
    for (const RecordPtr& record : all) operations_.emplace_back(record->operation);
    if (all != registry.users_of(devices_.host().identify(base))) throw Failure{Errc::busy, fmt::format("the snapshots of {} are just changing; try again", name), name};
    if (std::find(all.begin(), all.end(), origin) == all.end()) throw Failure{Errc::busy, fmt::format("{} was just changed; try again", name), name};
    bool read_only = false;
    for (const RecordPtr& record : all) {
        const std::lock_guard lock{registry.mutex};
        check_member(*record, base);
        if (record == origin) read_only = record->live->read_only;
    }
    if (read_only) throw Failure{Errc::bad_argument, fmt::format("{} is read-only, and a copy needs to be written", name), name};
    below_ = devices_.make(name + "-real", "", std::nullopt);
    operations_.emplace_back(below_->operation);
    try {
        {
            const std::lock_guard lock{registry.mutex};
            below_->internal = true;
        }
        devices_.load_step(below_, {{Sector{0}, size, "linear", quote_word(base) + " 0"}}, false, {}, home);
        devices_.resume_step(below_);
        const std::string words = "udm:" + name + "-real";
        minors_ = {{words, below_->minor}};
        std::stable_partition(all.begin(), all.end(), [&](const RecordPtr& record) { return record != origin; });
        for (const RecordPtr& record : all) {
            const std::lock_guard lock{registry.mutex};
            members_.push_back({.record = record, .before = *record->live, .after = with_base(record->live->lines, words)});
        }
    } catch (...) {
        registry.begin_removal(*below_);
        registry.free_names(*below_);
        devices_.destroy_step(*below_);
        throw;
    }
}

Interposing::~Interposing() {
    if (committed_) return;
    try {
        devices_.registry().begin_removal(*below_);
        devices_.registry().free_names(*below_);
        devices_.destroy_step(*below_);
    } catch (const std::exception& error) {
        log_error(devices_.name_of(*below_), "cannot be removed again: {}", error.what());
    }
}

State::Change Interposing::change_of(const Member& member) const {
    State::Change change = devices_.change_of(*member.record);
    (*change.value)["table"] = json_of_lines(member.after);
    auto minors = member.before.minors;
    minors.insert(minors_.begin(), minors_.end());
    (*change.value)["minors"] = minors;
    return change;
}

// Its table ends, and with that its store has no owner. Requests wait in the device.
void Interposing::let_go(Member& member) {
    Sectors size;
    for (const TableLine& line : member.before.lines) size += line.length;
    devices_.load_step(member.record, {{Sector{0}, size, "error", ""}}, false);
    devices_.resume_step(member.record);
    member.let_go = true;
}

void Interposing::load(Member& member, const std::vector<TableLine>& lines, const SlotText& like) {
    auto minors = like.minors;
    minors.insert(minors_.begin(), minors_.end());
    devices_.load_step(member.record, lines, like.read_only, minors);
    devices_.resume_step(member.record);
}

void Interposing::commit() {
    const auto quiesce = [this](Member& member, bool stop) {
        Reactor& home = devices_.host().env(member.record->home).reactor;
        if (stop) call_on(home, [&] { return member.record->owned->quiesce(); });
        else run_on(home, [&] { member.record->owned->unquiesce(); });
    };
    // The origin first: its writes may wait for copies to the snapshots.
    for (auto member = members_.rbegin(); member != members_.rend(); ++member) quiesce(*member, true);
    try {
        std::vector<State::Change> changes{devices_.change_of(*below_)};
        for (const Member& member : members_) changes.push_back(change_of(member));
        devices_.commit(changes);
        for (auto member = members_.rbegin(); member != members_.rend(); ++member) let_go(*member);
        for (Member& member : members_) load(member, member.after, member.before);
    } catch (const std::exception& error) {
        log_error(devices_.name_of(*members_.back().record), "cannot be put over another device: {}", error.what());
        take_back();
        for (Member& member : members_) quiesce(member, false);
        throw;
    }
    committed_ = true;
    for (Member& member : members_) quiesce(member, false);
}

void Interposing::take_back() noexcept {
    const auto attempt = [this](const Member& member, const auto& step) {
        try {
            step();
        } catch (const std::exception& error) {
            log_error(devices_.name_of(*member.record), "taking it back: {}", error.what());
        }
    };
    for (auto member = members_.rbegin(); member != members_.rend(); ++member) {
        if (member->let_go) attempt(*member, [&] { let_go(*member); });
    }
    std::vector<State::Change> changes{Devices::removal_of(*below_)};
    for (Member& member : members_) {
        if (member.let_go) {
            attempt(member, [&] {
                try {
                    load(member, member.before.lines, member.before);
                } catch (const std::exception&) {
                    log_error(devices_.name_of(*member.record), "it answers with errors until its table is loaded again, or udmd starts again: {}",
                              to_line(json_of_lines(member.before.lines)));
                    throw;
                }
            });
        }
        // Whatever came of that: an error table is nothing to come up with.
        changes.push_back(devices_.change_of(*member.record));
        Json& value = *changes.back().value;
        value["table"] = json_of_lines(member.before.lines);
        value.erase("minors");
        if (!member.before.minors.empty()) value["minors"] = member.before.minors;
    }
    attempt(members_.back(), [&] { devices_.commit(changes); });
}

}  // namespace udm::ctl
