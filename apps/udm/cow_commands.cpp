// udm cow info, check, dump: a snapshot's store, without a daemon.
#include <fmt/format.h>

#include "apps/udm/commands.hpp"
#include "apps/udm/cow_file.hpp"
#include "apps/udm/cow_text.hpp"
#include "apps/udm/stores.hpp"
#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

using inspect::Fault;
using inspect::Report;

constexpr const char* kInUse = "in use: figures may be moving, and what is not yet committed is not in it";

struct Cow {
    std::string path, chunk, origin;
    bool all = false;

    inspect::CheckOptions options() const { return cow_options(chunk, origin); }
    void info(Context& context) const;
    void check(Context& context) const;
    void dump(Context& context) const;
};

std::string chunks(std::uint64_t count, const Report& report) {
    return fmt::format("{} ({})", count, human_sectors(count * report.chunk_sectors));
}

void Cow::info(Context& context) const {
    CowFile file{path, CowFile::Mode::look};
    const bool in_use = file.in_use();
    const Report report = looked(inspect::check(file, options(), nullptr));
    Json object = cow_json(path, report);
    object["in_use"] = in_use;
    object["on_disk"] = file.allocated();

    std::string text = fmt::format("{}: {}\n", path, cow_words(report));
    const auto line = [&](const char* what, const std::string& words) { text += fmt::format("  {:<10}  {}\n", what, words); };
    if (file.is_block_device()) {
        line("device", human_size(report.bytes));
    } else {
        line("file", fmt::format("{}, {} of it on disk", human_size(report.bytes), human_size(file.allocated())));
    }
    if (in_use) line("live", kInUse);
    if (report.chunk_sectors != 0 && report.chunks >= 2) {
        const std::uint64_t total = report.bytes / 512;
        line("header", fmt::format("version {}, valid {}", report.header.version, report.header.valid));
        line("chunk", fmt::format("{} ({} sectors); {} of them", human_sectors(report.chunk_sectors), report.chunk_sectors, report.chunks));
        line("exceptions", report.exceptions == 0 ? "none"
                                                  : fmt::format("{}, in {} run{}; the largest has {} chunks", chunks(report.exceptions, report),
                                                                report.runs, report.runs == 1 ? "" : "s", report.largest_run));
        line("areas", fmt::format("{} of {}, of {} exceptions each", report.areas, report.areas_max,
                                  to_bytes(Sectors{report.chunk_sectors}) / sizeof(snapshot::DiskException)));
        line("used", fmt::format("{}%: {} of {}, {} of it for the list", percent_full(report.allocated_sectors(), total),
                                 human_sectors(report.allocated_sectors()), human_sectors(total), human_sectors(report.metadata_sectors())));
        line("status", fmt::format("{}/{} {}", report.allocated_sectors(), total, report.metadata_sectors()));
        line("holes", report.holes == 0 ? "none"
                                        : fmt::format("{}, of {} chunks in all, {} at most: left by crashes; used when nothing else is left",
                                                      report.holes, report.hole_chunks, report.largest_hole));
    }
    if (report.fault_count() != 0) {
        const bool unknown = report.kind == Report::Kind::unknown;
        text += fmt::format("{}: `udm cow check {}` says {}.\n", unknown ? "Nothing can be read" : "It is damaged", path, unknown ? "why" : "how");
    }
    context.print(object, text);
}

class Lister final : public inspect::Findings {
  public:
    explicit Lister(std::uint64_t most) : most_{most} {}
    void found(const inspect::Finding& finding) override {
        ++count_;
        if (findings_.size() < most_) findings_.push_back(finding);
    }
    const std::vector<inspect::Finding>& findings() const { return findings_; }
    std::uint64_t left_out() const { return count_ - findings_.size(); }

  private:
    const std::uint64_t most_;
    std::uint64_t count_ = 0;
    std::vector<inspect::Finding> findings_;
};

void Cow::check(Context& context) const {
    CowFile file{path, CowFile::Mode::look};
    const bool in_use = file.in_use();
    Lister lister{all ? ~std::uint64_t{0} : 100};
    const Report report = looked(inspect::check(file, options(), &lister));
    const bool unusable = report.kind == Report::Kind::store && report.header.valid == 0 && !options().chunk_sectors;
    const bool clean = report.fault_count() == 0 && !unusable;

    Json object = cow_json(path, report);
    object["in_use"] = in_use;
    object["clean"] = clean;
    object["findings"] = Json::array();
    std::string text;
    for (const inspect::Finding& finding : lister.findings()) {
        const std::string words = inspect::explain(finding, report);
        text += fmt::format("  {}: {}\n", inspect::word_of(finding.fault), words);
        object["findings"].push_back(finding_json(finding, report, words));
    }
    if (lister.left_out() != 0) text += fmt::format("  and {} more (--all lists them)\n", lister.left_out());
    if (report.header_good && report.chunk_sectors != report.header.chunk_sectors) {
        text += fmt::format("  the header is whole and says chunks of {}: this is what --chunk makes of it\n", human_sectors(report.header.chunk_sectors));
    }
    if (in_use) text += fmt::format("  {}\n", kInUse);
    std::string head = fmt::format("{}: {}\n", path, cow_words(report));
    if (report.kind == Report::Kind::store && report.fault_count() == 0) {
        head += fmt::format("  {} exceptions, no fault\n", report.exceptions);
        if (report.holes != 0) {
            head += fmt::format("  {} chunk{} in {} hole{} that nobody refers to: a crash leaves them, and they are no fault\n", report.hole_chunks,
                                report.hole_chunks == 1 ? "" : "s", report.holes, report.holes == 1 ? "" : "s");
        }
    }
    if (report.fault_count() != 0) text += advice(report, inspect::RepairPlan::make(file, options()));
    context.print(object, head + text);
    if (!clean) context.exit_code = kFailed;
}

std::string run_line(const inspect::Entry& first, std::uint64_t count, bool beyond) {
    return fmt::format("{:>16}  {:>16}  {:>12}{}\n", first.old_chunk, first.new_chunk, count, beyond ? "  beyond the origin" : "");
}

// Straight from the list, in its order: a store may have more exceptions than there is memory.
void Cow::dump(Context& context) const {
    CowFile file{path, CowFile::Mode::look};
    if (file.in_use()) context.note(fmt::format("udm: {} is {}", path, kInUse));
    const inspect::Header header = looked(inspect::read_header(file));
    std::uint32_t sectors = options().chunk_sectors.value_or(0);
    if (sectors == 0) {
        const Report report = looked(inspect::check_header(file));
        if (report.kind == Report::Kind::blank) {
            context.print({{"file", path}, {"chunk", nullptr}, {"exceptions", Json::array()}, {"total", 0}}, path + " is blank: no store yet");
            return;
        }
        if (report.chunk_sectors == 0) {
            throw Refusal{fmt::format("{}: {}", path, cow_words(report)), "--chunk SIZE reads it with chunks of that size all the same"};
        }
        sectors = header.chunk_sectors;
    }
    if (file.size() < 2 * to_bytes(Sectors{sectors})) throw Refusal{fmt::format("{} is smaller than two chunks", path)};
    inspect::EntryReader reader{file, snapshot::Geometry{ChunkSize::of_sectors(sectors)}};
    if (context.json) {
        fmt::print("{{\"file\": {}, \"chunk\": {}, \"exceptions\": [", Json(path).dump(-1, ' ', false, Json::error_handler_t::replace),
                   to_bytes(Sectors{sectors}));
    } else {
        fmt::print("{:>16}  {:>16}  {:>12}\n", "ORIGIN CHUNK", "COW CHUNK", "CHUNKS");
    }
    const auto origin_sectors = options().origin_sectors;
    const std::uint64_t origin_chunks = origin_sectors ? reader.geometry().chunk().covering({*origin_sectors}).v : ~std::uint64_t{0};
    inspect::Entry entry{}, first{};
    std::uint64_t count = 0, total = 0, runs = 0;
    const auto put = [&] {
        if (count == 0) return;
        const bool beyond = origin_sectors && first.old_chunk >= origin_chunks;
        if (context.json) {
            fmt::print("{}\n{{\"origin\": {}, \"cow\": {}, \"count\": {}{}}}", runs == 0 ? "" : ",", first.old_chunk, first.new_chunk, count,
                       beyond ? ", \"beyond_origin\": true" : "");
        } else {
            fmt::print("{}", run_line(first, count, beyond));
        }
        ++runs;
    };
    while (looked(reader.next(entry))) {
        ++total;
        if (count != 0 && entry.old_chunk == first.old_chunk + count && entry.new_chunk == first.new_chunk + count &&
            entry.old_chunk != origin_chunks) {
            ++count;
            continue;
        }
        put();
        first = entry;
        count = 1;
    }
    put();
    if (context.json) {
        fmt::print("],\n\"total\": {}}}\n", total);
    } else {
        fmt::print("{} exceptions in {} runs, chunks of {}\n", total, runs, human_sectors(sectors));
    }
}

}  // namespace

void add_cow_commands(CLI::App& app, Context& context) {
    auto* cow = app.add_subcommand("cow", "Look into a snapshot's store, and mend it; without the daemon");
    cow->require_subcommand(1);
    cow->fallthrough();
    cow->footer("The store may be in use, but for repair. Exit status: 0 done (check: it is whole), 1 failed (check: it is damaged),\n"
                "2 wrong words, 3 the file cannot be read.");
    auto words = std::make_shared<Cow>();
    const auto add = [&](const char* name, const char* what, void (Cow::*run)(Context&) const) {
        auto* command = cow->add_subcommand(name, what);
        command->add_option("FILE", words->path, "The store: a file or block device")->required();
        command->add_option("--chunk", words->chunk, "Chunks of this size, whatever the header says");
        command->add_option("--origin", words->origin, "The origin, or its size: finds exceptions beyond it");
        command->callback([words, run, &context] { ((*words).*run)(context); });
        return command;
    };
    add("info", "What a store is and has, and how full it is", &Cow::info);
    auto* checking = add("check", "Every fault of a store, and what it means", &Cow::check);
    checking->add_flag("--all", words->all, "All faults, not the first 100");
    add("dump", "The exceptions of a store, in their order", &Cow::dump);
    add_cow_repair_command(*cow, context);
}

}  // namespace udm::app
