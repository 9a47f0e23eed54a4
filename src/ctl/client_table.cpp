#include "ctl/client_table.hpp"

#include <algorithm>
#include <cctype>
#include <filesystem>
#include <vector>

#include "base/parse.hpp"

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

bool names_a_device(std::string_view type, std::size_t index, std::string_view word) {
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
        if (!names_a_device(type, i, word) || !is_relative_path(word)) continue;
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

}  // namespace udm::ctl
