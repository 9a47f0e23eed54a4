// The target `mirror`: its words, its writes and reads, its resync, its legs.
#include "test/unit/mirror_fixture.hpp"

#include "targets/mirror/regions.hpp"

namespace udm::test {
namespace {

using MirrorTable = MirrorTest;
using MirrorWrite = MirrorTest;
using MirrorRead = MirrorTest;
using MirrorResync = MirrorTest;
using MirrorLegs = MirrorTest;

// --- words ----------------------------------------------------------------------------------------------------------

TEST_F(MirrorTable, ReadsTheWordsOfTodayAndOf2005AndPrintsThem) {
    disks(3);
    for (const char* words : {"core 1 1024 2 leg0 0 leg1 0", "core 2 1024 nosync 3 leg0 0 leg1 0 leg2 0", "disk 2 log 1024 2 leg0 0 leg1 0 1 handle_errors",
                              "disk 3 log 1024 sync 2 leg1 0 leg0 0 2 handle_errors keep_log"}) {
        Device& device = make(words, words);
        EXPECT_EQ(target(device).table(), words);
        remove(device);
    }
    Device& twice = make("core 1 1024 2 leg0 0 leg1 0 3 keep_log handle_errors keep_log");    // any order, and again
    EXPECT_EQ(target(twice).table(), "core 1 1024 2 leg0 0 leg1 0 2 handle_errors keep_log");
    Device& none = make("core 1 1024 2 leg0 0 leg1 0 0", "none");
    EXPECT_EQ(target(none).table(), "core 1 1024 2 leg0 0 leg1 0");
}

TEST_F(MirrorTable, StatusLinesAreThoseOfTheKernelsFixtures) {
    disks(3);
    Device& two = make("disk 3 log 1024 nosync 2 leg0 0 leg1 0 1 handle_errors");
    EXPECT_EQ(status(two), "2 leg0 leg1 16/16 1 AA 3 disk log A");
    remove(two);
    Device& three = make("core 1 1024 3 leg0 0 leg1 0 leg2 0", "three");
    ASSERT_TRUE(comes_in_sync(three));
    EXPECT_EQ(status(three), "3 leg0 leg1 leg2 16/16 1 AAA 1 core");
}

TEST_F(MirrorTable, RefusesBadWordsWithTheKernelsTexts) {
    disks();
    const auto why = [&](const std::string& words) { return w.refusal(line(words)); };
    const auto says = [](const std::string& text, const char* part) { return text.find(std::string{"mirror: "} + part) != std::string::npos; };
    EXPECT_PRED2(says, why("core"), "Insufficient mirror log arguments");
    EXPECT_PRED2(says, why("core x 1024 2 leg0 0 leg1 0"), "Invalid mirror log argument count");
    EXPECT_PRED2(says, why("core 9 1024"), "Insufficient mirror log arguments");
    EXPECT_PRED2(says, why("core 1 1000 2 leg0 0 leg1 0"), "Error creating mirror dirty log");
    EXPECT_PRED2(says, why("what 1 1024 2 leg0 0 leg1 0"), "Error creating mirror dirty log");
    EXPECT_PRED2(says, why("core 1 1024"), "Invalid number of mirrors");
    EXPECT_PRED2(says, why("core 1 1024 1 leg0 0"), "Invalid number of mirrors");
    EXPECT_PRED2(says, why("core 1 1024 10 leg0 0 leg1 0"), "Invalid number of mirrors");
    EXPECT_PRED2(says, why("core 1 1024 2 leg0 0 leg1"), "Too few mirror arguments");
    EXPECT_PRED2(says, why("core 1 1024 2 leg0 0 leg1 0x"), "Invalid offset");
    EXPECT_PRED2(says, why("core 1 1024 2 leg0 0 nowhere 0"), "Device lookup failure");
    EXPECT_PRED2(says, why("core 1 1024 2 leg0 0 leg1 0 x"), "Invalid number of features");
    EXPECT_PRED2(says, why("core 1 1024 2 leg0 0 leg1 0 2 handle_errors"), "Not enough arguments to support feature count");
    EXPECT_PRED2(says, why("core 1 1024 2 leg0 0 leg1 0 1 what"), "Unrecognised feature requested");
    EXPECT_PRED2(says, why("core 1 1024 2 leg0 0 leg1 0 1 keep_log"), "keep_log feature requires the handle_errors feature");
    EXPECT_PRED2(says, why("core 1 1024 2 leg0 0 leg1 0 1 handle_errors more"), "Too many mirror arguments");
}

TEST_F(MirrorTable, RefusesRegionsThatABlockOfALegDoesNotFitInto) {
    w.disk("a", Limits{.size = {16384}, .logical_block = 4096});
    w.disk("b", 16384);
    EXPECT_NE(w.refusal(line("core 1 4 2 b 0 a 0")).find("Invalid region size"), std::string::npos);
    EXPECT_EQ(w.refusal(line("core 1 8 2 b 0 a 0")), "");
}

TEST(MirrorRegions, BecomeOnlyWhatTheTableSays) {
    using mirror::RegionState;
    const auto clean = RegionState::clean, dirty = RegionState::dirty, nosync = RegionState::nosync, recovering = RegionState::recovering;
    const std::vector<std::pair<RegionState, RegionState>> legal{{clean, dirty},      {clean, nosync},     {dirty, clean},      {dirty, nosync},
                                                                 {nosync, recovering}, {recovering, clean}, {recovering, dirty}, {recovering, nosync}};
    for (const RegionState from : {clean, dirty, nosync, recovering}) {
        for (const RegionState to : {clean, dirty, nosync, recovering}) {
            const bool listed = std::find(legal.begin(), legal.end(), std::pair{from, to}) != legal.end();
            EXPECT_EQ(mirror::may_become(from, to), listed) << static_cast<int>(from) << " to " << static_cast<int>(to);
        }
    }
}

// --- writes ---------------------------------------------------------------------------------------------------------

TEST_F(MirrorWrite, ReachesAllLegsAtTheirOffsets) {
    for (unsigned i = 0; i < 3; ++i) w.disk("leg" + std::to_string(i), 20000);
    Device& m = make("core 2 1024 nosync 3 leg0 0 leg1 8 leg2 3000");
    EXPECT_EQ(w.write(m, 1020, 8, 0x77), IoStatus::ok);    // two regions
    EXPECT_EQ(w.read(m, 1020, 8), 0x77);
    EXPECT_EQ(on_leg(0, 1020), 0x77);
    EXPECT_EQ(on_leg(1, 1028), 0x77);
    EXPECT_EQ(on_leg(1, 1027), 0);
    EXPECT_EQ(on_leg(2, 4027), 0x77);
    EXPECT_EQ(on_leg(2, 4028), 0);
}

TEST_F(MirrorWrite, WaitsForItsMarkBeforeItTouchesAnyLeg) {
    Device& m = make_in_sync();
    log().add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::flush), .times = 1});
    Memory data{8, 0x55};
    auto write = w.submit(m, Op::write, 0, 8, data.at());
    w.reactor.run_for(kSecond);
    EXPECT_FALSE(write->done());
    EXPECT_EQ(on_leg(0, 0), 0x10);
    EXPECT_EQ(on_leg(1, 0), 0x10);
    log().release();
    EXPECT_TRUE(w.reactor.run_until([&] { return write->done(); }));
    EXPECT_EQ(write->status(), IoStatus::ok);
    EXPECT_EQ(on_leg(1, 0), 0x55);
}

TEST_F(MirrorWrite, SharesOneLogWriteAndFlushWithAllOfItsBatch) {
    Device& m = make_in_sync();
    w.reactor.run_for(20 * kSecond);
    log().reset_counters();
    Memory data{8, 0x55};
    std::vector<std::unique_ptr<SimRequest>> writes;
    for (std::uint64_t region = 0; region < kRegions; ++region) writes.push_back(w.submit(m, Op::write, region * kRegion, 8, data.at()));
    EXPECT_TRUE(w.reactor.run_until([&] { return std::all_of(writes.begin(), writes.end(), [](auto& r) { return r->done(); }); }));
    EXPECT_EQ(log().count(Op::write).requests, 1u);
    EXPECT_EQ(log().count(Op::flush).requests, 1u);
    // Dirty already: nothing more.
    for (std::uint64_t region = 0; region < kRegions; ++region) EXPECT_EQ(w.write(m, region * kRegion + 16, 8, 0x66), IoStatus::ok);
    EXPECT_EQ(log().count(Op::write).requests, 1u);
    EXPECT_EQ(log().count(Op::flush).requests, 1u);
}

TEST_F(MirrorWrite, WaitsOnlyForOneThatItOverlaps) {
    Device& m = make_in_sync();
    EXPECT_EQ(w.write(m, 512, 8, 1), IoStatus::ok);    // the region is dirty
    leg(1).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::write), .times = 1});
    Memory one{8, 0x01}, two{8, 0x02}, three{8, 0x03};
    auto first = w.submit(m, Op::write, 0, 8, one.at());
    auto overlapping = w.submit(m, Op::write, 4, 8, two.at());
    auto beside = w.submit(m, Op::write, 12, 8, three.at());
    EXPECT_TRUE(w.reactor.run_until([&] { return beside->done(); }));
    w.reactor.run_for(kSecond);
    EXPECT_FALSE(first->done());
    EXPECT_FALSE(overlapping->done());
    EXPECT_EQ(on_leg(0, 4), 0x01);
    leg(1).release();
    EXPECT_TRUE(w.reactor.run_until([&] { return overlapping->done(); }));
    EXPECT_EQ(on_leg(0, 4), 0x02);
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorWrite, FlushesAndForcedWritesGoToAllLegs) {
    Device& m = make_in_sync(3);
    for (unsigned i = 0; i < 3; ++i) leg(i).keep_log(true);
    EXPECT_EQ(w.write(m, 0, 8, 1, {.fua = true}), IoStatus::ok);
    EXPECT_EQ(w.io(m, Op::flush), IoStatus::ok);
    for (unsigned i = 0; i < 3; ++i) {
        ASSERT_EQ(leg(i).log().size(), 2u);
        EXPECT_TRUE(leg(i).log()[0].flags.fua);
        EXPECT_EQ(leg(i).log()[1].op, Op::flush);
    }
}

TEST_F(MirrorWrite, ZeroesReachAllLegs) {
    Device& m = make_in_sync();
    EXPECT_EQ(w.io(m, Op::write_zeroes, 1000, 100), IoStatus::ok);
    EXPECT_EQ(w.read(m, 1000, 100), 0);
    EXPECT_TRUE(legs_equal());
    EXPECT_EQ(on_leg(1, 999), 0x10);
}

// --- reads ----------------------------------------------------------------------------------------------------------

TEST_F(MirrorRead, GoesToTheSourceLegAloneWhereOutOfSync) {
    disks();
    Device& m = make(params("core 1 1024"));
    tell(m, {"resync_pause"});
    w.reactor.run_for(kSecond);
    ASSERT_EQ(state(m).substr(0, 2), "8/");    // those that had begun
    for (std::uint64_t at = 0; at < kSectors; at += 64) EXPECT_EQ(w.read(m, at, 64), 0x10) << at;
}

TEST_F(MirrorRead, KeepsToOneLegForASequenceAndUsesAllWhenThereIsMoreToDo) {
    Device& m = make_in_sync();
    for (std::uint64_t at = 0; at < 4096; at += 8) EXPECT_EQ(w.read(m, at, 8), 0x10);    // one at a time
    const std::uint64_t most = std::max(leg(0).count(Op::read).requests, leg(1).count(Op::read).requests);
    EXPECT_GE(most, 500u);
    leg(0).reset_counters();
    leg(1).reset_counters();
    std::vector<std::unique_ptr<SimRequest>> reads;
    Memory into{8};
    for (std::uint64_t i = 0; i < 512; ++i) reads.push_back(w.submit(m, Op::read, (i * 37 % 2048) * 8, 8, into.at()));
    EXPECT_TRUE(w.reactor.run_until([&] { return std::all_of(reads.begin(), reads.end(), [](auto& r) { return r->done(); }); }));
    EXPECT_GE(leg(0).count(Op::read).requests, 230u);
    EXPECT_GE(leg(1).count(Op::read).requests, 230u);
}

TEST_F(MirrorRead, OfASequenceThatKeepsSeveralUnderWayUsesAllLegs) {
    Device& m = make_in_sync();
    Memory into{64};
    for (std::uint64_t at = 0; at < 16384; at += 64 * 8) {
        std::vector<std::unique_ptr<SimRequest>> reads;
        for (std::uint64_t i = 0; i < 8; ++i) reads.push_back(w.submit(m, Op::read, at + i * 64, 64, into.at()));
        EXPECT_TRUE(w.reactor.run_until([&] { return std::all_of(reads.begin(), reads.end(), [](auto& r) { return r->done(); }); }));
    }
    EXPECT_GE(leg(0).count(Op::read).requests, 80u);    // of 256
    EXPECT_GE(leg(1).count(Op::read).requests, 80u);
}

TEST_F(MirrorRead, LeavesASlowLegMostlyAlone) {
    disks(1);
    w.disks["leg1"] = std::make_unique<SimDisk>(w.reactor, SimDisk::Options{.limits = {.size = {kSectors}}, .latency_min = 20 * kMillisecond, .latency_max = 20 * kMillisecond, .name = "leg1"});
    w.opener.add("leg1", *w.disks["leg1"]);
    Device& m = make("core 2 1024 nosync 2 leg0 0 leg1 0");
    for (std::uint64_t i = 0; i < 1000; ++i) w.read(m, (i * 37 % 2048) * 8, 8);
    EXPECT_TRUE(event("leg 1 (leg1) is slow"));
    leg(0).reset_counters();
    leg(1).reset_counters();
    for (std::uint64_t i = 0; i < 1000; ++i) w.read(m, (i * 37 % 2048) * 8, 8);
    EXPECT_GE(leg(0).count(Op::read).requests, 980u);
    EXPECT_GE(leg(1).count(Op::read).requests, 1u);    // asked now and then whether it still is
    EXPECT_EQ(count_events("is slow"), 1u);
}

TEST_F(MirrorRead, OfSectorsBeingWrittenGoesToTheSource) {
    Device& m = make_in_sync();
    EXPECT_EQ(w.write(m, 512, 8, 1), IoStatus::ok);
    leg(1).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::write), .times = 1});
    Memory data{8, 0x42};
    auto write = w.submit(m, Op::write, 0, 8, data.at());
    w.reactor.run_for(kSecond);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(w.read(m, 0, 8), 0x42);
    leg(1).release();
    EXPECT_TRUE(w.reactor.run_until([&] { return write->done(); }));
}

TEST_F(MirrorRead, ThatAWriteHasOvertakenIsDoneAgainAtTheSource) {
    Device& m = make_in_sync();
    EXPECT_EQ(w.write(m, 512, 8, 1), IoStatus::ok);
    leg(0).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::write), .times = 1});
    leg(1).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::read), .times = 1});
    Memory into{8};
    std::vector<std::unique_ptr<SimRequest>> reads;
    for (int i = 0; i < 4 && leg(1).stalled() == 0; ++i) {
        reads.push_back(w.submit(m, Op::read, 64, 8, into.at()));
        w.reactor.run_for(kMillisecond);
    }
    ASSERT_EQ(leg(1).stalled(), 1u);
    Memory data{8, 0x42};
    auto write = w.submit(m, Op::write, 64, 8, data.at());
    w.reactor.run_for(kMillisecond);
    ASSERT_EQ(on_leg(1, 64), 0x42);    // and not yet on the source
    leg(1).release();
    EXPECT_TRUE(w.reactor.run_until([&] { return reads.back()->done(); }));
    EXPECT_TRUE(into.all(0x10));
    EXPECT_EQ(w.read(m, 64, 8), 0x10);
    leg(0).release();
    EXPECT_TRUE(w.reactor.run_until([&] { return write->done(); }));
    EXPECT_EQ(w.read(m, 64, 8), 0x42);
}

TEST_F(MirrorRead, ThatFailsAtTheSourceWaitsForTheWriteThatItOverlaps) {
    Device& m = make_in_sync(3);
    EXPECT_EQ(w.write(m, 512, 8, 1), IoStatus::ok);
    leg(2).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::write), .times = 1});
    Memory data{8, 0x42}, into{8};
    auto write = w.submit(m, Op::write, 64, 8, data.at());
    w.reactor.run_for(kMillisecond);
    leg(0).add_fault(broken(op_bit(Op::read)));
    auto read = w.submit(m, Op::read, 64, 8, into.at());
    w.reactor.run_for(kSecond);
    EXPECT_FALSE(read->done());
    leg(2).release();
    EXPECT_TRUE(w.reactor.run_until([&] { return write->done() && read->done(); }));
    EXPECT_TRUE(into.all(0x42));
}

// --- resync ---------------------------------------------------------------------------------------------------------

TEST_F(MirrorResync, MakesAllLegsEqualTellsAndRemembers) {
    disks(3);
    Device& m = make(params("disk 2 log 1024", 3, "1 handle_errors"));
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_EQ(count_events("mirror is in sync"), 1u);
    EXPECT_TRUE(legs_equal(0, 1));
    EXPECT_TRUE(legs_equal(0, 2));
    EXPECT_EQ(detail(m, "resync_left_bytes"), 0u);
    remove(m);
    leg(1).reset_counters();
    Device& again = make(params("disk 2 log 1024", 3, "1 handle_errors"), "again");
    EXPECT_EQ(state(again), "16/16 1 AAA");
    w.reactor.run_for(10 * kSecond);
    EXPECT_EQ(leg(1).count(Op::write).requests, 0u);
}

TEST_F(MirrorResync, ReadsOnceInLargePiecesAndWritesToAllThatNeedIt) {
    disks(3);
    Device& m = make(params("core 1 8", 3));    // 2048 regions of 4 KiB
    ASSERT_TRUE(w.reactor.run_until([&] { return state(m).substr(0, 9) == "2048/2048"; }));
    EXPECT_EQ(leg(0).count(Op::read).requests, 16u);    // 8 MiB in pieces of 512 KiB
    EXPECT_EQ(leg(1).count(Op::write).requests, 16u);
    EXPECT_EQ(leg(2).count(Op::write).requests, 16u);
    EXPECT_EQ(leg(0).count(Op::write).requests, 0u);
    EXPECT_GE(leg(0).counters().in_flight_most, 4u);
    EXPECT_TRUE(legs_equal(0, 1));
    EXPECT_TRUE(legs_equal(0, 2));
}

TEST_F(MirrorResync, ReadsAndWritesNoMoreThanALegTakes) {
    w.disk("leg0", Limits{.size = {kSectors}, .max_transfer = {48}}).fill_now({{0}, {kSectors}}, 0x10);
    w.disk("leg1", Limits{.size = {kSectors}, .max_transfer = {16}});
    Device& m = make("core 1 1024 2 leg0 0 leg1 0");
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal());
    EXPECT_EQ(leg(0).counters().invalid + leg(1).counters().invalid, 0u);
}

TEST_F(MirrorResync, GoesOnFromTheLog) {
    disks();
    Device& m = make(params());
    tell(m, {"set", "resync_rate", "1M"});
    w.reactor.run_for(3 * kSecond);
    const std::string half = state(m);
    EXPECT_NE(half.substr(0, 2), "0/");
    EXPECT_FALSE(in_sync(m));
    EXPECT_GT(detail(m, "resync_bytes_per_second"), 0u);
    EXPECT_GT(detail(m, "resync_seconds_left"), 0u);
    remove(m);
    Device& again = make(params(), "again");
    EXPECT_GE(std::stoi(state(again)), std::stoi(half));
    EXPECT_TRUE(comes_in_sync(again));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorResync, KeepsToItsRateWhichMayChangeMeanwhile) {
    disks();
    Device& m = make(params());
    tell(m, {"set", "resync_rate", "1M"});
    const Nanoseconds began = w.reactor.now();
    w.reactor.run_until([&] { return detail(m, "resync_left_bytes") <= std::uint64_t{3} << 20; });
    EXPECT_GE(w.reactor.now() - began, 500 * kMillisecond);
    EXPECT_LE(w.reactor.now() - began, 8 * kSecond);
    tell(m, {"set", "resync_rate", "default"});
    EXPECT_TRUE(comes_in_sync(m, kSecond));
}

TEST_F(MirrorResync, TakesOnePieceAtATimeWhileOthersUseTheMirror) {
    disks();
    Device& m = make(params("core 1 1024"));
    tell(m, {"resync_pause"});
    w.reactor.run_for(kSecond);
    leg(1).keep_log(true);
    leg(0).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::read), .extent = {{16000}, {8}}, .times = 1});
    Memory into{8};
    auto read = w.submit(m, Op::read, 16000, 8, into.at());    // somebody is there
    tell(m, {"resync_resume"});
    w.reactor.run_for(20 * kMillisecond);
    Nanoseconds last_end = 0;
    unsigned pieces = 0;
    for (const SimDisk::Logged& one : leg(1).log()) {
        if (one.op != Op::write || one.submitted < kSecond) continue;
        EXPECT_GE(one.submitted, last_end);
        last_end = one.completed;
        ++pieces;
    }
    EXPECT_GE(pieces, 2u);
    leg(0).release();
    EXPECT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(w.reactor.run_until([&] { return read->done(); }));
}

TEST_F(MirrorResync, WritesToARegionBeingCopiedAreOnAllLegsAfterwards) {
    disks();
    Device& m = make(params("core 1 8192"));    // 4 MiB regions: pieces before and behind
    Memory data{8};
    std::vector<std::unique_ptr<SimRequest>> writes;
    for (unsigned i = 0; i < 200; ++i) {
        data = Memory{8, static_cast<std::uint8_t>(i)};
        EXPECT_EQ(w.io(m, Op::write, (i * 997 % 2040) * 8, 8, data.at()), IoStatus::ok);
    }
    ASSERT_TRUE(w.reactor.run_until([&] { return state(m).substr(0, 3) == "2/2"; }));
    EXPECT_TRUE(legs_equal());
}

// --- legs that go and come ------------------------------------------------------------------------------------------

TEST_F(MirrorLegs, ALegThatWasAwayGetsOnlyWhatItMissed) {
    Device& m = make_in_sync(3, "2 handle_errors keep_log");
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(w.write(m, 1020, 8, 0x22), IoStatus::ok);
    EXPECT_EQ(w.write(m, 8192, 200, 0x23), IoStatus::ok);
    EXPECT_EQ(w.write(m, 16368, 16, 0x24), IoStatus::ok);
    EXPECT_EQ(state(m), "12/16 1 ADA");    // as the kernel's mirror-3leg-fail
    EXPECT_EQ(detail(m, "legs_away"), 1u);
    w.reactor.run_for(10 * kSecond);
    EXPECT_EQ(state(m), "12/16 1 ADA");
    leg(1).clear_faults();
    leg(1).reset_counters();
    EXPECT_TRUE(tell(m, {"leg_return", "1"}));
    ASSERT_TRUE(comes_in_sync(m, 10 * kSecond));
    EXPECT_EQ(state(m), "16/16 1 AAA");
    EXPECT_EQ(leg(1).count(Op::write).sectors, 4 * kRegion);
    EXPECT_TRUE(legs_equal(0, 1));
    EXPECT_TRUE(legs_equal(0, 2));
}

TEST_F(MirrorLegs, ComeBackByThemselvesUnlessToldNotTo) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    tell(m, {"set", "leg_retry", "0"});
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    leg(1).clear_faults();
    w.reactor.run_for(300 * kSecond);
    EXPECT_EQ(state(m), "15/16 1 AD");
    tell(m, {"set", "leg_retry", "default"});
    EXPECT_TRUE(comes_in_sync(m, 3 * kSecond));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorLegs, ReturnIsRefusedWhereThereIsNothingToReturn) {
    Device& m = make_in_sync();
    EXPECT_FALSE(w.message(m, 0, {"leg_return", "1"}));
    EXPECT_FALSE(w.message(m, 0, {"leg_return", "2"}));
    EXPECT_FALSE(w.message(m, 0, {"leg_return"}));
    EXPECT_FALSE(w.message(m, 0, {"set", "resync_share", "0"}));
    EXPECT_FALSE(w.message(m, 0, {"set", "what", "0"}));
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    auto refused = w.message(m, 0, {"leg_return", "1"});
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("cannot be used yet"), std::string::npos);
    EXPECT_FALSE(w.message(m, 0, {"leg_source", "1"}));    // it is away
    EXPECT_TRUE(w.suspend(m));
    for (const char* what : {"leg_return", "leg_source"}) EXPECT_FALSE(w.message(m, 0, {what, "1"}));
    EXPECT_FALSE(w.message(m, 0, {"log_start_anew"}));
}

TEST_F(MirrorLegs, OneThatComesBackWhileARegionIsCopiedToAnotherGetsItToo) {
    Device& m = make_in_sync(3, "2 handle_errors keep_log");
    tell(m, {"set", "leg_retry", "0"});
    leg(1).add_fault(broken());
    leg(2).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    leg(1).clear_faults();
    leg(2).clear_faults();
    leg(1).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::write), .times = 1});
    tell(m, {"leg_return", "1"});
    ASSERT_TRUE(w.reactor.run_until([&] { return leg(1).stalled() == 1; }));
    tell(m, {"leg_return", "2"});
    w.reactor.run_for(kSecond);
    leg(1).release();
    EXPECT_TRUE(comes_in_sync(m, kSecond));
    EXPECT_TRUE(legs_equal(0, 1));
    EXPECT_TRUE(legs_equal(0, 2));
}

TEST_F(MirrorLegs, OneWithoutCacheMissesWhatIsWrittenWhileItIsAwayWhereAnotherLackedItBefore) {
    for (unsigned i = 0; i < 3; ++i) w.disk("leg" + std::to_string(i), Limits{.size = {kSectors}, .volatile_cache = false});
    w.disk("log", 64);
    Device& m = make(params("disk 3 log 1024 nosync", 3, "2 handle_errors keep_log"));
    tell(m, {"set", "leg_retry", "0"});
    leg(0).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);       // legs 1 and 2 have region 0
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 4096, 8, 0x22), IoStatus::ok);    // leg 1 is away as well
    EXPECT_EQ(w.write(m, 16, 8, 0x23), IoStatus::ok);      // and misses this
    leg(0).clear_faults();
    leg(1).clear_faults();
    tell(m, {"leg_return", "0"});
    w.reactor.run_for(kSecond);
    tell(m, {"leg_return", "1"});
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal(0, 2));
    EXPECT_TRUE(legs_equal(1, 2));
    EXPECT_EQ(on_leg(1, 16), 0x23);
}

TEST_F(MirrorLegs, MayBeMadeTheSourceByHand) {
    disks();
    Device& m = make(params());
    tell(m, {"resync_pause"});
    w.reactor.run_for(kSecond);
    leg(0).add_fault(broken(op_bit(Op::read)));
    tell(m, {"resync_resume"});
    w.reactor.run_until([&] { return state(m).find('S') != std::string::npos; });
    w.reactor.run_for(kSecond / 2);    // until it tries again
    tell(m, {"leg_source", "1"});
    EXPECT_EQ(detail(m, "source_leg"), 1u);
    EXPECT_TRUE(comes_in_sync(m));
    EXPECT_EQ(on_leg(0, 16000), 0x11);
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorLegs, ThatHaveEverythingAreKnownAfterASuspend) {
    Device& m = make_in_sync(3, "2 handle_errors keep_log");
    leg(0).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_TRUE(w.suspend(m));
    EXPECT_TRUE(w.resume(m));
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x22), IoStatus::ok);
    EXPECT_EQ(w.write(m, 4096, 8, 0x23), IoStatus::ok);
    EXPECT_EQ(detail(m, "source_leg"), 2u);
    EXPECT_EQ(w.read(m, 0, 8), 0x22);
}

TEST_F(MirrorLegs, TwoOfThreeMayGoOneAfterTheOther) {
    Device& m = make_in_sync(3, "2 handle_errors keep_log");
    leg(0).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(detail(m, "source_leg"), 1u);
    EXPECT_EQ(w.write(m, 4096, 8, 0x22), IoStatus::ok);
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 8192, 8, 0x23), IoStatus::ok);
    EXPECT_EQ(detail(m, "source_leg"), 2u);
    EXPECT_EQ(w.read(m, 0, 8), 0x21);
    EXPECT_EQ(w.read(m, 4096, 8), 0x22);
    EXPECT_EQ(w.read(m, 8192, 8), 0x23);
    leg(0).clear_faults();
    leg(1).clear_faults();
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal(0, 2));
    EXPECT_TRUE(legs_equal(1, 2));
    EXPECT_EQ(on_leg(0, 4096), 0x22);
}

}  // namespace
}  // namespace udm::test
