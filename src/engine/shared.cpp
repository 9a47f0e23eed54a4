#include "engine/shared.hpp"

#include <algorithm>
#include <cstdio>

namespace udm {

EngineShared::EngineShared(unsigned threads, std::function<void(const std::string&)> log_function)
    : log_{std::move(log_function)}, workers_{threads} {}

void EngineShared::log(const std::string& line) noexcept {
    if (log_) {
        log_(line);
    } else {
        std::fprintf(stderr, "udm: %s\n", line.c_str());
    }
}

void EngineShared::warn(const std::string& warning) noexcept {
    const std::lock_guard lock{mutex_};
    if (std::ranges::find(warnings_, warning) == warnings_.end()) warnings_.push_back(warning);
}

std::vector<std::string> EngineShared::warnings() const {
    const std::lock_guard lock{mutex_};
    return warnings_;
}

}  // namespace udm
