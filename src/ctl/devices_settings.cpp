// Settings (decision 23): of a device, which reach its targets as messages, and the parameters of the daemon (decision 16).
#include <fmt/format.h>

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

Words message_for(const std::string& setting, const Json& value) {
    return {"set", setting,
            value.is_string() ? value.get<std::string>()
            : value.is_null() ? "default"
                              : to_line(value)};
}

}  // namespace

// --- of a device ----------------------------------------------------------------------------------------------------

// What a store does when it gets full is set for whoever lives in it, too: a redirected volume is linear over its layer.
RecordPtr Devices::bearer_of(RecordPtr record, const std::string& setting) const {
    if (setting != "thresholds" && setting != "auto_extend" && setting != "auto_extend_at") return record;
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

Json Devices::set(const DeviceKey& key, const std::string& setting, const Json& value) {
    DeviceKey bearer;
    bearer.minor = bearer_of(registry_.find(key), setting)->minor;
    const auto [record, operation] = lock(bearer);
    return set_locked(*record, setting, value);
}

// All targets that know the word take it, and so do the devices below them; one at least must.
Json Devices::set_locked(Record& record, const std::string& setting, const Json& value) {
    const std::string name = name_of(record);
    const Words words = message_for(setting, value);
    const Located at = locate(record);
    std::vector<Sector> starts;
    if (at.device) {
        run_on(host_.env(at.home).reactor, [&] {
            if (!at.device->live()) return;
            for (const Table::Entry& entry : at.device->live()->entries())
                starts.push_back(entry.extent.first);
        });
    }
    std::optional<Failure> refused;
    bool taken = false;
    for (const Sector start : starts) {
        auto reply = call_on(host_.env(at.home).reactor, [&] { return at.device->message(start, &words); });
        if (reply) {
            taken = true;
        } else if (!refused) {
            refused.emplace(std::move(reply.error()), name);
        }
    }
    if (at.device) {
        run_on(host_.env(at.home).reactor, [&] {
            if (!at.device->live()) return;
            for (OpenDevice* below : at.device->live()->devices()) {
                auto set = below->set(setting, words[2]);
                taken = taken || (set && *set);
                if (!set) refused.emplace(std::move(set.error()), name);
            }
        });
    }
    if (!taken) {
        throw Failure{refused ? refused->error().code : Errc::bad_argument,
                      fmt::format("{} cannot be set to {} for {}: {}", setting, words[2], name,
                                  refused ? refused->what() : "it has no table"),
                      name};
    }
    Json settings, former;
    {
        const std::lock_guard lock{registry_.mutex};
        former = record.settings;
        if (value.is_null()) {
            record.settings.erase(setting);
        } else {
            record.settings[setting] = value;
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

void Devices::set_daemon(const std::string& name, const std::optional<std::uint64_t>& value, bool kept) {
    const auto all = daemon_settings();
    const auto found = std::find_if(all.begin(), all.end(), [&](const DaemonSetting& s) { return s.parameter.name == name; });
    if (found == all.end()) {
        std::string known;
        for (const DaemonSetting& one : all) known += fmt::format("{}{}", known.empty() ? "" : ", ", one.parameter.name);
        throw Failure{Errc::bad_argument, fmt::format("the daemon has no setting {}; it has {}", name, known)};
    }
    const Parameter& parameter = found->parameter;
    if (value && (*value < parameter.least || *value > parameter.most)) {
        throw Failure{Errc::bad_argument, fmt::format("{} cannot be {}: it is from {} to {} ({})", name, *value, parameter.least,
                                                      parameter.most, parameter.about)};
    }
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
