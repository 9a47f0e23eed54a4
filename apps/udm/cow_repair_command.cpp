// udm cow repair.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <filesystem>

#include "apps/udm/commands.hpp"
#include "apps/udm/cow_file.hpp"
#include "apps/udm/cow_text.hpp"
#include "apps/udm/text.hpp"
#include "inspect/snapshot_repair.hpp"

namespace udm::app {
namespace {

using inspect::RepairPlan;

struct Repair {
    std::string path, backup, chunk, origin;
    bool dry_run = false;

    void run(Context& context) const;

  private:
    RepairPlan plan(inspect::Source& file) const;
    std::string copy_name(const CowFile& file) const;
    void report(Context& context, const RepairPlan& plan, const std::string& copy) const;
};

RepairPlan Repair::plan(inspect::Source& file) const {
    auto plan = RepairPlan::make(file, cow_options(chunk, origin));
    if (plan) return std::move(*plan);
    if (plan.error().code == Errc::io) throw Refusal{plan.error().message, {}, kUnreadable};
    throw Refusal{fmt::format("{} cannot be repaired: {}", path, plan.error().message),
                  chunk.empty() ? "`udm cow check` says more; with --chunk SIZE (the table has it) a header is made anew" : ""};
}

std::string Repair::copy_name(const CowFile& file) const {
    if (!backup.empty()) return backup;
    if (file.is_block_device()) throw WrongWords{"the copy of a block device needs a place: --backup FILE"};
    return fmt::format("{}.before-repair-{:%Y%m%dT%H%M%SZ}", path, fmt::gmtime(std::time(nullptr)));
}

void Repair::run(Context& context) const {
    CowFile file{path, dry_run ? CowFile::Mode::look : CowFile::Mode::change};
    RepairPlan first = plan(file);
    if (!first.needed()) {
        context.print({{"file", path}, {"needed", false}}, fmt::format("{}: {}; nothing to repair", path, cow_words(first.before())));
        return;
    }
    if (dry_run) return report(context, first, {});
    const std::string copy = copy_name(file);
    file.copy_to(copy);
    // Up to here nothing was changed. From here on a crash leaves a store that can be repaired again.
    const auto must = [&](Result<void>&& done) {
        if (!done) throw Refusal{done.error().message, fmt::format("the store as it was is in {}", copy)};
    };
    while (first.grows_to() != 0) {
        must(file.grow(first.grows_to()));
        first = plan(file);
    }
    must(first.carry_out(file));
    inspect::CheckOptions options = cow_options({}, origin);
    const inspect::Report after = looked(inspect::check(file, options, nullptr));
    if (after.fault_count() != 0 || after.kind != inspect::Report::Kind::store) {
        throw Refusal{fmt::format("{} still has faults", path), fmt::format("the store as it was is in {}", copy)};
    }
    report(context, first, copy);
}

void Repair::report(Context& context, const RepairPlan& plan, const std::string& copy) const {
    const std::uint64_t chunk_bytes = to_bytes(Sectors{plan.before().chunk_sectors});
    const std::vector<std::uint64_t> lost = plan.lost(), doubtful = plan.doubtful();
    Json object{{"file", path},
                {"needed", true},
                {"dry_run", dry_run},
                {"backup", copy.empty() ? Json(nullptr) : Json(copy)},
                {"chunk", chunk_bytes},
                {"kept", plan.kept()},
                {"dropped", Json::array()},
                {"lost", lost},
                {"doubtful", doubtful},
                {"new_header", plan.makes_header()}};
    for (const inspect::Entry& entry : plan.dropped()) {
        object["dropped"].push_back({{"origin_chunk", entry.old_chunk}, {"cow_chunk", entry.new_chunk}});
    }
    const char* would = dry_run ? "would be " : "";
    std::string text;
    if (!copy.empty()) text += fmt::format("the store as it was is kept in {}\n", copy);
    if (plan.makes_header()) text += fmt::format("a new header {}made, with chunks of {}\n", would, human_size(chunk_bytes));
    if (plan.grows_to() != 0) text += fmt::format("the file {}made {} long first, for its list to end\n", would, human_size(plan.grows_to()));
    text += fmt::format("{} of {} exceptions {}dropped\n", plan.dropped().size(), plan.before().exceptions, would);
    if (!lost.empty()) {
        text += fmt::format("LOST: the old data of {} chunk{} of {}: origin chunk{} {}\n  There the snapshot shows what the origin has now.\n",
                            lost.size(), lost.size() == 1 ? "" : "s", human_size(chunk_bytes), lost.size() == 1 ? "" : "s", chunk_list(lost, 50));
    } else {
        text += "No chunk's old data are lost.\n";
    }
    if (!doubtful.empty()) {
        text += fmt::format("DOUBTFUL: two exceptions contradicted each other, and the one listed first stays, for origin chunk{} {}\n",
                            doubtful.size() == 1 ? "" : "s", chunk_list(doubtful, 50));
    }
    if (!dry_run) text += fmt::format("{} is whole now: it can be loaded.\n", path);
    context.print(object, text);
}

}  // namespace

void add_cow_repair_command(CLI::App& cow, Context& context) {
    auto repair = std::make_shared<Repair>();
    auto* command = cow.add_subcommand("repair", "Drop what cannot be right in a store, keeping a copy; only while nobody uses it");
    command->add_option("FILE", repair->path, "The store: a file or block device")->required();
    command->add_option("--backup", repair->backup, "Where the store as it was goes (else FILE.before-repair-TIME)");
    command->add_option("--chunk", repair->chunk, "Make a new header with chunks of this size (the table has it)");
    command->add_option("--origin", repair->origin, "The origin, or its size: drops exceptions beyond it, too");
    command->add_flag("-n,--dry-run", repair->dry_run, "Only say what would be done");
    command->callback([repair, &context] { repair->run(context); });
}

}  // namespace udm::app
