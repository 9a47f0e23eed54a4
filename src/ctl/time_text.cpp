#include "ctl/time_text.hpp"

#include <fmt/format.h>

#include <ctime>

namespace udm::ctl {
namespace {
std::tm parts_of(std::chrono::system_clock::time_point time) {
    const std::time_t seconds =
        std::chrono::system_clock::to_time_t(std::chrono::floor<std::chrono::seconds>(time));
    std::tm parts{};
    gmtime_r(&seconds, &parts);
    return parts;
}
}  // namespace

std::string time_text(std::chrono::system_clock::time_point time) {
    const std::tm t = parts_of(time);
    const auto since = time.time_since_epoch();
    const auto ms = std::chrono::floor<std::chrono::milliseconds>(
        since - std::chrono::floor<std::chrono::seconds>(since));
    return fmt::format("{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z", t.tm_year + 1900, t.tm_mon + 1,
                       t.tm_mday, t.tm_hour, t.tm_min, t.tm_sec, ms.count());
}

std::string compact_time(std::chrono::system_clock::time_point time) {
    const std::tm t = parts_of(time);
    return fmt::format("{:04}{:02}{:02}T{:02}{:02}{:02}Z", t.tm_year + 1900, t.tm_mon + 1, t.tm_mday,
                       t.tm_hour, t.tm_min, t.tm_sec);
}

}  // namespace udm::ctl
