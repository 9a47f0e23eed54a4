// Verbs that change one thing of a device: load, clear, suspend, resume, rename, message; and wait.
#include <cerrno>
#include <cstdlib>

#include "apps/udmsetup/verbs.hpp"
#include "base/parse.hpp"

namespace udm::udmsetup {
namespace {

// The device a verb with further words is about: the first word, or the one of -u or -j -m; `rest` are the
// others.
DeviceRef first_device(Session& session, std::span<const std::string>& rest) {
    const Options& options = session.options;
    rest = options.words;
    if (options.uuid || options.major) return session.device_by_options();
    if (rest.empty()) session.fail("No device specified.");
    DeviceRef device = session.device_named(rest[0]);
    rest = rest.subspan(1);
    return device;
}

void refuse_more(std::span<const std::string> rest, std::size_t most) {
    if (rest.size() > most) throw WrongWords{};
}

}  // namespace

void verb_load(Session& session) {
    const Options& options = session.options;
    if (options.notable) session.fail("--notable only available when creating new device.");
    if (options.words.empty() && !options.uuid && !options.major) session.fail("Please specify device.");
    std::span<const std::string> rest;
    const DeviceRef device = first_device(session, rest);
    refuse_more(rest, 1);
    Json params{{"table", read_table(session, rest.empty() ? nullptr : &rest[0])}};
    if (options.readonly) params["read_only"] = true;
    session.call("reload", device, "table.load", std::move(params));
    print_info_if_verbose(session, device);
}

void verb_clear(Session& session) {
    for_each_device(session, false, [&](const Chosen& chosen) {
        session.call("clear", chosen.device, "table.clear");
        print_info_if_verbose(session, chosen.device);
    });
}

void verb_suspend(Session& session) {
    for_each_device(session, false, [&](const Chosen& chosen) {
        Json params = Json::object();
        if (session.options.noflush) params["noflush"] = true;
        if (session.options.nolockfs) params["nolockfs"] = true;
        session.call("suspend", chosen.device, "device.suspend", std::move(params));
        print_info_if_verbose(session, chosen.device);
    });
}

void verb_resume(Session& session) {
    for_each_device(session, false, [&](const Chosen& chosen) {
        // dmsetup resumes a device that has no table without a word.
        const auto info = session.find(chosen.device);
        const bool empty = info && !info->value("live_table", false) && !info->value("inactive_table", false);
        if (!empty || info->value("state", "") == "suspended")
            session.call("resume", chosen.device, "device.resume");
        print_info_if_verbose(session, chosen.device);
    });
}

void verb_rename(Session& session) {
    std::span<const std::string> rest;
    const DeviceRef device = first_device(session, rest);
    if (rest.empty()) session.fail("No device specified.");
    refuse_more(rest, 1);
    Json params;
    if (session.options.setuuid) {
        params["new_uuid"] = session.new_uuid(rest[0]);
    } else {
        if (rest[0].empty()) session.fail("Non empty new name is required.");
        params["new_name"] = session.new_name(rest[0], true);
    }
    const Json info = session.call("rename", device, "device.rename", std::move(params));
    if (session.json()) session.add(info);
}

void verb_message(Session& session) {
    std::span<const std::string> rest;
    const DeviceRef device = first_device(session, rest);
    if (rest.empty()) throw WrongWords{};
    char* end = nullptr;
    errno = 0;
    const std::uint64_t sector = std::strtoull(rest[0].c_str(), &end, 10);
    if (errno != 0 || rest[0].empty() || *end != '\0' || rest[0][0] == '-') session.fail("Invalid sector.");
    std::string message;
    for (const std::string& word : rest.subspan(1)) {
        if (!message.empty()) message += ' ';
        message += word;
    }
    if (rest.size() == 1) session.error("No message supplied.");
    const Json answer =
        session.call("message", device, "device.message", {{"sector", sector}, {"message", message}});
    const Json& reply = answer.at("reply");
    if (session.json()) {
        session.result = answer;
    } else if (reply.is_string() && !reply.get_ref<const std::string&>().empty()) {
        const auto& text = reply.get_ref<const std::string&>();
        session.print("{}{}", text, text.ends_with('\n') ? "" : "\n");
    }
}

void verb_setgeometry(Session& session) {
    std::span<const std::string> rest;
    const DeviceRef device = first_device(session, rest);
    if (rest.size() != 4) throw WrongWords{};
    for (const std::string& word : rest) {
        if (!parse_u64(word)) {
            session.error("device-mapper: setgeometry ioctl on {} failed: Invalid argument", device.words());
            session.fail("  cylinders, heads, sectors and start are numbers: {}", word);
        }
    }
    if (!session.find(device)) {
        session.fail("device-mapper: setgeometry ioctl on {} failed: No such device or address",
                     device.words());
    }
    // Nothing that udm serves can say a geometry.
}

void verb_wait(Session& session) {
    std::span<const std::string> rest;
    const DeviceRef device = first_device(session, rest);
    refuse_more(rest, 1);
    const std::uint64_t number = rest.empty() ? 0 : std::strtoull(rest[0].c_str(), nullptr, 10);
    if (!session.find(device)) {
        session.fail("device-mapper: waitevent ioctl on {} failed: No such device or address",
                     device.words());
    }
    try {
        const Json info = session.ask("device.wait", {{"device", device.parameter()}, {"event_number", number}});
        if (session.options.verbose > 0 || session.json()) print_info(session, info);
    } catch (const ctl::CallError& error) {
        if (error.error_number() == ENXIO) return;  // removed meanwhile: an event, too
        session.complain("waitevent", device, error);
        throw VerbFailed{};
    }
}

}  // namespace udm::udmsetup
