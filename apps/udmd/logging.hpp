// Where log lines go: standard error or a file, in journald's form under systemd.
#pragma once

#include <string>

#include "ctl/log.hpp"

namespace udm::daemon {

// One at a time. Nobody waits for a line to be written, but for these: its end, an abort, and flush_log(); and they not for long.
class Logging {
  public:
    // Throws spdlog's exception when the file cannot be opened.
    Logging(ctl::LogLevel level, const std::string& file);
    ~Logging() { end(); }
    // When no other thread logs any more. False: a line is still being written, and exit() would wait for that.
    bool end() noexcept;
    Logging(const Logging&) = delete;
    Logging& operator=(const Logging&) = delete;
};

// Before an _exit().
void flush_log() noexcept;

}  // namespace udm::daemon
