// udm, the device mapper in user space, for people. Scripts that know dmsetup use udmsetup.
#include <fmt/format.h>

#include <clocale>
#include <cstdio>

#include "apps/udm/commands.hpp"
#include "ctl/version.hpp"

namespace {

using namespace udm::app;

int report(const Context& context, const Refusal& refusal) {
    if (context.json) context.print(refusal.object(), {});
    fmt::print(stderr, "udm: {}\n", refusal.what());
    if (!refusal.advice().empty()) fmt::print(stderr, "  {}\n", refusal.advice());
    return refusal.code();
}

int run(int argc, char** argv) {
    Context context;
    CLI::App app{"Live volumes and their snapshots: the device mapper in user space", "udm"};
    app.require_subcommand(1);
    app.fallthrough();
    app.set_version_flag("--version", std::string{"udm "} + udm::ctl::kVersion);
    app.add_option("--socket", context.socket,
                   "The daemon's control socket (else $UDM_SOCKET, else the usual place)");
    app.add_flag("--json", context.json, "Print JSON, for scripts");
    app.footer(
        "Exit status: 0 done, 1 failed, 2 wrong words. `udm COMMAND --help` says more; so does udm(1).");
    add_serve_command(app, context);
    add_create_command(app, context);
    add_device_commands(app, context);
    add_resize_command(app, context);
    add_snapshot_commands(app, context);
    add_cow_commands(app, context);
    add_export_commands(app, context);
    add_watch_commands(app, context);
    add_status_command(app, context);
    add_completion_command(app, context);
    try {
        app.parse(argc, argv);
        return context.exit_code;
    } catch (const CLI::RequiredError& error) {
        const auto unknown = app.remaining(true);  // a word in the command's place is more to the point
        if (unknown.empty()) return app.exit(error) == 0 ? kOk : kUsage;
        return report(context, WrongWords{fmt::format("there is no command '{}'", unknown.front()),
                                          "`udm --help` lists them"});
    } catch (const CLI::ParseError& error) {
        return app.exit(error) == 0 ? kOk : kUsage;
    } catch (const Refusal& refusal) {
        return report(context, refusal);
    } catch (const udm::ctl::NoDaemon& none) {
        return report(context, Refusal{none.what(), "or `udm serve FILE`, which brings its own"});
    } catch (const std::exception& error) {  // what no one thought of
        return report(context, Refusal{error.what()});
    }
}

}  // namespace

int main(int argc, char** argv) {
    std::setlocale(LC_CTYPE, "");
    return run(argc, argv);
}
