// What Linux's mirror got wrong, or still does, each by its number; and what ours does instead.
#include "test/unit/mirror_fixture.hpp"

#include "services/dirty_log/dirty_log.hpp"
#include "targets/mirror/sync_map.hpp"

namespace udm::test {
namespace {

using MirrorDefects = MirrorTest;
constexpr unsigned kWrites = op_bit(Op::write);

TEST_F(MirrorDefects, M1_AFailedWriteIsKnownAndTheRegionOutOfSync) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    leg(1).add_fault(broken(kWrites));
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(state(m), "15/16 1 AD");
    EXPECT_EQ(w.read(m, 0, 8), 0x21);
    leg(0).add_fault(broken(kWrites));
    EXPECT_EQ(w.write(m, 2048, 8, 0x22), IoStatus::io_error);
}

TEST_F(MirrorDefects, M1_AWriteThatFailsOnAllLegsFailsAndItsRegionIsCopiedAgain) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    leg(0).fail_nth(1, kWrites);
    leg(1).fail_nth(1, kWrites);
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::io_error);
    EXPECT_EQ(state(m), "15/16 1 DD");
    EXPECT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal());
    EXPECT_EQ(state(m), "16/16 1 AA");
}

TEST_F(MirrorDefects, M2_ARegionWhoseCopyFailedIsNotInSync) {
    disks();
    leg(1).add_fault({.ops = kWrites, .extent = {{5000}, {8}}});
    Device& m = make(params("disk 2 log 1024", 2, "1 handle_errors"));
    w.reactor.run_for(20 * kSecond);
    EXPECT_FALSE(in_sync(m));
    EXPECT_EQ(state(m).substr(state(m).find(' ')), " 1 AS");
    for (std::uint64_t at = 0; at < kSectors; at += 64) EXPECT_EQ(w.read(m, at, 64), 0x10);
}

TEST_F(MirrorDefects, M3_ARegionOutOfSyncStaysSoWhenItIsWritten) {
    disks();
    Device& m = make(params());
    tell(m, {"resync_pause"});
    w.reactor.run_for(kSecond);
    const int before = std::stoi(state(m));
    EXPECT_EQ(w.write(m, 15 * kRegion, 8, 0x21), IoStatus::ok);
    w.reactor.run_for(60 * kSecond);
    EXPECT_EQ(std::stoi(state(m)), before);
    remove(m);
    Device& again = make(params(), "again");
    EXPECT_EQ(std::stoi(state(again)), before);
    EXPECT_TRUE(comes_in_sync(again));
    EXPECT_TRUE(legs_equal());
    EXPECT_EQ(on_leg(1, 15 * kRegion), 0x21);
}

TEST_F(MirrorDefects, M4_RegionsCountFromTheTargetsStart) {
    disks();
    w.disk("front", 4096);
    Device& device = w.start("two", "0 3000 linear front 0\n3000 13384 mirror disk 3 log 1024 nosync 2 leg0 0 leg1 0 2 handle_errors keep_log");
    running.push_back(&device);
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(device, 3000, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(w.write(device, 3000 + 1024, 8, 0x22), IoStatus::ok);
    EXPECT_EQ(device.live()->entries()[1].target->status(), "2 leg0 leg1 12/14 1 AD 3 disk log A");
    EXPECT_EQ(on_leg(0, 0), 0x21);
    EXPECT_EQ(on_leg(0, 1024), 0x22);
    EXPECT_EQ(w.write(device, 16384 - 8, 8, 0x23), IoStatus::ok);    // the last region, shorter
    EXPECT_EQ(on_leg(0, 13384 - 1), 0x23);
}

TEST_F(MirrorDefects, M5_NoLegIsWrittenWhoseMarkIsNotDurable) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    log().add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::io_error);
    EXPECT_EQ(on_leg(0, 0), 0x10);
    EXPECT_EQ(on_leg(1, 0), 0x10);
    EXPECT_NE(status(m).find("3 disk log D"), std::string::npos);
    EXPECT_TRUE(event("mirror log failed"));
    EXPECT_EQ(w.read(m, 0, 8), 0x10);    // reads need no log
}

TEST_F(MirrorDefects, M5_WithHandleErrorsTheWriteIsHeldUntilSuspend) {
    Device& m = make_in_sync(2, "1 handle_errors");
    log().add_fault(broken());
    Memory data{8, 0x21};
    auto write = w.submit(m, Op::write, 0, 8, data.at());
    w.reactor.run_for(60 * kSecond);
    EXPECT_FALSE(write->done());
    EXPECT_EQ(on_leg(0, 0), 0x10);
    EXPECT_TRUE(w.suspend(m));
    EXPECT_TRUE(w.reactor.run_until([&] { return write->done(); }));
    EXPECT_EQ(write->status(), IoStatus::io_error);
}

TEST_F(MirrorDefects, M6_AHungMirrorHoldsUpNoOther) {
    disks();
    w.disk("other0");
    w.disk("other1");
    Device& hung = make("core 2 1024 nosync 2 leg0 0 leg1 0", "hung");
    Device& other = make("core 2 1024 nosync 2 other0 0 other1 0", "other");
    leg(1).stall();
    Memory data{8, 0x21};
    auto write = w.submit(hung, Op::write, 0, 8, data.at());
    EXPECT_EQ(w.write(other, 0, 8, 0x22), IoStatus::ok);
    EXPECT_FALSE(write->done());
    leg(1).release();
    EXPECT_TRUE(w.reactor.run_until([&] { return write->done(); }));
}

TEST_F(MirrorDefects, M7_AFailedReadIsTriedOnTheOtherLegs) {
    Device& m = make_in_sync(3, "1 handle_errors");
    leg(0).add_fault(broken());
    leg(2).add_fault(broken());
    for (std::uint64_t at = 0; at < 2000; at += 24) EXPECT_EQ(w.read(m, at, 8), 0x10);
    EXPECT_EQ(state(m), "16/16 1 RAR");
    EXPECT_EQ(count_events("read failed"), 2u);
}

TEST_F(MirrorDefects, M8_BothLegsAreRead) {
    Device& m = make_in_sync();
    std::vector<std::unique_ptr<SimRequest>> reads;
    Memory into{8};
    for (std::uint64_t i = 0; i < 200; ++i) reads.push_back(w.submit(m, Op::read, i * 72, 8, into.at()));
    EXPECT_TRUE(w.reactor.run_until([&] { return std::all_of(reads.begin(), reads.end(), [](auto& r) { return r->done(); }); }));
    EXPECT_GE(leg(0).count(Op::read).requests, 90u);
    EXPECT_GE(leg(1).count(Op::read).requests, 90u);
}

TEST_F(MirrorDefects, M9_LegsAreFlushedBeforeARegionBecomesClean) {
    Device& m = make_in_sync();
    w.reactor.run_for(20 * kSecond);
    for (SimDisk* disk : {&leg(0), &leg(1), &log()}) disk->keep_log(true);
    EXPECT_EQ(w.write(m, 0, 8, 1), IoStatus::ok);
    w.reactor.run_for(60 * kSecond);
    ASSERT_GE(log().log().size(), 2u);
    const SimDisk::Logged& cleaning = log().log().back().op == Op::write ? log().log().back() : log().log()[log().log().size() - 2];
    EXPECT_GT(cleaning.submitted, log().log()[0].completed);
    for (unsigned i = 0; i < 2; ++i) {
        ASSERT_EQ(leg(i).log().size(), 2u);
        EXPECT_EQ(leg(i).log()[1].op, Op::flush);
        EXPECT_GE(leg(i).log()[1].submitted, leg(i).log()[0].completed);
        EXPECT_LE(leg(i).log()[1].completed, cleaning.submitted);
    }
}

TEST_F(MirrorDefects, M10_DiscardsAreOfRegionsAndLeaveLegsAlike) {
    disks();
    Device& m = make(params());
    for (std::uint64_t at = 0; at + 1500 <= kSectors; at += 2000) EXPECT_EQ(w.io(m, Op::discard, at, 1500), IoStatus::ok);    // while it is copied
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal());
    w.reactor.run_for(60 * kSecond);    // all clean
    leg(1).fail_nth(1, op_bit(Op::write_zeroes));
    EXPECT_EQ(w.io(m, Op::discard, 0, 8), IoStatus::ok);
    EXPECT_EQ(state(m), "15/16 1 AD");    // known, and copied again
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorDefects, M11_ALegThatCannotDiscardIsNotToBlame) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    leg(1).fail_nth(1, op_bit(Op::write_zeroes), IoStatus::unsupported);
    EXPECT_EQ(w.io(m, Op::discard, 0, 8), IoStatus::unsupported);
    EXPECT_EQ(state(m).substr(state(m).find(' ')), " 1 AA");
    EXPECT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal());
    EXPECT_EQ(detail(m, "legs_away"), 0u);
}

TEST_F(MirrorDefects, M12_TheFirstErrorOfEachKindRaisesAnEvent) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    leg(1).add_fault(broken());
    for (std::uint64_t at = 0; at < 800; at += 24) EXPECT_EQ(w.read(m, at, 8), 0x10);
    EXPECT_EQ(w.write(m, 0, 8, 1), IoStatus::ok);
    EXPECT_EQ(w.write(m, 2048, 8, 1), IoStatus::ok);
    w.reactor.run_for(30 * kSecond);
    EXPECT_EQ(count_events("leg 1 (leg1): read failed"), 1u);
    EXPECT_EQ(count_events("leg 1 (leg1): write failed"), 1u);
}

TEST_F(MirrorDefects, M13_ReadsDuringAResyncSucceed) {
    disks();
    Device& m = make(params("core 1 1024"));
    for (int i = 0; i < 200; ++i) EXPECT_EQ(w.read(m, (static_cast<std::uint64_t>(i) * 997 % 2048) * 8, 8), 0x10);
    EXPECT_TRUE(comes_in_sync(m));
}

TEST_F(MirrorDefects, M14_ReadsNeedNoLogWhateverItAnswers) {
    disks();
    Device& m = make(params("disk 2 log 1024", 2, "2 handle_errors keep_log"));
    tell(m, {"resync_pause"});
    w.reactor.run_for(kSecond);
    log().add_fault(broken());
    for (std::uint64_t at = 0; at < kSectors; at += 64) EXPECT_EQ(w.read(m, at, 8), 0x10);    // the regions are out of sync, mostly
    log().clear_faults();
    tell(m, {"resync_resume"});
    ASSERT_TRUE(comes_in_sync(m));
    log().add_fault(broken());
    for (std::uint64_t at = 0; at < kSectors; at += 64) EXPECT_EQ(w.read(m, at, 8), 0x10);
}

// What waits for the log waits without holding up anybody else.
TEST_F(MirrorDefects, M15_ALogThatTakesItsTimeHoldsUpOnlyWhoNeedsIt) {
    Device& m = make_in_sync();
    EXPECT_EQ(w.write(m, 0, 8, 0x20), IoStatus::ok);    // marked from now on
    log().stall();
    Memory data{8, 0x21}, more{8, 0x22};
    auto unmarked = w.submit(m, Op::write, 4096, 8, data.at());
    auto flush = w.submit(m, Op::flush, 0, 0, nullptr);
    EXPECT_EQ(w.write(m, 8, 8, 0x23), IoStatus::ok);
    EXPECT_EQ(w.read(m, 4096, 8), 0x10);
    EXPECT_EQ(w.read(m, 8192, 8), 0x10);
    EXPECT_TRUE(w.reactor.run_until([&] { return flush->done(); }, kSecond));
    auto later = w.submit(m, Op::write, 8192, 8, more.at());    // its mark would go with the next write of the log
    w.reactor.run_for(kSecond);
    EXPECT_FALSE(unmarked->done() || later->done());
    log().release();
    EXPECT_TRUE(w.reactor.run_until([&] { return unmarked->done() && later->done(); }));
    EXPECT_EQ(unmarked->status(), IoStatus::ok);
    EXPECT_EQ(later->status(), IoStatus::ok);
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorDefects, M16_IsRemovedInTheMiddleOfAResync) {
    disks();
    Device& m = make(params());
    tell(m, {"set", "resync_rate", "1M"});
    w.reactor.run_for(kSecond);
    EXPECT_FALSE(in_sync(m));
    remove(m);
    EXPECT_EQ(leg(0).counters().in_flight, 0u);
    EXPECT_EQ(leg(1).counters().in_flight, 0u);
}

TEST_F(MirrorDefects, M17_ASuspendEndsWhileWritesHitTheRegionBeingCopied) {
    disks();
    Device& m = make(params("disk 2 log 8192"));
    Memory data{8, 0x33};
    std::vector<std::unique_ptr<SimRequest>> writes;
    for (std::uint64_t i = 0; i < 64; ++i) writes.push_back(w.submit(m, Op::write, i * 128, 8, data.at()));
    w.reactor.run_for(200'000);
    EXPECT_TRUE(w.suspend(m));
    for (auto& write : writes) {
        ASSERT_TRUE(write->done());
        EXPECT_EQ(write->status(), IoStatus::ok);
    }
    EXPECT_EQ(leg(0).counters().in_flight + leg(1).counters().in_flight + log().counters().in_flight, 0u);
    leg(0).reset_counters();
    leg(1).reset_counters();
    w.reactor.run_for(60 * kSecond);
    EXPECT_EQ(leg(0).count(Op::read).requests + leg(1).count(Op::write).requests + log().count(Op::write).errors, 0u);
    EXPECT_TRUE(w.resume(m));
    EXPECT_TRUE(w.reactor.run_until([&] { return state(m).substr(0, 3) == "2/2"; }));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorDefects, M18_ALogThatCannotBeUsedAtResumeIsTold) {
    disks();
    log().add_fault(broken(kWrites));
    Device& m = make(params());
    EXPECT_TRUE(event("mirror log"));
    EXPECT_NE(status(m).find("3 disk log D"), std::string::npos);
    EXPECT_EQ(w.read(m, 0, 8), 0x10);
}

TEST_F(MirrorDefects, M19_TheLogIsKeptWithALegLostAndOnlyWhatItMissedIsCopied) {
    const std::string features = "2 handle_errors keep_log";
    Device& m = make_in_sync(2, features);
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(state(m), "15/16 1 AD");
    EXPECT_EQ(w.write(m, 5 * kRegion, 8, 0x22), IoStatus::ok);    // with one leg: logged as before
    Memory block{8};
    log().read_now({{0}, {8}}, block.at());
    EXPECT_EQ(block.bytes[1024] & 0x21, 0);
    remove(m);
    leg(1).clear_faults();
    leg(1).reset_counters();
    Device& again = make(params("disk 2 log 1024", 2, features), "again");
    EXPECT_TRUE(comes_in_sync(again));
    EXPECT_EQ(leg(1).count(Op::write).sectors, 2 * kRegion);
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorDefects, M20_BeingInSyncIsToldEachTimeItComes) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    for (unsigned time = 1; time <= 2; ++time) {
        leg(1).fail_nth(1, kWrites);
        EXPECT_EQ(w.write(m, 0, 8, 1), IoStatus::ok);
        EXPECT_FALSE(in_sync(m));
        EXPECT_TRUE(comes_in_sync(m));
        EXPECT_EQ(count_events("mirror is in sync"), time);
        EXPECT_EQ(state(m), "16/16 1 AA");
    }
}

TEST_F(MirrorDefects, M21_RegionsBecomeCleanInAnIdleMirror) {
    Device& m = make_in_sync();
    EXPECT_EQ(w.write(m, 0, 8, 1), IoStatus::ok);
    w.reactor.run_for(60 * kSecond);
    Memory block{8};
    log().read_now({{0}, {8}}, block.at());
    EXPECT_EQ(block.bytes[1024], 0xff);
    EXPECT_EQ(block.bytes[1025], 0xff);
}

TEST_F(MirrorDefects, M22_AfterAFailedFlushOfTheLogNoWriteGoesUnmarked) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    log().fail_nth(1, op_bit(Op::flush));
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::io_error);
    EXPECT_EQ(on_leg(0, 0), 0x10);
    EXPECT_EQ(w.write(m, 0, 8, 0x22), IoStatus::ok);    // it is written again, and now durable
    Memory block{8};
    log().read_now({{0}, {8}}, block.at());
    EXPECT_EQ(block.bytes[1024] & 1, 0);
}

TEST_F(MirrorDefects, M24_ALogThatCannotBeReadKeepsTheMirrorFromStarting) {
    Device& m = make_in_sync();
    remove(m);
    log().add_fault(broken(op_bit(Op::read)));
    Device& again = w.device("again");
    running.push_back(&again);
    ASSERT_TRUE(w.load(again, line(params())));
    auto resumed = w.resume(again);
    ASSERT_FALSE(resumed);
    EXPECT_NE(resumed.error().message.find("load a table with another log"), std::string::npos) << resumed.error().message;
    EXPECT_EQ(state(again).substr(0, 4), "0/16");
    log().clear_faults();
    EXPECT_TRUE(w.resume(again));
    EXPECT_EQ(state(again), "16/16 1 AA");
}

TEST_F(MirrorDefects, M24_ALogThatIsTooSmallIsRefused) {
    disks();
    w.disk("tiny", 2);
    EXPECT_NE(w.refusal(line("disk 2 tiny 1024 2 leg0 0 leg1 0")).find("too small"), std::string::npos);
}

TEST_F(MirrorDefects, M25_AFailedRegionIsTriedAgainWithoutReload) {
    disks();
    leg(1).add_fault({.ops = kWrites, .extent = {{5000}, {8}}, .times = 2});
    Device& m = make(params());
    EXPECT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal());
    EXPECT_EQ(state(m), "16/16 1 AA");
}

TEST_F(MirrorDefects, M25_SoIsOneThatTheSourceCouldNotRead) {
    disks();
    leg(0).add_fault({.ops = op_bit(Op::read), .extent = {{5000}, {8}}, .times = 3});
    Device& m = make(params());
    EXPECT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorDefects, M28_SeveralRegionsAreCopiedAtATime) {
    disks();
    make(params());
    w.reactor.run_for(2 * kMillisecond);
    EXPECT_GE(leg(0).counters().in_flight_most, 4u);
}

TEST_F(MirrorDefects, M29_ABadPlaceIsWrittenAnewAndReadBack) {
    Device& m = make_in_sync();
    leg(0).add_fault({.ops = op_bit(Op::read), .extent = {{64}, {1}}, .times = 1});
    leg(1).add_fault({.ops = op_bit(Op::read), .extent = {{128}, {1}}, .times = 1});
    for (int i = 0; i < 6; ++i) {
        for (const std::uint64_t at : {64, 128, 4096}) EXPECT_EQ(w.read(m, at, 8), 0x10);
    }
    w.reactor.run_for(kSecond);
    EXPECT_EQ(detail(m, "read_repairs"), 2u);
    EXPECT_EQ(leg(0).count(Op::write).sectors, 8u);
    EXPECT_EQ(leg(1).count(Op::write).sectors, 8u);
    EXPECT_EQ(state(m), "16/16 1 AA");
}

TEST_F(MirrorDefects, M29_APlaceThatStaysBadIsReadElsewhere) {
    Device& m = make_in_sync();
    leg(0).add_fault({.ops = op_bit(Op::read), .extent = {{64}, {1}}});
    for (int i = 0; i < 9; ++i) EXPECT_EQ(w.read(m, i % 3 == 2 ? 4096 : 64, 8), 0x10);
    w.reactor.run_for(kSecond);
    EXPECT_EQ(detail(m, "read_repairs"), 0u);
    EXPECT_EQ(state(m), "16/16 1 RA");
}

TEST_F(MirrorDefects, M30_TheNewestDataWinAfterTheFirstLegWasLost) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    leg(0).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(w.write(m, 4096, 8, 0x22), IoStatus::ok);
    EXPECT_EQ(detail(m, "source_leg"), 1u);
    remove(m);
    leg(0).clear_faults();
    Device& again = make(params("disk 2 log 1024", 2, "2 handle_errors keep_log"), "again");
    EXPECT_EQ(detail(again, "source_leg"), 1u);
    EXPECT_EQ(w.read(again, 0, 8), 0x21);
    EXPECT_TRUE(comes_in_sync(again));
    EXPECT_EQ(on_leg(0, 0), 0x21);
    EXPECT_EQ(on_leg(0, 4096), 0x22);
    EXPECT_TRUE(legs_equal());
    remove(again);    // in sync: no record is left
    Device& third = make(params(), "third");
    EXPECT_EQ(detail(third, "source_leg"), 0u);
}

TEST_F(MirrorDefects, M30_NoWriteIsAcknowledgedBeforeTheNewSourceIsRecorded) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    EXPECT_EQ(w.write(m, 8, 8, 0x20), IoStatus::ok);    // marked
    leg(0).add_fault(broken());
    log().stall();
    Memory data{8, 0x21};
    auto write = w.submit(m, Op::write, 0, 8, data.at());
    w.reactor.run_for(kSecond);
    EXPECT_EQ(on_leg(1, 0), 0x21);
    EXPECT_FALSE(write->done());
    log().release();
    EXPECT_TRUE(w.reactor.run_until([&] { return write->done(); }));
    EXPECT_EQ(write->status(), IoStatus::ok);
}

TEST_F(MirrorDefects, M30_ANewSourceIsFlushedBeforeItIsRecorded) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    EXPECT_EQ(w.write(m, 8, 8, 0x20), IoStatus::ok);
    leg(1).keep_log(true);
    log().keep_log(true);
    leg(0).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    ASSERT_GE(leg(1).log().size(), 2u);
    ASSERT_GE(log().log().size(), 1u);
    EXPECT_EQ(leg(1).log()[1].op, Op::flush);
    EXPECT_GE(log().log()[0].submitted, leg(1).log()[1].completed);
}

TEST_F(MirrorDefects, M30_TheSourceIsRecordedAlsoWhereNothingWasOutOfSyncYet) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    leg(0).add_fault(broken());
    EXPECT_EQ(w.io(m, Op::flush), IoStatus::ok);    // away, and has missed nothing
    EXPECT_EQ(state(m), "16/16 1 FA");
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    remove(m);
    leg(0).clear_faults();
    Device& again = make(params("disk 2 log 1024", 2, "2 handle_errors keep_log"), "again");
    EXPECT_EQ(detail(again, "source_leg"), 1u);
    EXPECT_TRUE(comes_in_sync(again));
    EXPECT_EQ(on_leg(0, 0), 0x21);
}

TEST_F(MirrorDefects, M30_WhereTheNewSourceCannotBeRecordedTheOldOneStays) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    EXPECT_EQ(w.write(m, 8, 8, 0x20), IoStatus::ok);
    leg(0).add_fault(broken(kWrites));
    log().add_fault({.kind = DiskFault::Kind::stall, .ops = kWrites, .times = 1});
    Memory data{8, 0x21}, into{8};
    auto write = w.submit(m, Op::write, 0, 8, data.at());
    w.reactor.run_for(kMillisecond);
    auto read = w.submit(m, Op::read, 0, 8, into.at());    // new data, that might be lost yet
    w.reactor.run_for(kMillisecond);
    EXPECT_FALSE(write->done() || read->done());
    log().add_fault(broken());
    log().release();
    log().add_fault(broken());
    EXPECT_TRUE(w.reactor.run_until([&] { return write->done() && read->done(); }));
    if (write->status() == IoStatus::ok) {
        EXPECT_TRUE(into.all(0x21));
    } else {
        EXPECT_TRUE(into.all(0x10));
        EXPECT_EQ(detail(m, "source_leg"), 0u);
    }
    const int seen = w.read(m, 0, 8);
    EXPECT_EQ(seen, into.bytes[0]);
    remove(m);
    leg(0).clear_faults();
    log().clear_faults();
    Device& again = make(params("disk 2 log 1024", 2, "2 handle_errors keep_log"), "again");
    EXPECT_EQ(w.read(again, 0, 8), seen);
    EXPECT_TRUE(comes_in_sync(again));
}

TEST_F(MirrorDefects, M30_ReadsGoOnWhenTheSourceMovedWithoutAWrite) {
    for (const char* log_words : {"disk 3 log 1024 nosync", "core 2 1024 nosync"}) {
        Device& m = make_in_sync(2, "2 handle_errors keep_log", log_words);
        EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
        leg(0).add_fault(broken(op_bit(Op::flush)));    // the one before the region becomes clean
        ASSERT_TRUE(w.reactor.run_until([&] { return detail(m, "source_leg") == 1; }));
        EXPECT_EQ(w.read(m, 0, 8), 0x21);
        EXPECT_TRUE(w.suspend(m));
        remove(m);
        w.opener.remove("leg0");
        w.opener.remove("leg1");
        w.opener.remove("log");
        w.opener.remove("m");
    }
}

TEST_F(MirrorDefects, M30_TheSourceIsFoundInAnotherOrder) {
    Device& m = make_in_sync(3, "2 handle_errors keep_log");
    leg(0).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    remove(m);
    leg(0).clear_faults();
    Device& turned = make("disk 2 log 1024 3 leg1 0 leg2 0 leg0 0 2 handle_errors keep_log", "turned");
    tell(turned, {"resync_pause"});
    EXPECT_EQ(detail(turned, "source_leg"), 0u);
    remove(turned);
}

TEST_F(MirrorDefects, M31_AHoldEndsAfterATimeWhereThatIsSet) {
    Device& m = make_in_sync(2, "1 handle_errors");
    leg(1).add_fault(broken());
    Memory data{8, 0x21};
    auto failed = w.submit(m, Op::write, 0, 8, data.at());
    w.reactor.run_for(60 * kSecond);
    EXPECT_FALSE(failed->done());
    auto later = w.submit(m, Op::write, 2048, 8, data.at());
    w.reactor.run_for(60 * kSecond);
    EXPECT_FALSE(later->done());
    EXPECT_EQ(detail(m, "held_requests"), 2u);
    tell(m, {"set", "hold_timeout", "2000"});
    EXPECT_TRUE(w.reactor.run_until([&] { return failed->done() && later->done(); }, 3 * kSecond));
    EXPECT_EQ(failed->status(), IoStatus::ok);
    EXPECT_EQ(later->status(), IoStatus::ok);
    EXPECT_EQ(on_leg(0, 2048), 0x21);
    EXPECT_EQ(w.write(m, 4096, 8, 1), IoStatus::ok);    // and no more are held
}

TEST_F(MirrorDefects, M31_WhatIsHeldIsRequeuedByASuspendWithoutFlush) {
    Device& m = make_in_sync(2, "1 handle_errors");
    leg(1).add_fault(broken());
    Memory data{8, 0x21};
    auto write = w.submit(m, Op::write, 0, 8, data.at());
    w.reactor.run_for(kSecond);
    EXPECT_FALSE(write->done());
    EXPECT_TRUE(w.suspend(m, {.noflush = true}));
    EXPECT_FALSE(write->done());
    auto loaded = w.load(m, "0 16384 linear leg0 0");
    ASSERT_TRUE(loaded);
    EXPECT_TRUE(w.resume(m));
    EXPECT_TRUE(w.reactor.run_until([&] { return write->done(); }));
    EXPECT_EQ(write->status(), IoStatus::ok);
    EXPECT_EQ(on_leg(0, 0), 0x21);
}

TEST_F(MirrorDefects, M32_NosyncIsNotAppliedToARecordedDirtyRegion) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    remove(m);
    leg(1).clear_faults();
    Device& again = make(params("disk 3 log 1024 nosync"), "again");
    EXPECT_EQ(state(again), "15/16 1 AA");
    EXPECT_TRUE(comes_in_sync(again));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorDefects, M33_NothingIsSentToALegThatIsAway) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    tell(m, {"set", "leg_retry", "0"});
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    leg(1).reset_counters();
    for (std::uint64_t at = 0; at < kSectors; at += 1024) EXPECT_EQ(w.write(m, at, 8, 0x22), IoStatus::ok);
    EXPECT_EQ(w.io(m, Op::flush), IoStatus::ok);
    EXPECT_EQ(leg(1).count(Op::write).requests + leg(1).count(Op::flush).requests, 0u);
    EXPECT_EQ(state(m), "0/16 1 AD");
}

TEST_F(MirrorDefects, M34_AFlushThatFailsWhileARegionIsCopiedHangsNothing) {
    disks();
    Device& m = make(params("disk 2 log 8192", 2, "2 handle_errors keep_log"));
    Memory data{8, 0x33};
    std::vector<std::unique_ptr<SimRequest>> writes;
    leg(1).fail_nth(1, op_bit(Op::flush));
    for (std::uint64_t i = 0; i < 32; ++i) {
        writes.push_back(w.submit(m, Op::write, i * 128, 8, data.at()));
        if (i == 16) writes.push_back(w.submit(m, Op::flush));
    }
    w.reactor.run_for(500'000);
    EXPECT_TRUE(w.suspend(m));
    for (auto& write : writes) {
        ASSERT_TRUE(write->done());
        EXPECT_EQ(write->status(), IoStatus::ok);
    }
    EXPECT_TRUE(w.resume(m));
    EXPECT_TRUE(w.reactor.run_until([&] { return state(m).substr(0, 3) == "2/2"; }));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorDefects, M35_WhatALegFailedToFlushIsCopiedToItAgain) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(w.write(m, 4096, 8, 0x22), IoStatus::ok);
    leg(1).fail_nth(1, op_bit(Op::flush));
    EXPECT_EQ(w.io(m, Op::flush), IoStatus::ok);    // on leg 0 it is durable
    EXPECT_EQ(state(m), "14/16 1 AF");
    leg(1).reset_counters();
    EXPECT_TRUE(comes_in_sync(m));
    EXPECT_EQ(leg(1).count(Op::write).sectors, 2 * kRegion);
}

TEST_F(MirrorDefects, M35_SoIsWhatWasJustCopied) {
    disks();
    leg(1).fail_nth(1, op_bit(Op::flush));    // the one before regions become clean
    Device& m = make(params());
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(w.reactor.run_until([&] { return !in_sync(m); }));
    EXPECT_EQ(state(m), "0/16 1 AF");
    ASSERT_TRUE(comes_in_sync(m));
    w.reactor.run_for(60 * kSecond);
    EXPECT_EQ(state(m), "16/16 1 AA");
}

TEST_F(MirrorDefects, M36_ARegionIsCountedOnce) {
    disks();
    Device& m = make(params("core 1 1024"));
    ASSERT_TRUE(comes_in_sync(m));
    for (int i = 0; i < 50; ++i) {
        if (i % 10 == 0) leg(1).fail_nth(1, kWrites);
        EXPECT_EQ(w.write(m, static_cast<std::uint64_t>(i) * 300, 8, 1), IoStatus::ok);
        EXPECT_LE(std::stoi(state(m)), 16);
        EXPECT_GE(std::stoi(state(m)), 0);
    }
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_EQ(state(m), "16/16 1 AA");
}

TEST_F(MirrorDefects, M38_NumbersWithMoreBehindThemAreRefused) {
    disks();
    for (const char* words : {"core 1x 1024 2 leg0 0 leg1 0", "core 1 1024x 2 leg0 0 leg1 0", "core 1 1024 2x leg0 0 leg1 0", "core 1 1024 2 leg0 0x leg1 0",
                              "core 1 1024 2 leg0 0 leg1 0 1x handle_errors"}) {
        EXPECT_NE(w.refusal(line(words)), "") << words;
    }
}

TEST_F(MirrorDefects, M40_ALogOfAnUnknownVersionIsNotOverwritten) {
    Device& m = make_in_sync();
    remove(m);
    Memory block{8}, after{8};
    log().read_now({{0}, {8}}, block.at());
    block.bytes[4] = 3;
    log().write_now({{0}, {8}}, block.at());
    Device& again = make(params(), "again");
    EXPECT_EQ(state(again).substr(0, 4), "0/16");
    EXPECT_TRUE(event("not trusted"));
    EXPECT_EQ(w.write(again, 0, 8, 1), IoStatus::io_error);
    w.reactor.run_for(60 * kSecond);
    log().read_now({{0}, {8}}, after.at());
    EXPECT_TRUE(block == after);
    EXPECT_TRUE(tell(again, {"log_start_anew"}));
    EXPECT_TRUE(comes_in_sync(again));
    EXPECT_EQ(w.write(again, 0, 8, 1), IoStatus::ok);
}

// A log that knows nothing for sure.
class DoubtfulLog final : public dirty_log::DirtyLog {
  public:
    dirty_log::Answer answer = dirty_log::Answer::ask;
    Job<Result<void>> load(dirty_log::Owner*) override { co_return Result<void>{}; }
    Job<Result<dirty_log::Found>> resume() override { co_return dirty_log::Found{}; }
    Job<void> presuspend() override { co_return; }
    Job<Result<void>> postsuspend() override { co_return Result<void>{}; }
    RegionSize region_size() const noexcept override { return RegionSize::of_sectors(1024); }
    udm::Regions region_count() const noexcept override { return {16}; }
    dirty_log::Answer in_sync(Region) const noexcept override { return answer; }
    udm::Regions sync_count() const noexcept override { return {0}; }
    dirty_log::Known count(RegionRun) const noexcept override { return {}; }
    std::optional<Region> next_dirty(Region) const noexcept override { return {}; }
    bool mark(Region) noexcept override { return true; }
    void clear(Region) noexcept override {}
    void set_sync(Region, bool) noexcept override {}
    void record(const std::optional<dirty_log::LegRecord>&) noexcept override {}
    const std::optional<dirty_log::LegRecord>& leg_record() const noexcept override { return none_; }
    bool settled() const noexcept override { return true; }
    void flush(Waiter&) noexcept override {}
    Job<RegionRun> resync_work(udm::Regions) override { co_return RegionRun{}; }
    void give_back(RegionRun) noexcept override {}
    void retry_failed() noexcept override {}
    udm::Regions failed_count() const noexcept override { return {0}; }
    dirty_log::Health health() const noexcept override { return {}; }
    std::string info() const override { return {}; }
    std::string table() const override { return {}; }
    Job<Result<void>> start_anew() override { co_return Result<void>{}; }

  private:
    std::optional<dirty_log::LegRecord> none_;
};

TEST(MirrorDefectsOfRegions, M14_WhereTheAnswerIsNotThereYetTheSourceAloneIsRead) {
    DoubtfulLog log;
    mirror::RegionTable regions;
    regions.start(log);
    mirror::Legs legs{std::vector<mirror::Leg>(3)};
    legs.set_source(1);
    mirror::SyncMap map{legs, log, regions};
    map.start();
    for (const auto& [answer, having] : {std::pair{dirty_log::Answer::ask, 0b010}, std::pair{dirty_log::Answer::no, 0b010},
                                         std::pair{dirty_log::Answer::yes, 0b111}}) {
        log.answer = answer;
        EXPECT_EQ(map.having({3}), having);
        EXPECT_EQ(map.in_sync({3}), having == 0b111);
    }
}

TEST(MirrorDefectsOfRegions, M41_WhateverIsNoClearYesIsOutOfSync) {
    DoubtfulLog log;
    mirror::RegionTable regions;
    regions.start(log);
    for (const auto& [answer, state] : {std::pair{dirty_log::Answer::ask, mirror::RegionState::nosync},
                                        std::pair{dirty_log::Answer::no, mirror::RegionState::nosync},
                                        std::pair{dirty_log::Answer::yes, mirror::RegionState::dirty}}) {
        log.answer = answer;
        mirror::RegionEntry& entry = regions.enter({3});
        EXPECT_EQ(entry.state, state);
        regions.leave(entry);
        EXPECT_EQ(regions.count(), 0u);
    }
}

TEST_F(MirrorDefects, M42_HugeCountsAndRegionsOfNothingAreRefused) {
    disks();
    EXPECT_NE(w.refusal(line("core 4294967295 1024 2 leg0 0 leg1 0")).find("Insufficient mirror log arguments"), std::string::npos);
    EXPECT_NE(w.refusal(line("core 4294967294 1024 2 leg0 0 leg1 0")).find("Insufficient mirror log arguments"), std::string::npos);
    EXPECT_NE(w.refusal(line("core 1 0 2 leg0 0 leg1 0")).find("Error creating mirror dirty log"), std::string::npos);
}

}  // namespace
}  // namespace udm::test
