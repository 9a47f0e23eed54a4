// The command line of udmd.
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "ctl/log.hpp"
#include "engine/engine.hpp"

namespace udm::daemon {

struct Options {
    std::string socket;
    std::string state_dir;
    std::optional<gid_t> group;
    std::string pid_file;
    std::string log_file;
    unsigned clients = 64;
    unsigned stop_timeout = 60;    // seconds
    std::vector<std::pair<std::string, std::uint64_t>> settings;    // of the daemon, for this run
    bool background = false;
    ctl::LogLevel log_level = ctl::LogLevel::info;
    EngineConfig engine;
};

// Fills `options`, or says with which status to end at once (help, version, a wrong option).
std::optional<int> parse_options(int argc, char** argv, Options& options);

}  // namespace udm::daemon
