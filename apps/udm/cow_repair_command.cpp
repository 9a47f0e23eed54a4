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
                  chunk.empty() ? "`udm cow check` says more" : "`udm cow repair --dry-run --chunk SIZE` tries another size; `udm cow check` says which fit"};
}

std::string Repair::copy_name(const CowFile& file) const {
    if (!backup.empty()) return backup;
    if (file.is_block_device()) throw WrongWords{"the copy of a block device needs a place: --backup FILE"};
    return fmt::format("{}.before-repair-{:%Y%m%dT%H%M%SZ}", path, fmt::gmtime(std::time(nullptr)));
}

void Repair::run(Context& context) const {
    CowFile file{path, dry_run ? CowFile::Mode::look : CowFile::Mode::change};
    const RepairPlan first = plan(file);
    if (!first.needed()) {
        context.print({{"file", path}, {"needed", false}}, fmt::format("{}: {}; nothing to repair", path, cow_words(first.before())));
        return;
    }
    if (dry_run) return report(context, first, {});
    if (first.grows_to() != 0 && file.is_block_device()) {
        throw Refusal{fmt::format("{} must have {} bytes at least for its list to end", path, first.grows_to()),
                      "make the device larger, with zeroes; the daemon loads it as it is, too, but Linux does not"};
    }
    const std::string copy = copy_name(file);
    file.copy_to(copy);
    // Up to here nothing was changed. From here on a crash leaves a store that can be repaired again.
    const auto must = [&](Result<void>&& done) {
        if (!done) throw Refusal{done.error().message, fmt::format("the store as it was is in {}", copy)};
    };
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
    const std::uint64_t unnamed = plan.lost_unnamed();
    const RepairPlan::Beyond beyond = plan.lost_beyond();
    static constexpr const char* kBeyond[] = {"no", "possibly", "yes"};
    Json object{{"file", path},
                {"needed", true},
                {"dry_run", dry_run},
                {"backup", copy.empty() ? Json(nullptr) : Json(copy)},
                {"chunk", chunk_bytes},
                {"kept", plan.kept()},
                {"dropped", Json::array()},
                {"lost", lost},
                {"lost_unnamed", unnamed},
                {"lost_beyond_end", kBeyond[static_cast<std::size_t>(beyond)]},
                {"doubtful", doubtful},
                {"new_header", plan.makes_header()}};
    for (const inspect::Entry& entry : plan.dropped()) {
        object["dropped"].push_back({{"origin_chunk", entry.old_chunk}, {"cow_chunk", entry.new_chunk}});
    }
    const char* would = dry_run ? "would be " : "";
    std::string text;
    if (!copy.empty()) text += fmt::format("the store as it was is kept in {}\n", copy);
    if (plan.makes_header()) text += fmt::format("a new header {}made, with chunks of {}\n", would, human_size(chunk_bytes));
    if (plan.grows_to() != 0) text += fmt::format("the file {}made {} long, for its list to end\n", would, human_size(plan.grows_to()));
    text += fmt::format("{} of {} exceptions {}dropped\n", plan.dropped().size(), plan.before().exceptions, would);
    if (!lost.empty()) {
        text += fmt::format("LOST: the old data of {} chunk{} of {}: origin chunk{} {}\n  There the snapshot shows what the origin has now.\n",
                            lost.size(), lost.size() == 1 ? "" : "s", human_size(chunk_bytes), lost.size() == 1 ? "" : "s", chunk_list(lost, 50));
    }
    if (unnamed != 0) {
        text += fmt::format("LOST: {} exception{} for no origin chunk that can be; which {} meant, nobody can tell.\n", unnamed,
                            unnamed == 1 ? " is" : "s are", unnamed == 1 ? "was" : "were");
    }
    if (beyond == RepairPlan::Beyond::certain) {
        text += "LOST: the list went on behind the end: an unknown number is lost, too.\n";
    } else if (beyond == RepairPlan::Beyond::possible) {
        text += "PERHAPS LOST: the list fills its last area, and the next would be behind the end. If the store was cut off there,\n"
                "  the list went on behind the end: an unknown number is lost. If Linux filled it to its last chunk, nothing is.\n";
    }
    if (lost.empty() && unnamed == 0 && beyond == RepairPlan::Beyond::none) text += "No chunk's old data are lost.\n";
    if (!doubtful.empty()) {
        text += fmt::format("DOUBTFUL: two exceptions contradicted each other, and the one listed first stays, for origin chunk{} {}\n",
                            doubtful.size() == 1 ? "" : "s", chunk_list(doubtful, 50));
    }
    if (!dry_run) {
        text += fmt::format("{0} is whole now: `udm create NAME 0 SECTORS snapshot ORIGIN {0} P 8` makes a snapshot of it again, unless a daemon has it on record\n"
                            "as lost; see `udm status`, or docs/targets/snapshot.md.\n",
                            path);
    }
    context.print(object, text);
}

}  // namespace

void add_cow_repair_command(CLI::App& cow, Context& context) {
    auto repair = std::make_shared<Repair>();
    auto* command = cow.add_subcommand("repair", "Drop what cannot be right in a store, keeping a copy; only while nobody uses it");
    command->add_option("FILE", repair->path, "The store: a file or block device")->required();
    command->add_option("--backup", repair->backup, "Where the store as it was goes (else FILE.before-repair-TIME)");
    command->add_option("--chunk", repair->chunk, "Make a lost header anew, with chunks of this size (the table has it)");
    command->add_option("--origin", repair->origin, "The origin, or its size: drops exceptions beyond it, too");
    command->add_flag("-n,--dry-run", repair->dry_run, "Only say what would be done");
    command->callback([repair, &context] { repair->run(context); });
}

}  // namespace udm::app
