// NBD URIs, as exports (decision 22) and devices in tables (decision 15) are given:
// nbd://[host][:port]/[name], nbd+unix:///[name]?socket=PATH.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "port/net.hpp"

namespace udm {

inline constexpr std::uint16_t kNbdPort = 10809;

struct NbdUri {
    Address address;
    std::string name;  // decoded; may be empty
};

// Whether the words are meant as one: they begin with nbd://, nbds://, nbd+unix: … in either case.
bool is_nbd_uri(std::string_view words);
// Errors: bad_argument, saying what is wrong and what would be right; unsupported for TLS.
Result<NbdUri> parse_nbd_uri(std::string_view uri);
// As it stands in a URI: what isn't a letter, a digit or one of -._~ becomes %XX. The other way fails with bad_argument.
std::string percent_encode(std::string_view plain);
Result<std::string> percent_decode(std::string_view text);
// The canonical text, as a client would use it. Two URIs with the same one mean the same export; the other way round a host
// may have several names, which nobody can tell here.
std::string to_text(const NbdUri& uri);

}  // namespace udm
