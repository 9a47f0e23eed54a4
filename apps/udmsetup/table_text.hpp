// Tables as people write them: a line a target, in a file, on standard input, in --table, or in a concise
// specification of whole devices.
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace udm::udmsetup {

// What is wrong with a table, a line or two for standard error.
class BadTable final : public std::runtime_error {
  public:
    using runtime_error::runtime_error;
};

// "START LENGTH TYPE [PARAMS]" a line; empty lines and those whose first character is # are left out. The
// result is the protocol's list of {"start","length","type","params"}, relative paths made absolute. `source`
// is how error lines name it: " /tmp/table", " on stdin", or " " for the command line. Throws BadTable.
nlohmann::json parse_table(std::string_view text, std::string_view source);

// NAME,UUID,MINOR,FLAGS,TABLE[,TABLE…][;…]: a backslash quotes the next character.
struct ConciseDevice {
    std::string name;
    std::string uuid;
    std::optional<std::uint32_t> minor;
    bool read_only = false;
    std::string table;  // text, a line a target
};
std::vector<ConciseDevice> parse_concise(std::string_view text);  // throws BadTable
// A field of a concise specification, with , ; and \ quoted.
std::string quote_concise(std::string_view text);

}  // namespace udm::udmsetup
