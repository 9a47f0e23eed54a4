#include "apps/udmsetup/session.hpp"

#include <cerrno>
#include <cstring>

#include "apps/udmsetup/names.hpp"
#include "base/parse.hpp"

namespace udm::udmsetup {
namespace {

constexpr std::size_t kNameMax = 127;  // bytes, as in Linux
constexpr std::size_t kUuidMax = 128;
constexpr std::string_view kMapperFolder = "/dev/mapper/";
constexpr std::string_view kNodePrefix = "/dev/dm-";
constexpr std::uint32_t kDeviceMajor = 253;

}  // namespace

Json DeviceRef::parameter() const {
    if (!name.empty()) return name;
    if (!uuid.empty()) return {{"uuid", uuid}};
    if (number) return {{"major", number->first}, {"minor", number->second}};
    return name;
}

std::string DeviceRef::words() const {
    return fmt::format("{} {}{}", name, uuid,
                       number ? fmt::format("({}:{})", number->first, number->second) : std::string{});
}

Json Session::ask(std::string_view method, Json params) {
    if (!daemon_) daemon_ = connect_(options.socket);
    return daemon_->call(method, std::move(params));
}

void Session::complain(std::string_view ioctl, const DeviceRef& device, const ctl::CallError& error) {
    const int number = error.error_number();
    const std::string why = number != 0 ? std::strerror(number) : "refused by the daemon";
    this->error("device-mapper: {} ioctl on {} failed: {}", ioctl, device.words(), why);
    // The line above says all there is to say of a device that isn't there.
    const std::string_view reason = error.what();
    if (number != ENXIO && !reason.empty() && reason != why) this->error("  {}", reason);
    failures.push_back({{"operation", ioctl},
                        {"device", device.parameter()},
                        {"message", error.what()},
                        {"errno", number},
                        {"strerror", why}});
}

Json Session::call(std::string_view ioctl, const DeviceRef& device, std::string_view method, Json params) {
    params["device"] = device.parameter();
    try {
        return ask(method, std::move(params));
    } catch (const ctl::CallError& error) {
        complain(ioctl, device, error);
        throw VerbFailed{};
    }
}

std::optional<Json> Session::find(const DeviceRef& device) {
    try {
        return ask("device.info", {{"device", device.parameter()}});
    } catch (const ctl::CallError& error) {
        if (error.error_number() == ENXIO) return std::nullopt;
        complain("info", device, error);
        throw VerbFailed{};
    }
}

Json Session::list(Json params) {
    if (!daemon_) daemon_ = connect_(options.socket);
    return ctl::call_for_all(*daemon_, "device.list", "name", std::move(params));
}

DeviceRef Session::device_named(const std::string& word) {
    std::string_view name = word;
    if (name.starts_with(kMapperFolder)) {
        name.remove_prefix(kMapperFolder.size());
    } else if (name.starts_with(kNodePrefix)) {
        if (const auto minor = parse_u32(name.substr(kNodePrefix.size()))) {
            return {{}, {}, std::pair{kDeviceMajor, *minor}};
        }
    }
    if (name.find('/') != std::string_view::npos) fail("Device {} not found", word);
    return DeviceRef::named(plain_name(name, options.mangling).value_or(std::string{name}));
}

DeviceRef Session::device_by_options() {
    if (options.uuid) return {{}, plain_name(*options.uuid, options.mangling).value_or(*options.uuid), {}};
    if (options.major) return {{}, {}, std::pair{*options.major, *options.minor}};
    fail("No device specified.");
}

std::string Session::new_name(const std::string& word, bool for_rename) {
    if (word.find('/') != std::string::npos) fail("Name \"{}\" invalid. It contains \"/\".", word);
    const auto plain = plain_name(word, options.mangling);
    if (!plain) {
        error(
            "The name \"{}\" contains mixed mangled and unmangled characters or it's already mangled "
            "improperly.",
            word);
        fail("Failed to mangle device name \"{}\".", word);
    }
    if (plain->size() > kNameMax) fail("Name \"{}\" too long{}", word, for_rename ? "" : ".");
    return *plain;
}

std::string Session::new_uuid(const std::string& word) {
    const auto plain = plain_name(word, options.mangling);
    if (!plain) {
        error(
            "The UUID \"{}\" contains mixed mangled and unmangled characters or it's already mangled "
            "improperly.",
            word);
        fail("Failed to mangle device uuid \"{}\".", word);
    }
    if (plain->size() > kUuidMax) fail("UUID \"{}\" too long.", word);
    return *plain;
}

void Session::add(Json value) {
    if (!result.is_array()) result = Json::array();
    result.push_back(std::move(value));
}

void Session::say(const std::string& line) {
    std::fflush(out_);
    fmt::print(err_, "{}\n", line);
    if (!line.starts_with("device-mapper: ") && !line.starts_with("  "))
        failures.push_back({{"message", line}});
}

}  // namespace udm::udmsetup
