// What a tool does to a table before it sends it: device words that are relative paths are the caller's, not
// the daemon's, so they are made absolute here (decision 15).
#pragma once

#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

namespace udm::ctl {

// Whether a device word is a path relative to the caller's folder: not absolute, no MAJ:MIN, no udm:, ram: or
// URI.
bool is_relative_path(std::string_view word);
// The word, with the caller's folder in front if it is a relative path; `.` and `..` are resolved as text.
std::string absolute_path(std::string_view word);
// The parameters of a table line, with relative paths where the target type has devices made absolute. Of
// types not known here, only words that begin with ./ or ../ are. Text that cannot be split is handed back as
// it is.
std::string with_absolute_paths(std::string_view type, std::string_view params);

// What is wrong with a table: a line or two, as dmsetup says it.
class BadTable final : public std::runtime_error {
  public:
    using runtime_error::runtime_error;
};

// "START LENGTH TYPE [PARAMS]" a line; empty lines and those whose first character is # are left out. The
// result is the protocol's list of {"start","length","type","params"}, relative paths made absolute. `source`
// is how error lines name it: " /tmp/table", " on stdin", or " " for the command line. Throws BadTable.
nlohmann::json parse_table(std::string_view text, std::string_view source);

}  // namespace udm::ctl
