// What is on a log's device: read whatever it is, written as Linux reads it.
#include "test/unit/dirty_log_fixture.hpp"

namespace udm::dirty_log::test {
namespace {

class LogDisk : public DirtyLogTest {};

TEST_F(LogDisk, ANewLogHasTheKernelsHeaderAndZeroBits) {
    disk(64);
    auto found = start(100);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, Found::Kind::fresh);
    EXPECT_EQ(header().magic, kMagic);
    EXPECT_EQ(header().version, 2U);
    EXPECT_EQ(header().regions, 100U);
    EXPECT_EQ(bytes(0, 4), (std::vector{std::byte{'r'}, std::byte{'R'}, std::byte{'i'}, std::byte{'M'}}));
    EXPECT_EQ(bytes(kBitmapOffset, 3072), std::vector<std::byte>(3072));
    sync_all();
    for (std::uint64_t r = 0; r < 100; ++r) EXPECT_TRUE(clean_on_disk(r));
    for (std::uint64_t r = 100; r < 128; ++r) EXPECT_FALSE(clean_on_disk(r));    // the rest of the last 64
}

TEST_F(LogDisk, ItsSizeIsHeaderAndBitmapInWholeBlocks) {
    disk(3);    // 1024 + 512 bytes of bits
    EXPECT_EQ(error_of(4096 * 8, "disk", {"log", "8"}), "no error");
    EXPECT_EQ(error_of(4097 * 8, "disk", {"log", "8"}), "log device log too small: need 2048 bytes");
    ASSERT_TRUE(start(4096, "nosync"));
    EXPECT_EQ(mark(4095), IoStatus::ok);
    EXPECT_FALSE(clean_on_disk(4095));
    stop();
    opener.remove("log");
    SimDisk::Options big_blocks;
    big_blocks.limits.logical_block = 4096;
    disk(16, big_blocks);
    EXPECT_EQ(error_of(57345 * 8, "disk", {"log", "8"}), "log device log too small: need 12288 bytes");
    ASSERT_TRUE(start(30'000, "nosync"));
    EXPECT_EQ(mark(29'999), IoStatus::ok);
    EXPECT_EQ(device->counters().invalid, 0U);
    ASSERT_TRUE(crash_and_start(30'000));
    EXPECT_EQ(log->sync_count().v, 29'999U);
}

TEST_F(LogDisk, WhatIsCleanCountsAndTheRestIsOutOfSync) {
    disk(64);
    put_header(kMagic, 2, 100);
    const std::uint8_t bits[3] = {0xff, 0x01, 0x80};
    put(kBitmapOffset, bits, sizeof bits);
    auto found = start(100);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, Found::Kind::trusted);
    EXPECT_EQ(found->why, "");
    EXPECT_EQ(log->sync_count().v, 10U);
    EXPECT_TRUE(in_sync(0) && in_sync(8) && in_sync(23));
    EXPECT_FALSE(in_sync(9) || in_sync(22) || in_sync(24));
    EXPECT_EQ(writes(), 0U);    // nothing to say
}

TEST_F(LogDisk, Version1OfAnOldKernelIsReadAndWrittenBackAs2) {
    disk(64);
    put_header(kMagic, 1, 100);
    const std::uint8_t bits[1] = {0x0f};
    put(kBitmapOffset, bits, sizeof bits);
    ASSERT_TRUE(start(100));
    EXPECT_EQ(log->sync_count().v, 4U);
    EXPECT_EQ(log->leg_record(), std::nullopt);
    EXPECT_EQ(header().version, 2U);
}

TEST_F(LogDisk, AVolumeThatHasGrownKeepsWhatWasKnownAndOneThatShrankForgetsTheRest) {
    disk(64);
    begin(100, "nosync");
    make_dirty(3);
    auto found = crash_and_start(200);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->why, "log device log: it knows 100 regions of 200; the others are out of sync");
    EXPECT_EQ(log->sync_count().v, 99U);
    EXPECT_EQ(header().regions, 200U);
    found = crash_and_start(300, "nosync");
    ASSERT_TRUE(found);
    EXPECT_EQ(log->sync_count().v, 199U);    // what is new, and what was known to be
    EXPECT_FALSE(in_sync(3) || in_sync(150));
    EXPECT_TRUE(in_sync(250));
    ASSERT_TRUE(crash_and_start(50));
    EXPECT_EQ(log->sync_count().v, 49U);
    EXPECT_EQ(header().regions, 50U);
    ASSERT_TRUE(crash_and_start(300));
    EXPECT_EQ(log->sync_count().v, 49U);
    EXPECT_FALSE(in_sync(50) || in_sync(250));
}

TEST_F(LogDisk, BitsOfRegionsOfAnotherSizeMeanNothing) {
    disk(64);
    ASSERT_TRUE(start(100, "nosync", "disk", 8));
    stop();
    auto found = start(100, "", "disk", 16);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->why, "log device log: it is of regions of 8 sectors, these have 16: all is copied anew");
    EXPECT_EQ(log->sync_count().v, 0U);
    stop();
    found = start(100, "", "disk", 16);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->why, "");
}

TEST_F(LogDisk, OurNoteIsIgnoredWhenSomebodyElseHasWrittenTheHeader) {
    disk(64);
    ASSERT_TRUE(start(100, "nosync", "disk", 8));
    stop();
    put_header(kMagic, 2, 50);    // as Linux would for 50 regions: our note stays behind it
    auto found = start(50, "", "disk", 16);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, Found::Kind::trusted);
    EXPECT_EQ(log->sync_count().v, 50U);
}

TEST_F(LogDisk, ForeignDataAreLeftAloneUnlessTheTableSaysSync) {
    disk(64);
    const std::vector<std::uint8_t> text(4096, 'x');
    put(0, text.data(), text.size());
    for (const char* word : {"", "nosync"}) {
        auto found = start(100, word);
        ASSERT_TRUE(found);
        EXPECT_EQ(found->kind, Found::Kind::distrusted);
        EXPECT_NE(found->why.find("it holds something else than a mirror's log (the first bytes are 0x78787878)"), std::string::npos) << found->why;
        EXPECT_EQ(log->sync_count().v, 0U);
        EXPECT_FALSE(work());
        EXPECT_FALSE(log->mark({1}));
        EXPECT_NE(flush(), IoStatus::ok);
        EXPECT_EQ(log->info(), "3 disk log D");
        stop();
    }
    EXPECT_EQ(writes(), 0U);
    auto found = start(100, "sync");
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, Found::Kind::fresh);
    EXPECT_EQ(log->sync_count().v, 0U);
    EXPECT_EQ(header().version, 2U);
    EXPECT_FALSE(clean_on_disk(0));
}

TEST_F(LogDisk, ADiskThatOnlyBeginsWithZeroesIsNotTakenForBlank) {
    disk(64);
    const char superblock[] = "a file system begins at 1024";
    put(1024, superblock, sizeof superblock);
    auto found = start(100);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, Found::Kind::distrusted);
    EXPECT_EQ(writes(), 0U);
    // Whoever knows better asks for it.
    EXPECT_TRUE(reactor.run(log->start_anew()));
    EXPECT_EQ(log->health(), Health::alive);
    EXPECT_EQ(header().version, 2U);
    sync_all();
    EXPECT_EQ(mark(1), IoStatus::ok);
    ASSERT_TRUE(crash_and_start(100));
    EXPECT_EQ(log->sync_count().v, 99U);
}

TEST_F(LogDisk, ADamagedRecordMakesTheLogUntrusted) {
    disk(64);
    begin(100, "nosync");
    leave_the_first_leg_behind(9);
    for (const std::uint64_t at : {8, 16 + 8, 16 + 9, 16 + 10, 16 + 12, 16 + 88}) {
        std::byte byte = bytes(at, 1)[0];
        const std::byte damaged = byte ^ std::byte{1};
        put(at, &damaged, 1);
        auto found = crash_and_start(100);
        ASSERT_TRUE(found);
        EXPECT_EQ(found->kind, Found::Kind::distrusted) << at;
        EXPECT_EQ(log->sync_count().v, 0U);
        EXPECT_EQ(log->leg_record(), std::nullopt);
        put(at, &byte, 1);
    }
    auto found = crash_and_start(100);
    ASSERT_TRUE(found);
    EXPECT_EQ(found->kind, Found::Kind::trusted);
    // Linux makes it version 2 when it resumes, and leaves the note: the record must not count any more.
    put_header(kMagic, 2, 100);
    ASSERT_TRUE(crash_and_start(100));
    EXPECT_EQ(log->leg_record(), std::nullopt);
    EXPECT_EQ(log->sync_count().v, 99U);
}

TEST_F(LogDisk, RecordsThatMakeNoSenseAreNotBelieved) {
    disk(64);
    const auto stored = [&](LegRecord legs) {
        std::vector<std::byte> sector(kSectorSize);
        dirty_log::put_header(sector.data(), {100}, RegionSize::of_sectors(8), legs);
        return judge(sector);
    };
    EXPECT_TRUE(stored({.leg_count = 2, .source = 1, .failed = 1}).legs);
    EXPECT_TRUE(stored({.leg_count = 9, .source = 8, .failed = 0xff}).legs);
    for (const LegRecord& legs : {LegRecord{.leg_count = 10, .source = 1}, LegRecord{.leg_count = 2, .source = 2},
                                  LegRecord{.leg_count = 2, .source = 1, .failed = 2}, LegRecord{.leg_count = 2, .source = 1, .failed = 4}}) {
        EXPECT_EQ(stored(legs).kind, Judged::Kind::unknown);
    }
}

}  // namespace
}  // namespace udm::dirty_log::test
