#pragma once

namespace udm::ctl {
inline constexpr const char* kVersion = "0.1.0";  // as in CMakeLists.txt
}
