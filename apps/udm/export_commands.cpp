// udm export, unexport.
#include <fmt/format.h>

#include "apps/udm/commands.hpp"

namespace udm::app {

namespace {

// Clients of a snapshot whose store is lost would get errors and nothing else.
void refuse_lost(Context& context, const std::string& name) {
    for (const Json& line : context.call("table.status", {{"device", name}})) {
        if (line.value("text", "") != "Invalid") continue;
        const std::string why = line.value("trouble", "");
        throw Refusal{fmt::format("{} is invalid{}{}: its clients would get errors only", name, why.empty() ? "" : ", ", why),
                      fmt::format("it is lost for good: `udm snapshot drop {}`, and take another", name)};
    }
}

}  // namespace

void add_export_commands(CLI::App& app, Context& context) {
    struct Options {
        std::string name, uri, mode, group;
        bool read_only = false;
    };
    auto options = std::make_shared<Options>();
    auto* give = app.add_subcommand("export", "Serve a device over NBD; prints the URI that clients use");
    give->add_option("NAME", options->name)->required();
    give->add_option("URI", options->uri,
                     "nbd+unix:///NAME?socket=PATH, or nbd://[HOST[:PORT]]/NAME; port 0 takes a free one")
        ->required();
    give->add_flag("--read-only", options->read_only);
    give->add_option("--mode", options->mode, "Permissions of the socket, octal; 0600 if not said");
    give->add_option("--group", options->group, "Group of the socket");
    give->callback([options, &context] {
        refuse_lost(context, options->name);
        Json params{{"device", options->name}, {"uri", with_absolute_socket(options->uri)}};
        if (options->read_only) params["read_only"] = true;
        if (!options->mode.empty()) params["mode"] = options->mode;
        if (!options->group.empty()) params["group"] = options->group;
        const Json result = context.call("export.add", std::move(params));
        context.print(result, result.value("uri", ""));
    });

    auto* take = app.add_subcommand("unexport", "End exports of a device: all, or the one with this URI");
    take->add_option("NAME", options->name)->required();
    take->add_option("URI", options->uri);
    take->callback([options, &context] {
        Json params{{"device", options->name}};
        if (!options->uri.empty()) params["uri"] = with_absolute_socket(options->uri);
        const Json result = context.call("export.remove", std::move(params), "letting clients go");
        std::string text;
        for (const Json& uri : result.value("removed", Json::array()))
            text += fmt::format("{} ended\n", uri.get<std::string>());
        context.print(result, text.empty() ? fmt::format("{} was not exported", options->name) : text);
    });
}

}  // namespace udm::app
