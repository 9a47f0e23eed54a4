// The command line of udm-sim.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace udm::sim_app {

struct Options {
    enum class Verb { run, replay, shrink, list } verb = Verb::list;
    std::string story = "snapshot";
    std::vector<std::string> without{};
    std::uint64_t first = 1, last = 1000;    // run: seeds; replay and shrink: `first`
    unsigned jobs = 1;
    double budget_s = 0;                     // 0: none
    std::uint64_t failures_max = 10;
    std::optional<std::vector<std::uint32_t>> steps{};
    bool trace = false, steps_only = false, quiet = false;
    std::string save{};                      // shrink: a file to write what is left to
    std::string file{};                      // replay and shrink: a history in a file, in place of a seed
};

// Throws std::runtime_error with what is wrong.
Options parse_options(const std::vector<std::string>& words);
std::string usage();

}  // namespace udm::sim_app
