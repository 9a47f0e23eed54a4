// A mirror's check and repair: what they find, whom they believe, what they write, and that they get out of everybody's way.
#include "test/unit/mirror_fixture.hpp"

#include "base/crc32c.hpp"
#include "targets/mirror/scrub_report.hpp"

namespace udm::test {
namespace {

using mirror::leg_bit;
using mirror::Place;
using mirror::ScrubReport;

class MirrorScrub : public MirrorTest {
  public:
    void corrupt(unsigned of_leg, std::uint64_t first, std::uint64_t length, std::uint8_t byte) { leg(of_leg).fill_now({{first}, {length}}, byte); }
    std::string ask(Device& device) {
        auto reply = w.message(device, 0, {"scrub_status"});
        EXPECT_TRUE(reply.has_value());
        return reply ? *reply : "";
    }
    static std::string word(const std::string& text, const std::string& key) {
        const auto at = text.find(key + "=");
        if (at == text.npos) return {};
        const auto begin = at + key.size() + 1;
        return text.substr(begin, text.find_first_of(" \n", begin) - begin);
    }
    // The places, one string each.
    std::vector<std::string> places(Device& device) {
        std::istringstream in{ask(device)};
        std::vector<std::string> lines;
        for (std::string line; std::getline(in, line);) lines.push_back(line);
        lines.erase(lines.begin());
        return lines;
    }
    static bool under_way(Device& device) {
        for (const TargetDetail& one : target(device).details()) {
            if (one.name == "scrub_left_bytes") return true;
        }
        return false;
    }
    bool ends(Device& device, Nanoseconds time = 300 * kSecond) {
        return w.reactor.run_until([&] { return !under_way(device); }, time);
    }
    bool run(Device& device, const std::string& mode) { return tell(device, {"scrub_start", mode}) && ends(device); }
    static std::string sum(std::uint8_t byte, std::uint64_t sectors) {
        const std::string bytes(sectors * kSectorSize, static_cast<char>(byte));
        char text[16];
        std::snprintf(text, sizeof text, "%08x", crc32c(bytes));
        return text;
    }
};

TEST_F(MirrorScrub, FindsLegsEqualAndSaysSo) {
    Device& m = make_in_sync();
    EXPECT_EQ(ask(m), "state=none");
    ASSERT_TRUE(run(m, "check"));
    const std::string text = ask(m);
    EXPECT_EQ(word(text, "state"), "done");
    EXPECT_EQ(word(text, "compared"), "16384");
    EXPECT_EQ(word(text, "differing"), "0");
    EXPECT_EQ(word(text, "left"), "0");
    EXPECT_TRUE(places(m).empty());
    EXPECT_TRUE(event("check is done: the legs are equal"));
    EXPECT_EQ(leg(0).count(Op::write).requests + leg(1).count(Op::write).requests, 0u);
}

TEST_F(MirrorScrub, TellsEachPlaceWithWhatEachLegHoldsAndChangesNothing) {
    Device& m = make_in_sync();
    corrupt(1, 7, 3, 0x66);
    corrupt(1, 1022, 4, 0);    // over the end of a region, and of a piece
    corrupt(0, 16383, 1, 0x77);
    ASSERT_TRUE(run(m, "check"));
    EXPECT_EQ(places(m), (std::vector<std::string>{"7+3 believed=0 why=source wrong=1 zeroes=- sums=" + sum(0x10, 3) + "," + sum(0x66, 3) + " repaired=no",
                                                   "1022+4 believed=0 why=source wrong=1 zeroes=1 sums=" + sum(0x10, 4) + "," + sum(0, 4) + " repaired=no",
                                                   "16383+1 believed=0 why=source wrong=1 zeroes=- sums=" + sum(0x77, 1) + "," + sum(0x10, 1) + " repaired=no"}));
    EXPECT_EQ(word(ask(m), "differing"), "8");
    EXPECT_EQ(detail(m, "scrub_differing_bytes"), 8u * kSectorSize);
    EXPECT_TRUE(event("legs differ from sector 7 on: leg 0 (leg0) is believed, since it is the source; otherwise there: leg 1 (leg1)"));
    EXPECT_EQ(count_events("legs differ"), 1u);
    EXPECT_TRUE(event("check is done: 8 sectors differed"));
    EXPECT_EQ(on_leg(1, 7), 0x66);
    EXPECT_FALSE(legs_equal());
}

TEST_F(MirrorScrub, RepairMakesTheOthersWhatTheSourceIs) {
    Device& m = make_in_sync();
    corrupt(1, 7, 3, 0x66);
    corrupt(0, 3000, 2000, 0x67);    // nobody can know that it was the source that changed
    ASSERT_TRUE(run(m, "repair"));
    EXPECT_TRUE(legs_equal());
    EXPECT_EQ(on_leg(1, 7), 0x10);
    EXPECT_EQ(on_leg(1, 4999), 0x67);
    EXPECT_EQ(word(ask(m), "repaired"), "2003");
    EXPECT_EQ(word(ask(m), "unrepaired"), "0");
    EXPECT_TRUE(event("repair is done: 2003 sectors differed, 2003 are repaired"));
    ASSERT_TRUE(run(m, "check"));
    EXPECT_EQ(word(ask(m), "differing"), "0");
}

TEST_F(MirrorScrub, BelievesMostOfThreeLegsAlsoAgainstTheSource) {
    Device& m = make_in_sync(3);
    corrupt(0, 5, 1, 0x66);
    corrupt(1, 9, 1, 0x67);
    corrupt(0, 20, 1, 0x68);    // all three differ
    corrupt(1, 20, 1, 0x69);
    ASSERT_TRUE(run(m, "check"));
    const auto found = places(m);
    ASSERT_EQ(found.size(), 3u);
    EXPECT_NE(found[0].find("5+1 believed=1 why=majority wrong=0 "), std::string::npos) << found[0];
    EXPECT_NE(found[1].find("9+1 believed=0 why=majority wrong=1 "), std::string::npos) << found[1];
    EXPECT_NE(found[2].find("20+1 believed=0 why=source wrong=1,2 "), std::string::npos) << found[2];
    log().reset_counters();
    ASSERT_TRUE(run(m, "repair"));
    EXPECT_EQ(on_leg(0, 5), 0x10);
    EXPECT_EQ(on_leg(1, 9), 0x10);
    for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(on_leg(i, 20), 0x68);
}

// A crash would copy from the source: where that is what is wrong, the log is not to say so.
TEST_F(MirrorScrub, RepairMarksItsRegionsButWhereTheSourceIsWrong) {
    Device& m = make_in_sync(3);
    corrupt(1, 5, 1, 0x66);
    for (unsigned i = 0; i < 3; ++i) leg(i).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::write), .times = 1});
    log().reset_counters();
    tell(m, {"scrub_start", "repair"});
    ASSERT_TRUE(w.reactor.run_until([&] { return leg(1).stalled() == 1; }, 10 * kSecond));
    EXPECT_EQ(log().count(Op::write).requests, 1u);
    EXPECT_EQ(log().count(Op::flush).requests, 1u);
    leg(1).release();
    ASSERT_TRUE(ends(m));
    w.reactor.run_for(20 * kSecond);    // clean again
    corrupt(0, 2000, 1, 0x66);
    log().reset_counters();
    tell(m, {"scrub_start", "repair"});
    ASSERT_TRUE(w.reactor.run_until([&] { return leg(0).stalled() == 1; }, 10 * kSecond));
    EXPECT_EQ(log().count(Op::write).requests, 0u);
    leg(0).release();
    leg(0).reset_counters();
    ASSERT_TRUE(ends(m));
    EXPECT_GE(leg(0).count(Op::flush).requests, 1u);
    EXPECT_EQ(on_leg(0, 2000), 0x10);
}

TEST_F(MirrorScrub, AWriteUnderWayIsNoDifferenceAndWaitsForNothing) {
    Device& m = make_in_sync();
    Memory data{8, 0x21};
    leg(1).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::write), .times = 1});
    auto write = w.submit(m, Op::write, 64, 8, data.at());
    ASSERT_TRUE(w.reactor.run_until([&] { return on_leg(0, 64) == 0x21; }, 10 * kSecond));    // and not on leg 1
    tell(m, {"scrub_start", "check"});
    w.reactor.run_for(10 * kSecond);
    EXPECT_TRUE(under_way(m));    // it waits for the write
    EXPECT_EQ(word(ask(m), "differing"), "0");
    Memory other{8, 0x22};
    auto beside = w.submit(m, Op::write, 128, 8, other.at());
    EXPECT_TRUE(w.reactor.run_until([&] { return beside->done(); }, kSecond));
    leg(1).release();
    ASSERT_TRUE(ends(m));
    EXPECT_EQ(word(ask(m), "differing"), "0");
    EXPECT_EQ(write->status(), IoStatus::ok);
}

TEST_F(MirrorScrub, AWriteThatComesBeforeTheRepairIsKept) {
    Device& m = make_in_sync();
    corrupt(1, 64, 8, 0x66);
    log().add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::flush), .times = 1});
    tell(m, {"scrub_start", "repair"});
    ASSERT_TRUE(w.reactor.run_until([&] { return log().stalled() == 1; }, 10 * kSecond));    // found, and being marked
    Memory data{8, 0x23};
    auto write = w.submit(m, Op::write, 64, 8, data.at());
    log().release();
    ASSERT_TRUE(ends(m));
    ASSERT_TRUE(w.reactor.run_until([&] { return write->done(); }, kSecond));
    EXPECT_EQ(on_leg(0, 64), 0x23);
    EXPECT_EQ(on_leg(1, 64), 0x23);
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorScrub, LooksAgainAtTheEndAtWhatWasOutOfSync) {
    disks();
    leg(1).fill_now({{0}, {kSectors}}, 0x10);    // as leg 0
    Device& m = make(params());
    tell(m, {"resync_pause"});
    corrupt(1, 16000, 4, 0x66);
    ASSERT_TRUE(run(m, "check"));
    EXPECT_EQ(word(ask(m), "compared"), "0");
    EXPECT_EQ(word(ask(m), "left"), "16384");
    EXPECT_TRUE(event("check is done: the legs are equal; 16384 sectors were not compared"));
    tell(m, {"set", "scrub_rate", "1M"});    // slower than the copying
    tell(m, {"resync_resume"});
    tell(m, {"scrub_start", "check"});
    ASSERT_TRUE(comes_in_sync(m));
    ASSERT_TRUE(ends(m));
    EXPECT_EQ(word(ask(m), "compared"), "16384");
    EXPECT_EQ(word(ask(m), "left"), "0");
    EXPECT_EQ(word(ask(m), "differing"), "0");
}

TEST_F(MirrorScrub, WhatALegCannotReadIsWrittenAnewFromAnother) {
    Device& m = make_in_sync();
    leg(1).fail_range({{100}, {2}}, op_bit(Op::read));
    leg(1).add_fault({.ops = 0});
    tell(m, {"scrub_start", "check"});
    ASSERT_TRUE(w.reactor.run_until([&] { return leg(1).count(Op::write).requests != 0; }, 10 * kSecond));
    leg(1).clear_faults();    // as a disk does that gives a bad place another sector
    ASSERT_TRUE(ends(m));
    EXPECT_EQ(word(ask(m), "mended"), "8");
    EXPECT_EQ(word(ask(m), "differing"), "0");
    EXPECT_EQ(state(m), "16/16 1 AA");
    EXPECT_EQ(leg(1).count(Op::write).sectors, 8u);
}

TEST_F(MirrorScrub, ALegThatFailsTheRepairIsAwayAndGetsTheRegionLater) {
    Device& m = make_in_sync(2, "2 handle_errors keep_log");
    corrupt(1, 64, 8, 0x66);
    leg(1).add_fault(broken(op_bit(Op::write)));
    ASSERT_TRUE(run(m, "repair"));
    EXPECT_EQ(word(ask(m), "unrepaired"), "8");
    EXPECT_EQ(word(ask(m), "repaired"), "0");
    EXPECT_EQ(state(m).substr(0, 5), "15/16");
    leg(1).clear_faults();
    ASSERT_TRUE(comes_in_sync(m));
    EXPECT_TRUE(legs_equal());
}

TEST_F(MirrorScrub, PausesGoesOnAndStops) {
    Device& m = make_in_sync();
    corrupt(1, 16000, 1, 0x66);
    tell(m, {"set", "scrub_rate", "512K"});    // 8 MiB: 16 s
    tell(m, {"scrub_start", "check"});
    EXPECT_FALSE(w.message(m, 0, {"scrub_start", "repair"}));
    w.reactor.run_for(4 * kSecond);
    const std::uint64_t left = detail(m, "scrub_left_bytes");
    EXPECT_LT(left, 7u << 20);
    EXPECT_GT(left, 5u << 20);
    EXPECT_GT(detail(m, "scrub_bytes_per_second"), 0u);
    tell(m, {"scrub_pause"});
    w.reactor.run_for(60 * kSecond);
    EXPECT_GE(detail(m, "scrub_left_bytes") + (1u << 20), left);
    EXPECT_EQ(detail(m, "scrub_paused"), 1u);
    tell(m, {"scrub_resume"});
    tell(m, {"set", "scrub_rate", "default"});
    ASSERT_TRUE(ends(m, 3 * kSecond));
    EXPECT_EQ(word(ask(m), "differing"), "1");
    tell(m, {"set", "scrub_rate", "64K"});
    tell(m, {"scrub_start", "check", "8192"});
    w.reactor.run_for(kSecond);
    tell(m, {"scrub_stop"});
    EXPECT_EQ(word(ask(m), "state"), "stopped");
    EXPECT_EQ(word(ask(m), "from"), "8192");
    for (const char* what : {"scrub_stop", "scrub_pause", "scrub_resume"}) EXPECT_FALSE(w.message(m, 0, {what}));
}

TEST_F(MirrorScrub, RefusesWhatMakesNoSense) {
    Device& m = make_in_sync();
    for (const std::vector<std::string>& words : std::vector<std::vector<std::string>>{{"scrub_start"}, {"scrub_start", "what"}, {"scrub_start", "check", "x"},
                                                                                      {"scrub_start", "check", "16384"}, {"scrub_what"}, {"scrub_restore", "what"},
                                                                                      {"set", "scrub_share", "0"}, {"set", "scrub_rate", "much"}}) {
        EXPECT_FALSE(w.message(m, 0, words)) << words.back();
    }
    remove(m);
    Device& protected_one = w.start("r", line(params("disk 3 log 1024 nosync")), TableMode::read_only);
    running.push_back(&protected_one);
    EXPECT_FALSE(w.message(protected_one, 0, {"scrub_start", "repair"}));
    EXPECT_TRUE(run(protected_one, "check"));
}

TEST_F(MirrorScrub, GoesOnWhereItWasAfterASuspendAndInAnotherTable) {
    Device& m = make_in_sync();
    corrupt(1, 100, 4, 0x66);
    corrupt(1, 16000, 4, 0x66);
    tell(m, {"set", "scrub_rate", "512K"});
    tell(m, {"scrub_start", "check"});
    w.reactor.run_for(4 * kSecond);
    EXPECT_TRUE(w.suspend(m));
    const std::uint64_t left = detail(m, "scrub_left_bytes");
    w.reactor.run_for(60 * kSecond);
    EXPECT_EQ(detail(m, "scrub_left_bytes"), left);
    EXPECT_TRUE(w.resume(m));
    w.reactor.run_for(2 * kSecond);
    EXPECT_LT(detail(m, "scrub_left_bytes"), left);

    const std::string kept = ask(m);
    leg(1).reset_counters();
    ASSERT_TRUE(w.load(m, line(params("disk 2 log 1024"))));
    const std::vector<std::string> words{"scrub_restore", kept};
    ASSERT_TRUE(w.reactor.run(m.inactive()->entries()[0].target->message(&words)));
    ASSERT_TRUE(w.resume(m));
    ASSERT_TRUE(ends(m));
    EXPECT_EQ(word(ask(m), "differing"), "8");
    EXPECT_EQ(places(m).size(), 2u);
    EXPECT_LT(leg(1).count(Op::read).sectors, left / kSectorSize + 1024);    // no second look at the beginning
}

// --- what is kept ---------------------------------------------------------------------------------------------------

Place place_at(std::uint64_t first, std::uint64_t length, std::uint32_t sum = 1) {
    Place place;
    place.extent = {{first}, {length}};
    place.read = 3;
    place.wrong = 2;
    place.sums = {sum, sum + 1};
    return place;
}

TEST(MirrorScrubReport, ComesBackFromItsText) {
    ScrubReport report;
    report.mode = ScrubReport::Mode::repair;
    report.state = ScrubReport::State::running;
    report.at = {4096};
    report.end = {16384};
    report.compared = {4000};
    report.mended = {8};
    report.unlisted = 3;
    report.look_again_at({{1024}, {1024}});
    report.add(place_at(8, 8));
    report.add(place_at(32, 8));
    const std::string text = report.text(2, 0xabc);
    ScrubReport again;
    ASSERT_TRUE(again.restore(text, 2, 0xabc, {{0}, {16384}}));
    EXPECT_EQ(again.text(2, 0xabc), text);
    // Other legs: the same work, from the beginning.
    ASSERT_TRUE(again.restore(text, 2, 0xabd, {{0}, {16384}}));
    EXPECT_EQ(again.at, Sector{0});
    EXPECT_EQ(again.mode, ScrubReport::Mode::repair);
    EXPECT_TRUE(again.places.empty());
}

TEST(MirrorScrubReport, RefusesATextThatIsNone) {
    ScrubReport report;
    report.state = ScrubReport::State::running;
    report.end = {16384};
    report.add(place_at(8, 8));
    const std::string text = report.text(2, 0xabc);
    for (std::size_t cut = 0; cut < text.size(); ++cut) {
        ScrubReport other;
        static_cast<void>(other.restore(text.substr(0, cut), 2, 0xabc, {{0}, {16384}}));
        std::string changed = text;
        changed[cut] = changed[cut] == '9' ? 'x' : '9';
        static_cast<void>(other.restore(changed, 2, 0xabc, {{0}, {16384}}));
        for (const Place& place : other.places) {
            EXPECT_LE(place.extent.end(), Sector{16384});
            EXPECT_LT(place.believed, 2u);
        }
    }
    EXPECT_FALSE(report.restore("", 2, 0xabc, {{0}, {16384}}));
    EXPECT_FALSE(report.restore("state=running", 2, 0xabc, {{0}, {16384}}));
    EXPECT_FALSE(report.restore(text + "\nwhat", 2, 0xabc, {{0}, {16384}}));
}

TEST(MirrorScrubReport, ListsSoManyPlacesAndCountsTheRest) {
    ScrubReport report;
    for (std::uint64_t i = 0; i < ScrubReport::kPlacesMax + 10; ++i) report.add(place_at(i * 16, 8));
    EXPECT_EQ(report.places.size(), ScrubReport::kPlacesMax);
    EXPECT_EQ(report.unlisted, 10u);
    EXPECT_EQ(report.differing.v, (ScrubReport::kPlacesMax + 10) * 8);
}

TEST(MirrorScrubReport, MakesNeighboursOneWithTheChecksumOfBoth) {
    const std::string first(512 * 3, 'a'), second(512 * 2, 'b');
    ScrubReport report;
    report.add(place_at(10, 3, crc32c(first)));
    Place next = place_at(13, 2, crc32c(second));
    report.add(next);
    report.add(next);    // met again
    ASSERT_EQ(report.places.size(), 1u);
    EXPECT_EQ(report.places[0].extent, (Extent{{10}, {5}}));
    EXPECT_EQ(report.places[0].sums[0], crc32c(first + second));
    EXPECT_EQ(report.differing, Sectors{5});
}

TEST(MirrorScrubReport, LooksAgainAtMoreWhereThereWouldBeTooManyRuns) {
    ScrubReport report;
    for (std::uint64_t i = 0; i < ScrubReport::kAgainMax * 2; ++i) report.look_again_at({{i * 16}, {8}});
    EXPECT_LE(report.again.size(), ScrubReport::kAgainMax);
    for (std::uint64_t i = 0; i < ScrubReport::kAgainMax * 2; ++i) {
        EXPECT_TRUE(std::any_of(report.again.begin(), report.again.end(), [&](const Extent& run) { return run.contains({{i * 16}, {8}}); })) << i;
    }
}

}  // namespace
}  // namespace udm::test
