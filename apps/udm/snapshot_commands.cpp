// udm snapshot take, drop, list.
#include <fmt/format.h>

#include "apps/udm/commands.hpp"

namespace udm::app {
namespace {

struct Take {
    std::vector<std::string> origins;
    std::string cow_dir, size, chunk;
    bool redirect = false, transient = false;

    void run(Context& context) const {
        Json params{{"origins", Json::array()}};
        for (const std::string& word : origins) {
            const auto equals = word.find('=');
            Json origin{{"origin", word.substr(0, equals)}};
            if (equals != std::string::npos) origin["snapshot"] = word.substr(equals + 1);
            params["origins"].push_back(std::move(origin));
        }
        if (!cow_dir.empty()) params["cow_dir"] = absolute(cow_dir);
        if (!size.empty()) params["size"] = size.ends_with('%') ? Json(size) : Json(size_argument(size, "--size"));
        if (!chunk.empty()) params["chunk"] = size_argument(chunk, "--chunk");
        if (transient) params["persistent"] = false;
        if (redirect) params["redirect"] = true;
        const Json taken = context.call("snapshot.take", std::move(params));
        std::string text;
        for (const Json& one : taken) {
            text += fmt::format("{} is {} as of now", one["snapshot"].get<std::string>(), one["origin"].get<std::string>());
            if (one["cow"].is_string()) text += fmt::format("; store {}, chunks of {}", one["cow"].get<std::string>(), human_size(one["chunk"].get<std::uint64_t>()));
            text += fmt::format("; the volume paused for {:.1f} ms\n", one["pause_us"].get<double>() / 1000);
        }
        text += "Crash-consistent: what a power cut at this instant would have left. A file system replays its journal when it is mounted.\n";
        if (redirect) text += "The still image is now the base; the running volume writes to its store and needs no copies. Dropping the image merges.\n";
        context.print(taken, text);
    }
};

void list(Context& context, const std::string& origin) {
    Json params = Json::object();
    if (!origin.empty()) params["origin"] = origin;
    const Json snapshots = context.call("snapshot.list", std::move(params));
    if (snapshots.empty()) {
        context.print(snapshots, "No snapshots. `udm snapshot take VOLUME` takes one.");
        return;
    }
    Columns columns{{"SNAPSHOT", "ORIGIN", "STATE", "USED>", "OF>", "FULL>", "CHUNK>", "TAKEN"}};
    for (const Json& s : snapshots) {
        const auto text = [&](const char* key) { return s.contains(key) && s[key].is_string() ? s[key].get<std::string>() : std::string{"-"}; };
        std::string full = "-";
        if (s.contains("allocated") && s["allocated"].is_number() && s["total"].is_number() && s["total"].get<double>() > 0) {
            full = fmt::format("{:.0f}%", 100 * s["allocated"].get<double>() / s["total"].get<double>());
        }
        columns.add({text("snapshot"), text("origin"), text("state") + (s.value("redirect", false) ? ", redirected" : ""),
                     human_sectors(s.value("allocated", Json{})), human_sectors(s.value("total", Json{})), full,
                     s["chunk"].is_number() ? human_size(s["chunk"].get<std::uint64_t>()) : "-", text("taken")});
    }
    context.print(snapshots, columns.text());
}

}  // namespace

void add_snapshot_commands(CLI::App& app, Context& context) {
    auto* snapshot = app.add_subcommand("snapshot", "Point-in-time images of volumes in use");
    snapshot->require_subcommand(1);
    snapshot->fallthrough();

    auto take = std::make_shared<Take>();
    auto* taking = snapshot->add_subcommand("take", "Take snapshots of one or several volumes, all at the same instant");
    taking->add_option("ORIGIN[=SNAP]", take->origins, "Volume, and what its snapshot is called (else ORIGIN-YYYYmmddTHHMMSSZ)")->required();
    taking->add_option("--cow-dir", take->cow_dir, "Where the stores go (else beside the origin's image)");
    taking->add_option("--size", take->size, "Most a store may take: 10G, or 20% of the origin (else all it could ever need; files are sparse)");
    taking->add_option("--chunk", take->chunk, "Unit of copying: 4K if not said");
    taking->add_flag("--redirect", take->redirect, "The still image becomes the base, and the volume goes on as a snapshot of it: no copies");
    taking->add_flag("--transient", take->transient, "Gone when the daemon ends");
    taking->callback([take, &context] { take->run(context); });

    auto name = std::make_shared<std::string>();
    auto* dropping = snapshot->add_subcommand("drop", "Drop a snapshot and its store");
    dropping->add_option("SNAPSHOT", *name)->required();
    dropping->callback([name, &context] {
        const Json dropped = context.call("snapshot.drop", {{"snapshot", *name}});
        context.print(dropped, dropped["cow"].is_string() ? fmt::format("{} dropped, with {}", *name, dropped["cow"].get<std::string>())
                                                         : fmt::format("{} dropped", *name));
    });

    auto* listing = snapshot->add_subcommand("list", "List snapshots, and how full their stores are");
    listing->add_option("ORIGIN", *name, "Only of this volume");
    listing->callback([name, &context] { list(context, *name); });
}

}  // namespace udm::app
