// What a mirror's log answers and writes, seen from the mirror.
#include "test/unit/dirty_log_fixture.hpp"

namespace udm::dirty_log::test {
namespace {

class DirtyLogWords : public DirtyLogTest {};
class DirtyLogMarks : public DirtyLogTest {};
class DirtyLogResync : public DirtyLogTest {};
class DirtyLogRest : public DirtyLogTest {};
class DirtyLogRecord : public DirtyLogTest {};

TEST_F(DirtyLogWords, ArgumentsAreCheckedAndTheErrorSaysWhatWouldBeRight) {
    disk(64);
    EXPECT_EQ(error_of(1024, "core", {"8"}), "no error");
    EXPECT_EQ(error_of(1024, "core", {"1024", "nosync"}), "no error");
    EXPECT_EQ(error_of(1024, "disk", {"log", "2", "sync"}), "no error");
    const std::string text = "Error creating mirror dirty log: ";
    EXPECT_EQ(error_of(1024, "core", {}), text + "log type core takes REGION_SECTORS [sync|nosync], not 0 words");
    EXPECT_EQ(error_of(1024, "core", {"8", "sync", "x"}), text + "log type core takes REGION_SECTORS [sync|nosync], not 3 words");
    EXPECT_EQ(error_of(1024, "disk", {"log"}), text + "log type disk takes DEVICE REGION_SECTORS [sync|nosync], not 1 words");
    EXPECT_EQ(error_of(1024, "core", {"8", "maybe"}), text + "'maybe' is neither sync nor nosync");
    EXPECT_EQ(error_of(1024, "core", {"0"}), text + "region size 0 is not a power of two of at least 2 sectors");
    EXPECT_EQ(error_of(1024, "core", {"1"}), text + "region size 1 is not a power of two of at least 2 sectors");
    EXPECT_EQ(error_of(1024, "core", {"24"}), text + "region size 24 is not a power of two of at least 2 sectors");
    EXPECT_EQ(error_of(1024, "core", {"2048"}), text + "region size 2048 is above the mirror's 1024 sectors");
    EXPECT_EQ(error_of(1024, "userspace", {"8"}), text + "log type 'userspace' is not known; known are core and disk");
    EXPECT_EQ(error_of(std::uint64_t{1} << 40, "core", {"2"}), text + "549755813888 regions of 2 sectors; at most 4294967295 are possible");
    EXPECT_TRUE(error_of(1024, "disk", {"nowhere", "8"}).starts_with(text));
}

TEST_F(DirtyLogWords, InfoAndTableAreTheKernels) {
    begin(16, "", "core");
    EXPECT_EQ(log->info(), "1 core");
    EXPECT_EQ(log->table(), "core 1 8 ");
    begin(16, "nosync", "core");
    EXPECT_EQ(log->table(), "core 2 8 nosync ");
    disk(64);
    begin(16, "", "disk", 1024);
    EXPECT_EQ(log->info(), "3 disk log A");
    EXPECT_EQ(log->table(), "disk 2 log 1024 ");
    begin(16, "sync", "disk", 1024);
    EXPECT_EQ(log->table(), "disk 3 log 1024 sync ");
    EXPECT_NE(log->device(), nullptr);
}

TEST_F(DirtyLogWords, SyncAndNosyncSayWhatANewLogTakesForInSync) {
    for (const char* type : {"core", "disk"}) {
        for (const char* word : {"", "sync", "nosync"}) {
            disk(64);
            ASSERT_TRUE(start(20, word, type));
            EXPECT_EQ(log->sync_count().v, word == std::string{"nosync"} ? 20U : 0U) << type << " " << word;
            stop();
            opener.remove("log");
        }
    }
}

TEST_F(DirtyLogMarks, AMarkIsDurableAfterOneWriteAndOneFlushAndCostsNothingAgain) {
    disk(64);
    begin(100, "nosync");
    device->reset_counters();
    EXPECT_FALSE(log->mark({7}));
    EXPECT_FALSE(log->settled());
    EXPECT_EQ(flush(), IoStatus::ok);
    EXPECT_TRUE(log->settled());
    EXPECT_FALSE(clean_on_disk(7));
    EXPECT_TRUE(clean_on_disk(6) && clean_on_disk(8));
    EXPECT_EQ(writes(), 1U);
    EXPECT_EQ(flushes(), 1U);
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(log->mark({7}));
    EXPECT_EQ(flush(), IoStatus::ok);
    EXPECT_EQ(writes(), 1U);
}

TEST_F(DirtyLogMarks, AllWhoComeInOneRoundShareOneWriteAndOneFlush) {
    disk(2048);
    begin(200'000, "nosync");    // over several blocks of the bitmap
    device->reset_counters();
    std::vector<TestWaiter> waiters(500);
    for (std::size_t i = 0; i < waiters.size(); ++i) {
        EXPECT_FALSE(log->mark({i * 40}));    // all in the first block
        log->flush(waiters[i]);
    }
    reactor.run_until([&] { return waiters.back().done; });
    EXPECT_EQ(writes(), 1U);
    EXPECT_EQ(flushes(), 1U);
    for (const TestWaiter& waiter : waiters) EXPECT_TRUE(waiter.done && waiter.status == IoStatus::ok);
    // Those that come while a turn is under way share the next; blocks apart are written apart, but flushed once.
    device->reset_counters();
    TestWaiter first, second, third;
    log->mark({30});
    log->flush(first);
    while (device->count(Op::write).requests == 0) ASSERT_TRUE(reactor.step());
    EXPECT_FALSE(log->mark({31}));
    log->flush(second);
    EXPECT_FALSE(log->mark({150'000}));
    log->flush(third);
    reactor.run_until([&] { return third.done; });
    EXPECT_TRUE(first.done && second.done);
    EXPECT_EQ(writes(), 3U);
    EXPECT_EQ(flushes(), 2U);
}

TEST_F(DirtyLogMarks, ARegionMarkedWhileItsBlockIsWrittenIsNotDurableYet) {
    disk(64);
    begin(100, "nosync");
    TestWaiter first;
    log->mark({1});
    log->flush(first);
    while (device->counters().in_flight == 0) ASSERT_TRUE(reactor.step());
    EXPECT_FALSE(log->mark({2}));    // its bit is on its way as clean
    reactor.run_until([&] { return first.done; });
    EXPECT_TRUE(log->mark({1}));
    EXPECT_FALSE(log->mark({2}));
    EXPECT_EQ(flush(), IoStatus::ok);
    EXPECT_TRUE(log->mark({2}));
    EXPECT_FALSE(clean_on_disk(2));
}

TEST_F(DirtyLogRest, ARegionAtRestBecomesCleanAfterTheLegsWereFlushedAndNotBefore) {
    disk(64);
    begin(100, "nosync");
    make_dirty(5);
    make_dirty(6);
    log->clear({5});
    EXPECT_EQ(owner.flushes, 0U);
    EXPECT_FALSE(clean_on_disk(5));
    reactor.run_until_idle();
    EXPECT_EQ(owner.flushes, 1U);
    EXPECT_TRUE(clean_on_disk(5));
    EXPECT_FALSE(clean_on_disk(6));    // still written to
    EXPECT_EQ(log->next_dirty({0}), Region{6});
    EXPECT_EQ(log->next_dirty({7}), std::nullopt);
    EXPECT_EQ(log->next_dirty_in_sync({0}), Region{6});
    log->set_sync({6}, false);
    EXPECT_EQ(log->next_dirty_in_sync({0}), std::nullopt);
    EXPECT_EQ(log->next_dirty({0}), Region{6});
}

TEST_F(DirtyLogRest, RegionsWrittenAgainAndAgainStayDirtyWithoutLogWrites) {
    disk(64);
    begin(2000, "nosync");
    std::uint64_t data_writes = 0;
    const auto write_one = [&] {
        const std::uint64_t region = random.below(1000);
        if (!log->mark({region})) make_dirty(region);
        log->clear({region});
        ++data_writes;
        reactor.run_for(100'000);    // ten thousand a second
    };
    for (int i = 0; i < 20'000; ++i) write_one();    // to steady state
    device->reset_counters();
    data_writes = 0;
    for (int i = 0; i < 100'000; ++i) write_one();
    EXPECT_LE(writes() * 100, data_writes * 105 / 100);
    // And when it rests they become clean.
    reactor.run_until_idle();
    EXPECT_EQ(log->next_dirty({0}), std::nullopt);
    EXPECT_EQ(writes() * 100 / data_writes, 0U);
}

TEST_F(DirtyLogRest, WhatIsWrittenToDuringTheLegsFlushStaysDirty) {
    disk(64);
    begin(100, "nosync");
    owner.takes = 10 * kMillisecond;
    for (const std::uint64_t r : {1, 2, 3}) {
        make_dirty(r);
        log->clear({r});
    }
    reactor.run_until([&] { return owner.flushes == 1; });
    EXPECT_TRUE(log->mark({2}));
    EXPECT_TRUE(log->mark({3}));
    log->clear({3});    // written and ended again: the flush doesn't cover it
    reactor.run_for(20 * kMillisecond);
    EXPECT_TRUE(clean_on_disk(1));
    EXPECT_FALSE(clean_on_disk(2));
    EXPECT_FALSE(clean_on_disk(3));
    reactor.run_until_idle();
    EXPECT_TRUE(clean_on_disk(3));
    EXPECT_FALSE(clean_on_disk(2));
}

TEST_F(DirtyLogRest, SuspendingMakesCleanWhatRests) {
    disk(64);
    begin(100, "nosync");
    make_dirty(5);
    make_dirty(6);
    log->clear({5});
    reactor.run(log->presuspend());
    EXPECT_TRUE(reactor.run(log->postsuspend()));
    EXPECT_EQ(owner.flushes, 1U);
    EXPECT_TRUE(clean_on_disk(5));
    EXPECT_FALSE(clean_on_disk(6));
    ASSERT_TRUE(reactor.run(log->resume()));
    EXPECT_EQ(log->sync_count().v, 99U);
}

TEST_F(DirtyLogResync, HandsOutRunsOfRegionsOnceAndFailedOnesWhenAsked) {
    disk(64);
    begin(100);
    EXPECT_EQ(work(8), (RegionRun{{0}, {8}}));
    EXPECT_EQ(work(8), (RegionRun{{8}, {8}}));
    for (std::uint64_t r = 20; r < 30; ++r) log->set_sync({r}, true);
    EXPECT_EQ(work(), (RegionRun{{16}, {4}}));
    EXPECT_EQ(work(), (RegionRun{{30}, {70}}));
    EXPECT_FALSE(work());
    for (std::uint64_t r = 0; r < 100; ++r) {
        if (r != 3 && r != 4) log->set_sync({r}, true);
    }
    log->set_sync({3}, false);
    EXPECT_FALSE(work());
    EXPECT_EQ(log->failed_count().v, 1U);
    log->give_back({{4}, {1}});
    EXPECT_EQ(work(), (RegionRun{{4}, {1}}));
    log->retry_failed();
    EXPECT_EQ(work(), (RegionRun{{3}, {1}}));
    log->set_sync({3}, true);
    log->set_sync({4}, true);
    EXPECT_EQ(log->sync_count().v, 100U);
    EXPECT_EQ(log->failed_count().v, 0U);
    EXPECT_FALSE(work());
}

TEST_F(DirtyLogResync, ARegionThatWasCleanIsHandedOutWhenItIsDirtyDurably) {
    disk(64);
    begin(100, "nosync");
    log->set_sync({5}, false);
    EXPECT_FALSE(log->settled());
    EXPECT_EQ(work(), (RegionRun{{5}, {1}}));
    EXPECT_TRUE(log->settled());
    EXPECT_FALSE(clean_on_disk(5));
    log->set_sync({7}, false);
    device->fail_always(op_bit(Op::write));
    EXPECT_FALSE(work());
    device->clear_faults();
    EXPECT_EQ(work(), (RegionRun{{7}, {1}}));
}

TEST_F(DirtyLogResync, GoesOnWhereTheLogSaysAfterASuspension) {
    disk(64);
    begin(100);
    for (const std::uint64_t r : {0, 1, 50}) {
        log->set_sync({r}, true);
        log->clear({r});
    }
    static_cast<void>(work(5));
    reactor.run(log->presuspend());
    EXPECT_FALSE(work());
    EXPECT_TRUE(reactor.run(log->postsuspend()));
    ASSERT_TRUE(reactor.run(log->resume()));
    EXPECT_EQ(log->sync_count().v, 3U);
    EXPECT_EQ(work(), (RegionRun{{2}, {48}}));
    EXPECT_EQ(work(), (RegionRun{{51}, {49}}));
}

TEST_F(DirtyLogRecord, IsKeptOverARestartUnderVersion1AndDroppedAfterALegFlush) {
    disk(64);
    begin(100, "nosync");
    EXPECT_EQ(header().version, 2U);
    LegRecord legs{.leg_count = 3, .source = 2, .failed = 0b011, .tags = {11, 22, 33}};
    make_dirty(9);
    log->set_sync({9}, false);
    log->record(legs);
    EXPECT_FALSE(log->settled());
    EXPECT_EQ(flush(), IoStatus::ok);
    EXPECT_EQ(header().version, 1U);
    auto found = crash_and_start(100);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, Found::Kind::trusted);
    EXPECT_EQ(log->leg_record(), legs);
    EXPECT_EQ(log->sync_count().v, 99U);
    EXPECT_EQ(header().version, 1U);
    log->set_sync({9}, true);
    log->clear({9});
    log->record(std::nullopt);
    EXPECT_EQ(header().version, 1U);
    const unsigned before = owner.flushes;
    reactor.run_until_idle();
    EXPECT_GT(owner.flushes, before);
    EXPECT_EQ(header().version, 2U);
    found = crash_and_start(100);
    ASSERT_TRUE(found);
    EXPECT_EQ(log->leg_record(), std::nullopt);
    EXPECT_EQ(log->sync_count().v, 100U);
}

TEST_F(DirtyLogRecord, ACoreLogRemembersItAndItsRegionsAsLongAsItLives) {
    begin(100, "", "core");
    EXPECT_TRUE(log->mark({1}));
    EXPECT_TRUE(log->settled());
    EXPECT_EQ(flush(), IoStatus::ok);
    sync_all();
    EXPECT_EQ(log->next_dirty({0}), std::nullopt);
    log->mark({4});
    EXPECT_EQ(log->next_dirty({0}), Region{4});
    log->record(LegRecord{.leg_count = 2, .source = 1, .failed = 1});
    log->set_sync({8}, false);
    reactor.run(log->presuspend());
    EXPECT_TRUE(reactor.run(log->postsuspend()));
    ASSERT_TRUE(reactor.run(log->resume()));
    EXPECT_EQ(log->sync_count().v, 99U);
    ASSERT_TRUE(log->leg_record());
    EXPECT_EQ(log->leg_record()->source, 1U);
}

TEST_F(DirtyLogMarks, FourMillionRegionsStartWithFewReadsAndWriteOneBlockForAMark) {
    SimDisk::Options fast;
    fast.latency_min = fast.latency_max = 1000;
    disk(2048, fast);
    const std::uint64_t regions = std::uint64_t{4} << 20;    // 16 TiB of 4 MiB each
    ASSERT_TRUE(start(regions, "nosync"));
    EXPECT_EQ(log->sync_count().v, regions);
    stop();
    device->reset_counters();
    ASSERT_TRUE(start(regions));
    EXPECT_EQ(log->sync_count().v, regions);
    EXPECT_LE(device->count(Op::read).requests, 4U);
    EXPECT_EQ(writes(), 0U);
    EXPECT_EQ(mark(regions - 1), IoStatus::ok);
    EXPECT_EQ(writes(), 1U);
    EXPECT_LE(device->count(Op::write).sectors, 8U);
    EXPECT_FALSE(clean_on_disk(regions - 1));
    EXPECT_TRUE(clean_on_disk(regions - 2));
}

}  // namespace
}  // namespace udm::dirty_log::test
