// Runs many seeds in several processes, so that one that crashes or hangs is a failure like any other.
#pragma once

#include "apps/udm-sim/options.hpp"
#include "sim/runner.hpp"

namespace udm::sim_app {

// Prints failures as they come and totals at the end. Returns how many seeds failed.
std::uint64_t run_seeds(const Story& story, const Options& options);

// Runs one history in a process of its own, silently: true if it fails, crashes or hangs.
bool fails_apart(const Story& story, const RunOptions& run);

}  // namespace udm::sim_app
