// A story: how a history of its kind is drawn, and how one is lived through. A history is data first, a list of steps,
// and only then executed: so it can be printed, and made smaller by leaving steps out.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/prng.hpp"
#include "sim/world.hpp"

namespace udm {

// What the words mean is the story's. A step must make sense, or do nothing, whatever steps before it are missing.
struct Step {
    std::uint32_t kind = 0;
    std::uint32_t pause = 0;    // events of the world to let happen before it
    std::uint64_t a = 0, b = 0, c = 0, d = 0;
};

struct History {
    std::vector<std::uint64_t> setup;    // sizes, counts, options
    std::vector<Step> steps;
};

// What became of it.
struct Outcome {
    static constexpr std::size_t kViolationsMax = 8;

    std::vector<std::string> violations;
    std::uint64_t requests = 0;     // of clients
    std::uint64_t views = 0;        // snapshots taken, or what Story::views() says
    std::uint64_t faults = 0;       // requests that disks failed or stalled
    std::uint64_t cuts = 0;
    std::uint64_t swaps = 0;        // tables
    std::uint64_t left_out = 0;     // cares not taken when asked
    std::uint64_t steps = 0;        // events
    std::uint64_t hash = 0;         // of the trace
    std::vector<std::string> trace;

    bool failed() const noexcept { return !violations.empty(); }
    void violate(std::string text) {
        if (violations.size() < kViolationsMax) violations.push_back(std::move(text));
    }
};

class Story {
  public:
    virtual ~Story() = default;
    virtual std::string_view name() const = 0;
    virtual std::string_view about() const = 0;    // one line
    virtual std::string_view views() const { return "snapshots taken"; }    // what Outcome::views counts
    virtual History generate(Prng& random) const = 0;
    // Lives through it and fills in everything but hash and trace.
    virtual void run(World& world, const History& history, Outcome& outcome) const = 0;
    virtual std::string describe(const History& history) const = 0;    // of the setup
    virtual std::string describe(const Step& step) const = 0;
};

// All stories there are.
const std::vector<std::unique_ptr<Story>>& all_stories();
const Story* find_story(std::string_view name);

}  // namespace udm
