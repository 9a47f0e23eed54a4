// Settings (decision 23): of a device, which reach its targets as messages, and the parameters of the daemon (decision 16).
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "base/parse.hpp"
#include "ctl/call_on.hpp"
#include "ctl/devices.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

constexpr const char* kParameterPrefix = "setting/";
using Words = std::vector<std::string>;

Words message_for(const char* verb, const std::string& setting, const Json& value) {
    return {verb, setting,
            value.is_string() ? value.get<std::string>()
            : value.is_null() ? "default"
                              : to_line(value)};
}

bool of_stores(const std::string& setting) {
    return setting == "thresholds" || setting == "auto_extend" || setting == "auto_extend_at";
}

bool of_what_is_below(const std::string& setting) { return setting == "nbd_timeout" || setting.starts_with("resync_"); }

}  // namespace

// --- of a device ----------------------------------------------------------------------------------------------------

// What a store does when it gets full is set for whoever lives in it, too: a redirected volume is linear over its layer.
RecordPtr Devices::bearer_of(const RecordPtr& record) const {
    for (RecordPtr at = record; at;) {
        std::string below;
        {
            const std::lock_guard lock{registry_.mutex};
            if (!at->live || at->live->lines.size() != 1) break;
            const TableLine& line = at->live->lines[0];
            if (!snapshot_cow(line).empty()) return at;
            const auto words = words_of(line);
            if ((line.type != "linear" && line.type != "snapshot-origin") || words.empty()) break;
            below = words[0];
        }
        at = find_mapped(registry_, below);
    }
    return record;
}

// Below a volume with snapshots: what moves, or once did. Null: there is none.
RecordPtr Devices::put_below(const RecordPtr& record) const {
    std::string base;
    {
        const std::lock_guard lock{registry_.mutex};
        if (!record->live || record->live->lines.size() != 1 || !writes_base(record->live->lines[0])) return nullptr;
        base = snapshot_base(record->live->lines[0]);
    }
    const RecordPtr below = find_mapped(registry_, base);
    if (!below) return nullptr;
    const std::lock_guard lock{registry_.mutex};
    return below->internal || !below->moving.is_null() ? below : nullptr;
}

Json Devices::set(const DeviceKey& key, const Json& wanted) {
    RecordPtr target = registry_.find(key);
    std::size_t stores = 0;
    for (const auto& [setting, value] : wanted.items()) stores += of_stores(setting) ? 1 : 0;
    if (const RecordPtr bearer = stores != 0 ? bearer_of(target) : target; bearer != target) {
        if (stores != wanted.size()) {
            throw Failure{Errc::bad_argument, fmt::format("thresholds, auto_extend and auto_extend_at of {} are of its layer {}: set them apart from the others",
                                                          name_of(*target), name_of(*bearer)), name_of(*target)};
        }
        target = bearer;
    }
    std::size_t of_below = 0;
    for (const auto& [setting, value] : wanted.items()) of_below += of_what_is_below(setting) ? 1 : 0;
    if (const RecordPtr below = put_below(target); below && of_below == wanted.size()) target = below;
    DeviceKey found;
    found.minor = target->minor;
    const auto [record, operation] = lock(found);
    return set_locked(*record, wanted);
}

namespace {
struct Taker {    // a target that has settings
    Sector start;
    std::vector<std::string_view> settings;
};

Failure unknown(const std::string& name, const std::string& setting, const std::vector<Taker>& takers) {
    if (takers.empty()) {
        return {Errc::bad_argument,
                fmt::format("{} has no setting {}, nor any: snapshots have thresholds, auto_extend and auto_extend_at, merges merge_rate, mirrors resync_rate and others", name, setting), name};
    }
    std::set<std::string_view> known;
    for (const Taker& taker : takers) known.insert(taker.settings.begin(), taker.settings.end());
    return {Errc::bad_argument, fmt::format("{} has no setting {}; it has {}", name, setting, fmt::join(known, ", ")), name};
}
}  // namespace

// All targets that know the word take it, and one at least must; but a word that was kept may go whoever knows it.
Json Devices::set_locked(Record& record, const Json& wanted) {
    const std::string name = name_of(record);
    const Located at = locate(record);
    Json settings, former;
    {
        const std::lock_guard lock{registry_.mutex};
        if (!record.live) throw Failure{Errc::bad_argument, fmt::format("{} has no table, and so nothing to set", record.name), name};
        settings = record.settings;
    }
    std::vector<Taker> takers;
    if (at.device) {
        run_on(host_.env(at.home).reactor, [&] {
            if (!at.device->live()) return;
            for (const Table::Entry& entry : at.device->live()->entries()) {
                if (auto known = entry.target->settings(); !known.empty()) takers.push_back({entry.extent.first, std::move(known)});
            }
        });
    }
    // The devices below know whether a value is right when they take it, so what they took is taken back when another is wrong.
    const auto tell_below = [&](const std::string& setting, const std::string& word) -> Result<bool> {
        Result<bool> told = false;
        if (!at.device) return told;
        run_on(host_.env(at.home).reactor, [&] {
            if (!at.device->live()) return;
            for (OpenDevice* below : at.device->live()->devices()) {
                auto set = below->set(setting, word);
                if (!set) told = std::move(set);
                else if (told && *set) told = true;
            }
        });
        return told;
    };
    std::vector<std::string> told_below;
    const auto refused = [&](const std::string& setting, const std::string& word, const Error& error) {
        return Failure{error.code, fmt::format("{} cannot be set to {} for {}: {}", setting, word, name, error.message), name};
    };
    try {
        for (const bool check : {true, false}) {
            for (const auto& [setting, value] : wanted.items()) {
                const Words words = message_for(check ? "check" : "set", setting, value);
                bool taken = !check || (value.is_null() && settings.contains(setting));
                for (const Taker& taker : takers) {
                    if (std::find(taker.settings.begin(), taker.settings.end(), setting) == taker.settings.end()) continue;
                    taken = true;
                    auto reply = call_on(host_.env(at.home).reactor, [&] { return at.device->message(taker.start, &words); });
                    if (!reply) throw refused(setting, words[2], reply.error());
                }
                if (check) {
                    const auto told = tell_below(setting, words[2]);
                    if (!told) throw refused(setting, words[2], told.error());
                    if (*told) told_below.push_back(setting);
                    taken = taken || *told;
                }
                if (!taken) throw unknown(name, setting, takers);
            }
        }
    } catch (const Failure&) {
        for (const std::string& setting : told_below)
            static_cast<void>(tell_below(setting, message_for("set", setting, settings.value(setting, Json{}))[2]));
        throw;
    }
    {
        const std::lock_guard lock{registry_.mutex};
        former = record.settings;
        for (const auto& [setting, value] : wanted.items()) {
            if (value.is_null()) {
                record.settings.erase(setting);
            } else {
                record.settings[setting] = value;
            }
        }
        settings = record.settings;
    }
    try {
        commit({change_of(record)});
    } catch (const Failure&) {    // it holds until the next restart, and nobody is told that it is kept
        const std::lock_guard lock{registry_.mutex};
        record.settings = former;
        throw;
    }
    return settings;
}

// --- of the daemon --------------------------------------------------------------------------------------------------

std::vector<Devices::DaemonSetting> Devices::daemon_settings() const {
    std::vector<DaemonSetting> all;
    const unsigned reactors = host_.reactor_count();
    if (reactors == 0) return all;
    run_on(host_.env(0).reactor, [&] {
        for (const Parameter& one : host_.types(0).parameters()) all.push_back({one, one.value * (one.shared ? reactors : 1)});
    });
    for (const Parameter& one : host_.parameters()) all.push_back({one, one.value});
    return all;
}

namespace {
const Devices::DaemonSetting& find_setting(const std::vector<Devices::DaemonSetting>& all, const std::string& name) {
    const auto found = std::find_if(all.begin(), all.end(), [&](const auto& setting) { return setting.parameter.name == name; });
    if (found != all.end()) return *found;
    std::string known;
    for (const Devices::DaemonSetting& one : all) known += fmt::format("{}{}", known.empty() ? "" : ", ", one.parameter.name);
    throw Failure{Errc::bad_argument, fmt::format("the daemon has no setting {}; it has {}", name, known)};
}
}  // namespace

void Devices::check_daemon(const std::string& name, const std::optional<std::uint64_t>& value) const {
    const auto all = daemon_settings();
    const Parameter& parameter = find_setting(all, name).parameter;
    if (value && (*value < parameter.least || *value > parameter.most)) {
        throw Failure{Errc::bad_argument, fmt::format("{} cannot be {}: it is from {} to {} ({})", name, *value, parameter.least,
                                                      parameter.most, parameter.about)};
    }
}

void Devices::set_daemon(const std::string& name, const std::optional<std::uint64_t>& value, bool kept) {
    check_daemon(name, value);
    const auto all = daemon_settings();
    const Parameter& parameter = find_setting(all, name).parameter;
    if (kept) {
        std::optional<Json> json;
        if (value) json = *value;
        if (const auto committed = state_.commit({{kParameterPrefix + name, json}}); !committed) throw Failure{committed.error()};
    }
    const bool of_host = host_.set_parameter(name, value.value_or(parameter.standard));
    const std::uint64_t reactors = of_host ? 0 : host_.reactor_count();
    for (unsigned i = 0; i < reactors; ++i) {
        run_on(host_.env(i).reactor, [&] {
            const std::uint64_t all_together = value.value_or(parameter.standard);
            const bool divided = parameter.shared && value;
            host_.types(i).set_parameter(name, divided ? all_together / reactors : all_together);
        });
    }
    log_info("", "{} is {} now", name, value ? std::to_string(*value) : "as usual");
}

void Devices::restore_daemon_settings() {
    for (const auto& [key, value] : state_.all(kParameterPrefix)) {
        try {
            set_daemon(key.substr(std::char_traits<char>::length(kParameterPrefix)), value.get<std::uint64_t>(), false);
        } catch (const std::exception& error) {
            const std::string warning = fmt::format("{} of the state cannot be used: {}", key, error.what());
            log_error("", "{}", warning);
            const std::lock_guard lock{warnings_mutex_};
            warnings_.push_back(warning);
        }
    }
}

}  // namespace udm::ctl
