#include "sim/history_file.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/parse.hpp"

namespace udm {
namespace {

Result<std::vector<std::uint64_t>> parse_numbers(const std::vector<std::string>& words, std::size_t line) {
    std::vector<std::uint64_t> numbers;
    for (std::size_t i = 1; i < words.size(); ++i) {
        const auto number = parse_u64(words[i]);
        if (!number) return fail(Errc::bad_argument, fmt::format("line {}: '{}' is not a number", line, words[i]));
        numbers.push_back(*number);
    }
    return numbers;
}

}  // namespace

Result<SavedHistory> parse_history(std::string_view text) {
    SavedHistory saved;
    History history;
    bool spelled_out = false, has_seed = false;
    for (std::size_t line_number = 1; !text.empty(); ++line_number) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        const std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (line.empty() || line[0] == '#') continue;
        TRY(const std::vector<std::string> words, split_words(line));
        if (words.empty()) continue;
        const auto bad = [&](const char* what) { return fail(Errc::bad_argument, fmt::format("line {}: {}", line_number, what)); };
        if (words[0] == "story" || words[0] == "without") {
            if (words.size() != 2) return bad("it takes one word");
            if (words[0] == "story") saved.story = words[1];
            else saved.run.without.push_back(words[1]);
            continue;
        }
        TRY(const std::vector<std::uint64_t> numbers, parse_numbers(words, line_number));
        if (words[0] == "seed") {
            if (numbers.size() != 1) return bad("seed takes one number");
            saved.run.seed = numbers[0];
            has_seed = true;
        } else if (words[0] == "setup") {
            history.setup = numbers;
            spelled_out = true;
        } else if (words[0] == "step") {
            if (numbers.size() != 6) return bad("step takes KIND PAUSE A B C D");
            history.steps.push_back({static_cast<std::uint32_t>(numbers[0]), static_cast<std::uint32_t>(numbers[1]), numbers[2],
                                     numbers[3], numbers[4], numbers[5]});
        } else {
            return bad("known are story, seed, without, setup and step");
        }
    }
    if (saved.story.empty() || !has_seed) return fail(Errc::bad_argument, "a history needs its story and its seed");
    if (!spelled_out && !history.steps.empty()) return fail(Errc::bad_argument, "steps need the setup they belong to");
    if (spelled_out) saved.run.history = std::move(history);
    return saved;
}

std::string format_history(const Story& story, const RunOptions& run, std::string_view about) {
    const History history = history_of(story, run);
    std::string text = fmt::format("# {}\n# {}\nstory {}\nseed {}\n", about, story.describe(history), story.name(), run.seed);
    for (const std::string& care : run.without) text += "without " + care + "\n";
    text += fmt::format("setup {}\n", fmt::join(history.setup, " "));
    for (const Step& step : history.steps) {
        text += fmt::format("# {}\nstep {} {} {} {} {} {}\n", story.describe(step), step.kind, step.pause, step.a, step.b, step.c, step.d);
    }
    return text;
}

}  // namespace udm
