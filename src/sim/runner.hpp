// Runs one history of a story from its seed. The same seed, cares and steps give the same outcome, to the last event.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "sim/story.hpp"

namespace udm {

struct RunOptions {
    std::uint64_t seed = 1;
    std::vector<std::string> without{};                   // cares that are not taken
    std::optional<std::vector<std::uint32_t>> steps{};    // only these of the history's steps, by index, ascending
    std::optional<History> history{};                     // instead of the one that the seed draws
    bool keeps_trace = false;
};

// The history of a seed, whole or with the chosen steps only.
History history_of(const Story& story, const RunOptions& options);
Outcome run_story(const Story& story, const RunOptions& options);

// The arguments of udm-sim that bring the same history about: "replay 17 --story disk --steps 3-9,12".
std::string replay_arguments(const Story& story, const RunOptions& options);

// "3-9,12": ascending indices and ranges of them; nothing if it isn't that.
std::optional<std::vector<std::uint32_t>> parse_steps(std::string_view text);
std::string format_steps(const std::vector<std::uint32_t>& steps);

// Makes a failing history smaller: leaves out steps, many at a time and then fewer, as long as `fails` says that what
// is left still fails. Asks at most `budget` times.
template <class F>
std::vector<std::uint32_t> shrink_steps(std::vector<std::uint32_t> steps, std::size_t budget, F&& fails) {
    for (std::size_t piece = steps.size() / 2; piece > 0;) {
        bool any = false;
        for (std::size_t at = 0; at < steps.size() && budget > 0;) {
            std::vector<std::uint32_t> less = steps;
            const std::size_t end = at + piece < less.size() ? at + piece : less.size();
            less.erase(less.begin() + static_cast<std::ptrdiff_t>(at), less.begin() + static_cast<std::ptrdiff_t>(end));
            --budget;
            if (fails(less)) {
                steps = std::move(less);
                any = true;
            } else {
                at += piece;
            }
        }
        if (budget == 0) break;
        if (!any || piece > steps.size()) piece /= 2;
    }
    return steps;
}

}  // namespace udm
