// flakey: what happens up and down, feature by feature, as watched on Linux 6.1.
#include <gtest/gtest.h>

#include "test/support/mapped_world.hpp"

namespace udm {
namespace {

struct Flakey : testing::Test {
    MappedWorld w;
    SimDisk& disk = w.disk("a");
    Device& down(const std::string& features) { return w.start("d" + features, "0 8192 flakey a 0 0 5 " + features); }
};

TEST_F(Flakey, ShowsItsLinesAsLinuxDoes) {
    const std::pair<const char*, const char*> cases[] = {
        {"a 0 5 5", "a 0 5 5 0 "},
        {"a 0 5 5 0", "a 0 5 5 0 "},
        {"a 0 5 5 0 trailing", "a 0 5 5 0 "},
        {"a 8 5 5 1 drop_writes", "a 8 5 5 1 drop_writes "},
        {"a 0 5 5 1 DROP_WRITES", "a 0 5 5 1 drop_writes "},
        {"a 0 5 5 1 error_writes", "a 0 5 5 1 error_writes "},
        {"a 0 5 5 5 corrupt_bio_byte 32 r 1 0", "a 0 5 5 5 corrupt_bio_byte 32 r 1 0 "},
        {"a 0 5 5 6 corrupt_bio_byte 1 r 1 0 drop_writes", "a 0 5 5 6 drop_writes corrupt_bio_byte 1 r 1 0 "},
    };
    for (const auto& [given, shown] : cases) {
        Device& device = w.start(given, std::string{"0 8192 flakey "} + given);
        EXPECT_EQ(w.table_text(device), std::string{"0 8192 flakey "} + shown + "\n");
        EXPECT_EQ(w.status_text(device), "0 8192 flakey \n");
    }
}

TEST_F(Flakey, IsUpAndDownByTheClock) {
    Device& device = w.start("d", "0 8192 flakey a 0 3 2");
    for (int second = 0; second < 20; ++second) {
        EXPECT_EQ(w.read(device, 0, 1), second % 5 < 3 ? 0 : -2) << second;
        w.reactor.run_for(kSecond);
    }
}

TEST_F(Flakey, IsNeverDownWithoutADownInterval) {
    Device& device = w.start("d", "0 8192 flakey a 0 1 0 1 drop_writes");
    for (std::uint8_t second = 1; second < 5; ++second) {
        EXPECT_EQ(w.write(device, 0, 1, second), IoStatus::ok);
        EXPECT_EQ(w.read(device, 0, 1), second);
        w.reactor.run_for(kSecond);
    }
}

TEST_F(Flakey, FailsAllWhenDownWithoutFeatures) {
    Device& device = down("");
    EXPECT_EQ(w.read(device, 0, 1), -2);
    EXPECT_EQ(w.write(device, 0, 1, 1), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::discard, 0, 1), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 0, 1), IoStatus::io_error);
    EXPECT_EQ(disk.count(Op::read).requests + disk.count(Op::write).requests + disk.count(Op::flush).requests, 0u);
}

TEST_F(Flakey, DropWritesLosesThemInSilenceAndReads) {
    disk.fill_now({{0}, {8}}, 7);
    Device& device = down("1 drop_writes");
    EXPECT_EQ(w.write(device, 0, 4, 1, {.fua = true}), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::discard, 0, 1), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 0, 1), IoStatus::ok);
    EXPECT_EQ(w.read(device, 0, 8), 7);
    EXPECT_EQ(disk.count(Op::write).requests + disk.count(Op::flush).requests, 0u);
}

TEST_F(Flakey, ErrorWritesFailsThemAndReads) {
    disk.fill_now({{0}, {8}}, 7);
    Device& device = down("1 error_writes");
    EXPECT_EQ(w.write(device, 0, 4, 1), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::discard, 0, 1), IoStatus::io_error);
    EXPECT_EQ(w.read(device, 0, 8), 7);
}

TEST_F(Flakey, CorruptsAByteOfEachReadAndLetsWritesPass) {
    disk.fill_now({{0}, {16}}, 7);
    Device& device = down("5 corrupt_bio_byte 515 r 66 0");
    Memory memory{4};
    EXPECT_EQ(w.io(device, Op::read, 0, 4, memory.at()), IoStatus::ok);
    EXPECT_EQ(memory.bytes[514], 66);
    memory.bytes[514] = 7;
    EXPECT_TRUE(memory.all(7));
    EXPECT_EQ(w.read(device, 0, 1), 7);    // too short to have that byte
    EXPECT_EQ(w.write(device, 0, 4, 9), IoStatus::ok);
    EXPECT_EQ(w.read(disk, 0, 4), 9);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
}

TEST_F(Flakey, CorruptsAByteOfEachWriteButNotTheWritersMemory) {
    Device& device = down("5 corrupt_bio_byte 3 w 66 0");
    Memory memory{4, 9};
    EXPECT_EQ(w.io(device, Op::write, 8, 4, memory.at()), IoStatus::ok);
    EXPECT_TRUE(memory.all(9));
    Memory there{4};
    EXPECT_EQ(w.io(device, Op::read, 8, 4, there.at()), IoStatus::ok);
    EXPECT_EQ(there.bytes[2], 66);
    there.bytes[2] = 9;
    EXPECT_TRUE(there.all(9));
    EXPECT_EQ(w.reactor.buffers().bytes_out(), 0u);
}

TEST_F(Flakey, CorruptsEachPieceOfALongWrite) {
    Device& device = down("5 corrupt_bio_byte 1 w 1 0");
    Memory memory{5000, 9};
    EXPECT_EQ(w.io(device, Op::write, 0, 5000, memory.at()), IoStatus::ok);
    EXPECT_TRUE(memory.all(9));
    Memory there{5000};
    EXPECT_EQ(w.io(disk, Op::read, 0, 5000, there.at()), IoStatus::ok);
    for (std::uint64_t sector = 0; sector < 5000; ++sector) EXPECT_EQ(there.sector(sector), sector % 2048 == 0 ? 1 : 9) << sector;
    EXPECT_EQ(w.reactor.buffers().bytes_out(), 0u);
}

TEST_F(Flakey, CorruptsOnlyRequestsWithAllTheFlagsNamed) {
    Device& fua = down("5 corrupt_bio_byte 1 w 1 131072");
    EXPECT_EQ(w.write(fua, 0, 1, 9), IoStatus::ok);
    EXPECT_EQ(w.read(disk, 0, 1), 9);
    EXPECT_EQ(w.write(fua, 0, 1, 9, {.fua = true}), IoStatus::ok);
    EXPECT_EQ(w.read(disk, 0, 1), -1);
    Device& reads = down("5 corrupt_bio_byte 1 r 66 1");    // a read has no write's flag
    EXPECT_EQ(w.write(disk, 0, 1, 9), IoStatus::ok);
    EXPECT_EQ(w.read(reads, 0, 1), 9);
}

TEST_F(Flakey, KeepsTheByteOfAFailedRead) {
    Device& device = down("5 corrupt_bio_byte 1 r 66 0");
    disk.fail_always(op_bit(Op::read), IoStatus::corrupt);
    Memory memory{1, 3};
    EXPECT_EQ(w.io(device, Op::read, 0, 1, memory.at()), IoStatus::corrupt);
    EXPECT_TRUE(memory.all(3));
}

TEST_F(Flakey, AnswersExtentsAlways) {
    Device& device = down("");
    ExtentAnswer answer;
    EXPECT_EQ(w.reactor.io(device, Op::extent_status, {{0}, {8}}, nullptr, {}, &answer), IoStatus::ok);
    EXPECT_EQ(answer.length.v, 8u);
}

}  // namespace
}  // namespace udm
