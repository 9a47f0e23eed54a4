#include "sim/sim_disk.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>

#include "sim/sim_reactor.hpp"

namespace udm {
namespace {

constexpr Extent kOne{{8}, {1}};

struct Bytes {
    std::vector<std::uint8_t> data;
    explicit Bytes(std::uint64_t sectors, std::uint8_t fill = 0) : data(sectors * kSectorSize, fill) {}
    void* at() { return data.data(); }
    bool all(std::uint8_t byte) const {
        return std::all_of(data.begin(), data.end(), [byte](std::uint8_t b) { return b == byte; });
    }
};

TEST(SimDisk, ReadsBackWhatWasWrittenAndZeroesElsewhere) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{1024}};
    Bytes out{40, 0x5a}, in{40, 1};
    EXPECT_EQ(reactor.io(disk, Op::write, {{25}, {40}}, out.at()), IoStatus::ok);
    EXPECT_EQ(reactor.io(disk, Op::read, {{25}, {40}}, in.at()), IoStatus::ok);
    EXPECT_TRUE(in.all(0x5a));
    Bytes zero{1, 1};
    EXPECT_EQ(reactor.io(disk, Op::read, {{24}, {1}}, zero.at()), IoStatus::ok);
    EXPECT_TRUE(zero.all(0));
    EXPECT_EQ(reactor.io(disk, Op::write_zeroes, {{26}, {38}}), IoStatus::ok);
    EXPECT_EQ(reactor.io(disk, Op::read, {{26}, {38}}, in.at()), IoStatus::ok);
    in.data.resize(38 * kSectorSize);
    EXPECT_TRUE(in.all(0));
}

TEST(SimDisk, CompletesLaterAndTakesItsLatency) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{1024}};
    Bytes memory{1};
    const Nanoseconds start = reactor.now();
    SimRequest request{reactor, disk, Op::read, kOne, memory.at()};
    EXPECT_FALSE(request.done());
    EXPECT_EQ(disk.counters().in_flight, 1u);
    reactor.run_until_idle();
    ASSERT_TRUE(request.done());
    EXPECT_EQ(request.ended(), start + 100'000);
    EXPECT_EQ(disk.counters().in_flight, 0u);
    EXPECT_EQ(disk.count(Op::read).requests, 1u);
    EXPECT_EQ(disk.count(Op::read).sectors, 1u);
}

TEST(SimDisk, RefusesWhatItsLimitsDoNotAllow) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{64}};
    Bytes memory{64};
    EXPECT_EQ(reactor.io(disk, Op::read, {{60}, {8}}, memory.at()), IoStatus::invalid);
    disk.limits_to_set().logical_block = 4096;
    EXPECT_EQ(reactor.io(disk, Op::read, {{4}, {8}}, memory.at()), IoStatus::invalid);
    disk.limits_to_set().discard = false;
    EXPECT_EQ(reactor.io(disk, Op::discard, {{0}, {8}}), IoStatus::unsupported);
    disk.limits_to_set().write_zeroes = false;
    EXPECT_EQ(reactor.io(disk, Op::write_zeroes, {{0}, {8}}), IoStatus::unsupported);
    disk.limits_to_set().read_only = true;
    EXPECT_EQ(reactor.io(disk, Op::write, {{0}, {8}}, memory.at()), IoStatus::read_only);
    disk.go_away();
    EXPECT_EQ(reactor.io(disk, Op::read, {{0}, {8}}, memory.at()), IoStatus::removed);
}

TEST(SimDisk, FailsTheNthRequestOnly) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{64}};
    Bytes memory{1, 3}, in{1};
    disk.fail_nth(2, DiskFault::kWrites);
    EXPECT_EQ(reactor.io(disk, Op::write, {{0}, {1}}, memory.at()), IoStatus::ok);
    EXPECT_EQ(reactor.io(disk, Op::read, {{0}, {1}}, in.at()), IoStatus::ok);
    EXPECT_EQ(reactor.io(disk, Op::write, {{1}, {1}}, memory.at()), IoStatus::io_error);
    EXPECT_EQ(reactor.io(disk, Op::write, {{2}, {1}}, memory.at()), IoStatus::ok);
    EXPECT_EQ(reactor.io(disk, Op::read, {{1}, {1}}, in.at()), IoStatus::ok);
    EXPECT_TRUE(in.all(0));
    EXPECT_EQ(disk.counters().faults, 1u);
}

TEST(SimDisk, FailsFromASectorOnAndInARange) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{64}};
    Bytes memory{8};
    disk.fail_from({40}, DiskFault::kReads);
    EXPECT_EQ(reactor.io(disk, Op::read, {{32}, {8}}, memory.at()), IoStatus::ok);
    EXPECT_EQ(reactor.io(disk, Op::read, {{33}, {8}}, memory.at()), IoStatus::io_error);
    EXPECT_EQ(reactor.io(disk, Op::write, {{56}, {8}}, memory.at()), IoStatus::ok);
    disk.clear_faults();
    disk.fail_range({{8}, {1}}, DiskFault::kAll, IoStatus::no_space);
    EXPECT_EQ(reactor.io(disk, Op::write, {{8}, {8}}, memory.at()), IoStatus::no_space);
    EXPECT_EQ(reactor.io(disk, Op::write, {{9}, {8}}, memory.at()), IoStatus::ok);
    EXPECT_EQ(reactor.io(disk, Op::flush, {}), IoStatus::ok);
}

TEST(SimDisk, StallsUntilReleased) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{64}};
    Bytes memory{1};
    disk.stall(DiskFault::kReads);
    SimRequest request{reactor, disk, Op::read, kOne, memory.at()};
    reactor.run_until_idle();
    EXPECT_FALSE(request.done());
    EXPECT_EQ(disk.stalled(), 1u);
    disk.release();
    reactor.run_until_idle();
    ASSERT_TRUE(request.done());
    EXPECT_EQ(request.status(), IoStatus::ok);
}

TEST(SimDisk, GrowsWhenAskedAgain) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{64}};
    Bytes memory{1};
    disk.resize({128});
    EXPECT_EQ(reactor.io(disk, Op::read, {{100}, {1}}, memory.at()), IoStatus::invalid);
    disk.refresh();
    EXPECT_EQ(reactor.io(disk, Op::read, {{100}, {1}}, memory.at()), IoStatus::ok);
}

TEST(SimDisk, AnswersWhatWasNeverWrittenAsAHole) {
    SimReactor reactor;
    SimDisk disk{reactor, Sectors{128}};
    Bytes memory{1};
    ASSERT_EQ(reactor.io(disk, Op::write, {{40}, {1}}, memory.at()), IoStatus::ok);
    ExtentAnswer answer;
    ASSERT_EQ(reactor.io(disk, Op::extent_status, {{0}, {128}}, nullptr, {}, &answer), IoStatus::ok);
    EXPECT_EQ(answer.length.v, 32u);
    EXPECT_TRUE(answer.hole);
    ASSERT_EQ(reactor.io(disk, Op::extent_status, {{40}, {88}}, nullptr, {}, &answer), IoStatus::ok);
    EXPECT_EQ(answer.length.v, 24u);
    EXPECT_FALSE(answer.zero);
}

// --- the volatile cache ---------------------------------------------------------------------------------------------

struct CacheWorld {
    SimReactor reactor;
    SimDisk disk;
    explicit CacheWorld(std::uint64_t seed, bool volatile_cache = true)
        : disk{reactor, SimDisk::Options{.limits = {.size = {64}, .discard = true, .volatile_cache = volatile_cache},
                                         .latency_min = 1'000,
                                         .latency_max = 100'000,
                                         .seed = seed,
                                         .tracks_cuts = true,
                                         .wild = true}} {}
    IoStatus write(Extent extent, std::uint8_t byte, IoFlags flags = {}) {
        Bytes memory{extent.length.v, byte};
        return reactor.io(disk, Op::write, extent, memory.at(), flags);
    }
    void cut() {
        disk.power_cut();
        reactor.cut();
    }
    std::uint8_t sector(std::uint64_t s) {
        Bytes memory{1};
        disk.read_now({{s}, {1}}, memory.at());
        EXPECT_TRUE(memory.all(memory.data[0]));    // a sector is never torn
        return memory.data[0];
    }
};

constexpr std::uint64_t kSeeds = 400;

TEST(SimDiskCut, KeepsWhatAFlushAfterItsCompletionCovers) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        CacheWorld world{seed};
        ASSERT_EQ(world.write({{0}, {8}}, 1), IoStatus::ok);
        ASSERT_EQ(world.reactor.flush(world.disk), IoStatus::ok);
        world.cut();
        for (std::uint64_t s = 0; s < 8; ++s) ASSERT_EQ(world.sector(s), 1);
    }
}

TEST(SimDiskCut, KeepsAFuaWriteAndEveryWriteOfADiskWithoutACache) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        CacheWorld world{seed};
        ASSERT_EQ(world.write({{0}, {8}}, 1, {.fua = true}), IoStatus::ok);
        world.cut();
        for (std::uint64_t s = 0; s < 8; ++s) ASSERT_EQ(world.sector(s), 1);
        CacheWorld stable{seed, false};
        ASSERT_EQ(stable.write({{0}, {8}}, 1), IoStatus::ok);
        stable.cut();
        for (std::uint64_t s = 0; s < 8; ++s) ASSERT_EQ(stable.sector(s), 1);
    }
}

TEST(SimDiskCut, DrawsEachSectorOfACompletedWriteForItself) {
    bool all_old = false, all_new = false, torn = false;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        CacheWorld world{seed};
        ASSERT_EQ(world.write({{0}, {8}}, 1), IoStatus::ok);
        world.cut();
        unsigned there = 0;
        for (std::uint64_t s = 0; s < 8; ++s) there += world.sector(s);
        all_old |= there == 0;
        all_new |= there == 8;
        torn |= there > 0 && there < 8;
    }
    EXPECT_TRUE(all_old && all_new && torn);
}

TEST(SimDiskCut, MayKeepAnyOfSeveralWritesToOneSector) {
    std::array<bool, 4> seen{};
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        CacheWorld world{seed};
        for (std::uint8_t v = 1; v < 4; ++v) ASSERT_EQ(world.write(kOne, v), IoStatus::ok);
        world.cut();
        seen[world.sector(8)] = true;
    }
    EXPECT_EQ(seen, (std::array{true, true, true, true}));
}

TEST(SimDiskCut, AFlushDoesNotCoverAWriteThatCompletedAfterItsSubmission) {
    bool lost = false;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        CacheWorld world{seed};
        Bytes memory{1, 1};
        SimRequest write{world.reactor, world.disk, Op::write, kOne, memory.at()};
        SimRequest flush{world.reactor, world.disk, Op::flush, {}};
        world.reactor.run_until_idle();
        ASSERT_TRUE(write.done() && flush.done());
        world.cut();
        lost |= world.sector(8) == 0;
    }
    EXPECT_TRUE(lost);
}

TEST(SimDiskCut, MayKeepAWriteThatDidNotComplete) {
    std::array<bool, 2> seen{};
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        CacheWorld world{seed};
        Bytes memory{1, 1};
        SimRequest write{world.reactor, world.disk, Op::write, kOne, memory.at()};
        world.cut();
        seen[world.sector(8)] = true;
        EXPECT_EQ(world.disk.counters().in_flight, 0u);
    }
    EXPECT_EQ(seen, (std::array{true, true}));
}

TEST(SimDiskCut, NeverGoesBackBehindWhatIsStable) {
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        CacheWorld world{seed};
        ASSERT_EQ(world.write(kOne, 1), IoStatus::ok);
        ASSERT_EQ(world.write(kOne, 2), IoStatus::ok);
        ASSERT_EQ(world.reactor.flush(world.disk), IoStatus::ok);
        ASSERT_EQ(world.write(kOne, 3), IoStatus::ok);
        world.cut();
        const std::uint8_t found = world.sector(8);
        ASSERT_TRUE(found == 2 || found == 3);
        world.cut();
        ASSERT_EQ(world.sector(8), found);
    }
}

TEST(SimDiskCut, AFailedWriteMayBeThereInPart) {
    bool none = false, some = false;
    for (std::uint64_t seed = 0; seed < kSeeds; ++seed) {
        CacheWorld world{seed};
        world.disk.fail_nth(1);
        ASSERT_EQ(world.write({{0}, {8}}, 1), IoStatus::io_error);
        unsigned there = 0;
        for (std::uint64_t s = 0; s < 8; ++s) there += world.sector(s);
        none |= there == 0;
        some |= there > 0 && there < 8;
    }
    EXPECT_TRUE(none && some);
}

}  // namespace
}  // namespace udm
