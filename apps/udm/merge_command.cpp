// udm snapshot merge, and the wait for a merge.
#include <fmt/format.h>

#include <cerrno>

#include "apps/udm/commands.hpp"
#include "apps/udm/merge_command.hpp"
#include "apps/udm/progress.hpp"
#include "apps/udm/signals.hpp"
#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

constexpr std::chrono::milliseconds kBetweenLooks{100};

// What is left to merge, in sectors; nothing when the device merges no more. A layer may go with its last still image.
std::optional<std::uint64_t> left_to_merge(Context& context, const std::string& name, const std::string& device, bool of_layer) {
    Json lines;
    try {
        lines = context.call("table.status", {{"device", device}});
    } catch (const Refusal& refusal) {
        if (!of_layer || refusal.details.value("errno", 0) != ENXIO || context.has(name)) throw;
        return std::nullopt;
    }
    if (lines.size() != 1 || lines[0].value("type", "") != "snapshot-merge") return std::nullopt;
    const std::string text = lines[0].value("text", ""), why = lines[0].value("trouble", "");
    if (text == "Merge failed" || text == "Invalid") {
        throw Refusal{fmt::format("{}: {}{}", device, text, why.empty() ? "" : ": " + why),
                      fmt::format("`udm show {0}` says how far it is; mend the cause, then `udmsetup message {0} 0 merge_retry` goes on", device)};
    }
    return lines[0].value("details", Json::object()).value("merge_left_bytes", std::uint64_t{0});
}

// Two writers with two opinions: what clients keep in memory is of the volume as it was.
void refuse_under_clients(Context& context, const std::string& volume) {
    std::uint64_t clients = 0;
    std::string uris;
    for (const Json& one : context.call("export.list", {{"device", volume}})) {
        if (one.value("connections", std::uint64_t{0}) == 0) continue;
        clients += one.value("connections", std::uint64_t{0});
        uris += (uris.empty() ? "" : ", ") + one.value("uri", "");
    }
    if (clients == 0) return;
    throw Refusal{fmt::format("{} has {} client{} at {}: the content would change under {}, and a mounted file system would break", volume, clients,
                              clients == 1 ? "" : "s", uris, clients == 1 ? "it" : "them"),
                  "unmount or stop what uses it first; --force merges all the same"};
}

// What `name` goes back to, and what that costs, before anything is done. Nothing: it is no snapshot that could be merged.
Json look_first(Context& context, const std::string& name, bool force) {
    const Json listed = context.call("snapshot.list", {{"snapshot", name}});
    if (listed.empty()) return {};
    const Json& one = listed[0];
    const Json origin = one.value("origin", Json{}), taken = one.value("taken", Json{});
    if (!origin.is_string() || one.value("redirect", false) || one.value("state", "") == "invalid" || !context.has(origin)) return one;
    if (!force) refuse_under_clients(context, origin);
    const bool counted = one["allocated"].is_number();
    const std::uint64_t used = counted ? one["allocated"].get<std::uint64_t>() - one["metadata"].get<std::uint64_t>() : 0;
    if (counted && used == 0) return one;    // they are equal
    context.note(fmt::format("{0} goes back to {1}: what was written to {0} since{2}{3} is lost", origin.get<std::string>(), name,
                             taken.is_string() ? " " + taken.get<std::string>() : "", used == 0 ? "" : fmt::format(" ({} at most)", human_sectors(used))));
    return one;
}

std::uint64_t size_of_device(Context& context, const std::string& name) {
    return context.call("device.info", {{"device", name}}).value("size", std::uint64_t{0});
}

// The volume may have been resized since the snapshot was taken, and keeps its size; both in sectors.
std::string but_for(std::uint64_t snapshot, std::uint64_t volume) {
    if (snapshot == volume) return {};
    if (snapshot > volume) return fmt::format(" up to its end at {} (what the snapshot had behind that is not there any more)", human_sectors(volume));
    return fmt::format(" up to {}, where the snapshot ended; what is behind is as it was", human_sectors(snapshot));
}

std::string snapshots_of(Context& context, const std::string& volume) {
    std::string names;
    for (const Json& one : context.call("snapshot.list", {{"origin", volume}, {"limit", 8}})) names += (names.empty() ? "" : ", ") + one.value("snapshot", "");
    return names;
}

}  // namespace

bool wait_for_merge(Context& context, const std::string& name, const std::string& device, bool of_layer) {
    catch_signals();
    Progress progress{context.json ? "" : "merging " + name};
    std::uint64_t total = 0;
    for (;;) {
        const auto left = left_to_merge(context, name, device, of_layer);
        if (!left) return true;
        total = std::max(total, *left);
        progress.update(total - *left, total);
        if (!sleep_unless_stopped(kBetweenLooks)) return false;
    }
}

void merge_snapshot(Context& context, const std::string& name, const MergeOptions& options) {
    const bool known = look_first(context, name, options.force).is_object();
    const std::uint64_t size = known ? size_of_device(context, name) : 0;
    if (options.unexport) context.end_exports(name);
    Json begun;
    try {
        begun = context.call("snapshot.merge", {{"snapshot", name}});
    } catch (const Refusal& refusal) {
        const std::string others = known ? "" : snapshots_of(context, name);
        if (others.empty()) throw;
        throw Refusal{refusal.what(), fmt::format("`udm snapshot merge SNAPSHOT` takes what {} is to go back to: {}", name, others)};
    }
    const std::string into = begun.value("into", "");
    begun["merged"] = !options.background && wait_for_merge(context, name, begun.value("device", into), false);
    context.print(begun, begun["merged"].get<bool>()
                             ? fmt::format("{} is what {} was{}; the snapshot is gone", into, name, but_for(size, size_of_device(context, into)))
                             : fmt::format("{} reads as {} already, and is merged behind the scenes; `udm show {}` says how far it is", into,
                                           name, into));
}

}  // namespace udm::app
