// Strict parsing of the words in table lines, messages and options.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace udm {

// Unsigned decimal and nothing else: no sign, no space, no trailing character, no overflow.
std::optional<std::uint64_t> parse_u64(std::string_view word) noexcept;
std::optional<std::uint32_t> parse_u32(std::string_view word) noexcept;
// "4096", "4K", "10M", "2G", "1T" (powers of 1024, case-insensitive, "KiB" and "KB" allowed): bytes.
std::optional<std::uint64_t> parse_size(std::string_view word) noexcept;

// Splits a table's parameters at white space; a backslash quotes the next character (decision 15).
// Fails on a backslash at the end.
Result<std::vector<std::string>> split_words(std::string_view text);
// The other way: quotes white space and backslashes.
std::string quote_word(std::string_view word);

}  // namespace udm
