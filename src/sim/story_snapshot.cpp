// The story "snapshot": how its histories are drawn.
#include <fmt/format.h>

#include <algorithm>

#include "sim/snapshot_run.hpp"
#include "sim/stories.hpp"

namespace udm {
namespace {

class SnapshotStory final : public Story {
  public:
    std::string_view name() const override { return "snapshot"; }
    std::string_view about() const override { return "an origin and its snapshots, under cuts, errors and table swaps"; }
    History generate(Prng& random) const override;
    void run(World& world, const History& history, Outcome& outcome) const override {
        SnapshotRun{world, history, outcome}.run();
    }
    std::string describe(const History& history) const override { return SnapshotSetup::unpack(history.setup).describe(); }
    std::string describe(const Step& step) const override;
};

Step draw_take(Prng& random, std::uint64_t slot) {
    const std::uint64_t store = random.below(20), way = random.below(8);
    return {.kind = steps::kTake,
            .pause = steps::draw_pause(random),
            .a = slot,
            .b = store < 9 ? 0U : store < 16 ? 1U : 2U,
            .c = static_cast<std::uint64_t>(way == 0 ? steps::Way::noflush : way < 3 ? steps::Way::live : steps::Way::flush),
            .d = random.chance(1, 2)};
}

// What an administrator does now and then; most of the time nothing.
void draw_admin(Prng& random, const SnapshotSetup& setup, std::vector<Step>& steps) {
    const std::uint64_t what = random.below(120);
    Step step{.pause = steps::draw_pause(random)};
    if (what < 4) {
        step = draw_take(random, random.below(kSlots));
    } else if (what < 5) {
        step.kind = steps::kDrop;
        step.a = random.below(kSlots);
    } else if (what < 8) {
        step.kind = steps::kCycle;
        step.a = random.below(kSlots + 1 + setup.stacked);
        step.b = random.chance(1, 3);
        step.c = random.chance(1, 2) ? random.below(2000) : 0;
    } else if (what < 10) {
        step.kind = steps::kReload;
    } else if (what < 11) {
        step.kind = steps::kGrow;
        step.a = random.below(kSlots);
        step.b = setup.slots[step.a].chunk * random.between(1, 8);
    } else if (what < 12) {
        step.kind = steps::kBound;
        step.a = random.chance(1, 2) ? random.between(1, 3) : 0;
        step.b = random.chance(1, 2) ? random.between(1, 3) : 0;
        step.c = random.chance(1, 4) ? random.between(5, 60) : 0;
    } else if (what < 13) {
        step.kind = random.chance(1, 3) ? steps::kCutOff : steps::kResize;
        const bool smaller = random.chance(1, 3);
        const std::uint64_t unit = std::max<std::uint64_t>(setup.block, 1);
        if (step.kind == steps::kCutOff) {
            step.a = random.below(kSlots);
            step.b = setup.slots[step.a].chunk * random.between(1, 8) * (random.chance(1, 2) ? 1 : 16);
        } else {
            step.a = smaller;
            step.b = unit * random.between(1, smaller ? 24 / unit : 16);
        }
    } else {
        return;
    }
    steps.push_back(step);
}

History SnapshotStory::generate(Prng& random) const {
    const SnapshotSetup setup = SnapshotSetup::draw(random);
    History history;
    history.setup = setup.pack();
    steps::Shape shape{.sectors = setup.sectors, .block = std::max<std::uint64_t>(setup.block, 1), .volumes = {5, 2, 2, 1, 1}};
    for (const auto& slot : setup.slots) shape.chunks.push_back(slot.chunk);
    if (random.chance(1, 4)) shape.longest = 160;
    if (setup.premade != 0 && random.chance(3, 4)) {    // where the list grows
        shape.first = std::min(setup.premade * setup.slots[0].chunk, setup.sectors - 1);
        shape.chunks = {setup.slots[0].chunk};
    }
    shape.draw_mood(random);

    const std::uint64_t requests = random.between(130, 150);    // discards that a disk doesn't take are none
    // Where the rare things happen, by number of request.
    const std::uint64_t second_take = random.between(1, 25);
    const bool troubled = random.chance(3, 5);
    const std::uint64_t faults = troubled ? random.between(1, 3) : 0;
    std::uint64_t cuts = troubled && random.chance(1, 3) ? 0 : random.between(1, 3);
    if (random.chance(1, 6)) cuts = random.between(4, 10);
    std::vector<std::uint64_t> fault_at, cut_at;
    for (std::uint64_t i = 0; i < faults; ++i) fault_at.push_back(random.between(second_take + 5, requests - 1));
    for (std::uint64_t i = 0; i < cuts; ++i) cut_at.push_back(random.between(second_take + 1, requests - 1));
    const auto happens = [](const std::vector<std::uint64_t>& at, std::uint64_t i) { return std::count(at.begin(), at.end(), i) != 0; };

    for (std::uint64_t i = 0; i < requests; ++i) {
        if (i == 0) history.steps.push_back(draw_take(random, 0));
        if (i == second_take) history.steps.push_back(draw_take(random, 1));
        if (happens(fault_at, i)) {
            const std::uint64_t disk = random.chance(1, 4) ? 0 : random.between(1, 3);
            const std::uint64_t size = disk == 0 ? setup.sectors : setup.slots[disk - 1].cow_sectors;
            history.steps.push_back(steps::draw_fault(random, disk, size));
        }
        if (happens(cut_at, i)) {
            history.steps.push_back({.kind = steps::kCut,
                                     .pause = steps::draw_pause(random, shape.haste),
                                     .a = random.chance(1, 4),
                                     .b = random.chance(1, 4) ? random.between(1, 60) : 0});
        }
        draw_admin(random, setup, history.steps);
        if (troubled && random.chance(1, 20)) history.steps.push_back({.kind = steps::kHeal, .a = random.below(kSlots + 1)});
        history.steps.push_back(steps::draw_request(random, shape));
    }
    return history;
}

std::string SnapshotStory::describe(const Step& step) const {
    static constexpr const char* kStores[] = {"P", "PO", "N"};
    static constexpr const char* kWays[] = {"", ", without flush", ", without suspending the origin"};
    const std::string after = fmt::format("after {} events: ", step.pause);
    switch (step.kind) {
        case steps::kTake:
            return after + fmt::format("take snap{} with store {}{}{}", step.a, kStores[step.b], kWays[step.c],
                                       step.d ? ", on what a cut left" : "");
        case steps::kDrop: return after + fmt::format("drop snap{}", step.a);
        case steps::kCycle:
            return after + fmt::format("suspend volume {}{} for {} us", step.a, step.b ? " without flush" : "", step.c);
        case steps::kReload: return after + "swap the origin's table";
        case steps::kGrow: return after + fmt::format("the COW device of snap{} grows by {}", step.a, step.b);
        case steps::kCutOff: return after + fmt::format("the COW device of snap{} loses {}", step.a, step.b);
        case steps::kResize: return after + fmt::format("the origin becomes {} by {}", step.a ? "smaller" : "larger", step.b);
        case steps::kBound:
            return after + fmt::format("bound copies to {} KiB, {} a store and {} % of the time (0: as usual, counts are one more)",
                                       4 * step.a, step.b, step.c);
        default: return steps::describe(step);
    }
}

}  // namespace

std::unique_ptr<Story> snapshot_story() { return std::make_unique<SnapshotStory>(); }

}  // namespace udm
