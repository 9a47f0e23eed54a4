// Does a file or device hold anything?
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace udm::app {

// The first byte that is not zero, if there is one. Holes of files are not read; all else is, with a bar on the terminal that
// says `doing` (if not empty). Refusal when it cannot be read.
std::optional<std::uint64_t> first_data(const std::string& path, const std::string& doing);

}  // namespace udm::app
