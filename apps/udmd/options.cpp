#include "apps/udmd/options.hpp"

#include <grp.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <map>

#include "base/parse.hpp"
#include "ctl/client.hpp"
#include "ctl/version.hpp"

namespace udm::daemon {
namespace {

gid_t group_of(const std::string& name) {
    if (const auto number = parse_u32(name)) return *number;
    if (const group* found = ::getgrnam(name.c_str())) return found->gr_gid;
    throw CLI::ValidationError("--group", "there is no group " + name);
}

std::pair<std::string, std::uint64_t> setting_of(const std::string& word) {
    const auto equals = word.find('=');
    const auto value = equals == std::string::npos ? std::nullopt : parse_size(std::string_view{word}.substr(equals + 1));
    if (!value) throw CLI::ValidationError("--set", word + " is not KEY=NUMBER");
    return {word.substr(0, equals), *value};
}

std::string absolute(const std::string& path) {
    if (path.empty() || path[0] == '/') return path;
    char* here = ::getcwd(nullptr, 0);
    std::string full = here ? std::string{here} + '/' + path : path;
    std::free(here);
    return full;
}

}  // namespace

std::optional<int> parse_options(int argc, char** argv, Options& options) {
    CLI::App app{
        "udmd: the daemon of udm, the device mapper in user space. It serves mapped devices; udmsetup and "
        "udm\n"
        "talk to it over its control socket.",
        "udmd"};
    std::string engine = "auto", group, level = "info";
    std::vector<std::string> settings;
    app.add_option("--socket", options.socket,
                   "Control socket [default: $UDM_SOCKET, else /run/udm/udmd.sock for root, "
                   "$XDG_RUNTIME_DIR/udm/udmd.sock for others]");
    app.add_option("--state-dir", options.state_dir,
                   "Directory that keeps devices, tables and exports over restarts; "
                   "made if it isn't there [default: nothing is kept]");
    app.add_option("--reactors", options.engine.reactors, "Threads that serve devices [default: one a core]")
        ->check(CLI::Range(1u, 256u));
    app.add_option("--engine", engine, "How files are read and written: auto, uring, threads")
        ->check(CLI::IsMember({"auto", "uring", "threads"}))
        ->capture_default_str();
    app.add_option("--group", group, "Members of this group may use the control socket as well");
    app.add_option("--clients", options.clients, "Control clients at a time")
        ->check(CLI::Range(1u, 4096u))
        ->capture_default_str();
    app.add_option("--stop-timeout", options.stop_timeout,
                   "Seconds a stop waits for requests under way before it ends without them, as a crash would")
        ->check(CLI::Range(1u, 3600u))
        ->capture_default_str();
    app.add_option("--pid-file", options.pid_file, "File to write the process id to");
    app.add_option("--log-level", level, "What to log: debug, info, warning, error")
        ->check(CLI::IsMember({"debug", "info", "warning", "error"}))
        ->capture_default_str();
    app.add_option("--log-file", options.log_file, "File to append the log to [default: standard error]");
    app.add_flag("--background", options.background,
                 "Leave the terminal; the command returns once the daemon is ready. Use with --log-file");
    app.add_option("--set", settings,
                   "KEY=VALUE: a setting of the daemon, for this run (snapshot_cow_threshold, "
                   "snapshot_copy_throttle, snapshot_copy_memory); may be given several times");
    app.set_config("--config", "", "File with options, one a line: reactors = 2, set = [\"KEY=VALUE\"]");
    bool foreground = false;
    app.add_flag("--foreground", foreground, "Stay in the foreground; the default")->excludes("--background");
    app.set_version_flag("--version", std::string{"udmd "} + ctl::kVersion);
    try {
        app.parse(argc, argv);
        if (!group.empty()) options.group = group_of(group);
        for (const std::string& word : settings) options.settings.push_back(setting_of(word));
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? 0 : 2;
    }
    options.socket = ctl::control_socket_path(options.socket);
    for (std::string* path : {&options.socket, &options.state_dir, &options.pid_file, &options.log_file})
        *path = absolute(*path);
    options.engine.kind = engine == "uring"     ? EngineConfig::Kind::uring
                          : engine == "threads" ? EngineConfig::Kind::threads
                                                : EngineConfig::Kind::automatic;
    static const std::map<std::string, ctl::LogLevel> kLevels = {{"debug", ctl::LogLevel::debug},
                                                                 {"info", ctl::LogLevel::info},
                                                                 {"warning", ctl::LogLevel::warning},
                                                                 {"error", ctl::LogLevel::error}};
    options.log_level = kLevels.at(level);
    return std::nullopt;
}

}  // namespace udm::daemon
