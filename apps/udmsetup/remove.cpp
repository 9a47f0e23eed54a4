// remove, remove_all, wipe_table.
#include <cerrno>
#include <chrono>
#include <thread>

#include "apps/udmsetup/verbs.hpp"

namespace udm::udmsetup {
namespace {

constexpr unsigned kTries = 25;  // of remove --retry
constexpr auto kBetweenTries = std::chrono::milliseconds{200};

constexpr std::string_view kNone = "No such device or address";

// Puts a table of `error` over the device's whole length in place of its table. What was under way ends
// first.
void replace_by_error(Session& session, const DeviceRef& device) {
    const Json table = session.call("table", device, "table.get");
    std::uint64_t length = 0;
    for (const Json& target : table) length += target.value("length", std::uint64_t{0});
    Json error = Json::array();
    if (length != 0) error.push_back({{"start", 0}, {"length", length}, {"type", "error"}, {"params", ""}});
    session.call("reload", device, "table.load", {{"table", std::move(error)}});
    Json params = Json::object();
    if (session.options.noflush) params["noflush"] = true;
    if (session.options.nolockfs) params["nolockfs"] = true;
    session.call("suspend", device, "device.suspend", std::move(params));
    session.call("resume", device, "device.resume");
}

void remove(Session& session, const DeviceRef& device) {
    const Options& options = session.options;
    const auto info = session.find(device);
    if (!info) {  // dmsetup goes through all of its steps
        if (options.force) {
            session.error("device-mapper: table ioctl on {} failed: {}", device.words(), kNone);
            session.error("device-mapper: reload ioctl on {} failed: {}", device.words(), kNone);
        }
        session.fail("device-mapper: remove ioctl on {} failed: {}", device.words(), kNone);
    }
    Json params{{"device", device.parameter()}};
    if (options.force && (info->value("live_table", false) || info->value("inactive_table", false)))
        params["force"] = true;
    if (options.deferred) params["deferred"] = true;
    for (unsigned tries = options.retry ? kTries : 1;; --tries) {
        try {
            const Json answer = session.ask("device.remove", params);
            if (session.json()) {
                session.add({{"name", info->at("name")}, {"deferred", answer.value("deferred", false)}});
            }
            return;
        } catch (const ctl::CallError& error) {
            if (error.error_number() != EBUSY || tries == 1) {
                session.complain("remove", device, error);
                throw VerbFailed{};
            }
        }
        std::this_thread::sleep_for(kBetweenTries);
    }
}

}  // namespace

void verb_remove(Session& session) {
    for_each_device(session, false, [&](const Chosen& chosen) { remove(session, chosen.device); });
}

void verb_remove_all(Session& session) {
    const Options& options = session.options;
    Json params = Json::object();
    if (options.force) params["force"] = true;
    if (options.deferred) params["deferred"] = true;
    const Json answer = session.ask("device.remove_all", std::move(params));
    const std::size_t busy = answer.at("busy").size();
    if (session.json()) session.result = answer;
    if (options.force && busy != 0) session.error("Unable to remove {} device(s).", busy);
}

void verb_wipe_table(Session& session) {
    for_each_device(session, false, [&](const Chosen& chosen) {
        if (!session.find(chosen.device)) {
            session.error("device-mapper: table ioctl on {} failed: {}", chosen.device.words(), kNone);
            session.fail("device-mapper: reload ioctl on {} failed: {}", chosen.device.words(), kNone);
        }
        replace_by_error(session, chosen.device);
    });
}

}  // namespace udm::udmsetup
