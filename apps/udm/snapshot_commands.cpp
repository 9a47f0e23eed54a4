// udm snapshot take, drop, merge, list; diff is in diff_command.cpp.
#include <fmt/format.h>

#include <bit>

#include "apps/udm/commands.hpp"
#include "apps/udm/merge_command.hpp"
#include "apps/udm/signals.hpp"
#include "apps/udm/stores.hpp"
#include "apps/udm/text.hpp"
#include "base/parse.hpp"
#include "ctl/client_table.hpp"

namespace udm::app {
namespace {

constexpr const char* kConsistency =
    "Crash-consistent: what a power cut at this instant would have left. A file system replays its journal "
    "when it is mounted.\n";
constexpr const char* kRedirected =
    "The still image is the base now: the volume's writes go to its store and need no copies. Dropping it "
    "merges what was written since into it.\n"
    "The volume lives in that store now. Keep room for it: when it, or the file system it is on, is full, writes that need more fail "
    "(nothing else is lost). `udm set VOLUME auto_extend=1G` lets it grow by itself.\n";

constexpr std::uint64_t kChunkMin = 4096, kChunkMax = std::uint64_t{1} << 30;

struct Take {
    std::vector<std::string> origins;
    std::string cow_dir, size, chunk;
    bool redirect = false, transient = false, reserve = false;

    void run(Context& context) const {
        Json params{{"origins", Json::array()}};
        for (const std::string& word : origins) {
            const auto equals = end_of_origin(context, word);
            Json origin{{"origin", word.substr(0, equals)}};
            if (equals != std::string::npos) origin["snapshot"] = word.substr(equals + 1);
            params["origins"].push_back(std::move(origin));
        }
        if (!cow_dir.empty()) params["cow_dir"] = ctl::absolute_path(cow_dir);
        if (!size.empty())
            params["size"] = size.ends_with('%') ? Json(size) : Json(size_argument(size, "--size"));
        if (!chunk.empty()) params["chunk"] = chunk_size();
        if (transient) params["persistent"] = false;
        if (redirect) params["redirect"] = true;
        if (reserve) params["reserve"] = true;
        const Json taken = context.call("snapshot.take", std::move(params),
                                        origins.size() == 1 ? "taking the snapshot" : "taking the snapshots");
        std::string text;
        for (const Json& one : taken) {
            text += fmt::format("{} is {} as of now", one.value("snapshot", ""), one.value("origin", ""));
            if (const Json cow = one.value("cow", Json{}); cow.is_string()) {
                text += fmt::format("; store {}, chunks of {}", cow.get<std::string>(),
                                    human_size(one.value("chunk", std::uint64_t{0})));
            }
            text += fmt::format("; the volume paused for {:.1f} ms\n", one.value("pause_us", 0.0) / 1000);
            if (!size.empty()) text += bound_of(one);
        }
        for (const Json& one : taken) {
            const auto beside = one.value("beside", std::vector<std::string>{});
            if (beside.empty()) continue;
            context.note(fmt::format("udm: {0} can write what {1} stands on, too, past {1}: what is written there is not kept for {2}, and shows in it. "
                                     "Use {1} alone while it has snapshots", fmt::join(beside, ", "), one.value("origin", ""), one.value("snapshot", "")));
        }
        context.print(taken, text + kConsistency + (redirect ? kRedirected : ""));
    }

  private:
    // Names may have '=' in them: the first one behind the name of a device there is.
    static std::size_t end_of_origin(Context& context, const std::string& word) {
        const auto first = word.find('=');
        for (auto at = first; at != std::string::npos; at = word.find('=', at + 1)) {
            if (context.has(word.substr(0, at))) return at;
        }
        return first != std::string::npos && context.has(word) ? std::string::npos : first;
    }

    // What a bound means, while there is time.
    std::string bound_of(const Json& one) const {
        const std::string name = redirect ? one.value("origin", "") + "-live" : one.value("snapshot", "");
        return fmt::format("When its store is full, {}. `udm set {} auto_extend=1G` lets it grow.\n",
                           redirect ? "writes to the volume fail, and what was written since is lost" : "the snapshot is lost", name);
    }

    std::uint64_t chunk_size() const {
        const auto bytes = parse_size(chunk);
        if (bytes && std::has_single_bit(*bytes) && *bytes >= kChunkMin && *bytes <= kChunkMax) return *bytes;
        throw WrongWords{fmt::format("--chunk: '{}' is no size of a chunk", chunk), "a power of two from 4K to 1G: 4K, 64K, 1M"};
    }
};

std::string word_or_dash(const Json& snapshot, const char* key) {
    const Json value = snapshot.value(key, Json{});
    if (value.is_string()) return value;
    return "-";
}

std::string size_or_dash(const Json& snapshot, const char* key, std::uint64_t unit) {
    const Json value = snapshot.value(key, Json{});
    return value.is_number() ? human_size(value.get<std::uint64_t>() * unit) : "-";
}

std::string fullness(const Json& snapshot) {
    const Json allocated = snapshot.value("allocated", Json{}), total = snapshot.value("total", Json{});
    if (!allocated.is_number() || !total.is_number() || total == 0) return "-";
    return fmt::format("{}%", percent_full(allocated, total));
}

// "active", "merging 42%", "active, redirected"
std::string state_word(const Json& snapshot) {
    std::string word = word_or_dash(snapshot, "state");
    if (snapshot.contains("merge_left_bytes")) {
        const std::uint64_t done = snapshot.value("merged_bytes", std::uint64_t{0}), left = snapshot.value("merge_left_bytes", std::uint64_t{0});
        word += fmt::format(" {}%", done + left == 0 ? 100 : percent_full(done, done + left));
    }
    return word + (snapshot.value("redirect", false) ? ", redirected" : "");
}

void list(Context& context, const std::string& origin, bool names_only) {
    Json params = Json::object();
    if (!origin.empty()) params["origin"] = origin;
    Json snapshots = context.list("snapshot.list", "snapshot", std::move(params));
    if (!origin.empty() && snapshots.empty()) snapshots = context.call("snapshot.list", {{"snapshot", origin}});
    if (names_only) {
        std::string text;
        Json names = Json::array();
        for (const Json& one : snapshots) {
            names.push_back(one["snapshot"]);
            text += word_or_dash(one, "snapshot") + "\n";
        }
        context.print(names, text);
        return;
    }
    if (snapshots.empty()) {
        context.print(snapshots, fmt::format("{}. `udm snapshot take {}` takes one.", origin.empty() ? "No snapshots" : origin + " has no snapshots",
                                             origin.empty() ? "VOLUME" : origin));
        return;
    }
    std::string notes;
    bool invalid = false;
    Columns columns{{"SNAPSHOT", "ORIGIN", "STATE", "USED>", "OF>", "FULL>", "CHUNK>", "TAKEN"}};
    for (const Json& one : snapshots) {
        columns.add({word_or_dash(one, "snapshot"), word_or_dash(one, "origin"),
                     state_word(one),
                     size_or_dash(one, "allocated", 512), size_or_dash(one, "total", 512), fullness(one),
                     size_or_dash(one, "chunk", 1), word_or_dash(one, "taken")});
        invalid = invalid || one.value("state", "") == "invalid";
        if (const std::string trouble = one.value("trouble", ""); !trouble.empty())
            notes += fmt::format("{} is {}: {}\n", word_or_dash(one, "snapshot"), word_or_dash(one, "state"), trouble);
    }
    if (invalid)
        notes += "An invalid snapshot is lost for good: `udm snapshot drop` it. `udm set SNAPSHOT auto_extend=1G` lets a store grow in time.\n";
    context.print(snapshots, columns.text() + notes);
}

void drop(Context& context, const std::vector<std::string>& names, bool unexport, bool background) {
    Json dropped = Json::array();
    for (const std::string& name : names) {
        if (unexport) context.end_exports(name);
        Json one = context.call("snapshot.drop", {{"snapshot", name}}, "dropping " + name);
        const std::string device = one.value("merging", "");
        if (!device.empty() && (background || !wait_for_merge(context, name, device, true))) {
            context.note(fmt::format("{} goes when what was written since is merged into it, behind the scenes", name));
        } else if (!context.json) {
            const Json cow = one.value("cow", Json{});
            context.print({}, cow.is_string()
                                  ? fmt::format("{} dropped, with {}", name, cow.get<std::string>())
                                  : fmt::format("{} dropped", name));
        }
        dropped.push_back(std::move(one));
        if (stop_requested()) break;
    }
    if (context.json) context.print(dropped, "");
}

}  // namespace

void add_snapshot_commands(CLI::App& app, Context& context) {
    auto* snapshot = app.add_subcommand("snapshot", "Point-in-time images of volumes in use");
    snapshot->require_subcommand(1);
    snapshot->fallthrough();

    auto take = std::make_shared<Take>();
    auto* taking =
        snapshot->add_subcommand("take", "Take snapshots of one or several volumes, all at the same instant");
    taking
        ->add_option("ORIGIN[=SNAP]", take->origins,
                     "Volume, and what its snapshot is called (else ORIGIN-YYYYmmddTHHMMSSZ)")
        ->required();
    taking->add_option("--cow-dir", take->cow_dir, "Where the stores go (else beside the origin's image)");
    taking->add_option(
        "--size", take->size,
        "Most a store may take: 10G, or 20% of the origin (else all it could ever need; files are sparse)");
    taking->add_flag("--reserve", take->reserve,
                     "Take the stores' space on the disk now, all of --size: none is missing later, and writes cost less");
    taking->add_option("--chunk", take->chunk, "Unit of copying: 4K if not said");
    taking->add_flag(
        "--redirect", take->redirect,
        "The still image becomes the base, and the volume goes on as a snapshot of it: no copies. It lives in its store from then on: keep room, or "
        "`udm set VOLUME auto_extend=1G`");
    taking->add_flag("--transient", take->transient, "Lost when the daemon ends");
    taking->callback([take, &context] { take->run(context); });

    auto names = std::make_shared<std::vector<std::string>>();
    auto unexport = std::make_shared<bool>(false);
    auto* dropping = snapshot->add_subcommand("drop", "Drop snapshots and their stores");
    dropping->add_option("SNAPSHOT", *names)->required();
    dropping->add_flag("--unexport", *unexport, "End their exports first");
    auto background = std::make_shared<bool>(false);
    dropping->add_flag("--background", *background, "Do not wait for the merge that dropping a still image takes");
    dropping->callback([=, &context] { drop(context, *names, *unexport, *background); });

    auto merged = std::make_shared<std::string>();
    auto* merging = snapshot->add_subcommand("merge", "Make a volume what its snapshot is, and end the snapshot");
    merging->add_option("SNAPSHOT", *merged)->required();
    merging->add_flag("--unexport", *unexport, "End its exports first");
    merging->add_flag("--background", *background, "Do not wait: the volume reads as the snapshot at once");
    auto force = std::make_shared<bool>(false);
    merging->add_flag("--force", *force, "Also while clients use the volume, whose content changes under them");
    merging->footer("What was written to the volume since the snapshot was taken is lost; `udm snapshot diff` says where that is, and\n"
                    "another `udm snapshot take` keeps it.");
    merging->callback([=, &context] { merge_snapshot(context, *merged, {.unexport = *unexport, .background = *background, .force = *force}); });

    auto name = std::make_shared<std::string>();
    auto* listing = snapshot->add_subcommand("list", "List snapshots, and how full their stores are");
    listing->add_option("NAME", *name, "Only those of this volume, or this snapshot");
    auto names_only = std::make_shared<bool>(false);
    listing->add_flag("--names", *names_only, "Only their names, a line each");
    listing->callback([name, names_only, &context] { list(context, *name, *names_only); });
    add_diff_command(*snapshot, context);
}

}  // namespace udm::app
