// Times as text, in UTC.
#pragma once

#include <chrono>
#include <string>

namespace udm::ctl {

std::string time_text(std::chrono::system_clock::time_point time);     // 2026-11-21T10:00:00.123Z
std::string compact_time(std::chrono::system_clock::time_point time);  // 20261121T100000Z

}  // namespace udm::ctl
