// One run of the tool: its options, where it prints, and the daemon, which is connected to when first asked.
#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "apps/udmsetup/options.hpp"
#include "ctl/client.hpp"

namespace udm::udmsetup {

using ctl::Json;

// The verb failed and has said why; "Command failed." and the exit status are what is left.
class VerbFailed {};
// The verb got words it cannot take: its usage is printed.
class WrongWords {};

// Which device a command is about: by name, else by uuid, else by number.
struct DeviceRef {
    std::string name;
    std::string uuid;
    std::optional<std::pair<std::uint32_t, std::uint32_t>> number;

    static DeviceRef named(std::string name) { return {std::move(name), {}, {}}; }
    Json parameter() const;     // docs/protocol.md, "Naming a device"
    std::string words() const;  // as in "device-mapper: table ioctl on WORDS failed"
};

class Session {
  public:
    using Connect = std::function<std::unique_ptr<ctl::Endpoint>(const std::string& socket)>;
    Session(const Options& chosen, std::FILE* out, std::FILE* err, Connect connect)
        : options{chosen}, out_{out}, err_{err}, connect_{std::move(connect)} {}

    const Options& options;

    // Calls the daemon. Throws ctl::CallError, ctl::NoDaemon.
    Json ask(std::string_view method, Json params = Json::object());
    // Calls it about a device. On an error prints dmsetup's line for `ioctl`, the daemon's reason below it,
    // and throws VerbFailed.
    Json call(std::string_view ioctl, const DeviceRef& device, std::string_view method,
              Json params = Json::object());
    void complain(std::string_view ioctl, const DeviceRef& device, const ctl::CallError& error);
    // The device's info, or nothing when there is no such device.
    std::optional<Json> find(const DeviceRef& device);
    // All infos, by name.
    Json list(Json params = Json::object());  // of device.list

    // What a word or option says; throws VerbFailed (after saying so) when it cannot be a device's name.
    DeviceRef device_named(const std::string& word);
    DeviceRef device_by_options();  // -u, or -j and -m
    // A new name or uuid as given, plain and checked for length and '/'.
    std::string new_name(const std::string& word, bool for_rename = false);
    std::string new_uuid(const std::string& word);

    template <class... Args>
    void print(fmt::format_string<Args...> format, Args&&... args) {
        fmt::print(out_, format, std::forward<Args>(args)...);
    }
    // A line on standard error, after what was printed so far.
    template <class... Args>
    void error(fmt::format_string<Args...> format, Args&&... args) {
        say(fmt::format(format, std::forward<Args>(args)...));
    }
    // error() and VerbFailed.
    template <class... Args>
    [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
        say(fmt::format(format, std::forward<Args>(args)...));
        throw VerbFailed{};
    }
    std::FILE* out() const { return out_; }

    // --json: what the run results in. A verb that is repeated for several devices adds to a list.
    bool json() const { return options.json; }
    Json result;
    void add(Json value);
    // What `error` holds for --json.
    Json failures = Json::array();

  private:
    void say(const std::string& line);

    std::FILE* out_;
    std::FILE* err_;
    Connect connect_;
    std::unique_ptr<ctl::Endpoint> daemon_;
};

}  // namespace udm::udmsetup
