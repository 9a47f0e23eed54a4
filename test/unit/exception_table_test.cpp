#include "targets/snapshot/exception_table.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>

#include "base/prng.hpp"

namespace udm::snapshot {
namespace {

using Run = ExceptionTable::Run;

void expect_equal(const ExceptionTable& table, const std::map<std::uint64_t, std::uint64_t>& model) {
    std::map<std::uint64_t, std::uint64_t> found;
    std::uint64_t last_end = 0;
    table.for_each([&](const Run& run) {
        EXPECT_GE(run.old_first.v, last_end);
        last_end = run.old_first.v + run.count.v;
        for (std::uint64_t i = 0; i < run.count.v; ++i) found[run.old_first.v + i] = run.new_first.v + i;
    });
    EXPECT_EQ(found, model);
    EXPECT_EQ(table.exceptions(), model.size());
}

TEST(ExceptionTable, FindsNothingWhenEmpty) {
    ExceptionTable table;
    EXPECT_FALSE(table.find({0}));
    EXPECT_FALSE(table.next_mapped({0}));
    EXPECT_EQ(table.entries(), 0u);
}

TEST(ExceptionTable, JoinsConsecutiveChunksIntoOneEntryWhateverTheOrder) {
    ExceptionTable table;
    table.insert({{10}, {110}, {1}});
    table.insert({{12}, {112}, {1}});
    EXPECT_EQ(table.entries(), 2u);
    table.insert({{11}, {111}, {1}});    // closes the gap
    EXPECT_EQ(table.entries(), 1u);
    table.insert({{9}, {109}, {1}});
    table.insert({{13}, {113}, {5}});
    EXPECT_EQ(table.entries(), 1u);
    table.insert({{18}, {500}, {1}});    // next in the origin, elsewhere in the store
    EXPECT_EQ(table.entries(), 2u);
    const auto run = table.find({12});
    ASSERT_TRUE(run);
    EXPECT_EQ(run->new_first.v, 112u);
    EXPECT_EQ(run->count.v, 6u);
    EXPECT_EQ(table.next_mapped({0})->v, 9u);
    EXPECT_EQ(table.next_mapped({18})->v, 18u);
    EXPECT_FALSE(table.next_mapped({19}));
}

TEST(ExceptionTable, SplitsRunsThatAreTooLongForAnEntry) {
    ExceptionTable table;
    table.insert({{5}, {7}, {200'000}});
    EXPECT_EQ(table.exceptions(), 200'000u);
    EXPECT_EQ(table.entries(), 4u);
    EXPECT_EQ(table.find({150'005})->new_first.v, 150'007u);
    EXPECT_FALSE(table.find({200'005}));
}

TEST(ExceptionTable, HoldsTheLargestChunkNumbers) {
    ExceptionTable table;
    table.insert({{ExceptionTable::kChunkMax}, {ExceptionTable::kChunkMax - 1}, {1}});
    EXPECT_EQ(table.find({ExceptionTable::kChunkMax})->new_first.v, ExceptionTable::kChunkMax - 1);
}

TEST(ExceptionTable, EqualsAModelUnderRandomInserts) {
    for (std::uint64_t seed = 1; seed <= 60; ++seed) {
        Prng random{seed};
        ExceptionTable table;
        std::map<std::uint64_t, std::uint64_t> model;
        const std::uint64_t space = 1 + random.below(seed % 3 == 0 ? 3'000 : 60'000);
        std::uint64_t next_new = 2;
        for (int i = 0; i < 4'000; ++i) {
            const std::uint64_t first = random.below(space);
            std::uint64_t count = random.chance(1, 4) ? 1 + random.below(20) : 1;
            std::uint64_t n = 0;
            while (n < count && !model.contains(first + n)) ++n;
            if (n == 0) {
                EXPECT_EQ(table.find({first})->new_first.v, model[first]);
                continue;
            }
            if (random.chance(1, 3)) next_new = first + 2;    // makes runs joinable
            table.insert({{first}, {next_new}, {n}});
            for (std::uint64_t k = 0; k < n; ++k) model[first + k] = next_new + k;
            next_new += n;
            const std::uint64_t probe = random.below(space + 10);
            const auto in_model = model.lower_bound(probe);
            const auto next = table.next_mapped({probe});
            ASSERT_EQ(next.has_value(), in_model != model.end());
            if (next) {
                ASSERT_EQ(next->v, in_model->first);
            }
        }
        expect_equal(table, model);
    }
}

// The search begins where the chunk would be if all were evenly spread.
TEST(ExceptionTable, FindsChunksHoweverUnevenlyTheyAreSpread) {
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        Prng random{seed};
        ExceptionTable table;
        std::map<std::uint64_t, std::uint64_t> model;
        std::uint64_t next_new = 2;
        while (model.size() < 5'000) {
            // Up to 40 bits, as many of each length; and dense places far from each other.
            const std::uint64_t around = std::uint64_t{1} << random.below(40);
            const std::uint64_t chunk = random.chance(1, 2) ? random.below(around) : around - 1 + random.below(100);
            if (chunk > ExceptionTable::kChunkMax || model.contains(chunk)) continue;
            table.insert({{chunk}, {next_new}, {1}});
            model[chunk] = next_new;
            next_new += 2;
        }
        expect_equal(table, model);
        for (std::uint64_t bits = 0; bits < 64; ++bits) table.prefetch({(std::uint64_t{2} << bits) - 1});    // any number will do
        for (const auto& [chunk, place] : model) {
            table.prefetch({chunk});
            const auto run = table.find({chunk});
            ASSERT_TRUE(run);
            ASSERT_EQ(run->new_first.v, place);
            const auto after = model.upper_bound(chunk);
            const auto next = table.next_mapped({chunk + 1});
            ASSERT_EQ(next.has_value(), after != model.end());
            if (next) {
                ASSERT_EQ(next->v, after->first);
            }
        }
    }
}

TEST(ExceptionTable, CostsAtMostSixteenBytesForEachOfAMillionRandomSingleChunks) {
    ExceptionTable table;
    Prng random{7};
    std::set<std::uint64_t> used;
    std::uint64_t next_new = 2;
    while (used.size() < 1'000'000) {
        const std::uint64_t chunk = random.below(std::uint64_t{1} << 33);
        if (!used.insert(chunk).second) continue;
        if (table.wants_reserve()) table.reserve();
        table.insert({{chunk}, {next_new}, {1}});
        next_new += 2;
    }
    const double per_exception = static_cast<double>(table.bytes()) / static_cast<double>(table.exceptions());
    RecordProperty("bytes_per_exception_x100", static_cast<int>(per_exception * 100));
    std::printf("bytes per exception: %.2f\n", per_exception);
    EXPECT_EQ(table.exceptions(), 1'000'000u);
    EXPECT_LE(per_exception, 16.0);
    for (std::uint64_t chunk : used) ASSERT_TRUE(table.find({chunk}));
}

TEST(ExceptionTable, KeepsARunOfAMillionChunksInAFewEntries) {
    ExceptionTable table;
    for (std::uint64_t i = 0; i < 1'000'000; ++i) table.insert({{100 + i}, {2 + i}, {1}});
    EXPECT_LE(table.entries(), 16u);
    EXPECT_LE(table.bytes(), 256u << 10);
}

TEST(ExceptionTable, LosesWhatIsRemovedAndNothingElse) {
    Prng random{7};
    ExceptionTable table;
    std::map<std::uint64_t, std::uint64_t> model;
    for (int round = 0; round < 20'000; ++round) {
        const std::uint64_t first = random.below(3000), count = random.between(1, random.chance(1, 2) ? 1 : 40);
        const bool adds = random.chance(3, 5);
        bool fits = true;
        for (std::uint64_t c = first; c < first + count; ++c) fits &= model.contains(c) != adds;
        if (!fits) continue;
        const std::uint64_t to = random.chance(1, 2) ? first : random.below(1'000'000);
        if (adds) table.insert({{first}, {to}, {count}});
        else table.remove({first}, {count});
        for (std::uint64_t i = 0; i < count; ++i) {
            if (adds) model[first + i] = to + i;
            else model.erase(first + i);
        }
        ASSERT_EQ(table.exceptions(), model.size());
        if (round % 500 != 0) continue;
        for (std::uint64_t c = 0; c < 3100; ++c) {
            const auto run = table.find({c});
            ASSERT_EQ(run.has_value(), model.contains(c)) << c;
            if (run) { ASSERT_EQ(run->new_first.v, model[c]); }
            const auto next = table.next_mapped({c});
            const auto expected = model.lower_bound(c);
            ASSERT_EQ(next.has_value(), expected != model.end());
            if (next) { ASSERT_EQ(next->v, expected->first); }
        }
    }
}

}  // namespace
}  // namespace udm::snapshot
