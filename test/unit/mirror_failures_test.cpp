// Rows of the table "When things go wrong" of docs/targets/mirror.md that are no defect of Linux's (mirror_defects_test.cpp).
#include "test/unit/mirror_fixture.hpp"

namespace udm::test {
namespace {

constexpr unsigned kReads = op_bit(Op::read), kWrites = op_bit(Op::write), kFlushes = op_bit(Op::flush);

class MirrorFailures : public MirrorTest {
  public:
    // Leg 1 has the first regions and lacks the last ones; nothing is copied.
    Device& make_half_copied() {
        disks();
        Device& m = make(params("disk 2 log 1024", 2, kFeatures));
        tell(m, {"set", "resync_rate", "1M"});
        EXPECT_TRUE(w.reactor.run_until([&] { return std::stoi(state(m)) >= 3; }, 60 * kSecond));
        tell(m, {"resync_pause"});
        w.reactor.run_for(kSecond);
        EXPECT_FALSE(in_sync(m));
        return m;
    }
    void goes_on_and_ends_equal(Device& m) {
        tell(m, {"resync_resume"});
        tell(m, {"set", "resync_rate", "default"});
        EXPECT_TRUE(comes_in_sync(m));
        EXPECT_TRUE(legs_equal());
        EXPECT_EQ(state(m), "16/16 1 AA");
    }
};

TEST_F(MirrorFailures, AReadThatFailsOnAllLegsFails) {
    Device& m = make_in_sync(2, kFeatures);
    leg(0).add_fault(broken(kReads));
    leg(1).add_fault(broken(kReads));
    Memory into{8};
    EXPECT_EQ(w.io(m, Op::read, 0, 8, into.at()), IoStatus::io_error);
    EXPECT_EQ(state(m), "16/16 1 RR");
    leg(1).clear_faults();
    EXPECT_EQ(w.read(m, 0, 8), 0x10);
}

TEST_F(MirrorFailures, AReadOfARegionOutOfSyncIsNotAnsweredByALegThatLacksIt) {
    Device& m = make_half_copied();
    leg(0).add_fault(broken(kReads));
    Memory into{8};
    EXPECT_EQ(w.io(m, Op::read, kSectors - 8, 8, into.at()), IoStatus::io_error);
    EXPECT_EQ(w.read(m, 0, 8), 0x10);    // which leg 1 has
    leg(0).clear_faults();
    goes_on_and_ends_equal(m);
}

TEST_F(MirrorFailures, AWriteThatTheSourceFailsFailsWhereNoOtherLegHasEverything) {
    Device& m = make_half_copied();
    leg(0).fail_nth(1, kWrites);
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::io_error);
    EXPECT_EQ(detail(m, "source_leg"), 0u);
    EXPECT_EQ(detail(m, "legs_away"), 0u);
    EXPECT_EQ(state(m).substr(state(m).find(' ')), " 1 DA");
    EXPECT_EQ(w.read(m, 0, 8), 0x10);    // what the source has
    goes_on_and_ends_equal(m);
    EXPECT_EQ(on_leg(1, 0), 0x10);
}

TEST_F(MirrorFailures, AFlushThatFailsOnAllLegsFails) {
    Device& m = make_in_sync(2, kFeatures);
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    leg(0).fail_nth(1, kFlushes);
    leg(1).fail_nth(1, kFlushes);
    EXPECT_EQ(w.io(m, Op::flush), IoStatus::io_error);
    EXPECT_EQ(state(m).substr(state(m).find(' ')), " 1 FF");
    EXPECT_EQ(detail(m, "source_leg"), 0u);
}

TEST_F(MirrorFailures, AFlushThatTheSourceFailsFailsWhereNoOtherLegHasEverything) {
    Device& m = make_half_copied();
    leg(0).fail_nth(1, kFlushes);
    EXPECT_EQ(w.io(m, Op::flush), IoStatus::io_error);
    EXPECT_EQ(detail(m, "source_leg"), 0u);
    EXPECT_EQ(state(m).substr(state(m).find(' ')), " 1 FA");
    goes_on_and_ends_equal(m);
}

TEST_F(MirrorFailures, WhatTheSourceCannotReadIsCopiedFromAnotherLegThatHasIt) {
    Device& m = make_in_sync(3, kFeatures);
    leg(2).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(state(m), "15/16 1 AAD");
    leg(0).add_fault({.ops = kReads, .extent = {{8}, {8}}});
    leg(2).clear_faults();
    EXPECT_TRUE(tell(m, {"leg_return", "2"}));
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(event("leg 0 (leg0): copy failed"));
    EXPECT_TRUE(legs_equal(1, 2));
    EXPECT_EQ(on_leg(2, 0), 0x21);
}

TEST_F(MirrorFailures, WritesToMarkedRegionsGoOnWithoutTheLog) {
    Device& m = make_in_sync(2, kFeatures);
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    log().add_fault(broken());
    EXPECT_EQ(w.write(m, 8, 8, 0x22), IoStatus::ok);
    EXPECT_EQ(w.write(m, 2048, 8, 0x23), IoStatus::io_error);
    log().clear_faults();
    EXPECT_EQ(w.write(m, 2048, 8, 0x24), IoStatus::ok);
    EXPECT_TRUE(event("mirror log is written again"));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorFailures, ALegThatCannotBeFlushedWhenItIsToCountLeavesThatToAnother) {
    Device& m = make_in_sync(3, kFeatures);
    leg(0).add_fault(broken(op_bit(Op::write)));
    leg(1).add_fault(broken(op_bit(Op::flush)));
    EXPECT_EQ(w.write(m, 0, 8, 0x26), IoStatus::ok);
    EXPECT_EQ(state(m), "15/16 1 DFA");
    EXPECT_EQ(detail(m, "legs_away"), 2u);
    EXPECT_EQ(detail(m, "source_leg"), 2u);
    EXPECT_EQ(w.read(m, 0, 8), 0x26);
}

TEST_F(MirrorFailures, WhatNoLegCouldFlushIsCopiedThoughTheNextFlushSucceeds) {
    Device& m = make_in_sync(2, kFeatures);
    EXPECT_EQ(w.write(m, 5 * kRegion, 8, 0x26), IoStatus::ok);
    for (unsigned i : {0, 1}) leg(i).add_fault(broken(op_bit(Op::flush)));
    EXPECT_EQ(w.io(m, Op::flush), IoStatus::io_error);
    EXPECT_EQ(state(m), "15/16 1 FF");
    for (unsigned i : {0, 1}) {
        leg(i).clear_faults();
        leg(i).reset_counters();
    }
    leg(0).fill_now({{5 * kRegion}, {8}}, 0x10);    // what it had not flushed is gone, as Linux loses it
    EXPECT_EQ(w.io(m, Op::flush), IoStatus::ok);
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_EQ(leg(1).count(Op::write).sectors, kRegion);
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorFailures, TheSourceGoesOnAlone) {
    Device& m = make_in_sync(3, kFeatures);
    for (const unsigned gone : {2u, 1u}) {
        leg(gone).add_fault(broken());
        EXPECT_EQ(w.write(m, 0, 8, static_cast<std::uint8_t>(0x20 + gone)), IoStatus::ok);
    }
    EXPECT_EQ(state(m), "15/16 1 ADD");
    EXPECT_EQ(detail(m, "legs_away"), 2u);
    EXPECT_EQ(w.read(m, 0, 8), 0x21);
    leg(0).fail_nth(1, kWrites);
    EXPECT_EQ(w.write(m, 0, 8, 0x25), IoStatus::io_error);    // nobody else is left
    leg(1).clear_faults();
    leg(2).clear_faults();
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal(0, 1) && legs_equal(0, 2));
}

// A request that only the new source was sent, when the log fails and the old one is the source again.
TEST_F(MirrorFailures, WhatOnlyTheAbandonedSourceHasIsNotAcknowledged) {
    Device& m = make_in_sync(2, kFeatures);
    EXPECT_EQ(w.write(m, 8, 8, 0x20), IoStatus::ok);    // marked
    leg(0).fail_nth(1, kWrites);
    log().stall();
    Memory data{8, 0x21}, more{8, 0x22};
    auto first = w.submit(m, Op::write, 0, 8, data.at());
    ASSERT_TRUE(w.reactor.run_until([&] { return log().stalled() != 0; }, kSecond));
    leg(1).stall(kWrites | kFlushes);
    auto second = w.submit(m, Op::write, 64, 8, more.at());
    auto flush = w.submit(m, Op::flush);
    w.reactor.run_for(kMillisecond);
    EXPECT_EQ(leg(1).stalled(), 2u);
    log().fail_nth(1, kFlushes);
    log().release();
    ASSERT_TRUE(w.reactor.run_until([&] { return first->done(); }, kSecond));
    EXPECT_EQ(first->status(), IoStatus::io_error);
    EXPECT_EQ(detail(m, "source_leg"), 0u);
    leg(0).keep_log(true);
    leg(1).release();
    ASSERT_TRUE(w.reactor.run_until([&] { return second->done() && flush->done(); }, kSecond));
    EXPECT_EQ(second->status(), IoStatus::ok);
    EXPECT_EQ(flush->status(), IoStatus::ok);
    EXPECT_EQ(on_leg(0, 64), 0x22);
    const auto& done = leg(0).log();
    EXPECT_TRUE(std::any_of(done.begin(), done.end(), [](const SimDisk::Logged& one) { return one.op == Op::flush; }));
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_EQ(w.read(m, 64, 8), 0x22);
    EXPECT_TRUE(legs_equal());
}

// All legs have everything again, and the log still names leg 1, which then fails a write.
TEST_F(MirrorFailures, ALegOfARecordThatIsBeingDroppedDoesNotCountAfterACrash) {
    Device& m = make_in_sync(2, kFeatures);
    leg(0).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    leg(0).clear_faults();
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_EQ(detail(m, "source_leg"), 0u);
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x22), IoStatus::ok);
    EXPECT_EQ(on_leg(1, 0), 0x21);
    Memory found{64};    // by a restart after a crash now
    log().read_now({{0}, {64}}, found.at());
    remove(m);
    log().write_now({{0}, {64}}, found.at());
    leg(1).clear_faults();
    Device& again = make(params("disk 2 log 1024", 2, kFeatures), "again");
    EXPECT_EQ(detail(again, "source_leg"), 0u);
    EXPECT_EQ(w.read(again, 0, 8), 0x22);
    ASSERT_TRUE(comes_in_sync(again));
    EXPECT_EQ(on_leg(1, 0), 0x22);
}

// Nobody writes, so that nobody else tries the log again.
TEST_F(MirrorFailures, ACopyThatWaitsForTheLogGoesOnWhenTheLogCanBeWritten) {
    disks();
    log().add_fault(broken(kWrites));
    Device& m = make(params("disk 2 log 1024", 2, kFeatures));
    w.reactor.run_for(10 * kSecond);
    EXPECT_EQ(state(m), "0/16 1 AA");
    log().clear_faults();
    EXPECT_TRUE(comes_in_sync(m, 60 * kSecond));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorFailures, ABadPlaceOfTheSourceIsWrittenAnewWithoutAMark) {
    Device& m = make_in_sync(2, kFeatures);
    w.reactor.run_for(20 * kSecond);    // all clean
    leg(0).add_fault({.ops = kReads, .extent = {{64}, {1}}, .times = 1});
    log().reset_counters();
    leg(0).reset_counters();
    for (int i = 0; i < 6; ++i) EXPECT_EQ(w.read(m, i % 3 == 2 ? 4096 : 64, 8), 0x10);
    w.reactor.run_for(kSecond);
    EXPECT_EQ(detail(m, "read_repairs"), 1u);
    EXPECT_EQ(log().count(Op::write).requests, 0u);    // a crash would copy the bad place to the others
    EXPECT_GE(leg(0).count(Op::flush).requests, 1u);
    EXPECT_EQ(state(m), "16/16 1 AA");
}

}  // namespace
}  // namespace udm::test
