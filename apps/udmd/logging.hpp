// Where log lines go: standard error or a file, in journald's form under systemd.
#pragma once

#include <string>

#include "ctl/log.hpp"

namespace udm::daemon {

// Throws spdlog's exception when the file cannot be opened.
void start_logging(ctl::LogLevel level, const std::string& file);

}  // namespace udm::daemon
