// What a tool does to a table before it sends it: device words that are relative paths are the caller's, not
// the daemon's, so they are made absolute here (decision 15).
#pragma once

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

}  // namespace udm::ctl
