// How a move ends, and what watches for that.
#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>

#include "base/endian.hpp"
#include "ctl/failure.hpp"
#include "ctl/fd.hpp"
#include "ctl/log.hpp"
#include "ctl/mirror_log.hpp"
#include "ctl/moving.hpp"
#include "ctl/moving_table.hpp"

namespace udm::ctl {
namespace {

// A leg that comes back, and an end that could not be, are no events.
constexpr std::chrono::milliseconds kBetweenLooks{1000};
constexpr std::chrono::seconds kEndAgainFirst{1}, kEndAgainLast{60};

}  // namespace

bool is_all_there(const Json& mirrors) {
    return !mirrors.empty() && std::all_of(mirrors.begin(), mirrors.end(), [](const Json& mirror) {
        if (!mirror.contains("source_leg")) return false;
        return mirror["source_leg"] == 1 || (mirror.value("resync_left_bytes", 1) == 0 && !mirror.contains("legs_away"));
    });
}

bool is_move_table(const Record& record, const Json& noted) {
    return record.live && text_of_lines(record.live->lines) == noted.value("mirrors", "");
}

void end_note(Record& record, const Json& noted) {
    record.moving = nullptr;
    if (const Json rate = noted.value("rate_before", Json{}); rate.is_null()) record.settings.erase("resync_rate");
    else record.settings["resync_rate"] = rate;
}

State::Change change_at_end(const Devices& devices, Record& record, const Json& noted) {
    State::Change change = devices.change_of(record, true);
    Json& value = *change.value;
    value.erase("moving");
    const Json rate = noted.value("rate_before", Json{});
    if (!rate.is_null()) value["settings"]["resync_rate"] = rate;
    else if (value.contains("settings")) value["settings"].erase("resync_rate");
    if (value.contains("settings") && value["settings"].empty()) value.erase("settings");
    return change;
}

std::map<std::string, std::uint32_t> minors_of(const Devices& devices, const Record& record) {
    const std::lock_guard lock{devices.registry().mutex};
    return record.live ? record.live->minors : std::map<std::string, std::uint32_t>{};
}

std::string name_of_volume(const Devices& devices, const Record& carrier, const Json& noted) {
    DeviceKey key;
    key.minor = noted.value("volume", carrier.minor);
    const RecordPtr volume = devices.registry().try_find(key);
    return devices.name_of(volume ? *volume : carrier);
}

// Only under version 1 is there a record that another leg counts (docs/formats/disk_log.md). A log of zeroes was never used.
bool logs_trust_from(const Json& noted, std::string& lost) {
    for (const Json& path : noted.at("logs")) {
        const Fd log{::open(path.get_ref<const std::string&>().c_str(), O_RDONLY | O_CLOEXEC)};
        struct {
            le32 magic, version;
        } begin{};
        if (!log || ::pread(log.get(), &begin, sizeof begin, 0) != sizeof begin) {
            lost = path.get<std::string>();
            return false;
        }
        if ((begin.magic != 0 || begin.version != 0) && (begin.magic != 0x4D695272 || begin.version != 2)) return false;
    }
    return true;
}

bool remove_if_free(const Devices& devices, const std::string& path) noexcept {
    try {
        if (devices.is_free(path)) return ::unlink(path.c_str()) == 0;
        log_warning("", "{} is used by another table now, and stays", path);
    } catch (const std::exception& error) {
        log_warning("", "{} stays: {}", path, error.what());
    }
    return false;
}

void remove_logs(const Devices& devices, const Json& noted) noexcept {
    if (noted.is_null()) return;
    for (const Json& path : noted.at("logs")) remove_if_free(devices, path.get_ref<const std::string&>());
}

void go_on_with_mirror(Devices& devices, const RecordPtr& record, const Json& noted) noexcept {
    try {
        {
            const std::lock_guard lock{devices.registry().mutex};
            if (!is_move_table(*record, noted)) return end_note(*record, noted);
        }
        devices.clear_step(*record);
        devices.resume_step(record);
        devices.commit({devices.change_of(*record)});
    } catch (const std::exception& error) {
        log_error(devices.name_of(*record), "{}; `udmsetup resume {}` tries again", error.what(), devices.name_of(*record));
    }
}

// --- watching -------------------------------------------------------------------------------------------------------

void Moving::go_on() {
    std::set<std::string> needed;
    for (const RecordPtr& record : devices_.registry().all()) {
        Json noted;
        {
            const std::lock_guard lock{devices_.registry().mutex};
            noted = record->moving;
        }
        if (noted.is_null()) continue;
        for (const Json& log : noted.at("logs")) needed.insert(log.get<std::string>());
        watch(record);
    }
    remove_logs_but(devices_, "move-", needed);
}

void Moving::stop() {
    bool subscribed = false;
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        subscribed = std::exchange(subscribed_, false);
        wake_.notify_one();
    }
    if (subscribed) devices_.hub().remove(*this);
    if (thread_.joinable()) thread_.join();
}

void Moving::watch(const RecordPtr& record) {
    bool first = false;
    {
        const std::lock_guard lock{mutex_};
        if (stopping_) return;
        watched_.emplace(record->serial, record);
        due_.insert(record->serial);
        told_.erase(record->serial);    // it may have moved before, and was taken back
        failed_.erase(record->serial);
        first = !std::exchange(subscribed_, true);
        wake_.notify_one();
    }
    if (!first) return;
    devices_.hub().add(*this);
    thread_ = std::thread{[this] { run(); }};
}

void Moving::event(const Event& event, const std::string&) noexcept {
    const std::lock_guard lock{mutex_};
    if (!watched_.contains(event.serial)) return;
    due_.insert(event.serial);
    wake_.notify_one();
}

void Moving::run() {
    std::unique_lock lock{mutex_};
    while (!stopping_) {
        const auto something = [this] { return stopping_ || !due_.empty(); };
        if (watched_.empty()) wake_.wait(lock, something);
        else wake_.wait_for(lock, kBetweenLooks, something);
        if (stopping_) return;
        std::vector<RecordPtr> records;
        for (const auto& [serial, record] : watched_) {
            if (due_.empty() || due_.contains(serial)) records.push_back(record);
        }
        due_.clear();
        lock.unlock();
        for (const RecordPtr& record : records) {
            try {
                look(record);
            } catch (const std::exception& error) {
                log_error(devices_.name_of(*record), "its move cannot end now: {}; it is tried again after 1, 2, 4 … 60 s", error.what());
            }
        }
        lock.lock();
    }
}

void Moving::forget(const RecordPtr& record, const Json& noted) {
    remove_logs(devices_, noted);
    const std::lock_guard lock{mutex_};
    told_.erase(record->serial);
    failed_.erase(record->serial);
    watched_.erase(record->serial);
}

// On the thread of its own. Whatever has happened: is it time to end?
void Moving::look(const RecordPtr& record) {
    const std::lock_guard operation{record->operation};
    Json noted;
    bool gone = false, other = false;
    {
        const std::lock_guard lock{devices_.registry().mutex};
        noted = record->moving;
        gone = record->gone;
        if (!gone && !noted.is_null()) {
            if (!record->held_because.empty() || record->suspended || record->inactive) return;    // its resume is an event, too
            other = record->live && !is_move_table(*record, noted);
            if (other) end_note(*record, noted);    // somebody loaded another table: it is theirs now
        }
    }
    if (other) {
        devices_.commit({devices_.change_of(*record)});
        log_warning(devices_.name_of(*record), "has another table now: its move to {} is over", noted.value("to", ""));
    }
    if (gone || noted.is_null() || other) return forget(record, noted);
    const Json mirrors = details_of(*record);
    bool first = false;
    {
        const std::lock_guard lock{mutex_};
        first = told_.insert(record->serial).second;
    }
    if (first) {    // at the begin, and after a restart
        set_patience(record, noted.value("to", ""), true);
        if (noted.value("paused", false)) tell_paused(record, true);
    }
    if (!is_all_there(mirrors) || !may_end(*record)) return;
    try {
        finish(record, noted);
    } catch (const std::exception& error) {
        note_failed_end(*record, error.what());
        throw;
    }
}

bool Moving::may_end(const Record& record) const {
    const std::lock_guard lock{mutex_};
    const auto failed = failed_.find(record.serial);
    return failed == failed_.end() || std::chrono::steady_clock::now() >= failed->second.again;
}

// Each attempt holds the volume's requests back for a moment.
void Moving::note_failed_end(const Record& record, const std::string& because) {
    const std::lock_guard lock{mutex_};
    FailedEnd& failed = failed_[record.serial];
    failed.because = because;
    failed.pause = std::clamp(2 * failed.pause, kEndAgainFirst, kEndAgainLast);
    failed.again = std::chrono::steady_clock::now() + failed.pause;
}

// The mirror is looked at again when nothing is under way and both legs were flushed. The state first: whichever table a crash leaves
// then, both show the same. The mirror's log stays until the state has the end of it.
void Moving::finish(const RecordPtr& record, const Json& noted) {
    devices_.load_step(record, lines_of_json(noted["then"]), false, minors_of(devices_, *record));
    try {
        devices_.suspend_step(*record, {});
        if (!is_all_there(details_of(*record))) {
            note_failed_end(*record, fmt::format("{} lacks something again", noted.value("to", "")));
            return go_on_with_mirror(devices_, record, noted);
        }
        devices_.commit({change_at_end(devices_, *record, noted)});
        set_patience(record, noted.value("to", ""), false);
        devices_.resume_step(record);
    } catch (...) {
        go_on_with_mirror(devices_, record, noted);
        throw;
    }
    {
        const std::lock_guard lock{devices_.registry().mutex};
        end_note(*record, noted);
    }
    const std::string name = name_of_volume(devices_, *record, noted), to = noted.value("to", "");
    log_info(name, "has moved to {}", to);
    devices_.publish(*record, "table", "moved to " + to);
    forget(record, noted);
}

}  // namespace udm::ctl
