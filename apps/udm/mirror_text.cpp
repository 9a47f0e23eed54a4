#include "apps/udm/mirror_text.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

using ctl::Json;

std::uint64_t number(const Json& object, const char* key) { return object.value(key, std::uint64_t{0}); }

std::string how_it_is(const Json& leg) {
    static constexpr std::array<std::pair<std::string_view, const char*>, 4> kLetters{
        {{"R", "a read failed"}, {"S", "it could not be copied"}, {"D", "a write failed"}, {"F", "a flush failed"}}};
    const std::string health = leg.value("health", "");
    std::string words;
    for (const auto& [letter, meaning] : kLetters) {
        if (health == letter) words = meaning;
    }
    if (leg.value("away", false)) return words.empty() ? "away" : "away: " + words;
    if (number(leg, "lacks") != 0) words = words.empty() ? "catches up" : "catches up; " + words;
    if (leg.value("slow", false)) words += words.empty() ? "slow" : "; slow";
    return words.empty() ? "well" : words;
}

std::string log_words(const Json& log) {
    const std::string health = log.value("health", "");
    return health == "A" ? "well" : health == "F" ? "a flush failed" : "it cannot be written, or is not trusted";
}

std::string left_words(const Json& mirror) {
    const Json details = mirror.value("details", Json::object());
    const std::uint64_t lacking = number(mirror, "nosync") + number(mirror, "recovering");
    if (lacking == 0) return "all regions are in sync";
    std::string words = fmt::format("{} of {} regions out of sync, {} to copy", lacking, number(mirror, "regions"), human_size(number(details, "resync_left_bytes")));
    if (number(details, "resync_paused") != 0) return words + "; copying is paused";
    if (number(details, "resync_bytes_per_second") != 0) words += fmt::format(", {}/s", human_size(number(details, "resync_bytes_per_second")));
    if (details.contains("resync_seconds_left")) words += fmt::format(", {} left", human_time(std::chrono::seconds{number(details, "resync_seconds_left")}));
    return words;
}

struct Mark {
    const char* key;    // in the answer
    const char* word;
    const char* plain;
    const char* block;
    const char* colour;
};
// What most needs to be seen comes first.
constexpr std::array<Mark, 4> kMarks{{{"recovering", "being copied", ">", "▶", "\x1b[94m"},
                                      {"nosync", "out of sync", "#", "█", "\x1b[91m"},
                                      {"dirty", "dirty", "+", "▒", "\x1b[33m"},
                                      {"clean", "clean", ".", "·", "\x1b[32m"}}};

const Mark& mark_of(const Json& cells, std::size_t cell) {
    for (const Mark& mark : kMarks) {
        if (cells[mark.key][cell] != 0) return mark;
    }
    return kMarks.back();
}

}  // namespace

bool is_in_mirror_lines(std::string_view detail) {
    return detail.starts_with("resync_") || detail == "source_leg" || detail == "legs_away" || detail == "held_requests" || detail == "read_repairs";
}

bool all_legs_have_all(const Json& mirror) {
    const auto is_away = [](const Json& leg) { return leg.value("away", false); };
    return number(mirror, "nosync") + number(mirror, "recovering") == 0 && std::none_of(mirror["legs"].begin(), mirror["legs"].end(), is_away);
}

std::vector<std::string> mirror_lines(const Json& mirror, const std::string& head) {
    const Json details = mirror.value("details", Json::object());
    const std::uint64_t region = number(mirror, "region_size");
    std::vector<std::string> lines;
    if (!head.empty())
        lines.push_back(fmt::format("{}: {} on {} legs, in {} regions of {}", head, human_sectors(number(mirror, "length")), mirror["legs"].size(),
                                    number(mirror, "regions"), human_size(region)));
    Columns columns{{"LEG", "DEVICE", "ROLE", "STATE", "LACKS>"}};
    for (std::size_t i = 0; i < mirror["legs"].size(); ++i) {
        const Json& leg = mirror["legs"][i];
        const std::uint64_t lacks = number(leg, "lacks");
        columns.add({std::to_string(i), leg.value("device", ""), leg.value("source", false) ? "source" : "", how_it_is(leg),
                     lacks == 0 ? "-" : human_size(std::min(lacks * region, number(mirror, "length") * 512))});
    }
    const Json log = mirror.value("log", Json::object());
    const bool kept = log.contains("device") && log["device"].is_string();
    columns.add({"log", kept ? log["device"].get<std::string>() : "in memory", "", log_words(log), ""});
    for (std::string& line : columns.lines()) lines.push_back(std::move(line));
    lines.push_back(left_words(mirror));
    if (number(details, "held_requests") != 0)
        lines.push_back(fmt::format("{} requests are held until another table is loaded, or the leg is back", number(details, "held_requests")));
    if (number(details, "read_repairs") != 0) lines.push_back(fmt::format("{} bad places were read from another leg and repaired", number(details, "read_repairs")));
    return lines;
}

std::vector<std::string> draw_regions(const Json& mirror, const PictureStyle& style) {
    const Json& cells = mirror["cells"];
    const std::size_t count = cells["clean"].size(), width = std::max<std::size_t>(style.columns, 1);
    std::vector<std::string> rows;
    const char* colour = "";
    for (std::size_t cell = 0; cell < count; ++cell) {
        const Mark& mark = mark_of(cells, cell);
        if (cell % width == 0) {
            rows.emplace_back();
            colour = "";
        }
        if (style.colours && colour != mark.colour) rows.back() += colour = mark.colour;
        rows.back() += style.blocks ? mark.block : mark.plain;
        if (style.colours && ((cell + 1) % width == 0 || cell + 1 == count)) rows.back() += "\x1b[0m";
    }
    std::string legend;
    for (auto mark = kMarks.rbegin(); mark != kMarks.rend(); ++mark) {
        const char* const sign = style.blocks ? mark->block : mark->plain;
        legend += fmt::format("{}{} {} {}", legend.empty() ? "" : "   ", style.colours ? fmt::format("{}{}\x1b[0m", mark->colour, sign) : sign, mark->word,
                              number(mirror, mark->key));
    }
    const std::uint64_t regions = number(mirror, "regions"), each = (regions + count - 1) / std::max<std::size_t>(count, 1);
    if (each > 1) legend += fmt::format("   (a mark: {} regions)", each);
    rows.push_back(std::move(legend));
    return rows;
}

std::string cut_to(std::string_view line, std::size_t columns) {
    std::string cut;
    std::size_t used = 0;
    for (std::size_t i = 0; i < line.size();) {
        std::size_t end = i + 1;
        if (line[i] == '\x1b') {
            while (end < line.size() && line[end - 1] != 'm') ++end;
        } else {
            while (end < line.size() && (static_cast<unsigned char>(line[end]) & 0xc0) == 0x80) ++end;
            if (++used > columns) {
                i = end;
                continue;
            }
        }
        cut += line.substr(i, end - i);
        i = end;
    }
    return cut;
}

}  // namespace udm::app
