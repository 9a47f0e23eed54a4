// Devices of the state that stand on NBD exports. Their server may be away when the daemon starts, and that must not keep others
// waiting: they come up by themselves when somebody has found their servers there (ctl/revival.hpp). Until then they are held.
//
// An origin whose snapshot has its store on such a server comes up with it, since without it the snapshot would be lost with the
// first write (decision 12). It is waited for as long as requests wait for a server (nbd_timeout), and not longer. So is a leg of a
// mirror that goes on without it (docs/targets/mirror.md).
#include <fmt/format.h>

#include <algorithm>

#include "base/parse.hpp"
#include "ctl/devices.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"
#include "ctl/opener.hpp"
#include "port/nbd_uri.hpp"

namespace udm::ctl {
namespace {

constexpr std::chrono::seconds kAgainMost{60};    // between attempts at what fails though nothing has changed

std::set<std::string> exports_of(const SlotText& slot) {
    std::set<std::string> uris;
    for (const TableLine& line : slot.lines) {
        for (const std::string& word : words_of(line)) {
            if (is_nbd_uri(word)) uris.insert(word);
        }
    }
    return uris;
}

// Device and first sector of each leg of a mirror that goes on without a leg: none with handle_errors alone, which holds writes then.
std::vector<std::pair<std::string, Sector>> optional_legs(const TableLine& line) {
    std::vector<std::pair<std::string, Sector>> legs;
    if (line.type != "mirror") return legs;
    const auto words = words_of(line);
    const auto number = [&](std::size_t i) { return i < words.size() ? parse_u64(words[i]).value_or(0) : 0; };
    const std::size_t first = 3 + number(1);    // LOG #ARGS ARGS... #LEGS
    const std::size_t after = first + 2 * number(first - 1);
    if (first >= words.size() || after > words.size() || after < first) return legs;
    const bool errors = std::find(words.begin() + static_cast<std::ptrdiff_t>(after), words.end(), "handle_errors") != words.end();
    const bool keep_log = std::find(words.begin() + static_cast<std::ptrdiff_t>(after), words.end(), "keep_log") != words.end();
    if (errors && !keep_log) return legs;
    // A log in memory forgets that a leg missed something: with `nosync` nothing would be copied to it, and the first one would count.
    const bool in_memory = words[0] == "core";
    const auto log_end = words.begin() + static_cast<std::ptrdiff_t>(first - 1);
    if (in_memory && std::find(words.begin() + 2, log_end, "nosync") != log_end) return legs;
    for (std::size_t i = first; i < after; i += 2) legs.emplace_back(words[i], Sector{number(i + 1)});
    return legs;
}

// The exports that are away and that the table can do without: each of its mirrors has another leg, and nothing else needs them.
std::map<std::string, Sectors, std::less<>> dispensable(const SlotText& slot, const std::set<std::string>& there) {
    std::map<std::string, Sectors, std::less<>> away;
    if (slot.read_only) return away;
    std::map<std::string, std::size_t> as_legs;
    for (const TableLine& line : slot.lines) {
        const auto legs = optional_legs(line);
        const auto is_away = [&](const std::string& word) { return is_nbd_uri(word) && !there.contains(word); };
        if (std::ranges::all_of(legs, [&](const auto& leg) { return is_away(leg.first); })) continue;
        for (const auto& [word, start] : legs) {
            if (!is_away(word)) continue;
            away[word] = std::max(away[word], (start + line.length) - Sector{0});
            ++as_legs[word];
        }
    }
    for (const TableLine& line : slot.lines) {
        for (const std::string& word : words_of(line)) {
            if (const auto leg = as_legs.find(word); leg != as_legs.end() && leg->second-- == 0) away.erase(word);
        }
    }
    return away;
}

}  // namespace

std::optional<SlotText> Devices::held_table(const Record& record) const {
    const std::lock_guard lock{registry_.mutex};
    return record.gone ? std::nullopt : record.kept;
}

// Whether the table cannot come up without one of `others`: stands on it, or writes the base of a snapshot of theirs.
bool Devices::needs(const SlotText& slot, const std::vector<RecordPtr>& others) const {
    const auto is_other = [&](const RecordPtr& lower) { return lower && std::ranges::find(others, lower) != others.end(); };
    for (const auto& [word, minor] : slot.minors) {
        DeviceKey key;
        key.minor = minor;
        if (is_other(registry_.try_find(key))) return true;
    }
    for (const TableLine& line : slot.lines) {
        for (const std::string& word : words_of(line)) {
            if (is_other(find_mapped(registry_, word))) return true;
        }
        if (!writes_base(line)) continue;
        for (const RecordPtr& other : others) {
            const auto theirs = held_table(*other);
            if (!theirs) continue;
            for (const TableLine& snapshot : theirs->lines) {
                if (!snapshot_cow(snapshot).empty() && snapshot_base(snapshot) == snapshot_base(line)) return true;
            }
        }
    }
    return false;
}

void Devices::set_remote_aside(std::vector<RecordPtr>& records) {
    std::vector<RecordPtr> aside;
    const auto is_remote = [&](const RecordPtr& record) {
        const auto slot = held_table(*record);
        return slot && (!exports_of(*slot).empty() || needs(*slot, aside));
    };
    for (bool more = true; more;) {
        const auto found = std::ranges::find_if(records, is_remote);
        more = found != records.end();
        if (!more) break;
        aside.push_back(*found);
        records.erase(found);
    }
    for (const RecordPtr& record : aside) {
        const std::lock_guard lock{registry_.mutex};
        record->held_because = "it waits for an NBD server";
    }
    remote_ = in_order(aside);
    restored_at_ = std::chrono::steady_clock::now();
    expect_origins(remote_);
}

std::set<std::string> Devices::exports_awaited() const {
    std::set<std::string> uris;
    for (const RecordPtr& record : remote_) {
        if (const auto slot = held_table(*record)) uris.merge(exports_of(*slot));
    }
    return uris;
}

bool Devices::waits_longer(const Record& record) const {
    const auto is_over = [this](std::uint64_t seconds) {
        return seconds != 0 && std::chrono::steady_clock::now() >= restored_at_ + std::chrono::seconds{seconds};
    };
    {
        const std::lock_guard lock{registry_.mutex};
        const auto own = record.settings.find("nbd_timeout");
        const auto seconds = own != record.settings.end() && own->is_string() ? parse_u64(own->get<std::string>()) : std::nullopt;
        if (seconds) return !is_over(*seconds);
    }
    for (const Parameter& parameter : host_.parameters()) {
        if (parameter.name != "nbd_timeout") continue;
        return !is_over(parameter.value);
    }
    return false;
}

std::optional<std::string> Devices::obstacle(const RecordPtr& record, const SlotText& slot, const std::set<std::string>& there,
                                             const Away& away) const {
    for (const std::string& uri : exports_of(slot)) {
        if (!there.contains(uri) && !(away.contains(uri) && !waits_longer(*record))) return fmt::format("it waits for the NBD server of {}", uri);
    }
    std::vector<RecordPtr> others = remote_;
    std::erase(others, record);
    std::erase_if(others, [this](const RecordPtr& other) { return !held_table(*other); });
    if (!needs(slot, others)) return std::nullopt;
    const bool is_origin = std::ranges::any_of(slot.lines, writes_base);
    if (is_origin && !waits_longer(*record)) return std::nullopt;
    return "what it needs waits for an NBD server";
}

bool Devices::bring_up_remote(const std::set<std::string>& there) {
    bool any = false;
    for (const RecordPtr& record : std::vector<RecordPtr>{remote_}) {
        const std::lock_guard operation{record->operation};
        const auto slot = held_table(*record);
        if (!slot) {    // somebody has resumed or removed it
            std::erase(remote_, record);
            failed_.erase(record->serial);
            continue;
        }
        const auto failed = failed_.find(record->serial);
        if (failed != failed_.end() && failed->second.there == there && std::chrono::steady_clock::now() < failed->second.again) continue;
        std::string before;
        {
            const std::lock_guard lock{registry_.mutex};
            before = record->held_because;
        }
        const Away away = dispensable(*slot, there);
        auto why = obstacle(record, *slot, there, away);
        if (!why) {
            try {
                bring_up_one(record, away);
                log_info(name_of(*record), "is back{}", away.empty() ? "" : ", with legs away");
                std::erase(remote_, record);
                failed_.erase(record->serial);
                any = true;
                continue;
            } catch (const std::exception& failure) {
                why = failure.what();
                Attempt& attempt = failed_[record->serial];
                attempt.pause = attempt.there == there ? std::min(2 * attempt.pause, kAgainMost) : std::chrono::seconds{1};
                attempt.there = there;
                attempt.again = std::chrono::steady_clock::now() + attempt.pause;
            }
        }
        hold(*record, *why, *why != before);
    }
    return any;
}

}  // namespace udm::ctl
