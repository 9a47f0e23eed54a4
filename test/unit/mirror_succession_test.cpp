// A mirror's table is replaced by one with other legs: what is known is handed over.
#include <fmt/format.h>

#include "test/unit/mirror_fixture.hpp"

namespace udm::test {
namespace {

class MirrorSuccession : public MirrorTest {
  public:
    static constexpr const char* kDisk = "disk 2 log 1024";
    static constexpr const char* kCore = "core 1 1024";

    static std::string with(const std::string& log, const std::vector<std::string>& legs, const std::string& features = "2 handle_errors keep_log") {
        std::string text = log + " " + std::to_string(legs.size());
        for (const std::string& one : legs) text += " " + one + " 0";
        return text + " " + features;
    }
    // Two or three legs in sync, at rest; what the others of four disks have is nothing to be read.
    Device& legs(const std::string& log_words, unsigned count) {
        if (w.disks.empty()) disks(4);
        std::vector<std::string> names;
        for (unsigned i = 0; i < 4; ++i) {
            leg(i).clear_faults();
            leg(i).fill_now({{0}, {kSectors}}, i < count ? 0x10 : 0x99);
            if (i < count) names.push_back("leg" + std::to_string(i));
        }
        Device& m = make(with(log_words, names), log_words);
        EXPECT_TRUE(comes_in_sync(m));
        w.reactor.run_for(20 * kSecond);
        forget_counts();
        return m;
    }
    Device& two_legs(const std::string& log_words) { return legs(log_words, 2); }
    void forget_counts() {
        for (unsigned i = 0; i < 4; ++i) leg(i).reset_counters();
    }
    std::uint64_t written(unsigned i) { return leg(i).count(Op::write).sectors; }
    std::string refused(Device& device, const std::string& words) {
        auto loaded = w.load(device, line(words));
        return loaded ? "" : loaded.error().message;
    }
    // The log's bits, as anybody reads them after a crash now.
    unsigned clean_on_disk() {
        Memory sectors{4};
        log().read_now({{0}, {4}}, sectors.at());
        unsigned clean = 0;
        for (unsigned r = 0; r < kRegions; ++r) clean += sectors.bytes[1024 + r / 8] >> r % 8 & 1;
        return clean;
    }

    // The log as a crash leaves it after leg 1 was put before leg 0, which alone has everything; read with either table.
    void crash_in_another_order(bool resumed) {
        Device& m = two_legs(kDisk);
        tell(m, {"set", "leg_retry", "0"});
        leg(1).add_fault(broken());
        EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);    // leg 1 lacks it, and there is no record: leg 0 is the first
        leg(1).clear_faults();
        ASSERT_TRUE(w.load(m, line(with(kDisk, {"leg1", "leg0"}))));
        ASSERT_TRUE(w.suspend(m));
        if (resumed) {
            for (Table::Entry& entry : m.inactive()->entries()) {
                const std::vector<std::string> pause{"resync_pause"};
                EXPECT_TRUE(w.reactor.run(entry.target->message(&pause)));
            }
            EXPECT_TRUE(w.resume(m));
        }
        Memory log_bytes{64};
        log().read_now({{0}, {64}}, log_bytes.at());
        for (const bool in_new_order : {false, true}) {
            const std::string name = fmt::format("log{}{}", resumed, in_new_order);
            w.disk(name, 64).write_now({{0}, {64}}, log_bytes.at());
            Device& after = make(in_new_order ? with("disk 2 " + name + " 1024", {"leg1", "leg0"}) : with("disk 2 " + name + " 1024", {"leg0", "leg1"}), "after" + name);
            EXPECT_EQ(w.read(after, 0, 8), 0x21);
            EXPECT_EQ(detail(after, "source_leg"), in_new_order ? 1u : 0u);
            EXPECT_EQ(on_leg(0, 0), 0x21);
            w.reactor.run(after.detach());
            std::erase(running, &after);
            leg(1).fill_now({{0}, {8}}, 0x10);    // as it was
        }
        ASSERT_TRUE(w.resume(m));
        tell(m, {"resync_resume"});
        ASSERT_TRUE(comes_in_sync(m));
        EXPECT_EQ(on_leg(0, 0), 0x21);
    }
};

TEST_F(MirrorSuccession, OnlyANewLegIsCopiedTo) {
    for (const char* log_words : {kDisk, kCore}) {
        Device& m = two_legs(log_words);
        ASSERT_TRUE(swap(m, with(log_words, {"leg0", "leg1", "leg2"})));
        EXPECT_EQ(state(m), "0/16 1 AAA");
        ASSERT_TRUE(comes_in_sync(m));
        EXPECT_EQ(written(0), 0u);
        EXPECT_EQ(written(1), 0u);
        EXPECT_EQ(written(2), kSectors);
        EXPECT_TRUE(legs_equal(0, 2));
        remove(m);
    }
}

TEST_F(MirrorSuccession, ReadsAreSpreadOverTheOldLegsWhileANewOneIsCopiedTo) {
    Device& m = two_legs(kDisk);
    ASSERT_TRUE(w.load(m, line(with(kDisk, {"leg0", "leg1", "leg2"}))));
    for (Table::Entry& entry : m.inactive()->entries()) {
        const std::vector<std::string> pause{"resync_pause"};
        EXPECT_TRUE(w.reactor.run(entry.target->message(&pause)));
    }
    ASSERT_TRUE(w.resume(m));
    forget_counts();
    std::vector<std::unique_ptr<SimRequest>> reads;
    Memory into{8};
    for (std::uint64_t i = 0; i < 512; ++i) reads.push_back(w.submit(m, Op::read, (i * 37 % 2048) * 8, 8, into.at()));
    EXPECT_TRUE(w.reactor.run_until([&] { return std::all_of(reads.begin(), reads.end(), [](auto& r) { return r->done(); }); }));
    EXPECT_GE(leg(0).count(Op::read).requests, 200u);
    EXPECT_GE(leg(1).count(Op::read).requests, 200u);
    EXPECT_EQ(leg(2).count(Op::read).requests, 0u);
    EXPECT_EQ(state(m), "0/16 1 AAA");
}

TEST_F(MirrorSuccession, TheLogCallsNothingCleanBeforeTheLoadOfANewLegReturns) {
    Device& m = two_legs(kDisk);
    EXPECT_EQ(clean_on_disk(), kRegions);
    ASSERT_TRUE(w.load(m, line(with(kDisk, {"leg0", "leg1", "leg2"}))));
    EXPECT_EQ(clean_on_disk(), 0u);
    EXPECT_EQ(state(m), "16/16 1 AA");    // which is so
    EXPECT_EQ(w.write(m, 0, 8, 0x33), IoStatus::ok);
    w.reactor.run_for(60 * kSecond);
    EXPECT_EQ(clean_on_disk(), 0u);
    EXPECT_TRUE(w.suspend(m));
    EXPECT_EQ(clean_on_disk(), 0u);
    EXPECT_TRUE(w.resume(m));
    ASSERT_TRUE(comes_in_sync(m));
    w.reactor.run_for(60 * kSecond);
    EXPECT_EQ(clean_on_disk(), kRegions);
    EXPECT_TRUE(legs_equal(0, 2));
}

TEST_F(MirrorSuccession, ALoadThatIsTakenBackCostsNoCopy) {
    Device& m = two_legs(kDisk);
    const std::string three = line(with(kDisk, {"leg0", "leg1", "leg2"}));
    ASSERT_TRUE(w.load(m, three));
    m.clear_inactive();
    w.reactor.run_for(60 * kSecond);
    EXPECT_EQ(clean_on_disk(), kRegions);
    ASSERT_TRUE(w.load(m, three));
    EXPECT_TRUE(w.suspend(m));
    m.clear_inactive();
    EXPECT_TRUE(w.resume(m));    // its log says that nothing is clean, and it knows better
    EXPECT_EQ(state(m), "16/16 1 AA");
    w.reactor.run_for(60 * kSecond);
    EXPECT_EQ(clean_on_disk(), kRegions);
    EXPECT_EQ(written(0) + written(1) + written(2), 0u);
}

TEST_F(MirrorSuccession, ANewLegIsRefusedWhenTheLogCannotBeWritten) {
    Device& m = two_legs(kDisk);
    log().add_fault(broken(op_bit(Op::write)));
    EXPECT_NE(refused(m, with(kDisk, {"leg0", "leg1", "leg2"})).find("leg 2 (leg2) cannot be a leg now"), std::string::npos);
    log().clear_faults();
    EXPECT_EQ(w.write(m, 0, 8, 0x33), IoStatus::ok);
    w.reactor.run_for(60 * kSecond);
    EXPECT_EQ(clean_on_disk(), kRegions);
    EXPECT_EQ(w.read(m, 0, 8), 0x33);
}

TEST_F(MirrorSuccession, ALegThatOnlyLackedARegionNoLongerCountsWhenItIsDropped) {
    for (const char* log_words : {kDisk, kCore}) {
        Device& m = legs(log_words, 3);
        tell(m, {"set", "leg_retry", "0"});
        leg(2).add_fault(broken());
        EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
        EXPECT_EQ(state(m), "15/16 1 AAD");
        forget_counts();
        ASSERT_TRUE(swap(m, with(log_words, {"leg0", "leg1"})));
        EXPECT_EQ(state(m), "16/16 1 AA");
        w.reactor.run_for(60 * kSecond);
        EXPECT_EQ(written(0) + written(1), 0u);
        EXPECT_TRUE(legs_equal());
        remove(m);
    }
}

TEST_F(MirrorSuccession, ADeadLegIsReplacedInOneStep) {
    for (const char* log_words : {kDisk, kCore}) {
        Device& m = two_legs(log_words);
        leg(1).add_fault(broken());
        EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
        forget_counts();
        ASSERT_TRUE(swap(m, with(log_words, {"leg0", "leg2"})));
        EXPECT_EQ(state(m), "0/16 1 AA");
        ASSERT_TRUE(comes_in_sync(m));
        EXPECT_EQ(written(0), 0u);
        EXPECT_TRUE(legs_equal(0, 2));
        EXPECT_EQ(w.read(m, 0, 8), 0x21);
        remove(m);
    }
}

TEST_F(MirrorSuccession, TheSourceMakesWayOnlyForALegThatHasEverythingAndThatIsOnRecord) {
    Device& m = two_legs(kDisk);
    ASSERT_TRUE(swap(m, with(kDisk, {"leg0", "leg1", "leg2"})));
    tell(m, {"resync_pause"});
    EXPECT_NE(refused(m, with(kDisk, {"leg2", "leg3"})).find("no leg that stays has all regions"), std::string::npos);
    const std::string without_source = with(kDisk, {"leg1", "leg2"});
    forget_counts();
    ASSERT_TRUE(w.load(m, line(without_source)));
    ASSERT_TRUE(w.suspend(m));
    // A crash now: whichever table comes, leg 1 has the data.
    Memory sectors{1};
    log().read_now({{0}, {1}}, sectors.at());
    EXPECT_EQ(sectors.bytes[4], 1);     // the version that says that the record counts
    EXPECT_EQ(sectors.bytes[25], 1);    // leg 1
    ASSERT_TRUE(w.resume(m));
    EXPECT_EQ(detail(m, "source_leg"), 0u);
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal(1, 2));
    EXPECT_EQ(on_leg(2, 5000), 0x10);
    EXPECT_EQ(written(0) + written(1), 0u);
}

TEST_F(MirrorSuccession, TheLastLegThatHasARegionMustStay) {
    Device& m = two_legs(kDisk);
    tell(m, {"set", "leg_retry", "0"});
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_NE(refused(m, with(kDisk, {"leg1", "leg2"})).find("no leg that stays has all regions: leg 0 (leg0) must stay"), std::string::npos);
    EXPECT_EQ(w.read(m, 0, 8), 0x21);
}

TEST_F(MirrorSuccession, AMirrorWhoseOnlyLegWithEverythingFailsBeforeTheChangeIsKeptFromIt) {
    Device& m = two_legs(kDisk);
    tell(m, {"set", "leg_retry", "0"});
    ASSERT_TRUE(w.load(m, line(with(kDisk, {"leg1", "leg2"}))));
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    auto resumed = w.resume(m);
    ASSERT_FALSE(resumed);
    EXPECT_NE(resumed.error().message.find("load one with leg 0 (leg0)"), std::string::npos);
    EXPECT_FALSE(w.resume(m));
    leg(1).clear_faults();
    ASSERT_TRUE(swap(m, with(kDisk, {"leg0", "leg1"})));
    EXPECT_EQ(w.read(m, 0, 8), 0x21);
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorSuccession, AfterATableThatWasKeptFromStartingANewLegIsNotTakenForInSync) {
    Device& m = legs(kDisk, 3);
    tell(m, {"set", "leg_retry", "0"});
    ASSERT_TRUE(w.load(m, line(with(kDisk, {"leg1", "leg2"}))));    // only drops
    for (unsigned i : {1, 2}) leg(i).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    EXPECT_FALSE(w.resume(m));
    for (unsigned i : {1, 2}) leg(i).clear_faults();
    EXPECT_NE(refused(m, with(kDisk, {"leg0", "leg1", "leg3"})).find("leg 2 (leg3) is new"), std::string::npos);
    ASSERT_TRUE(swap(m, with("disk 3 log 1024 sync", {"leg0", "leg1", "leg3"})));
    for (std::uint64_t at = 0; at < kSectors; at += 64) EXPECT_EQ(w.read(m, at, 8), at == 0 ? 0x21 : 0x10) << at;
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal(0, 1) && legs_equal(0, 3));
}

TEST_F(MirrorSuccession, InAnotherOrderTheSameLegCountsAfterACrashBeforeTheResume) { crash_in_another_order(false); }

TEST_F(MirrorSuccession, InAnotherOrderTheSameLegCountsAfterACrashBehindTheResume) { crash_in_another_order(true); }

TEST_F(MirrorSuccession, WithALogInMemoryALegThatLacksSomethingDoesNotComeFirst) {
    Device& m = two_legs(kCore);
    tell(m, {"set", "leg_retry", "0"});
    leg(1).add_fault(broken());
    EXPECT_EQ(w.write(m, 0, 8, 0x21), IoStatus::ok);
    leg(1).clear_faults();
    EXPECT_NE(refused(m, with(kCore, {"leg1", "leg0"})).find("leg 0 (leg1) does not have all regions"), std::string::npos);
}

TEST_F(MirrorSuccession, ANewLegIsNeverListedFirst) {
    Device& m = two_legs(kDisk);
    EXPECT_NE(refused(m, with(kDisk, {"leg2", "leg0", "leg1"})).find("list it behind"), std::string::npos);
    EXPECT_EQ(clean_on_disk(), kRegions);
}

TEST_F(MirrorSuccession, AfterACrashANewLegIsCopiedToFromTheSource) {
    Device& m = two_legs(kDisk);
    ASSERT_TRUE(swap(m, with(kDisk, {"leg0", "leg1", "leg2"})));
    tell(m, {"resync_pause"});
    w.reactor.run_for(kSecond);
    EXPECT_EQ(w.write(m, 8000, 8, 0x44), IoStatus::ok);
    // Another machine's view of the same disks, as after a crash.
    Memory log_bytes{64};
    log().read_now({{0}, {64}}, log_bytes.at());
    w.disk("log2", 64).write_now({{0}, {64}}, log_bytes.at());
    Device& after = make(with("disk 2 log2 1024", {"leg0", "leg1", "leg2"}), "after");
    EXPECT_NE(state(after).substr(0, 5), "16/16");
    for (std::uint64_t at = 0; at < kSectors; at += 64) EXPECT_EQ(w.read(after, at, 8), at == 8000 ? 0x44 : 0x10) << at;
    ASSERT_TRUE(comes_in_sync(after));
    EXPECT_TRUE(legs_equal(0, 2));
}

TEST_F(MirrorSuccession, AnotherRegionSizeOrLogHandsNothingOver) {
    Device& m = two_legs(kDisk);
    ASSERT_TRUE(swap(m, with("disk 2 log 2048", {"leg0", "leg1"})));
    EXPECT_EQ(state(m).substr(0, 4), "0/8 ");
    ASSERT_TRUE(swap(m, with(kCore, {"leg0", "leg1"})));
    EXPECT_EQ(state(m).substr(0, 5), "0/16 ");
}

TEST_F(MirrorSuccession, ATableLoadedForAnotherThanTheOneInUseIsRefused) {
    Device& m = two_legs(kDisk);
    // Loaded for leg0 and leg1; and held, while the device gets another.
    const std::string three = line(with(kDisk, {"leg0", "leg1", "leg2"}));
    ASSERT_TRUE(w.load(m, three));
    ASSERT_TRUE(w.load(m, line(with(kDisk, {"leg0", "leg1", "leg3"}))));    // takes its place
    ASSERT_TRUE(w.resume(m));
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal(0, 3));
    EXPECT_EQ(written(2), 0u);
}

}  // namespace
}  // namespace udm::test
