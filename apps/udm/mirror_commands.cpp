// udm mirror: a group; each command has a file of its own.
#include "apps/udm/commands.hpp"

namespace udm::app {

void add_mirror_commands(CLI::App& app, Context& context) {
    auto* mirror = app.add_subcommand("mirror", "Mirrors: the same data on several legs");
    mirror->require_subcommand(1);
    mirror->fallthrough();
    add_mirror_create_command(*mirror, context);
    add_mirror_show_command(*mirror, context);
    add_mirror_check_commands(*mirror, context);
    add_mirror_leg_commands(*mirror, context);
}

}  // namespace udm::app
