// Ctrl-C (and SIGTERM, SIGHUP) as something to wait for, for commands that run until then.
#pragma once

#include <chrono>

namespace udm::app {

// From here on these signals do not end the program.
void catch_signals();
bool stop_requested() noexcept;
// A descriptor that can be read once one came.
int stop_descriptor() noexcept;
// False as soon as one comes, true when the time is over, or when `other` (if not negative) can be read.
bool sleep_unless_stopped(std::chrono::milliseconds time, int other = -1);

}  // namespace udm::app
