#include "apps/udm-sim/options.hpp"

#include <stdexcept>

#include "base/parse.hpp"
#include "sim/runner.hpp"

namespace udm::sim_app {

std::string usage() {
    return "udm-sim: udm in a simulated world, from seeds\n"
           "  udm-sim list\n"
           "      the stories there are\n"
           "  udm-sim run --seeds A..B [--story NAME] [--jobs N] [--without CARE]... [--budget SECONDS] [--failures N] [--quiet]\n"
           "      runs these seeds in N processes; stops after so many seconds, or failures (10)\n"
           "  udm-sim replay SEED|FILE [--story NAME] [--without CARE]... [--steps LIST] [--trace] [--list]\n"
           "      one history; --trace prints every event, --list the steps instead of running them\n"
           "  udm-sim shrink SEED|FILE [--story NAME] [--without CARE]... [--steps LIST] [--save FILE]\n"
           "      leaves out steps of a failing history as long as it fails; --save writes what is left to a file\n"
           "The story is 'snapshot' unless it is named. Exit status: 0 no violation, 1 violations, 2 bad usage.\n";
}

namespace {

std::uint64_t number(const std::string& option, const std::string& word) {
    const auto value = parse_u64(word);
    if (!value) throw std::runtime_error{option + ": '" + word + "' is not a number"};
    return *value;
}

}  // namespace

Options parse_options(const std::vector<std::string>& words) {
    Options options;
    if (words.empty()) throw std::runtime_error{"say what to do: list, run, replay or shrink"};
    bool has_seed = false;
    if (words[0] == "run") options.verb = Options::Verb::run;
    else if (words[0] == "replay") options.verb = Options::Verb::replay;
    else if (words[0] == "shrink") options.verb = Options::Verb::shrink;
    else if (words[0] == "list") options.verb = Options::Verb::list;
    else throw std::runtime_error{"'" + words[0] + "' is not list, run, replay or shrink"};
    for (std::size_t i = 1; i < words.size(); ++i) {
        const std::string& word = words[i];
        const auto value = [&]() -> const std::string& {
            if (i + 1 == words.size()) throw std::runtime_error{word + " needs a value"};
            return words[++i];
        };
        if (word == "--seeds") {
            const std::string range = value();
            const std::size_t dots = range.find("..");
            if (dots == std::string::npos) throw std::runtime_error{"--seeds takes A..B, not '" + range + "'"};
            options.first = number(word, range.substr(0, dots));
            options.last = number(word, range.substr(dots + 2));
            if (options.last < options.first) throw std::runtime_error{"--seeds: nothing from " + range};
            has_seed = true;
        } else if (word == "--story") {
            options.story = value();
        } else if (word == "--jobs") {
            options.jobs = static_cast<unsigned>(number(word, value()));
            if (options.jobs == 0 || options.jobs > 256) throw std::runtime_error{"--jobs takes 1 to 256"};
        } else if (word == "--without") {
            options.without.push_back(value());
        } else if (word == "--budget") {
            options.budget_s = static_cast<double>(number(word, value()));
        } else if (word == "--failures") {
            options.failures_max = number(word, value());
        } else if (word == "--steps") {
            const std::string text = value();
            options.steps = parse_steps(text == "none" ? "" : text);
            if (!options.steps) throw std::runtime_error{"--steps takes ascending numbers and ranges (3-9,12), not '" + text + "'"};
        } else if (word == "--trace") {
            options.trace = true;
        } else if (word == "--list") {
            options.steps_only = true;
        } else if (word == "--quiet") {
            options.quiet = true;
        } else if (word == "--save") {
            options.save = value();
        } else if (!word.starts_with("--") && !has_seed && options.verb != Options::Verb::run) {
            if (const auto seed = parse_u64(word)) options.first = options.last = *seed;
            else options.file = word;
            has_seed = true;
        } else {
            throw std::runtime_error{"'" + word + "' is not understood here"};
        }
    }
    if (options.verb != Options::Verb::list && !has_seed) {
        throw std::runtime_error{options.verb == Options::Verb::run ? "run needs --seeds A..B" : words[0] + " needs a seed"};
    }
    return options;
}

}  // namespace udm::sim_app
