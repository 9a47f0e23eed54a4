// udm-sim: runs histories of the simulated world. See docs/simulation.md.
#include <fmt/format.h>
#include <malloc.h>

#include <cstdio>
#include <exception>
#include <fstream>
#include <numeric>
#include <sstream>
#include <stdexcept>

#include "apps/udm-sim/farm.hpp"
#include "apps/udm-sim/options.hpp"
#include "sim/history_file.hpp"
#include "sim/runner.hpp"

namespace udm::sim_app {
namespace {

const Story& story_of(const Options& options) {
    if (const Story* story = find_story(options.story)) return *story;
    throw std::runtime_error{"no story '" + options.story + "'; udm-sim list names them"};
}

int list() {
    for (const auto& story : all_stories()) fmt::print("{:10} {}\n", story->name(), story->about());
    return 0;
}

// What a seed or a file on the command line stands for.
struct Chosen {
    const Story& story;
    RunOptions run;
};
Chosen chosen(const Options& options) {
    if (options.file.empty()) {
        return {story_of(options),
                {.seed = options.first, .without = options.without, .steps = options.steps, .keeps_trace = options.trace}};
    }
    std::ifstream file{options.file};
    if (!file) throw std::runtime_error{"cannot read " + options.file + ", which is no seed either"};
    std::ostringstream text;
    text << file.rdbuf();
    auto saved = parse_history(text.str());
    if (!saved) throw std::runtime_error{options.file + ": " + saved.error().message};
    const Story* story = find_story(saved->story);
    if (!story) throw std::runtime_error{options.file + ": no story '" + saved->story + "'"};
    saved->run.without.insert(saved->run.without.end(), options.without.begin(), options.without.end());
    saved->run.steps = options.steps;
    saved->run.keeps_trace = options.trace;
    return {*story, std::move(saved->run)};
}

int replay(const Options& options) {
    const auto [story, run] = chosen(options);
    const History history = history_of(story, run);
    if (options.steps_only || options.trace) {
        fmt::print("{}\n", story.describe(history));
        for (std::size_t i = 0; i < history.steps.size(); ++i) {
            fmt::print("{:4} {}\n", options.steps ? (*options.steps)[i] : i, story.describe(history.steps[i]));
        }
    }
    if (options.steps_only) return 0;
    std::fflush(stdout);
    const Outcome outcome = run_story(story, run);
    for (const std::string& line : outcome.trace) fmt::print("{}\n", line);
    for (const std::string& violation : outcome.violations) fmt::print("violation: {}\n", violation);
    fmt::print("seed {}: {} requests, {} {}, {} faulted disk requests, {} power cuts, {} events, trace hash {:016x}: {}\n",
               run.seed, outcome.requests, outcome.views, story.views(), outcome.faults, outcome.cuts, outcome.steps, outcome.hash,
               outcome.failed() ? "FAILED" : "no violation");
    return outcome.failed() ? 1 : 0;
}

int shrink(const Options& options) {
    auto [story, run] = chosen(options);
    run.keeps_trace = false;
    if (!run.steps) {
        run.steps.emplace(history_of(story, run).steps.size());
        std::iota(run.steps->begin(), run.steps->end(), 0U);
    }
    const std::size_t before = run.steps->size();
    if (!fails_apart(story, run)) throw std::runtime_error{"this history does not fail"};
    const Story& of = story;
    RunOptions attempt = run;
    run.steps = shrink_steps(*run.steps, 3000, [&](const std::vector<std::uint32_t>& steps) {
        attempt.steps = steps;
        return fails_apart(of, attempt);
    });
    fmt::print("{} of {} steps are left:\n", run.steps->size(), before);
    const History history = history_of(story, run);
    fmt::print("{}\n", story.describe(history));
    for (std::size_t i = 0; i < history.steps.size(); ++i) {
        fmt::print("{:4} {}\n", (*run.steps)[i], story.describe(history.steps[i]));
    }
    if (options.file.empty()) fmt::print("replay with: udm-sim {} --trace\n", replay_arguments(story, run));
    if (!options.save.empty()) {
        std::ofstream file{options.save};
        file << format_history(story, run, "Say here what it was.");
        if (!file.flush()) throw std::runtime_error{"cannot write " + options.save};
    }
    return 1;
}

int run_verb(const Options& options) {
    switch (options.verb) {
        case Options::Verb::list: return list();
        case Options::Verb::run: return run_seeds(story_of(options), options) == 0 ? 0 : 1;
        case Options::Verb::replay: return replay(options);
        case Options::Verb::shrink: return shrink(options);
    }
    return 2;
}

}  // namespace
}  // namespace udm::sim_app

int main(int argc, char** argv) {
    // A history makes and drops its disks: their memory stays in the process.
    ::mallopt(M_TRIM_THRESHOLD, 256 << 20);
    ::mallopt(M_MMAP_THRESHOLD, 64 << 20);
    using namespace udm::sim_app;
    try {
        const std::vector<std::string> words(argv + 1, argv + argc);
        if (!words.empty() && (words[0] == "--help" || words[0] == "-h" || words[0] == "help")) {
            fmt::print("{}", usage());
            return 0;
        }
        return run_verb(parse_options(words));
    } catch (const std::exception& error) {
        fmt::print(stderr, "udm-sim: {}\n{}", error.what(), usage());
        return 2;
    }
}
