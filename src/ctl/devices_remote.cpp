// Devices of the state that stand on NBD exports. Their server may be away when the daemon starts, and that must not keep others
// waiting: they come up by themselves when somebody has found their servers there (ctl/revival.hpp). Until then they are held.
//
// An origin whose snapshot has its store on such a server comes up with it, since without it the snapshot would be lost with the
// first write (decision 12). It is waited for as long as requests wait for a server (nbd_timeout), and not longer.
#include <fmt/format.h>

#include <algorithm>

#include "ctl/devices.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"
#include "ctl/opener.hpp"
#include "port/nbd_uri.hpp"

namespace udm::ctl {
namespace {

std::set<std::string> exports_of(const SlotText& slot) {
    std::set<std::string> uris;
    for (const TableLine& line : slot.lines) {
        for (const std::string& word : words_of(line)) {
            if (is_nbd_uri(word)) uris.insert(word);
        }
    }
    return uris;
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

bool Devices::waits_longer() const {
    for (const Parameter& parameter : host_.parameters()) {
        if (parameter.name != "nbd_timeout") continue;
        const std::chrono::seconds patience{parameter.value};
        return parameter.value == 0 || std::chrono::steady_clock::now() < restored_at_ + patience;
    }
    return false;
}

std::optional<std::string> Devices::obstacle(const RecordPtr& record, const SlotText& slot, const std::set<std::string>& there) const {
    for (const std::string& uri : exports_of(slot)) {
        if (!there.contains(uri)) return fmt::format("it waits for the NBD server of {}", uri);
    }
    std::vector<RecordPtr> others = remote_;
    std::erase(others, record);
    std::erase_if(others, [this](const RecordPtr& other) { return !held_table(*other); });
    if (!needs(slot, others)) return std::nullopt;
    const bool is_origin = std::ranges::any_of(slot.lines, writes_base);
    if (is_origin && !waits_longer()) return std::nullopt;
    return "what it needs waits for an NBD server";
}

bool Devices::bring_up_remote(const std::set<std::string>& there) {
    bool any = false;
    for (const RecordPtr& record : std::vector<RecordPtr>{remote_}) {
        const std::lock_guard operation{record->operation};
        const auto slot = held_table(*record);
        if (!slot) {    // somebody has resumed or removed it
            std::erase(remote_, record);
            continue;
        }
        auto why = obstacle(record, *slot, there);
        if (!why) {
            try {
                bring_up_one(record);
                log_info(name_of(*record), "is back");
                std::erase(remote_, record);
                any = true;
                continue;
            } catch (const std::exception& failure) {
                why = failure.what();
            }
        }
        bool is_new = false;
        {
            const std::lock_guard lock{registry_.mutex};
            is_new = record->held_because != *why;
        }
        if (is_new) hold(*record, *why);
    }
    return any;
}

}  // namespace udm::ctl
