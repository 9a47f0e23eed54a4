// udm, the device mapper in user space, for people. Scripts that know dmsetup use udmsetup.
#include <fmt/format.h>

#include <cstdio>

#include "apps/udm/commands.hpp"
#include "ctl/version.hpp"

namespace {

// What to do about the errors people meet.
const char* advice(int error_number, const std::string& message) {
    if (error_number == ENXIO) return "`udm ls` lists what there is";
    if (error_number == EBUSY && message.find("export") != std::string::npos) return "`udm unexport NAME` first";
    if (error_number == EBUSY) return "`udm show NAME` tells who uses it";
    return nullptr;
}

int run(int argc, char** argv) {
    using namespace udm::app;
    Context context;
    CLI::App app{"Live volumes and their snapshots: the device mapper in user space", "udm"};
    app.require_subcommand(1);
    app.fallthrough();
    app.set_version_flag("--version", std::string{"udm "} + udm::ctl::kVersion);
    app.add_option("--socket", context.socket, "The daemon's control socket (else $UDM_SOCKET, else the usual place)");
    app.add_flag("--json", context.json, "Print JSON, for scripts");
    add_serve_command(app, context);
    add_device_commands(app, context);
    add_snapshot_commands(app, context);
    add_export_commands(app, context);
    add_watch_commands(app, context);
    add_completion_command(app, context);
    try {
        app.parse(argc, argv);
        return kOk;
    } catch (const CLI::ParseError& error) {
        const int code = app.exit(error);
        return code == 0 ? kOk : kUsage;
    } catch (const udm::ctl::CallError& error) {
        if (context.json) fmt::print("{}\n", udm::ctl::Json{{"error", error.object()}}.dump(2));
        fmt::print(stderr, "udm: {}\n", error.what());
        if (const char* words = advice(error.error_number(), error.what())) fmt::print(stderr, "  {}\n", words);
    } catch (const std::exception& error) {
        fmt::print(stderr, "udm: {}\n", error.what());
    }
    return kFailed;
}

}  // namespace

int main(int argc, char** argv) { return run(argc, argv); }
