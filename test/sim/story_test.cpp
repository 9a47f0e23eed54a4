// Whole histories: the same seed is the same history, regressions stay fixed, and the world notices what is left out.
#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "sim/history_file.hpp"
#include "sim/runner.hpp"

namespace udm {
namespace {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
constexpr std::uint64_t kSeedsTwice = 20;
#else
constexpr std::uint64_t kSeedsTwice = 100;
#endif

std::string words(const std::vector<std::string>& violations) {
    std::string text;
    for (const std::string& violation : violations) text += violation + "\n";
    return text;
}

class EveryStory : public testing::TestWithParam<const char*> {
  protected:
    const Story& story() const { return *find_story(GetParam()); }
};

TEST_P(EveryStory, GoesTheSameWayTwiceFromOneSeed) {
    for (std::uint64_t seed = 1; seed <= kSeedsTwice; ++seed) {
        const Outcome first = run_story(story(), {.seed = seed});
        // What is kept for people must not change what happens.
        const Outcome second = run_story(story(), {.seed = seed, .keeps_trace = seed % 4 == 0});
        ASSERT_EQ(first.hash, second.hash) << "seed " << seed;
        ASSERT_EQ(first.steps, second.steps) << "seed " << seed;
        ASSERT_EQ(first.violations, second.violations) << "seed " << seed;
    }
}

TEST_P(EveryStory, GoesAnotherWayFromAnotherSeed) {
    std::vector<std::uint64_t> hashes;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) hashes.push_back(run_story(story(), {.seed = seed}).hash);
    std::sort(hashes.begin(), hashes.end());
    EXPECT_EQ(std::unique(hashes.begin(), hashes.end()), hashes.end());
}

TEST_P(EveryStory, HasAHundredRequestsAndAFaultOrACutInEachHistory) {
    for (std::uint64_t seed = 1; seed <= kSeedsTwice; ++seed) {
        const Outcome outcome = run_story(story(), {.seed = seed});
        ASSERT_FALSE(outcome.failed()) << "seed " << seed << "\n" << words(outcome.violations);
        EXPECT_GE(outcome.requests, 100u) << "seed " << seed;
        EXPECT_GE(outcome.faults + outcome.cuts, 1u) << "seed " << seed;
    }
}

TEST_P(EveryStory, RunsWithAnyOfItsStepsLeftOut) {
    // What shrinking relies on: no step needs another.
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        const std::size_t count = history_of(story(), {.seed = seed}).steps.size();
        for (const std::uint32_t keep_one_of : {2u, 5u}) {
            std::vector<std::uint32_t> steps;
            for (std::uint32_t i = 0; i < count; ++i) {
                if ((i * 2654435761u + seed) % keep_one_of == 0) steps.push_back(i);
            }
            const Outcome outcome = run_story(story(), {.seed = seed, .steps = steps});
            ASSERT_FALSE(outcome.failed()) << "seed " << seed << "\n" << words(outcome.violations);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Stories, EveryStory, testing::Values("disk", "linear", "merge", "mirror", "scrub", "snapshot"),
                         [](const auto& which) { return std::string{which.param}; });

// --- what is left out is noticed ------------------------------------------------------------------------------------

// Each is one of the orders that keep data safe, switched off in the target: within so many seeds a history must go wrong.
struct Care {
    const char* story;
    const char* name;
};
class EveryCare : public testing::TestWithParam<Care> {};

TEST_P(EveryCare, IsMissedByTheWorldWhenItIsNotTaken) {
    constexpr std::uint64_t kSeeds = 2000;
    const Story& story = *find_story(GetParam().story);
    for (std::uint64_t seed = 1; seed <= kSeeds; ++seed) {
        const Outcome outcome = run_story(story, {.seed = seed, .without = {GetParam().name}});
        if (!outcome.failed()) continue;
        ASSERT_GT(outcome.left_out, 0u) << "it failed for another reason:\n" << words(outcome.violations);
        const Outcome with_care = run_story(story, {.seed = seed});
        ASSERT_FALSE(with_care.failed()) << "seed " << seed << " fails anyway:\n" << words(with_care.violations);
        RecordProperty("seed", static_cast<int>(seed));
        return;
    }
    FAIL() << "not one of " << kSeeds << " histories went wrong without " << GetParam().name;
}

std::string care_name(const testing::TestParamInfo<Care>& which) {
    std::string name{which.param.name};
    std::replace(name.begin(), name.end(), '.', '_');
    return name;
}

INSTANTIATE_TEST_SUITE_P(Snapshot, EveryCare,
                         testing::Values(Care{"snapshot", "snapshot.flush_before_origin_write"},
                                         Care{"snapshot", "snapshot.data_before_metadata"}, Care{"snapshot", "snapshot.track_reads"},
                                         Care{"snapshot", "snapshot.flush_invalidation"}, Care{"snapshot", "snapshot.commit_barrier"},
                                         Care{"snapshot", "snapshot.commit_volatile_before_origin"},
                                         Care{"snapshot", "snapshot.one_copy_may_begin"}),
                         care_name);

INSTANTIATE_TEST_SUITE_P(Merge, EveryCare,
                         testing::Values(Care{"merge", "merge.flush_origin_before_clearing"},
                                         Care{"merge", "merge.exceptions_of_others_first"}, Care{"merge", "merge.writes_wait"},
                                         Care{"merge", "merge.waits_for_writes"}, Care{"merge", "merge.clear_durably"},
                                         Care{"merge", "merge.clears_only_what_was_copied"},
                                         Care{"merge", "handover.source_is_quiet"}, Care{"merge", "handover.source_waits"}),
                         care_name);

INSTANTIATE_TEST_SUITE_P(Mirror, EveryCare,
                         testing::Values(Care{"mirror", "mirror.mark_before_legs"}, Care{"mirror", "mirror.flush_legs_before_clear"},
                                         Care{"mirror", "mirror.overlapping_writes_wait"}, Care{"mirror", "mirror.source_recorded"},
                                         Care{"mirror", "mirror.nosync_stays_nosync"}, Care{"mirror", "mirror.new_leg_is_in_doubt"}),
                         care_name);

INSTANTIATE_TEST_SUITE_P(Scrub, EveryCare,
                         testing::Values(Care{"scrub", "mirror.scrub_claims_piece"}, Care{"scrub", "mirror.scrub_claims_repair"},
                                         Care{"scrub", "mirror.scrub_marks_region"}),
                         care_name);

// --- histories that went wrong once ---------------------------------------------------------------------------------

TEST(Regressions, StayFixed) {
    std::vector<std::filesystem::path> files;
    for (const auto& entry : std::filesystem::directory_iterator{UDM_SOURCE_DIR "/test/sim/regressions"}) {
        if (entry.path().extension() == ".seed") files.push_back(entry.path());
    }
    std::sort(files.begin(), files.end());
    EXPECT_FALSE(files.empty());
    for (const auto& path : files) {
        std::ifstream file{path};
        std::ostringstream text;
        text << file.rdbuf();
        const auto saved = parse_history(text.str());
        ASSERT_TRUE(saved) << path << ": " << saved.error().message;
        const Story* story = find_story(saved->story);
        ASSERT_NE(story, nullptr) << path << ": no story '" << saved->story << "'";
        const Outcome outcome = run_story(*story, saved->run);
        EXPECT_FALSE(outcome.failed()) << path << "\n" << words(outcome.violations);
    }
}

TEST_P(EveryStory, IsTheSameWhenItComesFromAFile) {
    for (std::uint64_t seed = 1; seed <= 10; ++seed) {
        const auto saved = parse_history(format_history(story(), {.seed = seed}, "a test"));
        ASSERT_TRUE(saved) << saved.error().message;
        EXPECT_EQ(saved->story, story().name());
        EXPECT_EQ(run_story(story(), saved->run).hash, run_story(story(), {.seed = seed}).hash) << "seed " << seed;
    }
}

// --- choosing steps -------------------------------------------------------------------------------------------------

TEST(Steps, AreWrittenAsRangesAndReadBack) {
    EXPECT_EQ(format_steps({0, 1, 2, 7, 9, 10}), "0-2,7,9-10");
    EXPECT_EQ(parse_steps("0-2,7,9-10"), (std::vector<std::uint32_t>{0, 1, 2, 7, 9, 10}));
    EXPECT_EQ(parse_steps("3,2"), std::nullopt);
    EXPECT_EQ(parse_steps("5-4"), std::nullopt);
    EXPECT_EQ(parse_steps("x"), std::nullopt);
}

TEST(Steps, AreShrunkToThoseThatMatter) {
    std::vector<std::uint32_t> all(100);
    for (std::uint32_t i = 0; i < 100; ++i) all[i] = i;
    const auto left = shrink_steps(all, 10'000, [](const std::vector<std::uint32_t>& steps) {
        return std::count(steps.begin(), steps.end(), 17u) == 1 && std::count(steps.begin(), steps.end(), 80u) == 1;
    });
    EXPECT_EQ(left, (std::vector<std::uint32_t>{17, 80}));
}

}  // namespace
}  // namespace udm
