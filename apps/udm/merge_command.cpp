// udm snapshot merge, and the wait for a merge.
#include <fmt/format.h>

#include <cerrno>

#include "apps/udm/commands.hpp"
#include "apps/udm/merge_command.hpp"
#include "apps/udm/progress.hpp"
#include "apps/udm/signals.hpp"
#include "base/parse.hpp"

namespace udm::app {
namespace {

constexpr std::chrono::milliseconds kBetweenLooks{100};

bool is_there(Context& context, const std::string& device) {
    try {
        context.call("device.info", {{"device", device}});
    } catch (const Refusal& refusal) {
        if (refusal.details.value("errno", 0) != ENXIO) throw;
        return false;
    }
    return true;
}

// What is left to merge, in sectors; nothing when the device merges no more. A layer may go with its last still image.
std::optional<std::uint64_t> left_to_merge(Context& context, const std::string& name, const std::string& device, bool of_layer) {
    Json lines;
    try {
        lines = context.call("table.status", {{"device", device}});
    } catch (const Refusal& refusal) {
        if (!of_layer || refusal.details.value("errno", 0) != ENXIO || is_there(context, name)) throw;
        return std::nullopt;
    }
    if (lines.size() != 1 || lines[0].value("type", "") != "snapshot-merge") return std::nullopt;
    const std::string text = lines[0].value("text", "");
    const std::size_t slash = text.find('/'), space = text.find(' ');
    if (slash == std::string::npos || space == std::string::npos) {
        throw Refusal{fmt::format("{}: {}; what it has is safe, and it reads as it should", device, text),
                      fmt::format("mend the cause (the daemon's log has it), then `udmsetup message {} 0 merge_retry`", device)};
    }
    const auto allocated = parse_u64(std::string_view{text}.substr(0, slash)).value_or(0);
    const auto metadata = parse_u64(std::string_view{text}.substr(space + 1)).value_or(0);
    return allocated > metadata ? allocated - metadata : 0;
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

void merge_snapshot(Context& context, const std::string& name, bool unexport, bool background) {
    if (unexport) context.end_exports(name);
    Json begun = context.call("snapshot.merge", {{"snapshot", name}});
    const std::string into = begun.value("into", "");
    begun["merged"] = !background && wait_for_merge(context, name, begun.value("device", into), false);
    context.print(begun, begun["merged"].get<bool>()
                             ? fmt::format("{} is what {} was; the snapshot is gone", into, name)
                             : fmt::format("{} reads as {} already, and is merged behind the scenes; `udm show {}` says how far it is", into,
                                           name, into));
}

}  // namespace udm::app
