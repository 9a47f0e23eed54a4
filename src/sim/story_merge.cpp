// The story "merge": how its histories are drawn. What happens in them is the story "snapshot"'s, and snapshots go back into
// the origin besides.
#include <fmt/format.h>

#include <algorithm>

#include "sim/snapshot_run.hpp"
#include "sim/stories.hpp"

namespace udm {
namespace {

class MergeStory final : public Story {
  public:
    std::string_view name() const override { return "merge"; }
    std::string_view about() const override { return "snapshots go back into their origin, beside others, under cuts, errors and table swaps"; }
    History generate(Prng& random) const override;
    void run(World& world, const History& history, Outcome& outcome) const override {
        SnapshotRun{world, history, outcome}.run();
    }
    std::string describe(const History& history) const override { return SnapshotSetup::unpack(history.setup).describe(); }
    std::string describe(const Step& step) const override;
};

std::uint64_t draw_rate(Prng& random) { return random.chance(1, 3) ? 0 : std::uint64_t{64 * 1024} << random.below(8); }

Step draw_snapshot(Prng& random, std::uint64_t slot) {
    return {.kind = steps::kTake, .pause = steps::draw_pause(random), .a = slot, .b = random.chance(1, 2), .c = 0, .d = 0};
}

Step draw_merge(Prng& random, std::uint64_t slot) {
    std::uint64_t how = 0;
    if (random.chance(1, 8)) how |= steps::kPausedAtFirst;
    if (random.chance(1, 6)) how |= steps::kTooEarly;
    if (random.chance(1, 6)) how |= steps::kSourceAgain;
    return {.kind = steps::kMerge, .pause = steps::draw_pause(random), .a = slot, .b = draw_rate(random), .c = how};
}

// What an administrator does now and then; most of the time nothing.
void draw_housekeeping(Prng& random, std::vector<Step>& steps) {
    const std::uint64_t what = random.below(100);
    Step step{.pause = steps::draw_pause(random)};
    if (what < 3) {
        step = draw_snapshot(random, random.below(kSlots));
    } else if (what < 5) {
        step = draw_merge(random, random.below(kSlots));
    } else if (what < 6) {
        step.kind = steps::kDrop;
        step.a = random.between(1, kSlots - 1);
    } else if (what < 9) {
        step.kind = steps::kCycle;
        step.a = random.below(3);
        step.c = random.chance(1, 2) ? random.below(2000) : 0;
    } else if (what < 12) {
        step.kind = steps::kTurn;
    } else if (what < 18) {
        step.kind = steps::kSettle;
    } else if (what < 22) {
        step.kind = steps::kSay;
        step.b = random.below(4);
        step.c = draw_rate(random);
    } else if (what < 25) {
        step.kind = steps::kReplace;
        step.a = random.below(kSlots);
    } else {
        return;
    }
    steps.push_back(step);
}

History MergeStory::generate(Prng& random) const {
    SnapshotSetup setup = SnapshotSetup::draw(random);
    for (auto& slot : setup.slots) {    // a store that was full can be merged as well, but has less to tell
        if (slot.roomy != 0 || random.chance(1, 4)) continue;
        const std::uint64_t chunks = 3 * ((setup.sectors + slot.chunk - 1) / slot.chunk) + 40;
        slot.cow_sectors = slot.chunk * (3 + chunks + chunks / (slot.chunk * 32));
        slot.cow_sectors = std::max<std::uint64_t>(slot.cow_sectors, 8 + 2 * slot.chunk);
        slot.roomy = 1;
    }
    History history;
    history.setup = setup.pack();
    steps::Shape shape{.sectors = setup.sectors, .block = std::max<std::uint64_t>(setup.block, 1), .volumes = {5, 4, 3, 1, 1}};
    for (const auto& slot : setup.slots) shape.chunks.push_back(slot.chunk);
    if (random.chance(1, 4)) shape.longest = 160;
    shape.draw_mood(random);

    const std::uint64_t requests = random.between(135, 165);    // some meet a volume that is being swapped
    const std::uint64_t second_take = random.between(1, 20), third_take = random.between(1, 30);
    const std::uint64_t first_merge = random.between(15, 60);
    const bool troubled = random.chance(1, 2);
    const std::uint64_t faults = troubled ? random.between(1, 3) : 0;
    std::uint64_t cuts = troubled && random.chance(1, 3) ? 0 : random.between(1, 3);
    if (random.chance(1, 6)) cuts = random.between(4, 10);
    std::vector<std::uint64_t> fault_at, cut_at;
    for (std::uint64_t i = 0; i < faults; ++i) fault_at.push_back(random.between(second_take + 5, requests - 1));
    for (std::uint64_t i = 0; i < cuts; ++i) cut_at.push_back(random.between(first_merge, requests - 1));
    const auto happens = [](const std::vector<std::uint64_t>& at, std::uint64_t i) { return std::count(at.begin(), at.end(), i) != 0; };

    for (std::uint64_t i = 0; i < requests; ++i) {
        if (i == 0 && setup.premade == 0) history.steps.push_back(draw_snapshot(random, 0));
        if (i == second_take) history.steps.push_back(draw_snapshot(random, 1));
        if (i == third_take) history.steps.push_back(draw_snapshot(random, 2));
        if (i == first_merge) history.steps.push_back(draw_merge(random, random.chance(3, 4) ? 0 : 1));
        if (happens(fault_at, i)) {
            const std::uint64_t disk = random.below(3);
            const std::uint64_t size = disk == 0 ? setup.sectors : setup.slots[disk - 1].cow_sectors;
            history.steps.push_back(steps::draw_fault(random, disk, size));
        }
        if (happens(cut_at, i)) {
            history.steps.push_back({.kind = steps::kCut,
                                     .pause = steps::draw_pause(random, shape.haste),
                                     .a = random.chance(1, 4),
                                     .b = random.chance(1, 4) ? random.between(1, 60) : 0});
        }
        draw_housekeeping(random, history.steps);
        if (troubled && random.chance(1, 10)) history.steps.push_back({.kind = steps::kHeal, .a = random.below(kSlots + 1)});
        history.steps.push_back(steps::draw_request(random, shape));
    }
    return history;
}

std::string MergeStory::describe(const Step& step) const {
    static constexpr const char* kSays[] = {"to pause", "to go on", "to try again", "its rate"};
    const std::string after = fmt::format("after {} events: ", step.pause);
    switch (step.kind) {
        case steps::kTake: return after + fmt::format("take snap{} with store {}", step.a, step.b ? "PO" : "P");
        case steps::kDrop: return after + fmt::format("drop snap{}", step.a);
        case steps::kCycle: return after + fmt::format("suspend volume {} for {} us", step.a, step.c);
        case steps::kMerge:
            return after + fmt::format("merge snap{} at {} bytes/s{}{}{}", step.a, step.b, step.c & steps::kPausedAtFirst ? ", paused" : "",
                                       step.c & steps::kTooEarly ? ", tried too early" : "",
                                       step.c & steps::kSourceAgain ? ", the snapshot to be resumed meanwhile" : "");
        case steps::kTurn: return after + "from merge to snapshot, or back";
        case steps::kSettle: return after + "a merge that is done becomes an origin";
        case steps::kSay: return after + fmt::format("tell the merge {} ({})", kSays[step.b], step.c);
        case steps::kReplace: return after + fmt::format("snap{} gets another table", step.a);
        default: return steps::describe(step);
    }
}

}  // namespace

std::unique_ptr<Story> merge_story() { return std::make_unique<MergeStory>(); }

}  // namespace udm
