// The stories "mirror" and "scrub": how their histories are drawn. The second is the first with sectors of legs that change behind
// everybody's back, and with checks and repairs.
#include <fmt/format.h>

#include <algorithm>

#include "sim/mirror_run.hpp"
#include "sim/stories.hpp"

namespace udm {
namespace {

class MirrorStory final : public Story {
  public:
    explicit MirrorStory(bool rots) noexcept : rots_{rots} {}
    std::string_view name() const override { return rots_ ? "scrub" : "mirror"; }
    std::string_view about() const override {
        return rots_ ? "a mirror whose legs rot is checked and repaired in use, under cuts, failing legs, errors, and tables with other legs"
                     : "a mirror with its log, under cuts, failing legs, errors, and tables with other legs";
    }
    std::string_view views() const override { return "legs"; }
    History generate(Prng& random) const override;
    void run(World& world, const History& history, Outcome& outcome) const override {
        MirrorRun{world, history, outcome}.run();
    }
    std::string describe(const History& history) const override { return MirrorSetup::unpack(history.setup).describe(); }
    std::string describe(const Step& step) const override;

  private:
    const bool rots_;
};

// What an administrator does now and then; most of the time nothing.
void draw_admin(Prng& random, const MirrorSetup& setup, std::vector<Step>& steps) {
    const std::uint64_t what = random.below(100);
    Step step{.pause = steps::draw_pause(random)};
    if (what < 2) {
        step.kind = steps::kMirrorCycle;
        step.b = random.chance(1, 3);
        step.c = random.chance(1, 2) ? random.below(2000) : 0;
    } else if (what < 4) {
        step.kind = steps::kMirrorReload;
    } else if (what < 5) {
        step.kind = steps::kMirrorRest;
    } else if (what < 10) {
        // Regions rest for seconds before they are clean in the log, legs that failed are tried again after some.
        step.kind = steps::kMirrorTime;
        step.c = random.chance(1, 2) ? random.between(1, 100) : random.between(100, 15'000);
    } else if (what < 14) {
        step.kind = steps::kMirrorSay;
        step.b = random.below(static_cast<std::uint64_t>(steps::MirrorWord::count));
        switch (static_cast<steps::MirrorWord>(step.b)) {
            case steps::MirrorWord::leg_return: step.c = random.below(setup.leg_disks()); break;
            case steps::MirrorWord::rate: step.c = random.chance(1, 2) ? 0 : random.between(1, 64) << 16; break;
            case steps::MirrorWord::share: step.c = random.chance(1, 2) ? 0 : random.between(5, 100); break;
            default: break;
        }
    } else if (what < 18 && setup.spares != 0) {
        step.kind = steps::kMirrorLegs;
        step.b = random.below(static_cast<std::uint64_t>(steps::LegChange::count));
        step.c = random.below(kMirrorLegsMax);
        step.d = random.below(setup.leg_disks());
    } else {
        return;
    }
    steps.push_back(step);
}

Step draw_fault(Prng& random, const MirrorSetup& setup) {
    // The log now and then; a leg that is spared never.
    std::uint64_t disk = random.below(setup.leg_disks() + 1);
    while (disk == setup.survivor && disk != 0) disk = random.between(1, setup.leg_disks());
    if (disk == 0 && random.chance(1, 2)) disk = setup.survivor == 1 ? 2 : 1;
    const std::uint64_t size = disk == 0 ? setup.log_sectors() : setup.offsets[disk - 1] + setup.sectors;
    Step step = steps::draw_fault(random, disk, size);
    if (disk == 0 && step.b == static_cast<std::uint64_t>(steps::Trouble::from_sector)) step.c = random.below(3);
    return step;
}

// Rot, checks and repairs, in between what else there is.
void draw_scrubs(Prng& random, const MirrorSetup& setup, std::vector<Step>& steps) {
    const auto insert = [&](const Step& step) { steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(random.below(steps.size() + 1)), step); };
    for (std::uint64_t n = random.between(1, 8); n != 0; --n) {
        // Half of the histories leave the first leg alone, which is the source as long as nothing fails.
        const std::uint64_t of_leg = setup.clean_bits % 2 == 0 ? random.below(setup.legs) : random.between(1, setup.legs - 1);
        insert({.kind = steps::kMirrorRot, .pause = steps::draw_pause(random), .a = of_leg, .b = random.chance(1, 3) ? random.between(1, 40) : random.between(1, 3),
                .c = random.below(setup.sectors)});
    }
    for (std::uint64_t n = random.between(3, 8); n != 0; --n) {
        const auto word = random.chance(1, 5) ? random.below(static_cast<std::uint64_t>(steps::ScrubWord::count)) : random.below(2);
        insert({.kind = steps::kMirrorScrub, .pause = steps::draw_pause(random), .b = word});
    }
    for (std::uint64_t n = random.between(4, 12); n != 0; --n) {
        insert({.kind = steps::kMirrorScrubLook, .pause = steps::draw_pause(random), .c = random.chance(1, 2) ? 0 : random.between(1, 60)});
    }
    // What was told of as repaired must be so after a cut, too: slow ones leave the time for one.
    for (std::uint64_t n = random.below(3); n != 0; --n) {
        const std::vector<Step> some{{.kind = steps::kMirrorScrub, .b = static_cast<std::uint64_t>(steps::ScrubWord::slow)},
                                     {.kind = steps::kMirrorScrub, .pause = steps::draw_pause(random), .b = static_cast<std::uint64_t>(steps::ScrubWord::repair)},
                                     {.kind = steps::kMirrorScrubLook, .pause = static_cast<std::uint32_t>(random.below(40)), .c = random.below(6)},
                                     {.kind = steps::kCut, .pause = static_cast<std::uint32_t>(random.below(6))}};
        steps.insert(steps.begin() + static_cast<std::ptrdiff_t>(random.below(steps.size() + 1)), some.begin(), some.end());
    }
    // Found and compared at rest, now and then.
    for (std::uint64_t n = random.below(3); n != 0; --n) insert({.kind = steps::kMirrorRest});
}

History MirrorStory::generate(Prng& random) const {
    const MirrorSetup setup = MirrorSetup::draw(random);
    History history;
    history.setup = setup.pack();
    steps::Shape shape{.sectors = setup.front + setup.sectors,
                       .chunks = {setup.region, setup.region, 1},
                       .block = std::max<std::uint64_t>(setup.block, 1),
                       .volumes = {1}};
    shape.draw_mood(random);

    std::uint64_t requests = random.between(130, 150);
    const bool troubled = random.chance(3, 4);
    const std::uint64_t faults = troubled ? random.between(1, 4) : 0;
    std::uint64_t cuts = troubled && random.chance(1, 3) ? 0 : random.between(1, 3);
    if (random.chance(1, 6)) cuts = random.between(4, 10);
    if (cuts > 3) requests += 30;    // what comes while the machine does counts for nothing
    std::vector<std::uint64_t> fault_at, cut_at;
    for (std::uint64_t i = 0; i < faults; ++i) fault_at.push_back(random.between(3, requests - 1));
    for (std::uint64_t i = 0; i < cuts; ++i) cut_at.push_back(random.between(1, requests - 1));
    const auto happens = [](const std::vector<std::uint64_t>& at, std::uint64_t i) { return std::count(at.begin(), at.end(), i) != 0; };

    for (std::uint64_t i = 0; i < requests; ++i) {
        if (happens(fault_at, i)) history.steps.push_back(draw_fault(random, setup));
        if (happens(cut_at, i)) {
            history.steps.push_back({.kind = steps::kCut,
                                     .pause = steps::draw_pause(random, shape.haste),
                                     .a = random.chance(1, 3) ? random.between(1, 2) : 0,
                                     .b = random.chance(1, 4) ? random.between(1, 60) : 0});
        }
        draw_admin(random, setup, history.steps);
        if (troubled && random.chance(1, 20)) history.steps.push_back({.kind = steps::kHeal, .a = random.below(setup.leg_disks() + 1)});
        history.steps.push_back(steps::draw_request(random, shape));
    }
    if (rots_) draw_scrubs(random, setup, history.steps);
    return history;
}

std::string MirrorStory::describe(const Step& step) const {
    const std::string after = fmt::format("after {} events: ", step.pause);
    switch (step.kind) {
        case steps::kMirrorCycle: return after + fmt::format("suspend{} for {} us", step.b ? " without flush" : "", step.c);
        case steps::kMirrorReload: return after + "swap the table";
        case steps::kMirrorRest: return after + "wait until all is at rest, and look";
        case steps::kMirrorSay: return after + "say: " + steps::words_of(static_cast<steps::MirrorWord>(step.b), step.c);
        case steps::kMirrorLegs: {
            static constexpr const char* kChanges[] = {"add", "drop", "replace"};
            return after + fmt::format("{} a leg: {} goes, {} comes", kChanges[step.b % 3], step.c, step.d);
        }
        case steps::kMirrorRot: return after + fmt::format("{} sectors of leg {} from {} on rot", step.b, step.a, step.c);
        case steps::kMirrorScrub: return after + "say: " + steps::words_of(static_cast<steps::ScrubWord>(step.b));
        case steps::kMirrorScrubLook: return after + fmt::format("see what was found, after {} looks", step.c);
        case steps::kMirrorTime: return after + fmt::format("{} ms pass", step.c);
        case steps::kCut: {
            static constexpr const char* kAfterwards[] = {"", ", errors stay", ", what is gone stays away"};
            return after + fmt::format("power cut{}{}", kAfterwards[step.a % 3], step.b ? fmt::format(", and again after {} events", step.b) : "");
        }
        default: return steps::describe(step);
    }
}

}  // namespace

std::unique_ptr<Story> mirror_story() { return std::make_unique<MirrorStory>(false); }
std::unique_ptr<Story> scrub_story() { return std::make_unique<MirrorStory>(true); }

}  // namespace udm
