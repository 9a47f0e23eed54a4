// A history in a file: one that went wrong once is kept as it was, step by step, and does not change when the way in which
// histories are drawn does.
//
//   # comment
//   story snapshot
//   seed 17                  of latencies and of what cuts leave
//   without CARE             any number of them
//   setup 320 0 5 ...
//   step KIND PAUSE A B C D  one for each
// Without setup and steps the history is the one that the seed draws.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"
#include "sim/runner.hpp"

namespace udm {

struct SavedHistory {
    std::string story;
    RunOptions run;
};

Result<SavedHistory> parse_history(std::string_view text);
// With the steps spelled out; `about` becomes the comment.
std::string format_history(const Story& story, const RunOptions& run, std::string_view about);

}  // namespace udm
