#include "ctl/scrubs.hpp"

#include <fmt/format.h>

#include <sstream>

#include "base/parse.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"

namespace udm::ctl {
namespace {

// The words KEY=VALUE of a line; a word without `=` is under "".
std::map<std::string, std::string, std::less<>> words_of_line(const std::string& line) {
    std::map<std::string, std::string, std::less<>> words;
    std::istringstream in{line};
    for (std::string word; in >> word;) {
        const std::size_t at = word.find('=');
        if (at == word.npos) words[""] = word;
        else words[word.substr(0, at)] = word.substr(at + 1);
    }
    return words;
}

std::vector<std::string> split(const std::string& text, char between) {
    std::vector<std::string> parts;
    std::istringstream in{text};
    for (std::string part; std::getline(in, part, between);) parts.push_back(part);
    return parts;
}

std::uint64_t bytes_of(const std::string& sectors) { return parse_u64(sectors).value_or(0) * kSectorSize; }

bool has(const std::string& list, std::size_t leg) {
    for (const std::string& one : split(list, ',')) {
        if (one == std::to_string(leg)) return true;
    }
    return false;
}

Json place_of(const std::string& line, const MirrorOf& mirror, std::uint64_t start) {
    auto words = words_of_line(line);
    const std::vector<std::string> extent = split(words[""], '+'), sums = split(words["sums"], ',');
    if (extent.size() != 2) return nullptr;
    Json legs = Json::array();
    for (std::size_t leg = 0; leg < sums.size(); ++leg) {
        const bool read = sums[leg] != "-", wrong = has(words["wrong"], leg);
        Json one = {{"leg", leg}, {"device", leg < mirror.legs.size() ? mirror.legs[leg].words : ""}, {"crc32c", read ? Json(sums[leg]) : Json(nullptr)}};
        one["is"] = leg == parse_u64(words["believed"]) ? "believed" : !read ? wrong ? "unreadable" : "away" : wrong ? "wrong" : "right";
        one["zeroes"] = has(words["zeroes"], leg);
        legs.push_back(std::move(one));
    }
    return {{"offset", bytes_of(extent[0]) - start}, {"length", bytes_of(extent[1])}, {"believed", parse_u64(words["believed"]).value_or(0)},
            {"why", words["why"]}, {"legs", std::move(legs)}, {"repaired", words["repaired"] == "yes"}};
}

// docs/protocol.md. Offsets count from the mirror's start.
Json json_of(const std::string& text, const MirrorOf& mirror) {
    const std::vector<std::string> lines = split(text, '\n');
    auto words = words_of_line(lines.empty() ? "" : lines[0]);
    Json answer = {{"state", words["state"]}};
    if (words["state"] == "none") return answer;
    const std::uint64_t start = mirror.line.begin.v * kSectorSize;
    answer["mode"] = words["mode"];
    for (const char* const key : {"from", "at", "end"}) answer[key] = bytes_of(words[key]) - start;
    for (const char* const key : {"compared", "differing", "repaired", "unrepaired", "mended", "left"}) answer[fmt::format("{}_bytes", key)] = bytes_of(words[key]);
    answer["unlisted"] = parse_u64(words["unlisted"]).value_or(0);
    Json places = Json::array();
    for (std::size_t i = 1; i < lines.size(); ++i) places.push_back(place_of(lines[i], mirror, start));
    answer["places"] = std::move(places);
    return answer;
}

bool is_under_way(const std::string& text) { return text.find(" state=running ") != text.npos || text.find(" state=paused ") != text.npos; }

}  // namespace

// --- for clients ----------------------------------------------------------------------------------------------------

std::string Scrubs::ask(const MirrorOf& mirror) {
    DeviceKey key;
    key.minor = mirror.record->minor;
    return devices_.message(key, mirror.line.begin, "scrub_status").value_or("state=none");
}

Json Scrubs::start(const DeviceKey& key, const Wanted& wanted) {
    const MirrorOf mirror = find_mirror(devices_, key);
    const Sector from = mirror.line.begin + whole_sectors(wanted.from);
    DeviceKey found;
    found.minor = mirror.record->minor;
    devices_.message(found, mirror.line.begin, fmt::format("scrub_start {} {}", wanted.mode, from.v));
    note(mirror.record);
    return status(key);
}

Json Scrubs::tell(const DeviceKey& key, const char* message) {
    const MirrorOf mirror = find_mirror(devices_, key);
    DeviceKey found;
    found.minor = mirror.record->minor;
    devices_.message(found, mirror.line.begin, message);
    note(mirror.record);
    return status(key);
}

Json Scrubs::status(const DeviceKey& key) {
    const MirrorOf mirror = find_mirror(devices_, key);
    Json answer = json_of(ask(mirror), mirror);
    answer["device"] = devices_.name_of(*mirror.record);
    return answer;
}

// --- what lasts -----------------------------------------------------------------------------------------------------

void Scrubs::note(const RecordPtr& record) {
    try {
        if (!keep(record)) return;
    } catch (const std::exception& error) {    // it goes on all the same, and this is tried again
        log_error(devices_.name_of(*record), "where its check is cannot be kept: {}", error.what());
    }
    const std::lock_guard lock{mutex_};
    if (ending_) return;
    watched_.emplace(record->serial, record);
    if (!thread_.joinable()) thread_ = std::thread{[this] { run(); }};
    wake_.notify_one();
}

void Scrubs::find_unfinished() {
    for (const RecordPtr& record : devices_.registry().all()) {
        {
            const std::lock_guard lock{devices_.registry().mutex};
            if (!is_under_way(record->scrub)) continue;
        }
        note(record);
    }
}

bool Scrubs::keep(const RecordPtr& record) {
    DeviceKey key;
    key.minor = record->minor;
    std::string text;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        if (record->gone) return false;
        if (!record->held_because.empty()) return is_under_way(record->scrub);    // it has no table now
    }
    try {
        const MirrorOf mirror = find_mirror(devices_, key);
        if (mirror.record == record) text = ask(mirror);
    } catch (const Failure&) {    // another table was loaded, or it is gone: there is nothing to go on with
    }
    if (text == "state=none") text.clear();
    const auto [same, operation] = devices_.lock(key);
    {
        const std::lock_guard lock{devices_.registry().mutex};
        if (same != record || record->scrub == text) return is_under_way(text);
        record->scrub = text;
    }
    devices_.commit({devices_.change_of(*record)});
    return is_under_way(text);
}

void Scrubs::run() {
    std::unique_lock lock{mutex_};
    while (!ending_) {
        if (watched_.empty()) {
            wake_.wait(lock);
            continue;
        }
        wake_.wait_for(lock, kBetween, [this] { return ending_; });
        const auto watched = watched_;
        lock.unlock();
        std::vector<std::uint64_t> done;
        for (const auto& [serial, record] : watched) {
            try {
                if (!keep(record)) done.push_back(serial);
            } catch (const Failure& failure) {
                if (failure.error().code == Errc::not_found) done.push_back(serial);
                else log_error(devices_.name_of(*record), "where its check is cannot be kept: {}", failure.what());
            }
        }
        lock.lock();
        for (const std::uint64_t serial : done) watched_.erase(serial);
    }
}

void Scrubs::end() {
    {
        const std::lock_guard lock{mutex_};
        ending_ = true;
        wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
    watched_.clear();
}

}  // namespace udm::ctl
