// JSON as the control plane uses it. Only ctl/, apps/ and tests include it.
#pragma once

#include <nlohmann/json.hpp>
#include <string>

namespace udm::ctl {

using Json = nlohmann::json;

// One line of text, never throwing: bytes that are no UTF-8 (a path may have them) become U+FFFD.
inline std::string to_line(const Json& value) {
    return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace udm::ctl
