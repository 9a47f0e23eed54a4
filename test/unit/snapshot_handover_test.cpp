// A store goes from one table to the next without being read again, and has one owner at every instant.
#include <algorithm>

#include "test/unit/snapshot_fixture.hpp"

namespace udm::test {
namespace {

class Handover : public SnapshotTest {
  public:
    static constexpr std::uint64_t kSize = 4096;
    Handover() {
        disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
        disk("cow", 16384);
        make("o", kSize, "snapshot-origin", "origin");
        make("s", kSize, "snapshot", "origin cow P 8");
    }
    Result<void> resume(const std::string& name) { return reactor.run(devices.at(name)->resume()); }
    Result<void> suspend(const std::string& name, SuspendFlags flags = {}) { return reactor.run(devices.at(name)->suspend(flags)); }
    std::uint64_t cow_reads() { return disks["cow"]->count(Op::read).requests; }
    std::string refusal(const Result<void>& result) { return result ? "nothing" : result.error().message; }
    std::string inactive_status(const std::string& name) { return devices.at(name)->inactive()->entries()[0].target->status(); }
    std::string inactive_table(const std::string& name) { return devices.at(name)->inactive()->entries()[0].target->table(); }
};

TEST_F(Handover, AReloadOfTheSameDeviceReadsNothingAndKeepsEverything) {
    EXPECT_EQ(write("s", 0, 12, 5), IoStatus::ok);
    EXPECT_EQ(write("o", 64, 8, 9), IoStatus::ok);
    const std::string before = status("s");
    const std::uint64_t reads = cow_reads();
    ASSERT_TRUE(load("s", kSize, "snapshot", "origin cow PO 0 1 discard_zeroes_cow"));
    EXPECT_EQ(inactive_status("s"), "0/16384 0");
    EXPECT_EQ(inactive_table("s"), "origin cow PO 0 1 discard_zeroes_cow");
    EXPECT_EQ(write("s", 128, 8, 6), IoStatus::ok);    // the table in use goes on meanwhile
    ASSERT_TRUE(resume("s"));
    EXPECT_EQ(cow_reads(), reads);
    EXPECT_EQ(table_of("s"), "origin cow PO 8 1 discard_zeroes_cow");
    EXPECT_NE(status("s"), before);
    EXPECT_EQ(read("s", 0, 12), all(12, 5));
    EXPECT_EQ(read("s", 64, 8), all(8, 1));
    EXPECT_EQ(read("s", 128, 8), all(8, 6));
    EXPECT_EQ(write("o", 256, 8, 9), IoStatus::ok);
    EXPECT_EQ(read("s", 256, 8), all(8, 1));
    EXPECT_EQ(run(Op::discard, "s", 0, 8), IoStatus::ok);
    EXPECT_EQ(read("s", 0, 8), all(8, 0));
}

TEST_F(Handover, ATransientStoreIsNotLost) {
    disk("volatile", 16384);
    make("t", kSize, "snapshot", "origin volatile N 8");
    EXPECT_EQ(write("t", 0, 8, 5), IoStatus::ok);
    ASSERT_TRUE(load("t", kSize, "snapshot", "origin volatile N 8"));
    ASSERT_TRUE(resume("t"));
    EXPECT_EQ(read("t", 0, 8), all(8, 5));
}

TEST_F(Handover, WhatIsOnlyInMemoryGoesAlongAlsoWithoutFlush) {
    EXPECT_EQ(write("s", 0, 8, 5), IoStatus::ok);
    ASSERT_TRUE(load("s", kSize, "snapshot", "origin cow P 8"));
    ASSERT_TRUE(suspend("s", {.noflush = true}));
    ASSERT_TRUE(resume("s"));
    EXPECT_EQ(read("s", 0, 8), all(8, 5));
    EXPECT_EQ(flush("s"), IoStatus::ok);
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(read("s", 0, 8), all(8, 5));
}

TEST_F(Handover, WaitsForCopiesUnderWayAndHoldsBackWritesThatWouldStartMore) {
    disks["cow"]->stall(op_bit(Op::write));
    Request copying{reactor, (*this)["o"], Op::write, {{0}, {8}}, 7};
    reactor.run_for(kMillisecond);
    ASSERT_TRUE(load("s", kSize, "snapshot", "origin cow P 8"));
    ASSERT_TRUE(suspend("s", {.noflush = true}));
    bool resumed = false;
    struct Resume {
        static Job<void> run(Device* device, bool* done) {
            auto resuming = device->resume();
            auto result = co_await resuming;
            EXPECT_TRUE(result);
            *done = true;
        }
    };
    reactor.jobs().spawn(Resume::run(&(*this)["s"], &resumed));
    reactor.run_for(kMillisecond);
    EXPECT_FALSE(resumed);
    Request held{reactor, (*this)["o"], Op::write, {{64}, {8}}, 7};
    disks["cow"]->clear_faults();
    disks["cow"]->release();
    ASSERT_TRUE(reactor.run_until([&] { return resumed && copying.done() && held.done(); }));
    EXPECT_EQ(copying.status(), IoStatus::ok);
    EXPECT_EQ(held.status(), IoStatus::ok);
    EXPECT_EQ(read("s", 0, 8), all(8, 1));
    EXPECT_EQ(read("s", 64, 8), all(8, 1));
}

TEST_F(Handover, ToAnotherDeviceNeedsTheSourceSuspendedAndLeavesItWithoutAStore) {
    EXPECT_EQ(write("s", 0, 8, 5), IoStatus::ok);
    add("d");
    ASSERT_TRUE(load("d", kSize, "snapshot", "origin cow P 8"));
    EXPECT_NE(refusal(resume("d")).find("Unable to perform snapshot handover until source is suspended."), std::string::npos);
    ASSERT_TRUE(suspend("s"));
    EXPECT_NE(refusal(resume("s")).find("Unable to resume snapshot source until handover completes."), std::string::npos);
    ASSERT_TRUE(resume("d"));
    EXPECT_EQ(read("d", 0, 8), all(8, 5));
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_EQ(table_of("s"), "origin cow P 0");
    ASSERT_TRUE(resume("s"));
    EXPECT_EQ(read("s", 0, 8), all(1, -1));
    EXPECT_EQ(write("o", 0, 8, 9), IoStatus::ok);
    remove("s");
    EXPECT_EQ(write("d", 64, 8, 6), IoStatus::ok);
    EXPECT_EQ(read("d", 0, 8), all(8, 5));
    EXPECT_EQ(status("d"), "32/16384 16");
}

TEST_F(Handover, IsRefusedToASecondHeirToAnotherOriginAndFromWhatWasNeverResumed) {
    disk("other", kSize);
    disk("fresh", 16384);
    const std::string pairing = "Snapshot cow pairing for exception table handover failed";
    EXPECT_NE(error_of(kSize, "snapshot", "other cow P 8").find(pairing), std::string::npos);
    ASSERT_TRUE(load("s", kSize, "snapshot", "origin cow P 8"));
    EXPECT_NE(error_of(kSize, "snapshot", "origin cow P 8").find(pairing), std::string::npos);
    EXPECT_NE(refusal(load("s", kSize, "snapshot", "origin cow P 8")).find(pairing), std::string::npos);    // Linux: the same
    devices.at("s")->clear_inactive();
    EXPECT_TRUE(load("s", kSize, "snapshot", "origin cow P 8"));
    add("f");
    ASSERT_TRUE(load("f", kSize, "snapshot", "origin fresh P 8"));
    EXPECT_NE(error_of(kSize, "snapshot", "origin fresh P 8").find(pairing), std::string::npos);
}

TEST_F(Handover, OfATableThatIsClearedLeavesTheSourceAsItWas) {
    ASSERT_TRUE(load("s", kSize, "snapshot", "origin cow P 8"));
    devices.at("s")->clear_inactive();
    EXPECT_EQ(write("s", 0, 8, 5), IoStatus::ok);
    ASSERT_TRUE(suspend("s"));
    ASSERT_TRUE(resume("s"));
    EXPECT_EQ(read("s", 0, 8), all(8, 5));
}

TEST_F(Handover, OfASourceThatIsRemovedFirstIsRefusedUntilTheTableIsLoadedAgain) {
    EXPECT_EQ(write("s", 0, 8, 5), IoStatus::ok);
    add("d");
    ASSERT_TRUE(load("d", kSize, "snapshot", "origin cow P 8"));
    remove("s");
    EXPECT_EQ(inactive_status("d"), "Invalid");
    EXPECT_NE(refusal(resume("d")).find("load the table again"), std::string::npos);
    ASSERT_TRUE(load("d", kSize, "snapshot", "origin cow P 8"));
    ASSERT_TRUE(resume("d"));
    EXPECT_EQ(read("d", 0, 8), all(8, 5));
}

TEST_F(Handover, OverflowAndInvalidComeWithTheStore) {
    disk("small", 40);
    make("p", kSize, "snapshot", "origin small PO 8");
    for (std::uint64_t at = 0; at < 64; at += 8) static_cast<void>(write("p", at, 8, 5));
    ASSERT_EQ(status("p"), "Overflow");
    ASSERT_TRUE(load("p", kSize, "snapshot", "origin small P 8"));
    ASSERT_TRUE(resume("p"));
    EXPECT_EQ(status("p"), "Overflow");
    EXPECT_EQ(write("o", 2048, 8, 9), IoStatus::ok);
    ASSERT_EQ(status("p"), "Invalid");
    ASSERT_TRUE(load("p", kSize, "snapshot", "origin small P 8"));
    ASSERT_TRUE(resume("p"));
    EXPECT_EQ(status("p"), "Invalid");
}

TEST_F(Handover, AStoreThatHasGrownIsSeenAtOnce) {
    disks["cow"]->resize({32768});
    ASSERT_TRUE(load("s", kSize, "snapshot", "origin cow P 8"));
    ASSERT_TRUE(resume("s"));
    EXPECT_EQ(status("s"), "16/32768 16");
}

}  // namespace
}  // namespace udm::test
