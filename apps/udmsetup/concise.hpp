// Concise specifications of whole devices, as `create --concise` takes and `table --concise` prints them.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ctl/client_table.hpp"

namespace udm::udmsetup {

using ctl::BadTable;
using ctl::parse_table;

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
