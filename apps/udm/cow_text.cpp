#include "apps/udm/cow_text.hpp"

#include <fmt/format.h>

#include "apps/udm/text.hpp"
#include "inspect/snapshot_guess.hpp"
#include "base/parse.hpp"

namespace udm::app {

using inspect::Fault;
using inspect::Report;

inspect::CheckOptions cow_options(const std::string& chunk, const std::string& origin) {
    inspect::CheckOptions options;
    if (!chunk.empty()) {
        const std::uint64_t sectors = size_argument(chunk, "--chunk") / 512;
        if (sectors > snapshot::kChunkSectorsMax || !inspect::is_chunk_size(static_cast<std::uint32_t>(sectors))) {
            throw WrongWords{fmt::format("--chunk: '{}' is no chunk size", chunk), "it is a power of two, from 512 bytes to 1G; 4K is usual"};
        }
        options.chunk_sectors = static_cast<std::uint32_t>(sectors);
    }
    if (!origin.empty()) {
        const auto bytes = parse_size(origin);
        const std::uint64_t size = bytes ? *bytes : size_of(origin);
        if (size == 0) throw WrongWords{fmt::format("--origin: there is no file {}", origin), "name the origin's file, or its size as 10G"};
        options.origin_sectors = (size + 511) / 512;
    }
    return options;
}

std::string cow_words(const Report& report) {
    if (report.kind == Report::Kind::blank) return "blank: no store yet (the next snapshot that uses it makes one of it)";
    if (report.kind == Report::Kind::unknown) return "no store that can be read";
    const std::string chunk = human_sectors(report.chunk_sectors);
    if (report.fault_count() != 0) {
        return fmt::format("a damaged store with chunks of {}: {} fault{}", chunk, report.fault_count(), report.fault_count() == 1 ? "" : "s");
    }
    if (report.header.valid == 0) return fmt::format("an invalid store with chunks of {}: its snapshot missed changes, and is lost", chunk);
    return fmt::format("a valid store with chunks of {}", chunk);
}

Json cow_json(const std::string& path, const Report& report) {
    static constexpr const char* kKinds[] = {"store", "blank", "unknown"};
    Json faults = Json::object();
    for (std::size_t i = 0; i < inspect::kFaults; ++i) {
        if (report.faults[i] != 0) faults[word_of(static_cast<Fault>(i))] = report.faults[i];
    }
    Json object{{"file", path},
                {"kind", kKinds[static_cast<std::size_t>(report.kind)]},
                {"size", report.bytes},
                {"magic", report.header.magic},
                {"version", report.header.version},
                {"valid", report.header.valid == 1},
                {"faults", std::move(faults)}};
    if (!report.header_good && report.kind != Report::Kind::blank) {
        object["fitting_chunks"] = Json::array();
        for (const std::uint32_t sectors : report.fitting) object["fitting_chunks"].push_back(to_bytes(Sectors{sectors}));
    }
    if (report.chunk_sectors == 0) return object;
    object.update({{"chunk", to_bytes(Sectors{report.chunk_sectors})},
                   {"chunks", report.chunks},
                   {"exceptions", report.exceptions},
                   {"runs", report.runs},
                   {"largest_run", report.largest_run},
                   {"areas", report.areas},
                   {"areas_max", report.areas_max},
                   {"allocated_sectors", report.allocated_sectors()},
                   {"total_sectors", report.bytes / 512},
                   {"metadata_sectors", report.metadata_sectors()},
                   {"holes", report.holes},
                   {"hole_chunks", report.hole_chunks},
                   {"largest_hole", report.largest_hole}});
    return object;
}

Json finding_json(const inspect::Finding& finding, const Report& report, const std::string& words) {
    Json object{{"fault", word_of(finding.fault)}, {"text", words}};
    if (inspect::is_of_header(finding.fault) || report.chunk_sectors == 0) return object;
    const std::uint64_t per_area = to_bytes(Sectors{report.chunk_sectors}) / sizeof(snapshot::DiskException);
    object["area"] = finding.entry.index / per_area;
    object["entry"] = finding.entry.index % per_area;
    if (inspect::is_of_exception(finding.fault)) {
        object["origin_chunk"] = finding.entry.old_chunk;
        object["cow_chunk"] = finding.entry.new_chunk;
    }
    return object;
}

std::string advice(const Report& report, const Result<inspect::RepairPlan>& plan) {
    if (!plan && plan.error().code == Errc::io) throw Refusal{plan.error().message, {}, kUnreadable};
    if (!plan && report.chunk_sectors == 0 && !report.fitting.empty()) {
        return fmt::format("Do not load it. What stands behind the header fits chunks of {}. With the size that the table has,\n"
                           "`udm cow check --chunk SIZE` looks on, and `udm cow repair --chunk SIZE` makes a new header, keeping a copy.\n",
                           inspect::chunk_size_words(report.fitting));
    }
    if (!plan) {
        return fmt::format("{}Nothing can be repaired here: {}.\n", report.kind == Report::Kind::unknown ? "Is this the right file? " : "",
                           plan.error().message);
    }
    if (plan->makes_header()) {
        return fmt::format("Do not load it. `udm cow repair --chunk {}` makes a new header and drops what cannot be right, keeps a copy, and says\n"
                           "what is lost; --dry-run only says it.\n",
                           inspect::chunk_size_word(report.chunk_sectors));
    }
    return "`udm cow repair` drops what cannot be right, keeps a copy, and says what is lost; --dry-run only says it.\n";
}

std::string chunk_list(const std::vector<std::uint64_t>& chunks, std::size_t most) {
    std::string text;
    std::size_t shown = 0, ranges = 0;
    for (std::size_t i = 0; i < chunks.size() && ranges < most; ++ranges) {
        std::size_t end = i + 1;
        while (end < chunks.size() && chunks[end] == chunks[end - 1] + 1) ++end;
        text += text.empty() ? "" : ", ";
        text += end - i == 1 ? fmt::format("{}", chunks[i]) : fmt::format("{}-{}", chunks[i], chunks[end - 1]);
        shown = i = end;
    }
    if (shown < chunks.size()) text += fmt::format(" and {} more", chunks.size() - shown);
    return text;
}

}  // namespace udm::app
