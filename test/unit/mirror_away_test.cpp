// Mirrors that start while a leg is not there: an NBD export whose server is away when the daemon starts.
#include "test/unit/mirror_fixture.hpp"

namespace udm::test {
namespace {

class MirrorAway : public MirrorTest {
  public:
    void set_away(unsigned i, bool away) {
        w.opener.set_away("leg" + std::to_string(i), away);
        if (away) {
            leg(i).add_fault(broken());
        } else {
            leg(i).clear_faults();
        }
    }
    // Why it does not start; "" if it does.
    std::string start_again(unsigned legs = 2) {
        Device& device = w.device("again" + std::to_string(++starts));
        running.push_back(&device);
        again = &device;
        EXPECT_TRUE(w.load(device, line(params("disk 2 log 1024", legs, kFeatures))));
        auto resumed = w.resume(device);
        return resumed ? std::string{} : resumed.error().message;
    }
    // A mirror whose regions are all clean and have 0x10, and is not used any more.
    void leave_clean(unsigned legs = 2) { remove(make_in_sync(legs, kFeatures)); }
    // The same with region 0 marked, as a crash leaves it: leg 0 has 0x21 there, the others 0x10.
    void leave_region_0_in_doubt() {
        leave_clean();
        Memory block{8};
        log().read_now({{0}, {8}}, block.at());
        block.bytes[1024] &= 0xfe;
        log().write_now({{0}, {8}}, block.at());
        leg(0).fill_now({{0}, {8}}, 0x21);
    }

    Device* again = nullptr;
    unsigned starts = 0;
};

TEST_F(MirrorAway, ALegThatIsNotThereMissesWhatIsWritten) {
    leave_clean();
    set_away(1, true);
    ASSERT_EQ(start_again(), "");
    EXPECT_EQ(state(*again), "16/16 1 AD");
    EXPECT_EQ(detail(*again, "legs_away"), 1u);
    EXPECT_EQ(w.write(*again, 0, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(w.read(*again, 0, 8), 0x21);
    EXPECT_EQ(state(*again), "15/16 1 AD");
    set_away(1, false);
    leg(1).reset_counters();
    ASSERT_TRUE(comes_in_sync(*again));
    EXPECT_EQ(leg(1).count(Op::write).sectors, kRegion);
    EXPECT_EQ(state(*again), "16/16 1 AA");
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorAway, WhereAllIsCleanAnotherLegCountsForTheSourceAndThatIsOnRecordFirst) {
    leave_clean();
    set_away(0, true);
    ASSERT_EQ(start_again(), "");
    EXPECT_EQ(detail(*again, "source_leg"), 1u);
    EXPECT_EQ(w.read(*again, 0, 8), 0x10);
    EXPECT_EQ(w.write(*again, 0, 8, 0x21), IoStatus::ok);
    // Whoever starts it next, with leg 0 there again, takes leg 1 for the newest.
    remove(*again);
    set_away(0, false);
    ASSERT_EQ(start_again(), "");
    EXPECT_EQ(detail(*again, "source_leg"), 1u);
    EXPECT_EQ(w.read(*again, 0, 8), 0x21);
    ASSERT_TRUE(comes_in_sync(*again));
    EXPECT_EQ(on_leg(0, 0), 0x21);
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorAway, WithoutTheLegThatCountsItDoesNotStartWhereRegionsAreInDoubt) {
    leave_region_0_in_doubt();
    set_away(0, true);
    EXPECT_NE(start_again().find("leg 0 (leg0) is away, and what is out of sync is on no other"), std::string::npos);
    EXPECT_EQ(on_leg(1, 0), 0x10);
    set_away(0, false);
    EXPECT_TRUE(w.resume(*again));
    EXPECT_EQ(w.read(*again, 0, 8), 0x21);
    ASSERT_TRUE(comes_in_sync(*again));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorAway, IfTheLegThatCountsNeverComesBackATableWithoutItStarts) {
    leave_region_0_in_doubt();
    set_away(0, true);
    EXPECT_NE(start_again(), "");
    w.disk("spare").fill_now({{0}, {kSectors}}, 0x33);
    // The log calls leg 1 clean; the spare has nothing.
    auto refused = swap(*again, "disk 2 log 1024 2 leg1 0 spare 0 " + kFeatures);
    ASSERT_FALSE(refused);
    EXPECT_NE(refused.error().message.find("leg 1 (spare) is new"), std::string::npos) << refused.error().message;
    EXPECT_NE(refused.error().message.find("the word sync"), std::string::npos);
    auto first = swap(*again, "disk 3 log 1024 sync 2 spare 0 leg1 0 " + kFeatures);
    ASSERT_FALSE(first);
    EXPECT_NE(first.error().message.find("list it behind"), std::string::npos);
    auto swapped = swap(*again, "disk 3 log 1024 sync 2 leg1 0 spare 0 " + kFeatures);
    ASSERT_TRUE(swapped) << swapped.error().message;
    for (std::uint64_t region = 0; region < kRegions; ++region) {
        for (unsigned i = 0; i < 4; ++i) EXPECT_EQ(w.read(*again, region * kRegion + i * 8, 8), 0x10) << region;
    }
    ASSERT_TRUE(comes_in_sync(*again));
    Memory of_leg{kSectors}, of_spare{kSectors};
    leg(1).read_now({{0}, {kSectors}}, of_leg.at());
    w.disks.at("spare")->read_now({{0}, {kSectors}}, of_spare.at());
    EXPECT_TRUE(of_leg == of_spare);
}

TEST_F(MirrorAway, AMirrorThatDidNotStartMayLoseALegAndKeepTheOthers) {
    leave_clean(3);
    Memory block{8};
    log().read_now({{0}, {8}}, block.at());
    block.bytes[1024] &= 0xfe;
    log().write_now({{0}, {8}}, block.at());
    set_away(0, true);
    EXPECT_NE(start_again(3), "");
    ASSERT_TRUE(swap(*again, "disk 2 log 1024 2 leg1 0 leg2 0 " + kFeatures));
    leg(1).reset_counters();
    leg(2).reset_counters();
    ASSERT_TRUE(comes_in_sync(*again));
    EXPECT_EQ(leg(1).count(Op::write).sectors, 0u);
    EXPECT_EQ(leg(2).count(Op::write).sectors, kRegion);
}

TEST_F(MirrorAway, WhatIsInDoubtIsCopiedToTheOtherWhenThatIsThere) {
    leave_region_0_in_doubt();
    set_away(1, true);
    ASSERT_EQ(start_again(), "");
    EXPECT_EQ(w.read(*again, 0, 8), 0x21);
    w.reactor.run_for(20 * kSecond);
    EXPECT_EQ(state(*again), "15/16 1 AD");
    set_away(1, false);
    ASSERT_TRUE(comes_in_sync(*again));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorAway, OfThreeLegsTheOneOnRecordCountsAndTheOthersMayBeAway) {
    Device& m = make_in_sync(3, kFeatures);
    leg(0).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);    // leg 1 counts, and leg 2 has it as well
    remove(m);
    set_away(0, true);
    set_away(2, true);
    ASSERT_EQ(start_again(3), "");
    EXPECT_EQ(state(*again), "15/16 1 DAD");
    EXPECT_EQ(w.read(*again, 0, 8), 0x21);
    remove(*again);
    // That leg 2 has it is not on record: it does not count in leg 1's place.
    set_away(2, false);
    set_away(1, true);
    EXPECT_NE(start_again(3).find("leg 1 (leg1) is away"), std::string::npos);
    for (unsigned i = 0; i < 2; ++i) set_away(i, false);
    EXPECT_TRUE(w.resume(*again));
    ASSERT_TRUE(comes_in_sync(*again));
    EXPECT_EQ(on_leg(0, 0), 0x21);
    EXPECT_TRUE(legs_equal(0, 1) && legs_equal(0, 2));
}

TEST_F(MirrorAway, ItDoesNotStartWhereItCannotBeRecordedThatAnotherCounts) {
    leave_clean();
    set_away(0, true);
    log().add_fault(broken(op_bit(Op::write)));
    EXPECT_NE(start_again().find("it cannot be recorded that another counts"), std::string::npos);
    log().clear_faults();
    EXPECT_TRUE(w.resume(*again));
    EXPECT_EQ(w.write(*again, 0, 8, 0x21), IoStatus::ok);
    EXPECT_EQ(detail(*again, "source_leg"), 1u);
}

}  // namespace
}  // namespace udm::test
