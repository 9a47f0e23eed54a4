// Log lines of the control plane: each names the device it is about. Where they go is the composition root's
// choice.
#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <string_view>
#include <utility>

namespace udm::ctl {

enum class LogLevel : std::uint8_t { debug, info, warning, error };

// Called from any thread, one line at a time is not promised: the sink serialises. `device` may be empty.
using LogSink = void (*)(LogLevel level, std::string_view device, std::string_view text);
void set_log_sink(LogSink sink) noexcept;  // null: silence; before threads are started
void log_line(LogLevel level, std::string_view device, std::string_view text) noexcept;

template <class... Args>
void log_debug(std::string_view device, fmt::format_string<Args...> text, Args&&... args) {
    log_line(LogLevel::debug, device, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_info(std::string_view device, fmt::format_string<Args...> text, Args&&... args) {
    log_line(LogLevel::info, device, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_warning(std::string_view device, fmt::format_string<Args...> text, Args&&... args) {
    log_line(LogLevel::warning, device, fmt::format(text, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(std::string_view device, fmt::format_string<Args...> text, Args&&... args) {
    log_line(LogLevel::error, device, fmt::format(text, std::forward<Args>(args)...));
}

}  // namespace udm::ctl
