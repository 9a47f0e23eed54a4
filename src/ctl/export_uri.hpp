// NBD URIs as exports are given (decision 22): nbd://[host][:port]/[name], nbd+unix:///[name]?socket=PATH.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "port/net.hpp"

namespace udm::ctl {

inline constexpr std::uint16_t kNbdPort = 10809;

struct ExportUri {
    Address address;
    std::string name;  // decoded; may be empty
};

// Errors: bad_argument, saying what is wrong and what would be right.
Result<ExportUri> parse_export_uri(std::string_view uri);
// As it stands in a URI: what isn't a letter, a digit or one of -._~ becomes %XX. The other way fails with bad_argument.
std::string percent_encode(std::string_view plain);
Result<std::string> percent_decode(std::string_view text);
// The canonical text, as a client would use it.
std::string to_text(const ExportUri& uri);

}  // namespace udm::ctl
