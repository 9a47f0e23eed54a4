#include "ctl/client_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <vector>

#include "base/parse.hpp"
#include "core/target_type.hpp"

namespace udm::ctl {
namespace {

// Where a type's arguments name devices: `first`, then every `step` words (0: only that one), up to `last`.
struct DevicePlaces {
    std::string_view type;
    std::size_t first, step, last;
};
constexpr std::size_t kNoEnd = static_cast<std::size_t>(-1);
constexpr DevicePlaces kPlaces[] = {
    {"linear", 0, 0, 0},         {"flakey", 0, 0, 0},          {"delay", 0, 3, 6},
    {"striped", 2, 2, kNoEnd},   {"snapshot-origin", 0, 0, 0}, {"snapshot", 0, 1, 1},
    {"snapshot-merge", 0, 1, 1},
};

// mirror LOG_TYPE #ARGS ARGS... #LEGS (DEVICE OFFSET)... [FEATURES]; a disk log's first argument is its device.
bool names_a_leg_or_log(const std::vector<std::string>& words, std::size_t index) {
    const auto log_words = words.size() > 2 ? parse_u32(words[1]) : std::nullopt;
    if (!log_words) return false;
    if (index == 2) return *log_words != 0 && words[0] == "disk";
    const std::size_t legs = 2 + std::size_t{*log_words};    // the word that counts them
    const auto leg_count = legs < words.size() ? parse_u32(words[legs]) : std::nullopt;
    return leg_count && index > legs && index <= legs + 2 * std::size_t{*leg_count} && (index - legs) % 2 == 1;
}

bool names_a_device(std::string_view type, const std::vector<std::string>& words, std::size_t index) {
    const std::string_view word = words[index];
    if (type == "mirror") return names_a_leg_or_log(words, index);
    const auto* places = std::find_if(std::begin(kPlaces), std::end(kPlaces),
                                      [&](const DevicePlaces& p) { return p.type == type; });
    if (places == std::end(kPlaces)) return word.starts_with("./") || word.starts_with("../");
    if (index == places->first) return true;
    return places->step != 0 && index > places->first && index <= places->last &&
           (index - places->first) % places->step == 0;
}

bool is_number_pair(std::string_view word) {
    const auto colon = word.find(':');
    return colon != std::string_view::npos && parse_u32(word.substr(0, colon)) &&
           parse_u32(word.substr(colon + 1));
}

bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

std::string_view take_word(std::string_view& rest) {
    while (!rest.empty() && is_space(rest.front())) rest.remove_prefix(1);
    std::size_t end = 0;
    while (end < rest.size() && !is_space(rest[end])) ++end;
    const std::string_view word = rest.substr(0, end);
    rest.remove_prefix(end);
    return word;
}

}  // namespace

bool is_relative_path(std::string_view word) {
    return !word.empty() && word.front() != '/' && !is_number_pair(word) && !word.starts_with("udm:") &&
           !word.starts_with("ram:") && word.find("://") == std::string_view::npos;
}

std::string absolute_path(std::string_view word) {
    if (!is_relative_path(word)) return std::string{word};
    return std::filesystem::absolute(std::filesystem::path{word}).lexically_normal().string();
}

std::string with_absolute_paths(std::string_view type, std::string_view params) {
    auto words = split_words(params);
    if (!words) return std::string{params};
    bool changed = false;
    for (std::size_t i = 0; i < words->size(); ++i) {
        std::string& word = (*words)[i];
        if (!names_a_device(type, *words, i) || !is_relative_path(word)) continue;
        word = absolute_path(word);
        changed = true;
    }
    if (!changed) return std::string{params};
    std::string text;
    for (const std::string& word : *words) {
        if (!text.empty()) text += ' ';
        text += quote_word(word);
    }
    return text;
}

nlohmann::json parse_table(std::string_view text, std::string_view source) {
    auto table = nlohmann::json::array();
    std::size_t number = 0;
    for (std::size_t at = 0; at <= text.size();) {
        const std::size_t end = std::min(text.find('\n', at), text.size());
        std::string_view line = trimmed(text.substr(at, end - at));
        at = end + 1;
        ++number;
        if (line.empty() || line.front() == '#') continue;
        const auto start = parse_u64(take_word(line));
        const auto length = parse_u64(take_word(line));
        const std::string_view type = take_word(line);
        if (!start || !length || type.empty()) {
            throw BadTable{fmt::format("Invalid format on line {} of table{}.", number, source)};
        }
        if (type.size() > kTypeNameMax) throw BadTable{fmt::format("Target type name {} is too long.", type)};
        table.push_back({{"start", *start},
                         {"length", *length},
                         {"type", type},
                         {"params", with_absolute_paths(type, trimmed(line))}});
    }
    return table;
}

}  // namespace udm::ctl
