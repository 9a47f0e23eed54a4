// udm status: the daemon itself.
#include <fmt/format.h>

#include "apps/udm/commands.hpp"
#include "apps/udm/stores.hpp"
#include "apps/udm/text.hpp"

namespace udm::app {

void add_status_command(CLI::App& app, Context& context) {
    auto* command = app.add_subcommand("status", "The daemon: its state, its warnings");
    command->callback([&context] {
        Json status = context.call("daemon.status");
        const Json version = context.call("version");
        const auto number = [](const Json& object, const char* key) {
            return object.value(key, std::uint64_t{0});
        };
        const Json state_dir = status.value("state_dir", Json{});
        const Json reactors = status.value("reactors", Json::array());
        std::string text = fmt::format(
            "udmd {}, process {}, on {}, for {}\n", version.value("udm", ""), number(status, "pid"),
            context.daemon().path(),
            human_time(std::chrono::milliseconds{static_cast<std::int64_t>(number(status, "uptime_ms"))}));
        const auto counted = [](std::uint64_t count, const char* what) { return fmt::format("{} {}{}", count, what, count == 1 ? "" : "s"); };
        text += fmt::format("{}, {}; {}, engine {}\n", counted(number(status, "devices"), "device"), counted(number(status, "exports"), "export"),
                            counted(reactors.size(), "reactor"), version.value("engine", ""));
        const Json files = status.value("open_files", Json::object());
        if (files.value("limit", Json{}).is_number())
            text += fmt::format("{} files open of at most {}\n", number(files, "open"), number(files, "limit"));
        text += state_dir.is_string()
                    ? fmt::format("state kept in {}\n", state_dir.get<std::string>())
                    : "no state is kept: devices are gone when it ends (udmd --state-dir DIR keeps them)\n";
        const Json settings = status.value("settings", Json::object());    // lives as long as the loop over its items
        for (const auto& [key, value] : settings.items()) {
            text += fmt::format("setting  {}={}\n", key,
                                value.is_string() ? value.get<std::string>() : value.dump());
        }
        for (const Json& words : status.value("lost_stores", Json::array())) {
            text += fmt::format("lost     {} is no longer a snapshot's store\n",
                                words.is_string() ? words.get<std::string>() : words.dump());
        }
        for (const auto& [name, store] : troubled_stores(context)) text += fmt::format("{:<8} {}\n", store.state, store.words);
        for (const Json& warning : status.value("warnings", Json::array())) {
            text += fmt::format("warning  {}\n",
                                warning.is_string() ? warning.get<std::string>() : warning.dump());
        }
        status["version"] = version;
        context.print(status, text);
    });
}

}  // namespace udm::app
