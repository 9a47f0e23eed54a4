#include "base/parse.hpp"

#include <cctype>
#include <limits>

namespace udm {
namespace {
bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }
}  // namespace

std::optional<std::uint64_t> parse_u64(std::string_view word) noexcept {
    if (word.empty()) return std::nullopt;
    std::uint64_t value = 0;
    for (char c : word) {
        if (c < '0' || c > '9') return std::nullopt;
        const auto digit = static_cast<std::uint64_t>(c - '0');
        if (value > (std::numeric_limits<std::uint64_t>::max() - digit) / 10) return std::nullopt;
        value = value * 10 + digit;
    }
    return value;
}

std::optional<std::uint32_t> parse_u32(std::string_view word) noexcept {
    const auto value = parse_u64(word);
    if (!value || *value > std::numeric_limits<std::uint32_t>::max()) return std::nullopt;
    return static_cast<std::uint32_t>(*value);
}

std::optional<std::uint64_t> parse_size(std::string_view word) noexcept {
    std::size_t digits = 0;
    while (digits < word.size() && word[digits] >= '0' && word[digits] <= '9') ++digits;
    const auto value = parse_u64(word.substr(0, digits));
    if (!value) return std::nullopt;
    std::string unit;
    for (char c : word.substr(digits)) unit += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    if (unit.ends_with("IB")) {
        unit.resize(unit.size() - 2);
    } else if (unit.size() == 2 && unit[1] == 'B') {
        unit.resize(1);
    }
    static constexpr std::string_view kUnits = "KMGTP";
    unsigned shift = 0;
    if (!unit.empty() && unit != "B") {
        const auto at = kUnits.find(unit[0]);
        if (unit.size() != 1 || at == std::string_view::npos) return std::nullopt;
        shift = static_cast<unsigned>(at + 1) * 10;
    }
    if (*value > (std::numeric_limits<std::uint64_t>::max() >> shift)) return std::nullopt;
    return *value << shift;
}

Result<std::vector<std::string>> split_words(std::string_view text) {
    std::vector<std::string> words;
    std::string word;
    bool in_word = false;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\') {
            if (++i == text.size()) return fail(Errc::bad_argument, "a backslash at the end quotes nothing");
            word += text[i];
            in_word = true;
        } else if (is_space(text[i])) {
            if (in_word) words.push_back(std::move(word));
            word.clear();
            in_word = false;
        } else {
            word += text[i];
            in_word = true;
        }
    }
    if (in_word) words.push_back(std::move(word));
    return words;
}

std::string quote_word(std::string_view word) {
    std::string quoted;
    for (char c : word) {
        if (c == '\\' || is_space(c)) quoted += '\\';
        quoted += c;
    }
    return quoted;
}

}  // namespace udm
