// The snapshot family, request by request. The defects of Linux that it must not have are in
// snapshot_defects_test.cpp; what must hold whatever happens is tested in test/sim.
#include "test/unit/snapshot_fixture.hpp"

namespace udm::test {
namespace {

class Basic : public SnapshotTest {
  public:
    static constexpr std::uint64_t kSize = 2048;
    void with_snapshot(const std::string& kind, unsigned chunk, std::uint64_t cow_sectors = 4096) {
        disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
        disk("cow", cow_sectors);
        make("o", kSize, "snapshot-origin", "origin");
        make("s", kSize, "snapshot", "origin cow " + kind + " " + std::to_string(chunk));
    }
    static Job<void> resume(Device* device, bool* resumed) {
        auto resuming = device->resume();
        auto result = co_await resuming;
        EXPECT_TRUE(result);
        *resumed = true;
    }
    std::byte sector_[kSectorSize];
};

class Kinds : public Basic, public ::testing::WithParamInterface<std::pair<const char*, unsigned>> {};

TEST_P(Kinds, KeepTheOldDataWhenTheOriginIsWritten) {
    with_snapshot(GetParam().first, GetParam().second);
    EXPECT_EQ(write("o", 100, 3, 7), IoStatus::ok);
    EXPECT_EQ(read("o", 99, 5), (std::vector<int>{1, 7, 7, 7, 1}));
    EXPECT_EQ(read("s", 0, kSize), all(kSize, 1));
    EXPECT_EQ(write("o", 0, kSize, 9), IoStatus::ok);    // the whole origin in one request
    EXPECT_EQ(read("s", 0, kSize), all(kSize, 1));
    EXPECT_EQ(read("o", 0, kSize), all(kSize, 9));
}

TEST_P(Kinds, KeepWritesToTheSnapshotFromTheOrigin) {
    with_snapshot(GetParam().first, GetParam().second);
    EXPECT_EQ(write("s", 5, 2, 3), IoStatus::ok);                  // a part of a chunk
    EXPECT_EQ(write("s", 256, 256, 4), IoStatus::ok);              // whole chunks
    EXPECT_EQ(write("s", 500, 30, 5), IoStatus::ok);               // both
    EXPECT_EQ(run(Op::write_zeroes, "s", 1000, 200), IoStatus::ok);
    EXPECT_EQ(read("o", 0, kSize), all(kSize, 1));
    std::vector<int> expected = all(kSize, 1);
    std::fill(expected.begin() + 5, expected.begin() + 7, 3);
    std::fill(expected.begin() + 256, expected.begin() + 512, 4);
    std::fill(expected.begin() + 500, expected.begin() + 530, 5);
    std::fill(expected.begin() + 1000, expected.begin() + 1200, 0);
    EXPECT_EQ(read("s", 0, kSize), expected);
    EXPECT_EQ(write("o", 0, kSize, 9), IoStatus::ok);
    EXPECT_EQ(read("s", 0, kSize), expected);
}

TEST_P(Kinds, TakeZeroesAndDiscardsOfTheOriginForWrites) {
    with_snapshot(GetParam().first, GetParam().second);
    EXPECT_EQ(run(Op::write_zeroes, "o", 10, 50), IoStatus::ok);
    EXPECT_EQ(run(Op::discard, "o", 512, 512), IoStatus::ok);
    EXPECT_EQ(read("o", 10, 50), all(50, 0));
    EXPECT_EQ(read("s", 0, kSize), all(kSize, 1));
}

INSTANTIATE_TEST_SUITE_P(Stores, Kinds,
                         ::testing::Values(std::pair{"P", 8u}, std::pair{"P", 16u}, std::pair{"PO", 64u}, std::pair{"N", 8u},
                                           std::pair{"N", 128u}, std::pair{"P", 1u}),
                         [](const auto& kind) { return std::string{kind.param.first} + std::to_string(kind.param.second); });

TEST_F(Basic, PrintsTableAndStatusAsTheKernelDoes) {
    with_snapshot("P", 16);
    EXPECT_EQ(table_of("s"), "origin cow P 16");
    EXPECT_EQ(status("s"), "32/4096 32");
    EXPECT_EQ(table_of("o"), "origin");
    EXPECT_EQ(status("o"), "");
    EXPECT_EQ(write("o", 0, 1, 7), IoStatus::ok);
    EXPECT_EQ(status("s"), "48/4096 32");
}

TEST_F(Basic, ReadsItsStoreAgainAfterARemoval) {
    with_snapshot("P", 8, 8192);
    EXPECT_EQ(write("o", 0, 100, 7), IoStatus::ok);
    EXPECT_EQ(write("s", 1000, 17, 8), IoStatus::ok);
    const auto before = read("s", 0, kSize);
    const auto words = status("s");
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(status("s"), words);
    EXPECT_EQ(read("s", 0, kSize), before);
}

TEST_F(Basic, FillsManyAreasAndReadsThemAgain) {
    // Chunks of one sector have areas of 32 exceptions: 2048 of them take 64 areas.
    with_snapshot("P", 1, 4096);
    for (std::uint64_t at = 0; at < kSize; at += 3) ASSERT_EQ(write("o", at, 1, 7), IoStatus::ok);
    ASSERT_EQ(write("o", 0, kSize, 9), IoStatus::ok);
    EXPECT_EQ(status("s"), "2114/4096 66");    // header, 65 areas of which the last is empty, 2048 chunks
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 1");
    EXPECT_EQ(status("s"), "2114/4096 66");
    EXPECT_EQ(read("s", 0, kSize), all(kSize, 1));
}

TEST_F(Basic, OneReadOfTheOriginFeedsAllSnapshots) {
    disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
    make("o", kSize, "snapshot-origin", "origin");
    for (int i = 0; i < 8; ++i) {
        const std::string n = std::to_string(i);
        disk("cow" + n, 4096);
        make("s" + n, kSize, "snapshot", "origin cow" + n + " P " + (i % 2 ? "8" : "16"));
    }
    const auto reads_before = disks["origin"]->counters()[Op::read].requests;
    EXPECT_EQ(write("o", 32, 8, 7), IoStatus::ok);
    EXPECT_EQ(disks["origin"]->counters()[Op::read].requests - reads_before, 1u);
    for (int i = 0; i < 8; ++i) EXPECT_EQ(read("s" + std::to_string(i), 0, 64), all(64, 1)) << i;
}

TEST_F(Basic, ExceptionsOfABatchShareOneMetadataWrite) {
    with_snapshot("P", 8, 8192);
    const auto before = disks["cow"]->counters();
    for (std::uint64_t i = 0; i < 32; ++i) {
        start(Op::write, "o", i * 64, 8, 7);
    }
    reactor.run_until_idle();
    for (const auto& request : requests) EXPECT_EQ(request->status(), IoStatus::ok);
    const auto after = disks["cow"]->counters();
    EXPECT_LE(after[Op::write].requests - before[Op::write].requests, 2u);    // all data in one, all entries in one
    EXPECT_LE(after[Op::flush].requests - before[Op::flush].requests, 2u);
    EXPECT_EQ(read("s", 0, kSize), all(kSize, 1));
}

TEST_F(Basic, ARunOfChunksIsOneCopy) {
    with_snapshot("P", 8, 8192);
    const auto reads = disks["origin"]->counters()[Op::read].requests;
    const auto writes = disks["cow"]->counters()[Op::write].requests;
    EXPECT_EQ(write("o", 0, 1024, 7), IoStatus::ok);
    EXPECT_EQ(disks["origin"]->counters()[Op::read].requests - reads, 1u);
    EXPECT_LE(disks["cow"]->counters()[Op::write].requests - writes, 2u);
}

TEST_F(Basic, AFirstWriteToASnapshotIsNotCommittedBeforeSomebodyAsks) {
    with_snapshot("P", 8, 8192);
    const auto before = disks["cow"]->counters();
    for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(write("s", i * 16, 8, 7), IoStatus::ok);
    EXPECT_EQ(disks["cow"]->counters()[Op::flush].requests, before[Op::flush].requests);
    EXPECT_EQ(disks["cow"]->counters()[Op::write].requests - before[Op::write].requests, 20u);
    EXPECT_EQ(flush("s"), IoStatus::ok);
    EXPECT_EQ(disks["cow"]->counters()[Op::write].requests - before[Op::write].requests, 21u);
    EXPECT_GE(disks["cow"]->counters()[Op::flush].requests, before[Op::flush].requests + 2);
}

TEST_F(Basic, FuaOnASnapshotCommitsItsException) {
    with_snapshot("P", 8, 8192);
    EXPECT_EQ(write("s", 0, 8, 7, {.fua = true}), IoStatus::ok);
    snapshot::DiskException entry;
    disks["cow"]->read_now({{8}, {1}}, sector_);
    std::memcpy(&entry, sector_, sizeof entry);
    EXPECT_EQ(entry.old_chunk, 0u);
    EXPECT_EQ(entry.new_chunk, 2u);
    EXPECT_EQ(write("s", 16, 8, 7), IoStatus::ok);
    EXPECT_EQ(write("s", 16, 8, 8, {.fua = true}), IoStatus::ok);    // the chunk is there, its entry is not yet
    disks["cow"]->read_now({{8}, {1}}, sector_);
    std::memcpy(&entry, sector_ + 16, sizeof entry);
    EXPECT_EQ(entry.old_chunk, 2u);
}

TEST_F(Basic, OverflowsWithPOAndGoesOnWithWhatIsThere) {
    with_snapshot("PO", 16, 160);    // 10 chunks, 8 of them for data
    for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(write("s", i * 16, 16, 5), IoStatus::ok);
    EXPECT_EQ(status("s"), "160/160 32");
    EXPECT_EQ(write("s", 800, 1, 6), IoStatus::no_space);
    EXPECT_EQ(status("s"), "Overflow");
    EXPECT_EQ(read("s", 0, 129).back(), 1);
    EXPECT_EQ(read("s", 0, 128), all(128, 5));
    EXPECT_EQ(write("s", 0, 1, 6), IoStatus::ok);    // not so in the kernel
    EXPECT_EQ(read("s", 0, 1), all(1, 6));
    EXPECT_EQ(write("s", 0, 1, 5), IoStatus::ok);
    remove("s");
    make("s", kSize, "snapshot", "origin cow PO 16");
    EXPECT_EQ(status("s"), "160/160 32");
    EXPECT_EQ(read("s", 0, 128), all(128, 5));
}

TEST_F(Basic, BecomesInvalidWithPWhenFullAndStaysSo) {
    with_snapshot("P", 16, 160);
    for (std::uint64_t i = 0; i < 8; ++i) EXPECT_EQ(write("s", i * 16, 16, 5), IoStatus::ok);
    EXPECT_EQ(write("s", 800, 1, 6), IoStatus::io_error);
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_EQ(read("s", 0, 8), all(1, -1));
    EXPECT_EQ(write("o", 0, 8, 9), IoStatus::ok);
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 16");
    EXPECT_EQ(status("s"), "Invalid");
}

// What was given out before a crash and never committed is used when nothing else is left.
TEST_F(Basic, FillsTheHolesThatCrashesLeftInItsStore) {
    with_snapshot("P", 16, 160);    // chunks 2 to 9 are for data
    EXPECT_EQ(write("s", 0, 16, 5), IoStatus::ok);
    remove("s");
    std::vector<std::byte> area(kSectorSize);
    const snapshot::DiskException entry{0, 5};
    std::memcpy(area.data(), &entry, sizeof entry);
    disks["cow"]->write_now({{16}, {1}}, area.data());
    disks["cow"]->fill_now({{5 * 16}, {16}}, 5);

    make("s", kSize, "snapshot", "origin cow P 16");
    EXPECT_EQ(status("s"), "96/160 32");
    for (std::uint64_t i = 1; i < 8; ++i) {
        EXPECT_EQ(write(i % 2 ? "s" : "o", i * 16, 16, static_cast<std::uint8_t>(10 + i)), IoStatus::ok) << i;
        EXPECT_EQ(status("s"), i < 4 ? std::to_string(96 + i * 16) + "/160 32" : "160/160 32") << i;
    }
    const auto before = read("s", 0, kSize);
    EXPECT_EQ(before[0], 5);
    EXPECT_EQ(before[7 * 16], 17);
    EXPECT_EQ(before[6 * 16], 1);
    EXPECT_EQ(flush("s"), IoStatus::ok);
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 16");
    EXPECT_EQ(read("s", 0, kSize), before);
    EXPECT_EQ(write("s", 800, 1, 6), IoStatus::io_error);
    EXPECT_EQ(status("s"), "Invalid");
}

TEST_F(Basic, UsesAStoreThatHasGrownAtOnce) {
    with_snapshot("P", 16, 48);    // one chunk of data
    EXPECT_EQ(write("o", 0, 1, 7), IoStatus::ok);
    disks["cow"]->resize({4096});
    EXPECT_EQ(write("o", 100, 1, 7), IoStatus::ok);
    EXPECT_EQ(read("s", 0, kSize), all(kSize, 1));
    EXPECT_EQ(status("s"), "64/4096 32");
}

TEST_F(Basic, LeavesChunksPastItsEndToTheOrigin) {
    disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
    disk("cow", 4096);
    make("o", kSize, "snapshot-origin", "origin");
    make("s", 100, "snapshot", "origin cow P 16");
    EXPECT_EQ(write("o", 1000, 100, 7), IoStatus::ok);
    EXPECT_EQ(status("s"), "32/4096 32");
    EXPECT_EQ(write("o", 90, 40, 7), IoStatus::ok);
    EXPECT_EQ(read("s", 0, 100), all(100, 1));
}

TEST_F(Basic, CopiesChunksThatReachOverTheOriginsEndUpToIt) {
    disk("origin", 1000).fill_now({{0}, {1000}}, 1);
    disk("cow", 4096);
    make("o", 1000, "snapshot-origin", "origin");
    make("s", 1000, "snapshot", "origin cow P 64");
    EXPECT_EQ(write("o", 990, 10, 7), IoStatus::ok);
    EXPECT_EQ(read("s", 960, 40), all(40, 1));
    EXPECT_EQ(write("s", 960, 40, 8), IoStatus::ok);
    EXPECT_EQ(read("s", 960, 40), all(40, 8));
}

TEST_F(Basic, DiscardsAreOnlyThereWhenTheTableAsksForThem) {
    with_snapshot("P", 8);
    EXPECT_EQ(run(Op::discard, "s", 0, 8), IoStatus::unsupported);
    EXPECT_FALSE((*this)["s"].limits().discard);
}

TEST_F(Basic, DiscardZeroesWhatTheSnapshotHasOfItsOwn) {
    disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
    disk("cow", 4096);
    make("s", kSize, "snapshot", "origin cow P 8 1 discard_zeroes_cow");
    EXPECT_EQ(table_of("s"), "origin cow P 8 1 discard_zeroes_cow");
    EXPECT_EQ(write("s", 0, 8, 5), IoStatus::ok);
    EXPECT_EQ(run(Op::discard, "s", 0, 16), IoStatus::ok);
    EXPECT_EQ(read("s", 0, 8), all(8, 0));
    EXPECT_EQ(read("s", 8, 8), all(8, 1));    // nothing of its own here
    EXPECT_EQ(read("s", 8, 8), all(8, 1));
}

TEST_F(Basic, DiscardsPassedDownZeroTheOriginAndNoOtherSnapshot) {
    disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
    disk("cow", 4096);
    disk("cow2", 4096);
    make("s", kSize, "snapshot", "origin cow P 8 2 discard_zeroes_cow discard_passdown_origin");
    make("s2", kSize, "snapshot", "origin cow2 P 16");
    make("o", kSize, "snapshot-origin", "origin");
    EXPECT_EQ(write("s", 8, 8, 5), IoStatus::ok);
    EXPECT_EQ(run(Op::discard, "s", 4, 44), IoStatus::ok);
    std::vector<int> expected = all(64, 1);
    std::fill(expected.begin() + 4, expected.begin() + 48, 0);
    EXPECT_EQ(read("o", 0, 64), expected);
    EXPECT_EQ(read("s", 0, 64), expected);
    EXPECT_EQ(read("s2", 0, 64), all(64, 1));
    EXPECT_EQ(status("s2"), "80/4096 32") << "what was discarded was not copied, or too much was";
}

TEST_F(Basic, ADiscardPassedDownWaitsForACopyOfAnotherSnapshot) {
    disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
    disk("cow", 4096);
    disk("cow2", 4096);
    make("s", kSize, "snapshot", "origin cow P 8 2 discard_zeroes_cow discard_passdown_origin");
    make("s2", kSize, "snapshot", "origin cow2 P 8");
    disks["cow2"]->stall(op_bit(Op::write));
    Request discard{reactor, (*this)["s"], Op::discard, {{0}, {8}}};
    reactor.run_for(10 * kMillisecond);
    EXPECT_FALSE(discard.done());
    EXPECT_EQ(disks["origin"]->count(Op::discard).requests, 0u);
    disks["cow2"]->release();
    reactor.run_until_idle();
    EXPECT_EQ(discard.status(), IoStatus::ok);
    EXPECT_EQ(read("s2", 0, 8), all(8, 1));
    EXPECT_EQ(read("s", 0, 8), all(8, 0));
}

TEST_F(Basic, ReadsAndWritesOfOneChunkAtOnceAllEnd) {
    with_snapshot("P", 64, 8192);
    for (std::uint64_t i = 0; i < 40; ++i) {
        start(i % 3 ? Op::write : Op::read, i % 2 ? "s" : "o", i % 60, 1 + i % 4, 7);
    }
    reactor.run_until_idle();
    for (const auto& request : requests) {
        ASSERT_TRUE(request->done());
        EXPECT_EQ(request->status(), IoStatus::ok);
    }
}

TEST_F(Basic, ANewSnapshotHasWhatWasWrittenBeforeItAndNothingAfter) {
    with_snapshot("P", 8);
    disk("cow2", 4096);
    add("s2");
    ASSERT_TRUE(load("s2", kSize, "snapshot", "origin cow2 P 32"));
    // A write is on its way to the origin while the snapshot becomes active.
    disks["origin"]->stall(op_bit(Op::write));
    start(Op::write, "o", 0, 8, 7);
    reactor.run_for(10 * kMillisecond);
    bool resumed = false;
    reactor.jobs().spawn(resume(&(*this)["s2"], &resumed));
    start(Op::write, "o", 8, 8, 7);
    reactor.run_for(10 * kMillisecond);
    EXPECT_FALSE(resumed);
    disks["origin"]->release();
    disks["origin"]->clear_faults();
    reactor.run_until_idle();
    EXPECT_TRUE(resumed);
    EXPECT_EQ(read("s2", 0, 8), all(8, 7));
    EXPECT_EQ(read("s2", 8, 8), all(8, 1));
    requests.clear();
}

}  // namespace
}  // namespace udm::test
