#include "ctl/log.hpp"

namespace udm::ctl {
namespace {
LogSink sink_in_use = nullptr;
}

void set_log_sink(LogSink sink) noexcept { sink_in_use = sink; }

void log_line(LogLevel level, std::string_view device, std::string_view text) noexcept {
    if (sink_in_use) sink_in_use(level, device, text);
}

}  // namespace udm::ctl
