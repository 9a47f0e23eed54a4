// The defects of Linux's mirror logs that ours must not have, by their numbers in docs/targets/mirror.md.
#include <array>
#include <bit>

#include "base/crc32c.hpp"
#include "test/unit/dirty_log_fixture.hpp"

namespace udm::dirty_log::test {
namespace {

class LogDefects : public DirtyLogTest {
  public:
    void fail_writes() { device->fail_always(op_bit(Op::write)); }
};

TEST_F(LogDefects, M3_ARegionOutOfSyncIsNeverMadeCleanByAWriteThatEnds) {
    disk(64);
    begin(100);
    EXPECT_TRUE(log->mark({5}));
    log->clear({5});
    reactor.run_until_idle();
    EXPECT_FALSE(clean_on_disk(5));
    stop();
    EXPECT_FALSE(clean_on_disk(5));
    // Nor by one that began when it was in sync.
    begin(100);
    sync_all();
    make_dirty(6);
    log->clear({6});
    log->set_sync({6}, false);
    reactor.run_until_idle();
    EXPECT_FALSE(clean_on_disk(6));
}

TEST_F(LogDefects, M5_AMarkThatCouldNotBeWrittenIsReportedToAllWhoWait) {
    disk(64);
    begin(100, "nosync");
    fail_writes();
    TestWaiter a, b;
    EXPECT_FALSE(log->mark({1}));
    log->flush(a);
    EXPECT_FALSE(log->mark({2}));
    log->flush(b);
    reactor.run_until([&] { return a.done && b.done; });
    EXPECT_NE(a.status, IoStatus::ok);
    EXPECT_NE(b.status, IoStatus::ok);
    EXPECT_EQ(log->info(), "3 disk log D");
    EXPECT_EQ(owner.events, (std::vector<std::string>{"log device failed"}));
    // A flush that fails is told, too.
    device->clear_faults();
    stop();
    owner.events.clear();
    begin(100);
    sync_all();
    device->fail_always(op_bit(Op::flush));
    EXPECT_FALSE(log->mark({3}));
    EXPECT_NE(flush(), IoStatus::ok);
    EXPECT_FALSE(log->mark({3}));
    EXPECT_EQ(log->info(), "3 disk log F");
    EXPECT_EQ(owner.events, (std::vector<std::string>{"log device flush failed"}));
    device->clear_faults();
}

TEST_F(LogDefects, M9_CleanBitsReachTheLogOnlyAfterTheLegsWereFlushed) {
    disk(64);
    begin(100, "nosync");
    make_dirty(5);
    log->clear({5});
    owner.takes = kSecond;
    reactor.run_until([&] { return owner.flushes == 1; });
    reactor.run_for(kSecond / 2);
    EXPECT_FALSE(clean_on_disk(5));
    reactor.run_until_idle();
    EXPECT_TRUE(clean_on_disk(5));
}

TEST_F(LogDefects, M18_ErrorsOfResumeAndSuspendAreReported) {
    disk(64);
    fail_writes();
    auto found = start(100, "nosync");    // a new log that cannot be written
    ASSERT_FALSE(found);
    EXPECT_EQ(found.error().message, "log device log: cannot write it: I/O error");
    EXPECT_EQ(log->health(), Health::failed);
    EXPECT_FALSE(log->mark({1}));
    EXPECT_NE(flush(), IoStatus::ok);
    device->clear_faults();
    EXPECT_EQ(flush(), IoStatus::ok);    // once it can be written, all of it is
    EXPECT_EQ(header().version, 2U);
    EXPECT_EQ(owner.events.back(), "recovered");
    sync_all();
    log->clear({1});
    log->mark({2});
    EXPECT_EQ(flush(), IoStatus::ok);
    log->clear({2});
    fail_writes();
    reactor.run(log->presuspend());
    auto suspended = reactor.run(log->postsuspend());
    ASSERT_FALSE(suspended);
    EXPECT_EQ(suspended.error().message, "log device log: cannot write it: I/O error");
    device->clear_faults();
    ASSERT_TRUE(reactor.run(log->resume()));
    EXPECT_FALSE(in_sync(2));
}

TEST_F(LogDefects, M18_ALogThatCannotBeReadIsReportedAndLeftAlone) {
    disk(64);
    begin(100, "nosync");
    stop();
    device->fail_always(op_bit(Op::read));
    auto found = start(100, "nosync");
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, Found::Kind::unreadable);
    EXPECT_EQ(found->why, "log device log: cannot read it: I/O error");
    EXPECT_EQ(log->sync_count().v, 0U);
    EXPECT_EQ(owner.events, (std::vector<std::string>{"log device failed"}));
    EXPECT_TRUE(clean_on_disk(0));
    stop();
    device->clear_faults();
    ASSERT_TRUE(start(100));
    EXPECT_EQ(log->sync_count().v, 100U);
}

TEST_F(LogDefects, M18_WhatIsReadIsFlushedBeforeItIsReliedOn) {
    disk(64);
    begin(100, "nosync");
    device->fail_always(op_bit(Op::flush));
    EXPECT_FALSE(log->mark({6}));
    EXPECT_NE(flush(), IoStatus::ok);
    EXPECT_FALSE(clean_on_disk(6));    // as a reader sees it
    stop();
    auto found = start(100);
    ASSERT_FALSE(found);               // it can't be flushed: nothing that was read may be relied on
    EXPECT_EQ(log->health(), Health::flush_failed);
    EXPECT_FALSE(in_sync(6));
    EXPECT_FALSE(log->mark({6}));
    EXPECT_NE(flush(), IoStatus::ok);
    device->clear_faults();
    EXPECT_EQ(flush(), IoStatus::ok);
    EXPECT_TRUE(log->mark({6}));
    stop();
    const std::uint64_t before = flushes();
    begin(100);
    EXPECT_EQ(flushes(), before + 1);
    EXPECT_TRUE(log->mark({6}));
}

TEST_F(LogDefects, M21_NothingIsDirtyAfterAShortRest) {
    disk(64);
    begin(100, "nosync");
    for (std::uint64_t r = 0; r < 50; ++r) {
        make_dirty(r);
        log->clear({r});
    }
    reactor.run_for(3 * kSecond);
    ASSERT_TRUE(crash_and_start(100));
    EXPECT_EQ(log->sync_count().v, 100U);
}

TEST_F(LogDefects, M22_AGoodFlushAfterABadOneWritesWhatTheBadOneDidNot) {
    disk(64);
    begin(100, "nosync");
    device->fail_nth(1, op_bit(Op::write));
    EXPECT_FALSE(log->mark({1}));
    EXPECT_NE(flush(), IoStatus::ok);
    EXPECT_FALSE(log->mark({2}));
    EXPECT_EQ(flush(), IoStatus::ok);
    EXPECT_FALSE(clean_on_disk(1) || clean_on_disk(2));
    EXPECT_EQ(owner.events, (std::vector<std::string>{"log device failed", "recovered"}));
    EXPECT_EQ(log->info(), "3 disk log D");    // what happened stays to be seen
    // One whose clear was not written for certain is not taken for dirty either.
    log->clear({1});
    device->fail_nth(1, op_bit(Op::write));
    reactor.run_until_idle();
    EXPECT_FALSE(log->mark({1}));
}

TEST_F(LogDefects, M23_EveryByteOfALogHasOnePlaceOnAllMachines) {
    disk(64);
    begin(200, "nosync");
    for (const std::uint64_t r : {0, 9, 63, 64, 130}) make_dirty(r);
    constexpr std::array<std::uint8_t, 16> kHeader{0x72, 0x52, 0x69, 0x4d, 2, 0, 0, 0, 200, 0, 0, 0, 0, 0, 0, 0};
    constexpr std::array<std::uint8_t, 32> kBits{0xfe, 0xfd, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f, 0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
                                                 0xfb, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0,    0,    0,    0,    0,    0,    0};
    EXPECT_EQ(std::memcmp(bytes(0, 16).data(), kHeader.data(), kHeader.size()), 0);
    EXPECT_EQ(std::memcmp(bytes(kBitmapOffset, 32).data(), kBits.data(), kBits.size()), 0);
    ASSERT_TRUE(crash_and_start(200));
    EXPECT_EQ(log->sync_count().v, 195U);
    EXPECT_FALSE(in_sync(0) || in_sync(9) || in_sync(63) || in_sync(64) || in_sync(130));
}

TEST_F(LogDefects, M23_ALogOfAMachineOfTheOtherByteOrderIsNotTakenForOne) {
    disk(64);
    constexpr std::array<std::uint8_t, 16> kBigEndian{0x4d, 0x69, 0x52, 0x72, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 100};
    put(0, kBigEndian.data(), kBigEndian.size());
    const std::vector<std::uint8_t> bits(16, 0xff);
    put(kBitmapOffset, bits.data(), bits.size());
    const auto before = bytes(0, 8192);
    auto found = start(100);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, Found::Kind::distrusted);
    EXPECT_EQ(log->sync_count().v, 0U);
    stop();
    EXPECT_EQ(bytes(0, 8192), before);
}

TEST_F(LogDefects, M24_ADeviceThatIsTooSmallIsRefused) {
    disk(4);
    EXPECT_EQ(error_of(100'000 * 8, "disk", {"log", "8"}), "log device log too small: need 13824 bytes");
}

TEST_F(LogDefects, M25_ARegionThatLeavesSyncAgainIsHandedOutAgainWithoutAReload) {
    disk(64);
    begin(100);
    while (RegionRun run = work(7)) {
        for (std::uint64_t r = run.first.v; r < run.end().v; ++r) log->set_sync({r}, r != 40);
    }
    EXPECT_EQ(log->sync_count().v, 99U);
    log->set_sync({5}, false);    // a write to it failed on a leg
    EXPECT_EQ(work(), (RegionRun{{5}, {1}}));
    log->set_sync({5}, true);
    EXPECT_FALSE(work());
    log->retry_failed();
    EXPECT_EQ(work(), (RegionRun{{40}, {1}}));
    log->set_sync({40}, true);
    EXPECT_EQ(log->sync_count(), log->region_count());
}

TEST_F(LogDefects, M27_AMarkWritesOneBlockOfABitmapOfAMillionRegions) {
    disk(512);
    begin(1'000'000, "nosync");
    device->reset_counters();
    EXPECT_EQ(mark(500'000), IoStatus::ok);
    EXPECT_EQ(device->count(Op::write).requests, 1U);
    EXPECT_EQ(device->count(Op::write).sectors, 8U);
}

TEST_F(LogDefects, M30_TheSourceLegIsRememberedOverARestart) {
    disk(64);
    begin(100, "nosync");
    leave_the_first_leg_behind(9);
    for (const char* word : {"", "nosync", "sync"}) {
        ASSERT_TRUE(crash_and_start(100, word));
        ASSERT_TRUE(log->leg_record()) << word;
        EXPECT_EQ(log->leg_record()->source, 1U);
        EXPECT_EQ(log->leg_record()->failed, 1U);
        EXPECT_FALSE(in_sync(9));
    }
}

TEST_F(LogDefects, M32_NosyncLeftInTheTableDoesNotMakeDirtyRegionsClean) {
    disk(64);
    begin(100, "nosync");
    make_dirty(4);
    ASSERT_TRUE(crash_and_start(100, "nosync"));
    EXPECT_EQ(log->sync_count().v, 99U);
    EXPECT_FALSE(in_sync(4));
    reactor.run(log->presuspend());
    EXPECT_TRUE(reactor.run(log->postsuspend()));
    ASSERT_TRUE(reactor.run(log->resume()));
    EXPECT_FALSE(in_sync(4));
}

TEST_F(LogDefects, M35_RegionsStayDirtyWhenTheLegsCouldNotBeFlushed) {
    disk(64);
    begin(100, "nosync");
    for (const std::uint64_t r : {5, 6, 7}) make_dirty(r);
    log->clear({5});
    log->clear({6});
    owner.answer = IoStatus::io_error;
    reactor.run_until_idle();
    EXPECT_EQ(owner.flushes, 1U);
    EXPECT_FALSE(clean_on_disk(5) || clean_on_disk(6));
    // Also when a later flush goes well: it cannot bring back what the first one lost.
    owner.answer = IoStatus::ok;
    make_dirty(8);
    log->clear({8});
    reactor.run_until_idle();
    EXPECT_TRUE(clean_on_disk(8));
    EXPECT_FALSE(clean_on_disk(5) || clean_on_disk(6));
    EXPECT_EQ(log->next_dirty({0}), Region{5});
    // Until it was copied.
    for (const std::uint64_t r : {5, 6}) {
        log->set_sync({r}, false);
        log->set_sync({r}, true);
        log->clear({r});
    }
    reactor.run_until_idle();
    EXPECT_TRUE(clean_on_disk(5) && clean_on_disk(6));
}

TEST_F(LogDefects, M36_TheSyncCountCountsARegionOnce) {
    for (const char* type : {"core", "disk"}) {
        disk(64);
        begin(100, "", type);
        for (int i = 0; i < 3; ++i) log->set_sync({5}, true);
        EXPECT_EQ(log->sync_count().v, 1U);
        for (int i = 0; i < 3; ++i) log->set_sync({5}, false);
        EXPECT_EQ(log->sync_count().v, 0U);
        stop();
        opener.remove("log");
    }
}

TEST_F(LogDefects, M37_ARegionSizeThatIsNoneIsNotBelievedWherever) {
    const std::string text = "Error creating mirror dirty log: ";
    for (const char* word : {"0", "1", "3", "12"}) {
        EXPECT_EQ(error_of(1024, "core", {word}), text + "region size " + word + " is not a power of two of at least 2 sectors");
    }
    EXPECT_EQ(error_of(1024, "core", {"2048"}), text + "region size 2048 is above the mirror's 1024 sectors");
    EXPECT_EQ(error_of(1024, "userspace", {"uuid", "8"}), text + "log type 'userspace' is not known; known are core and disk");
    // Nor what a log says of itself: what is no size is as if it said none, as Linux's logs do.
    disk(64);
    begin(100, "nosync");
    for (const std::uint32_t size : {0U, 3U, 12U, 0xffffffffU, 1U, 0x80000000U}) {
        DiskNote note;
        std::memcpy(&note, bytes(kNoteOffset, sizeof note).data(), sizeof note);
        note.region_size = size;
        put(kNoteOffset, &note, sizeof note);
        note.checksum = crc32c_bytes(bytes(0, kNoteOffset + offsetof(DiskNote, checksum)).data(), kNoteOffset + offsetof(DiskNote, checksum));
        put(kNoteOffset, &note, sizeof note);
        auto found = crash_and_start(100);
        ASSERT_TRUE(found);
        const bool is_one = std::has_single_bit(size);
        EXPECT_EQ(found->why, is_one ? "log device log: it is of regions of " + std::to_string(size) + " sectors, these have 8: all is copied anew" : "");
        EXPECT_EQ(log->sync_count().v, is_one ? 0U : 100U);
        sync_all();
    }
}

TEST_F(LogDefects, M38_NumbersWithTrailingCharactersAreRefused) {
    const std::string text = "Error creating mirror dirty log: ";
    for (const char* word : {"8x", "2x", " 8", "+8", "0x8", "-8", "", "4294967296"}) {
        EXPECT_EQ(error_of(1024, "core", {word}), text + "region size '" + word + "' is not a number of sectors");
    }
}

TEST_F(LogDefects, M40_ALogOfAnUnknownVersionIsNotOverwrittenWhateverTheTableSays) {
    disk(64);
    put_header(kMagic, 3, 100);
    const std::uint8_t bits[2] = {0xff, 0xff};
    put(kBitmapOffset, bits, sizeof bits);
    const auto before = bytes(0, 8192);
    for (const char* word : {"", "sync", "nosync"}) {
        auto found = start(100, word);
        ASSERT_TRUE(found);
        EXPECT_EQ(found->kind, Found::Kind::distrusted);
        EXPECT_EQ(found->why, "log device log: log version 3, known are 1 and 2");
        EXPECT_EQ(log->sync_count().v, 0U);
        EXPECT_NE(flush(), IoStatus::ok);
        stop();
        EXPECT_EQ(bytes(0, 8192), before);
    }
}

TEST_F(LogDefects, M39_M42_SizesThatCountersCannotHoldAreRefused) {
    const std::string text = "Error creating mirror dirty log: ";
    EXPECT_EQ(error_of(1024, "core", {"0"}), text + "region size 0 is not a power of two of at least 2 sectors");
    EXPECT_EQ(error_of(std::uint64_t{1} << 33, "core", {"2"}), text + "4294967296 regions of 2 sectors; at most 4294967295 are possible");
}

TEST_F(LogDefects, M26_BitsOfANewLogAreDurableBeforeTheHeaderThatMakesThemCount) {
    disk(64);
    device->keep_log(true);
    const std::vector<std::uint8_t> junk(8192, 0xff);    // all clean, if it were believed
    put(0, junk.data(), junk.size());
    ASSERT_TRUE(start(100, "sync"));
    const auto& requests = device->log();
    std::size_t header_at = 0, flush_before = 0;
    for (std::size_t i = 0; i < requests.size(); ++i) {
        if (requests[i].op == Op::write && requests[i].extent.first == Sector{0}) header_at = i;
        if (requests[i].op == Op::flush && header_at == 0) flush_before = i;
    }
    ASSERT_GT(header_at, 0U);
    EXPECT_GT(header_at, flush_before);
    EXPECT_GT(flush_before, 0U);
    EXPECT_EQ(requests[header_at].extent.length, Sectors{1});
    EXPECT_EQ(requests.back().op, Op::flush);
}

}  // namespace
}  // namespace udm::dirty_log::test
