// Where requests are cut: the pure part against naive models, then whole requests through devices of many lines
// against an array of sectors.
#include "core/split.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "test/support/mapped_world.hpp"

namespace udm {
namespace {

TEST(UntilBoundary, IsTheDistanceThatCountingFinds) {
    Prng random{7};
    for (int round = 0; round < 20'000; ++round) {
        const Sector begin{random.below(1000)};
        const Sector at = begin + Sectors{random.below(5000)};
        const Sectors every{random.between(1, 300)};
        std::uint64_t counted = 1;
        while ((at.v + counted - begin.v) % every.v != 0) ++counted;
        ASSERT_EQ(until_boundary(at, begin, every).v, counted) << at.v << " from " << begin.v << " every " << every.v;
    }
}

TEST(FirstPiece, IsAsLongAsAllLimitsAllow) {
    EXPECT_EQ(first_piece({100}, {100}, {0}).v, 100u);
    EXPECT_EQ(first_piece({100}, {200}, {0}).v, 100u);
    EXPECT_EQ(first_piece({100}, {7}, {0}).v, 7u);
    EXPECT_EQ(first_piece({100}, {50}, {8}).v, 8u);
    EXPECT_EQ(first_piece({4}, {50}, {8}).v, 4u);
}

TEST(ClippedTo, KeepsTheStartAndEndsWithTheLine) {
    Prng random{8};
    for (int round = 0; round < 20'000; ++round) {
        const Extent line{{random.below(100)}, {random.between(1, 100)}};
        const Extent request{{random.between(line.first.v, line.end().v - 1)}, {random.between(1, 300)}};
        const Extent part = clipped_to(request, line);
        EXPECT_EQ(part.first, request.first);
        EXPECT_TRUE(line.contains(part));
        EXPECT_TRUE(request.contains(part));
        EXPECT_TRUE(part.end() == line.end() || part.end() == request.end());
    }
}

// Sectors that say who wrote them.
void fill(Memory& memory, std::uint64_t sectors, std::uint64_t round) {
    for (std::uint64_t i = 0; i < sectors; ++i) {
        const std::uint64_t word = round << 20 | (i + 1);
        for (std::size_t at = 0; at < kSectorSize; at += 8) std::memcpy(memory.bytes.data() + i * kSectorSize + at, &word, 8);
    }
}

struct Story {
    std::uint64_t seed;
    bool splits_early;
};

class Requests : public testing::TestWithParam<Story> {};

// A table of random lines on three disks with odd limits; every sector written is read where the model says, through
// the device, whatever the requests' borders.
TEST_P(Requests, OfAnyLengthReachEachSectorOnce) {
    MappedWorld w;
    if (GetParam().splits_early) w.chaos.sites = {"core.split_early"};
    Prng random{GetParam().seed};
    for (const char* name : {"a", "b", "c"}) {
        Limits limits;
        limits.size = {4096};
        limits.discard = true;
        limits.write_zeroes = random.chance(1, 2);
        if (random.chance(1, 2)) limits.max_transfer = {random.between(1, 40)};
        w.disk(name, limits);
    }
    std::string text;
    std::uint64_t size = 0;
    std::uint64_t used[3] = {};
    const std::uint64_t line_count = random.between(1, 12);
    for (std::uint64_t i = 0; i < line_count; ++i) {
        const std::uint64_t which = random.below(3);
        const std::string name{"abc"[which]};
        const std::string other{"abc"[(which + 1) % 3]};
        if (random.chance(1, 3)) {
            const std::uint64_t chunk = random.between(1, 9);
            const std::uint64_t length = 2 * chunk * random.between(1, 9);
            text += std::to_string(size) + " " + std::to_string(length) + " striped 2 " + std::to_string(chunk) + " " + name + " " +
                    std::to_string(used[which]) + " " + other + " " + std::to_string(used[(which + 1) % 3]) + "\n";
            used[which] += length / 2;
            used[(which + 1) % 3] += length / 2;
            size += length;
        } else {
            const std::uint64_t length = random.between(1, 60);
            text += std::to_string(size) + " " + std::to_string(length) + " linear " + name + " " + std::to_string(used[which]) + "\n";
            used[which] += length;
            size += length;
        }
    }
    Device& device = w.start("d", text);
    ASSERT_EQ(device.limits().size.v, size);

    Memory model{size};
    for (std::uint64_t round = 1; round <= 150; ++round) {
        const std::uint64_t first = random.below(size);
        const std::uint64_t length = random.between(1, size - first);
        Memory memory{length};
        switch (random.below(4)) {
            case 0:
            case 1:
                fill(memory, length, round);
                ASSERT_EQ(w.io(device, Op::write, first, length, memory.at()), IoStatus::ok);
                std::memcpy(model.at(first), memory.at(), length * kSectorSize);
                break;
            case 2:
                ASSERT_EQ(w.io(device, random.chance(1, 2) ? Op::write_zeroes : Op::discard, first, length), IoStatus::ok);
                std::memset(model.at(first), 0, length * kSectorSize);
                break;
            case 3:
                ASSERT_EQ(w.io(device, Op::read, first, length, memory.at()), IoStatus::ok);
                ASSERT_EQ(std::memcmp(model.at(first), memory.at(), length * kSectorSize), 0) << text << first << "+" << length;
                break;
        }
    }
    Memory all{size};
    ASSERT_EQ(w.io(device, Op::read, 0, size, all.at()), IoStatus::ok);
    EXPECT_EQ(all, model) << text;
    EXPECT_EQ(device.counters().in_flight, 0u);
    EXPECT_EQ(w.reactor.ios_out(), 0u);
}

std::vector<Story> stories() {
    std::vector<Story> stories;
    for (std::uint64_t seed = 1; seed <= 60; ++seed) stories.push_back({seed, seed % 3 == 0});
    return stories;
}
INSTANTIATE_TEST_SUITE_P(Seeds, Requests, testing::ValuesIn(stories()),
                         [](const auto& made) { return std::to_string(made.param.seed); });

}  // namespace
}  // namespace udm
