// Stores that fill up: events, and files that are made larger (src/targets/snapshot/fullness.hpp).
#include <algorithm>

#include "test/unit/snapshot_fixture.hpp"

namespace udm::test {
namespace {

class Full : public SnapshotTest {
  public:
    static constexpr std::uint64_t kSize = 4096;
    void SetUp() override {
        disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
        make("o", kSize, "snapshot-origin", "origin");
    }
    void snapshot(const std::string& kind, std::uint64_t cow_chunks) {
        disk("cow", cow_chunks * 8);
        make("s", kSize, "snapshot", "origin cow " + kind + " 8");
    }
    std::string set(const std::string& name, const std::string& value) {
        const std::vector<std::string> words{"set", name, value};
        auto answer = reactor.run((*this)["s"].message({0}, &words));
        return answer ? "" : answer.error().message;
    }
    void fill_to(std::uint64_t chunk) {
        for (; written < chunk; ++written) ASSERT_EQ(write("o", written * 8, 8, 7), IoStatus::ok);
    }
    void write_chunks(std::uint64_t from, std::uint64_t to, std::uint8_t fill) {
        for (std::uint64_t i = from; i < to; ++i) ASSERT_EQ(write("s", i * 8, 8, fill), IoStatus::ok) << i;
    }
    void make_again(const std::string& kind) {
        remove("s");
        make("s", kSize, "snapshot", "origin cow " + kind + " 8");
    }
    std::size_t events_with(std::string_view text) const {
        return static_cast<std::size_t>(std::count_if(events.words.begin(), events.words.end(),
                                                      [&](const std::string& w) { return w.find(text) != std::string::npos; }));
    }
    std::uint64_t written = 0;
};

TEST_F(Full, RaisesAnEventOnceForEachThresholdThatIsPassed) {
    snapshot("P", 100);
    ASSERT_EQ(set("thresholds", "95,50"), "");
    fill_to(40);
    EXPECT_TRUE(events.words.empty());
    fill_to(90);
    EXPECT_EQ(events_with("s: snapshot full 50%: 50% of the COW device is used"), 1u);
    fill_to(97);
    EXPECT_EQ(events_with("snapshot full 95%"), 1u);
    EXPECT_EQ(events.words.size(), 2u);
    // Made larger, it is at 50 % once more.
    disks["cow"]->resize({300 * 8});
    fill_to(200);
    EXPECT_EQ(events_with("snapshot full 50%"), 2u);
    EXPECT_EQ(status("s").substr(0, 9), "1616/2400");
    EXPECT_EQ(events.words.size(), 3u);
}

TEST_F(Full, AStoreThatWasCutOffIsLostAndOneThatOnlyLostRoomIsNot) {
    snapshot("P", 200);
    fill_to(40);    // and a header and an area
    const auto cut_off_at = [&](std::uint64_t chunks) {
        disks["cow"]->resize({chunks * 8});
        (*this)["s"].live()->entries()[0].target->look_at_devices();
        reactor.run_until_idle();
    };
    cut_off_at(60);
    EXPECT_EQ(status("s"), "336/480 16");
    EXPECT_EQ(read("s", 0, 320), all(320, 1));
    cut_off_at(200);
    EXPECT_TRUE(events.words.empty());
    cut_off_at(42);    // just behind what is kept; but a file ends there, too, when it was cut off further down and written again
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_EQ(events_with("s: snapshot invalid: cow was cut off from outside: it has 172032 bytes, and had 819200"), 1u);
    EXPECT_EQ((*this)["s"].live()->entries()[0].target->trouble(), "cow was cut off from outside: it has 172032 bytes, and had 819200");
    cut_off_at(10);
    EXPECT_EQ(events.words.size(), 1u);
    EXPECT_EQ(write("o", 400 * 8, 8, 7), IoStatus::ok);    // the origin goes on
}

TEST_F(Full, ASettingIsCheckedWithoutBeingSet) {
    snapshot("P", 10);
    const auto check = [&](const std::string& name, const std::string& value) {
        const std::vector<std::string> words{"check", name, value};
        auto answer = reactor.run((*this)["s"].message({0}, &words));
        return answer ? "" : answer.error().message;
    };
    EXPECT_EQ(check("auto_extend", "64K"), "");
    EXPECT_NE(check("auto_extend", "much").find("'much'"), std::string::npos);
    EXPECT_NE(check("nonsense", "1"), "");
    fill_to(64);
    EXPECT_EQ(status("s"), "Invalid");    // nothing was set
}

TEST_F(Full, HasThresholdsUnlessToldOtherwise) {
    snapshot("P", 100);
    fill_to(97);
    EXPECT_EQ(events_with("snapshot full 80%"), 1u);
    EXPECT_EQ(events_with("snapshot full 95%"), 1u);
    remove("s");
    opener.remove("cow");
    events.words.clear();
    snapshot("P", 100);
    ASSERT_EQ(set("thresholds", "none"), "");
    for (std::uint64_t i = 200; i < 290; ++i) EXPECT_EQ(write("o", i * 8, 8, 7), IoStatus::ok);
    EXPECT_TRUE(events.words.empty());
    ASSERT_EQ(set("thresholds", "default"), "");    // what is passed already raises nothing
    EXPECT_EQ(write("o", 300 * 8, 8, 7), IoStatus::ok);
    EXPECT_TRUE(events.words.empty());
    for (std::uint64_t i = 301; i < 306; ++i) EXPECT_EQ(write("o", i * 8, 8, 7), IoStatus::ok);
    EXPECT_EQ(events_with("snapshot full 95%"), 1u);
}

TEST_F(Full, AFileGrowsByStepsUpToWhatIsOfUse) {
    snapshot("P", 10);
    ASSERT_EQ(set("auto_extend", "50%"), "");
    // More at once than there is room for, again and again: the writes wait.
    for (std::uint64_t i = 0; i < kSize; i += 256) {
        start(Op::write, "o", i, 256, 7);
    }
    reactor.run_until_idle();
    for (const auto& request : requests) EXPECT_EQ(request->status(), IoStatus::ok);
    EXPECT_NE(status("s"), "Invalid");
    EXPECT_EQ(read("s", 0, kSize), all(kSize, 1));
    // The whole origin, 512 chunks: header, three areas.
    EXPECT_EQ(disks["cow"]->limits().size.v, (1 + 512 + 3) * 8u);
    EXPECT_GE(events_with("snapshot extended: the COW device has"), 8u);
    EXPECT_EQ(events_with("invalid"), 0u);
    make_again("P");
    EXPECT_EQ(read("s", 0, kSize), all(kSize, 1));
}

TEST_F(Full, AWriteToTheSnapshotWaitsForRoomAsWell) {
    for (const char* kind : {"PO", "N"}) {
        snapshot(kind, 4);
        ASSERT_EQ(set("auto_extend", "1,1G"), "");    // by a chunk at least
        ASSERT_EQ(set("auto_extend_at", "100"), "");
        for (std::uint64_t i = 0; i < 64; ++i) EXPECT_EQ(write("s", i * 8, i % 2 ? 8 : 3, 9), IoStatus::ok) << kind << i;
        EXPECT_EQ(read("s", 8, 8), all(8, 9));
        remove("s");
        opener.remove("cow");
    }
}

TEST_F(Full, GrowthEndsAtItsBound) {
    snapshot("PO", 10);
    ASSERT_EQ(set("auto_extend", "8K,65537"), "");    // 16 chunks, and a byte
    for (std::uint64_t i = 0; i < 14; ++i) EXPECT_EQ(write("s", i * 8, 8, 9), IoStatus::ok) << i;
    EXPECT_EQ(disks["cow"]->limits().size.v, 128u);
    EXPECT_EQ(write("s", 14 * 8, 8, 9), IoStatus::no_space);
    EXPECT_EQ(status("s"), "Overflow");
}

// --- overflow -------------------------------------------------------------------------------------------------------

TEST_F(Full, AnOverflowEndsWhenTheDeviceHasGrown) {
    snapshot("PO", 10);    // 8 chunks of data
    write_chunks(0, 8, 9);
    for (int i = 0; i < 3; ++i) EXPECT_EQ(write("s", 800, 8, 5), IoStatus::no_space);
    EXPECT_EQ(status("s"), "Overflow");
    EXPECT_EQ(events_with("s: snapshot overflow: the COW device is full; all that was written is kept"), 1u);
    EXPECT_EQ(write("s", 0, 64, 7), IoStatus::ok) << "chunks that it has";
    disks["cow"]->resize({12 * 8});
    EXPECT_EQ(status("s"), "Overflow") << "until a write finds out";
    EXPECT_EQ(write("s", 800, 8, 5), IoStatus::ok);
    EXPECT_EQ(status("s"), "88/96 16");
    EXPECT_EQ(events_with("s: snapshot overflow ended"), 1u);
    EXPECT_EQ(write("s", 900, 1, 5), IoStatus::ok);
    EXPECT_EQ(write("s", 1000, 1, 5), IoStatus::no_space);
    EXPECT_EQ(events_with("s: snapshot overflow:"), 2u);
    EXPECT_EQ(events_with("invalid"), 0u);
    make_again("PO");
    EXPECT_EQ(read("s", 0, 64), all(64, 7));
    EXPECT_EQ(read("s", 800, 8), all(8, 5));
    EXPECT_EQ(read("s", 1000, 1), all(1, 1));
}

TEST_F(Full, AnOverflowEndsWhenItMayExtend) {
    snapshot("PO", 10);
    write_chunks(0, 8, 9);
    EXPECT_EQ(write("s", 800, 8, 5), IoStatus::no_space);
    ASSERT_EQ(set("auto_extend", "64K"), "");
    EXPECT_EQ(write("s", 800, 8, 5), IoStatus::ok);
    EXPECT_NE(status("s"), "Overflow");
}

TEST_F(Full, NoRoomBelowTheDeviceIsAnOverflowAndLosesNothing) {
    snapshot("PO", 1000);
    write_chunks(0, 20, 9);
    ASSERT_EQ(flush("s"), IoStatus::ok);
    disks["cow"]->fail_always(op_bit(Op::write), IoStatus::no_space);
    // Many at once: all of their chunks are given back.
    for (std::uint64_t i = 30; i < 60; ++i) {
        start(Op::write, "s", i * 8 + i % 2, 8 - i % 2, 7);
    }
    reactor.run_until_idle();
    for (const auto& request : requests) EXPECT_EQ(request->status(), IoStatus::no_space);
    EXPECT_EQ(status("s"), "Overflow");
    EXPECT_EQ(events_with("s: snapshot overflow: what is below the COW device is full"), 1u);
    const std::uint64_t tried = disks["cow"]->count(Op::write).requests;
    for (int i = 0; i < 50; ++i) EXPECT_EQ(write("s", 800, 8, 7), IoStatus::no_space);
    EXPECT_EQ(disks["cow"]->count(Op::write).requests, tried) << "not without end";
    EXPECT_EQ(read("s", 0, 160), all(160, 9));
    EXPECT_EQ(read("s", 240, 240), all(240, 1));
    disks["cow"]->clear_faults();
    reactor.run_for(2 * kSecond);
    EXPECT_EQ(write("s", 800, 8, 7), IoStatus::ok);
    EXPECT_EQ(events_with("s: snapshot overflow ended"), 1u);
    EXPECT_NE(status("s"), "Overflow");
    write_chunks(101, 200, 7);
    ASSERT_EQ(flush("s"), IoStatus::ok);
    EXPECT_EQ(events_with("invalid"), 0u);
    make_again("PO");
    EXPECT_EQ(read("s", 0, 160), all(160, 9));
    EXPECT_EQ(read("s", 160, 640), all(640, 1));
    EXPECT_EQ(read("s", 800, 800), all(800, 7));
}

TEST_F(Full, AListThatFindsNoRoomBelowIsWrittenByALaterFlush) {
    for (const unsigned ops : {op_bit(Op::write), op_bit(Op::flush), op_bit(Op::write) | op_bit(Op::write_zeroes)}) {
        SimDisk::Options cached;
        disk("cow", 1200 * 8, cached);
        make("s", kSize, "snapshot", "origin cow PO 8");
        write_chunks(0, 200, 9);
        ASSERT_EQ(flush("s"), IoStatus::ok);
        write_chunks(200, 500, 7);    // into the second area
        disks["cow"]->fail_always(ops, IoStatus::no_space);
        for (int i = 0; i < 3; ++i) EXPECT_EQ(flush("s"), IoStatus::no_space);
        EXPECT_EQ(status("s"), "Overflow");
        EXPECT_EQ(read("s", 0, 1600), all(1600, 9));
        EXPECT_EQ(read("s", 1600, 2400), all(2400, 7));
        disks["cow"]->clear_faults();
        ASSERT_EQ(flush("s"), IoStatus::ok);
        EXPECT_EQ(events_with("invalid"), 0u);
        make_again("PO");
        EXPECT_EQ(read("s", 0, 1600), all(1600, 9));
        EXPECT_EQ(read("s", 1600, 2400), all(2400, 7));
        remove("s");
        opener.remove("cow");
        events.words.clear();
    }
}

TEST_F(Full, WhatTheOriginWaitsForCannotBePutOff) {
    snapshot("PO", 100);
    ASSERT_EQ(write("s", 0, 8, 9), IoStatus::ok);
    disks["cow"]->fail_always(op_bit(Op::write), IoStatus::no_space);
    EXPECT_EQ(write("o", 80, 8, 7), IoStatus::ok);
    EXPECT_EQ(status("s"), "Invalid");
}

TEST_F(Full, OnlyWhatTheOriginHasOutrunIsGivenBack) {
    snapshot("P", 20);
    write_chunks(0, 18, 9);
    ASSERT_EQ(write("s", 800, 8, 9), IoStatus::io_error);
    ASSERT_EQ(status("s"), "Invalid");
    remove("s");
    EXPECT_EQ(disks["cow"]->count(Op::discard).requests, 0u) << "somebody's only copy";
}

TEST_F(Full, AFileThatCannotGrowIsFullAndSaysWhy) {
    snapshot("P", 10);
    opener.limit_growth("cow", {96});
    ASSERT_EQ(set("auto_extend", "8K"), "");
    fill_to(10);
    EXPECT_EQ(disks["cow"]->limits().size.v, 96u);
    EXPECT_EQ(events_with("s: snapshot cannot be extended: the disk is full"), 1u);
    EXPECT_EQ(write("o", 10 * 8, 8, 7), IoStatus::ok);
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_EQ(events_with("snapshot cannot be extended"), 1u);    // not tried without end
}

TEST_F(Full, WhatIsNoFileIsNotExtended) {
    disk("below", 64 * 8);
    make("cow-device", 64 * 8, "snapshot-origin", "below");
    make("s", kSize, "snapshot", "origin udm:cow-device P 8");
    EXPECT_EQ(set("auto_extend", "8K"), "udm:cow-device cannot be extended: it is no disk");
    EXPECT_EQ(set("auto_extend", "none"), "");
    remove("s");
}

TEST_F(Full, ADeviceThatHasLostWhatIsUsedOfItIsNotExtended) {
    snapshot("PO", 100);
    fill_to(40);
    disks["cow"]->resize({30 * 8});
    EXPECT_EQ(set("auto_extend", "64K"), "");    // it looks at the size
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_EQ(events_with("cow was cut off from outside: it has 122880 bytes"), 1u);
    fill_to(60);
    EXPECT_EQ(disks["cow"]->size_to_come(), Sectors{30 * 8}) << "what was lost would be zeroes";
}

TEST_F(Full, ADeviceThatHasLostNothingOfUseIsSmallerAndThatIsAll) {
    snapshot("P", 100);
    fill_to(40);
    disks["cow"]->resize({43 * 8});
    EXPECT_EQ(set("auto_extend", "80K"), "");
    reactor.run_until_idle();
    EXPECT_EQ(disks["cow"]->size_to_come(), Sectors{63 * 8});
    fill_to(45);
    EXPECT_EQ(status("s").substr(0, 7), "376/504");
    EXPECT_EQ(read("s", 0, 360), all(360, 1));
}

TEST_F(Full, TheStoreOfALostSnapshotGivesBackAllButItsMark) {
    snapshot("P", 20);
    fill_to(30);
    ASSERT_EQ(status("s"), "Invalid");
    EXPECT_EQ(disks["cow"]->count(Op::discard).requests, 0u) << "clients may still be reading";
    ASSERT_TRUE(reactor.run((*this)["s"].suspend({})));
    EXPECT_EQ(disks["cow"]->count(Op::discard).requests, 1u);
    ASSERT_TRUE(reactor.run((*this)["s"].resume()));
    remove("s");
    EXPECT_EQ(disks["cow"]->count(Op::discard).requests, 1u);
    std::vector<std::byte> left(to_bytes(Sectors{20 * 8 - 8}));
    disks["cow"]->read_now({{8}, {20 * 8 - 8}}, left.data());
    EXPECT_EQ(std::count(left.begin(), left.end(), std::byte{0}), static_cast<std::ptrdiff_t>(left.size()));
    make("again", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(status("again"), "Invalid");
}

TEST_F(Full, ASettingThatMakesNoSenseIsRefusedWithWhatWould) {
    snapshot("P", 100);
    for (const char* bad : {"0", "101", "x", "50,,60", "50;60"}) {
        const std::string why = set("thresholds", bad);
        EXPECT_NE(why.find("percentages from 1 to 100"), std::string::npos) << bad << ": " << why;
    }
    for (const char* bad : {"0", "", "x", "1G,", "1G,x", "%", "0%", "5000%"}) {
        EXPECT_NE(set("auto_extend", bad).find("STEP or STEP,MAX"), std::string::npos) << bad;
    }
    EXPECT_NE(set("auto_extend_at", "0").find("percentage from 1 to 100"), std::string::npos);
    EXPECT_NE(set("colour", "blue").find("a snapshot takes set thresholds, set auto_extend and set auto_extend_at"), std::string::npos);
}

}  // namespace
}  // namespace udm::test
