#include "sim/runner.hpp"

#include <fmt/format.h>

#include <cstdio>

#include "base/assert.hpp"
#include "base/parse.hpp"

namespace udm {
namespace {
thread_local std::string replay_of_this_run;

void say_how_to_replay() noexcept {
    std::fprintf(stderr, "to replay: udm-sim %s\n", replay_of_this_run.c_str());
}
}  // namespace

History history_of(const Story& story, const RunOptions& options) {
    Trace hash;
    hash.add(options.seed);
    hash.add(story.name());
    Prng random{hash.hash()};
    History history = options.history ? *options.history : story.generate(random);
    if (!options.steps) return history;
    std::vector<Step> chosen;
    for (const std::uint32_t index : *options.steps) {
        if (index < history.steps.size()) chosen.push_back(history.steps[index]);
    }
    history.steps = std::move(chosen);
    return history;
}

Outcome run_story(const Story& story, const RunOptions& options) {
    replay_of_this_run = replay_arguments(story, options);
    set_assert_hook(say_how_to_replay);
    const History history = history_of(story, options);
    Outcome outcome;
    {
        World world{{options.seed, options.without, options.keeps_trace}};
        story.run(world, history, outcome);
        outcome.faults = world.faults();
        outcome.cuts = world.cuts();
        outcome.left_out = world.chaos().left_out();
        outcome.steps = world.timeline().steps();
        outcome.hash = world.timeline().trace().hash();
        if (options.keeps_trace) outcome.trace = world.timeline().trace().lines();
    }
    set_assert_hook(nullptr);
    return outcome;
}

std::string replay_arguments(const Story& story, const RunOptions& options) {
    if (options.history) return fmt::format("replay FILE (of story {}, seed {})", story.name(), options.seed);
    std::string text = fmt::format("replay {} --story {}", options.seed, story.name());
    for (const std::string& care : options.without) text += " --without " + care;
    if (options.steps) text += " --steps " + format_steps(*options.steps);
    return text;
}

std::optional<std::vector<std::uint32_t>> parse_steps(std::string_view text) {
    std::vector<std::uint32_t> steps;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(','), text.size());
        const std::string_view part = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        const std::size_t dash = std::min(part.find('-'), part.size());
        const auto first = parse_u32(part.substr(0, dash));
        const auto last = dash == part.size() ? first : parse_u32(part.substr(dash + 1));
        if (!first || !last || *last < *first || *last - *first > 1'000'000) return std::nullopt;
        if (!steps.empty() && *first <= steps.back()) return std::nullopt;
        for (std::uint32_t i = *first; i <= *last; ++i) steps.push_back(i);
    }
    return steps;
}

std::string format_steps(const std::vector<std::uint32_t>& steps) {
    if (steps.empty()) return "none";
    std::string text;
    for (std::size_t i = 0; i < steps.size();) {
        std::size_t end = i + 1;
        while (end < steps.size() && steps[end] == steps[end - 1] + 1) ++end;
        if (!text.empty()) text += ',';
        text += end - i == 1 ? fmt::format("{}", steps[i]) : fmt::format("{}-{}", steps[i], steps[end - 1]);
        i = end;
    }
    return text;
}

}  // namespace udm
