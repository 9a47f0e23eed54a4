// create: one device with a table from somewhere, or several from a concise specification.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>

#include "apps/udmsetup/concise.hpp"
#include "apps/udmsetup/verbs.hpp"

namespace udm::udmsetup {
namespace {

struct NewDevice {
    std::string name, uuid;
    std::optional<std::uint32_t> major, minor;
    bool read_only = false;
    bool with_table = true;
    Json table = Json::array();
};

// As dmsetup does it: make the device, load the table, resume; what was made goes again if one of these
// fails.
void create(Session& session, const NewDevice& wanted) {
    DeviceRef device = DeviceRef::named(wanted.name);
    device.uuid = wanted.uuid;
    if (wanted.minor) device.number = std::pair{wanted.major.value_or(253), *wanted.minor};

    Json params{{"name", wanted.name}};
    if (!wanted.uuid.empty()) params["uuid"] = wanted.uuid;
    if (wanted.minor) params["minor"] = *wanted.minor;
    if (wanted.read_only) params["read_only"] = true;
    Json info;
    try {
        info = session.ask("device.create", std::move(params));
    } catch (const ctl::CallError& error) {
        session.complain("create", device, error);
        throw VerbFailed{};
    }
    if (wanted.with_table && !wanted.table.empty()) {
        device.number = std::pair{info.value("major", 0u), info.value("minor", 0u)};
        try {
            Json load{{"table", wanted.table}};
            if (wanted.read_only) load["read_only"] = true;
            session.call("reload", device, "table.load", std::move(load));
            session.call("resume", device, "device.resume");
        } catch (const VerbFailed&) {
            try {
                session.ask("device.remove", {{"device", wanted.name}});
            } catch (const ctl::CallError& error) {
                session.error("  {} was made and could not be removed again: {}", wanted.name, error.what());
            }
            throw;
        }
    }
    print_info_if_verbose(session, DeviceRef::named(wanted.name));
}

std::string read_all(std::istream& from) { return {std::istreambuf_iterator<char>{from}, {}}; }

void create_concise(Session& session) {
    const Options& options = session.options;
    if (options.notable || options.table || options.minor || options.uuid || options.inactive) {
        session.fail("--concise is incompatible with --[no]table, --minor, --uuid and --inactive.");
    }
    if (options.words.size() > 1) session.fail("udmsetup create --concise takes at most one argument");
    std::string text = options.words.empty() ? read_all(std::cin) : options.words[0];
    if (options.words.empty() && text.ends_with('\n')) text.pop_back();
    std::vector<NewDevice> devices;
    for (const ConciseDevice& one : parse_concise(text)) {
        NewDevice device;
        device.name = session.new_name(one.name);
        device.uuid = one.uuid.empty() ? "" : session.new_uuid(one.uuid);
        device.minor = one.minor;
        device.read_only = one.read_only || options.readonly;
        device.table = parse_table(one.table, " ");
        devices.push_back(std::move(device));
    }
    for (const NewDevice& device : devices) create(session, device);
    if (session.json() && session.result.is_null()) session.result = Json::array();
}

}  // namespace

Json read_table(Session& session, const std::string* file) {
    if (session.options.table) return parse_table(*session.options.table, " ");
    if (file == nullptr) return parse_table(read_all(std::cin), " on stdin");
    std::ifstream stream{*file};
    if (!stream) {
        const int error = errno;
        session.error("Couldn't open '{}' for reading.", *file);
        session.fail("  {}: {}", *file, std::strerror(error));
    }
    return parse_table(read_all(stream), " " + *file);
}

void verb_create(Session& session) {
    const Options& options = session.options;
    if (options.concise) {
        create_concise(session);
        return;
    }
    if (options.words.empty()) session.fail("Please provide a name for the new device.");
    NewDevice device;
    device.with_table = !options.notable;
    if (device.with_table)
        device.table = read_table(session, options.words.size() > 1 ? &options.words[1] : nullptr);
    device.name = session.new_name(options.words[0]);
    if (options.uuid) device.uuid = session.new_uuid(*options.uuid);
    device.major = options.major;
    device.minor = options.minor;
    device.read_only = options.readonly;
    create(session, device);
}

}  // namespace udm::udmsetup
