// The commands of udm. Each function adds its commands to the tree; what runs is their callback.
#pragma once

#include <CLI/CLI.hpp>

#include "apps/udm/context.hpp"

namespace udm::app {

void add_create_command(CLI::App& app, Context& context);      // create
void add_device_commands(CLI::App& app, Context& context);     // ls show remove set
void add_resize_command(CLI::App& app, Context& context);      // resize
void add_mirror_commands(CLI::App& app, Context& context);     // mirror create show check repair add-leg drop-leg replace-leg readd
void add_mirror_create_command(CLI::App& mirror, Context& context);
void add_mirror_show_command(CLI::App& mirror, Context& context);
void add_mirror_check_commands(CLI::App& mirror, Context& context);
void add_mirror_leg_commands(CLI::App& mirror, Context& context);
void add_move_command(CLI::App& app, Context& context);        // move
void add_snapshot_commands(CLI::App& app, Context& context);   // snapshot take drop list diff
void add_diff_command(CLI::App& snapshot, Context& context);   // … of which this is diff
void add_cow_commands(CLI::App& app, Context& context);        // cow info check dump repair
void add_cow_repair_command(CLI::App& cow, Context& context);  // … of which this is repair
void add_export_commands(CLI::App& app, Context& context);     // export unexport
void add_serve_command(CLI::App& app, Context& context);       // serve
void add_watch_commands(CLI::App& app, Context& context);      // top events
void add_status_command(CLI::App& app, Context& context);      // status
void add_completion_command(CLI::App& app, Context& context);  // completion

}  // namespace udm::app
