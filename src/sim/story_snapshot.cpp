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
    std::string describe(const History& history) const override;
    std::string describe(const Step& step) const override;
};

SnapshotSetup draw_setup(Prng& random) {
    SnapshotSetup setup;
    setup.sectors = random.chance(1, 4) ? random.between(40, 400) : 8 * random.between(8, 48);
    if (random.chance(1, 8)) setup.stable_disks = random.below(1 << (kSlots + 1));
    if (random.chance(1, 2)) setup.fast = random.below(1 << (kSlots + 1));
    setup.lazy_discard = random.chance(1, 2);
    setup.orderly_end = random.chance(1, 3);
    setup.flush_at_end = random.chance(1, 2);
    for (auto& slot : setup.slots) {
        const std::uint64_t size = random.below(16);
        slot.chunk = size < 8 ? 8 : size < 11 ? 16 : size < 12 ? 32 : size < 13 ? 128 : std::uint64_t{1} << random.below(3);
        const std::uint64_t chunks = (setup.sectors + slot.chunk - 1) / slot.chunk;
        const std::uint64_t per_area = slot.chunk * 32;
        const auto with_areas = [per_area](std::uint64_t n) { return 3 + n + n / per_area; };
        switch (random.below(8)) {
            case 0: slot.cow_sectors = slot.chunk * (3 + random.below(4)); break;
            case 1: slot.cow_sectors = slot.chunk * (3 + random.between(1, chunks)); break;
            case 2: slot.cow_sectors = slot.chunk * with_areas(chunks); break;
            default:
                slot.cow_sectors = slot.chunk * with_areas(3 * chunks + 40);
                slot.roomy = 1;
        }
        // A store needs a 4 KiB header to read.
        slot.cow_sectors = std::max<std::uint64_t>(slot.cow_sectors, 8 + 2 * slot.chunk);
        slot.discard_zeroes_cow = random.chance(1, 2);
    }
    return setup;
}

History SnapshotStory::generate(Prng& random) const {
    const SnapshotSetup setup = draw_setup(random);
    History history;
    history.setup = setup.pack();
    steps::Shape shape{.volumes = kSlots + 1, .sectors = setup.sectors, .longest = 64};
    for (const auto& slot : setup.slots) shape.chunks.push_back(slot.chunk);
    if (random.chance(1, 4)) shape.longest = 160;

    const auto draw_take = [&](std::uint64_t slot) {
        const std::uint64_t kind = random.below(20);
        return Step{.kind = steps::kTake, .pause = steps::draw_pause(random), .a = slot,
                    .b = kind < 9 ? 0U : kind < 16 ? 1U : 2U, .c = random.chance(1, 6)};
    };
    const std::uint64_t requests = random.between(100, 140);
    // Where the rare things happen, by number of request.
    const bool troubled = random.chance(3, 5);
    const std::uint64_t faults = troubled ? random.between(1, 3) : 0;
    const std::uint64_t cuts = troubled && random.chance(1, 3) ? 0 : random.between(1, 3);
    std::vector<std::uint64_t> fault_at, cut_at;
    for (std::uint64_t i = 0; i < faults; ++i) fault_at.push_back(random.between(10, requests - 1));
    for (std::uint64_t i = 0; i < cuts; ++i) cut_at.push_back(random.between(10, requests - 1));
    const std::uint64_t second_take = random.between(1, 25);
    for (std::uint64_t i = 0; i < requests; ++i) {
        if (i == 0) history.steps.push_back(draw_take(0));
        if (i == second_take) history.steps.push_back(draw_take(1));
        for (const std::uint64_t at : fault_at) {
            if (at != i) continue;
            const std::uint64_t disk = random.chance(1, 4) ? 0 : random.between(1, 3);
            const std::uint64_t size = disk == 0 ? setup.sectors : setup.slots[disk - 1].cow_sectors;
            history.steps.push_back(steps::draw_fault(random, disk, size));
        }
        if (std::count(cut_at.begin(), cut_at.end(), i) != 0) {
            history.steps.push_back({.kind = steps::kCut, .pause = steps::draw_pause(random), .a = random.chance(1, 4),
                                     .b = random.chance(1, 4) ? random.between(1, 60) : 0});
        }
        switch (random.below(120)) {
            case 0:
            case 1:
            case 2: history.steps.push_back(draw_take(random.below(kSlots))); break;
            case 3: history.steps.push_back({.kind = steps::kDrop, .pause = steps::draw_pause(random), .a = random.below(kSlots)}); break;
            case 4:
            case 5:
            case 6:
                history.steps.push_back({.kind = steps::kCycle, .pause = steps::draw_pause(random), .a = random.below(kSlots + 1),
                                         .b = random.chance(1, 3), .c = random.chance(1, 2) ? random.below(2000) : 0});
                break;
            case 7:
            case 8: history.steps.push_back({.kind = steps::kReload, .pause = steps::draw_pause(random)}); break;
            case 9:
            case 10:
            case 11:
            case 12: history.steps.push_back({.kind = steps::kHeal, .a = random.below(kSlots + 1)}); break;
            default: break;
        }
        history.steps.push_back(steps::draw_request(random, shape));
    }
    return history;
}

std::string SnapshotStory::describe(const History& history) const {
    const SnapshotSetup setup = SnapshotSetup::unpack(history.setup);
    std::string text = fmt::format("an origin of {} sectors", setup.sectors);
    for (std::size_t i = 0; i < kSlots; ++i) {
        const auto& slot = setup.slots[i];
        text += fmt::format("; snap{}: chunks of {}, COW device of {}{}{}", i, slot.chunk, slot.cow_sectors,
                            slot.roomy ? " (roomy)" : "", slot.discard_zeroes_cow ? ", discards" : "");
    }
    if (setup.stable_disks) text += fmt::format("; disks without cache: {:#x}", setup.stable_disks);
    return text;
}

std::string SnapshotStory::describe(const Step& step) const {
    static constexpr const char* kStores[] = {"P", "PO", "N"};
    const std::string after = fmt::format("after {} events: ", step.pause);
    switch (step.kind) {
        case steps::kTake:
            return after + fmt::format("take snap{} with store {}{}", step.a, kStores[step.b], step.c ? ", without flush" : "");
        case steps::kDrop: return after + fmt::format("drop snap{}", step.a);
        case steps::kCycle:
            return after + fmt::format("suspend volume {}{} for {} us", step.a, step.b ? " without flush" : "", step.c);
        case steps::kReload: return after + "swap the origin's table";
        default: return steps::describe(step);
    }
}

}  // namespace

std::unique_ptr<Story> snapshot_story() { return std::make_unique<SnapshotStory>(); }

}  // namespace udm
