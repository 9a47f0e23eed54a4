// linear, zero and error; and why constructors of all small targets refuse what they refuse.
#include <gtest/gtest.h>

#include "test/support/mapped_world.hpp"

namespace udm {
namespace {

struct SmallTargets : testing::Test {
    MappedWorld w;
    Memory memory{64};
};

TEST_F(SmallTargets, HaveTheNamesAndVersionsOfLinux61) {
    std::vector<std::string> known;
    for (const auto& type : w.types.all()) {
        const auto version = type->version();
        known.push_back(std::string{type->name()} + " " + std::to_string(version[0]) + "." + std::to_string(version[1]) + "." +
                        std::to_string(version[2]));
    }
    known.resize(6);
    EXPECT_EQ(known, (std::vector<std::string>{"error 1.5.0", "linear 1.4.0", "striped 1.6.0", "zero 1.1.0", "delay 1.3.0",
                                               "flakey 1.5.0"}));
}

TEST_F(SmallTargets, RefuseInTheKernelsWordsAndSayMore) {
    w.disk("a");
    w.disk("b");
    const std::pair<const char*, const char*> cases[] = {
        {"0 8 zero extra", "zero: No arguments required"},
        {"0 8 linear a", "linear: Invalid argument count"},
        {"0 8 linear", "linear: Invalid argument count"},
        {"0 8 linear a 0 0", "linear: Invalid argument count"},
        {"0 8 linear a x", "linear: Invalid device sector"},
        {"0 8 linear a -1", "linear: Invalid device sector"},
        {"0 8 linear a 1x", "linear: Invalid device sector"},
        {"0 8 linear a 18446744073709551616", "linear: Invalid device sector"},
        {"0 8 linear none 0", "linear: Device lookup failed: none: no such device"},
        {"0 8192 striped", "striped: Not enough arguments"},
        {"0 8192 striped x", "striped: Not enough arguments"},
        {"0 8192 striped 2 16 a 0", "striped: Not enough destinations specified"},
        {"0 8192 striped 2 16 a 0 b 0 extra", "striped: Not enough destinations specified"},
        {"0 8192 striped 3 16 a 0 b 0 a 0", "striped: Target length not divisible by number of stripes"},
        {"0 8191 striped 2 12 a 0 b 0", "striped: Target length not divisible by number of stripes"},
        {"0 8190 striped 2 12 a 0 b 0", "striped: Target length not divisible by chunk size"},
        {"0 8192 striped 0 16", "striped: Invalid stripe count"},
        {"0 8192 striped x 16 a 0 b 0", "striped: Invalid stripe count"},
        {"0 8192 striped 2 0 a 0 b 0", "striped: Invalid chunk_size"},
        {"0 8192 striped 2 x a 0 b 0", "striped: Invalid chunk_size"},
        {"0 8192 striped 2 16 a 0 b x", "striped: Couldn't parse stripe destination"},
        {"0 8192 striped 2 16 a 0 none 0", "striped: Couldn't parse stripe destination: none: no such device"},
        {"0 8192 delay a 0", "delay: Requires exactly 3, 6 or 9 arguments"},
        {"0 8192 delay a 0 1 b", "delay: Requires exactly 3, 6 or 9 arguments"},
        {"0 8192 delay a 0 x", "delay: Invalid delay"},
        {"0 8192 delay a 0 4294967296", "delay: Invalid delay"},
        {"0 8192 delay a x 10", "delay: Invalid device sector"},
        {"0 8192 delay none 0 10", "delay: Device lookup failed"},
        {"0 8192 delay a 0 10 none 0 10", "delay: Device lookup failed"},
        {"0 8192 delay a 0 10 b x 10", "delay: Invalid device sector"},
        {"0 8192 delay a 0 10 b 0 x", "delay: Invalid delay"},
        {"0 8192 flakey", "flakey: Invalid argument count"},
        {"0 8192 flakey a 0 5", "flakey: Invalid argument count"},
        {"0 8192 flakey none 0 5 5", "flakey: Device lookup failed"},
        {"0 8192 flakey a x 5 5", "flakey: Invalid device sector"},
        {"0 8192 flakey a 0 x 5", "flakey: Invalid up interval"},
        {"0 8192 flakey a 0 5 x", "flakey: Invalid up interval"},
        {"0 8192 flakey a 0 0 0", "flakey: Total (up + down) interval is zero"},
        {"0 8192 flakey a 0 5 5 x", "flakey: Invalid number of feature args"},
        {"0 8192 flakey a 0 5 5 9 drop_writes", "flakey: Invalid number of feature args"},
        {"0 8192 flakey a 0 5 5 2 drop_writes", "flakey: Invalid number of feature args"},
        {"0 8192 flakey a 0 5 5 1 nonsense", "flakey: Unrecognised flakey feature requested"},
        {"0 8192 flakey a 0 5 5 2 drop_writes drop_writes", "flakey: Feature drop_writes duplicated"},
        {"0 8192 flakey a 0 5 5 2 error_writes error_writes", "flakey: Feature error_writes duplicated"},
        {"0 8192 flakey a 0 5 5 2 drop_writes error_writes", "flakey: Feature error_writes conflicts with feature drop_writes"},
        {"0 8192 flakey a 0 5 5 2 error_writes drop_writes", "flakey: Feature drop_writes conflicts with feature error_writes"},
        {"0 8192 flakey a 0 5 5 1 corrupt_bio_byte", "flakey: Feature corrupt_bio_byte requires parameters"},
        {"0 8192 flakey a 0 5 5 5 corrupt_bio_byte 0 r 1 0", "flakey: Invalid corrupt bio byte"},
        {"0 8192 flakey a 0 5 5 5 corrupt_bio_byte x r 1 0", "flakey: Invalid corrupt bio byte"},
        {"0 8192 flakey a 0 5 5 5 corrupt_bio_byte 1 q 1 0", "flakey: Invalid corrupt bio direction (r or w)"},
        {"0 8192 flakey a 0 5 5 2 corrupt_bio_byte 1", "flakey: Invalid corrupt bio direction (r or w)"},
        {"0 8192 flakey a 0 5 5 5 corrupt_bio_byte 1 r 256 0", "flakey: Invalid corrupt value to write into bio byte (0-255)"},
        {"0 8192 flakey a 0 5 5 5 corrupt_bio_byte 1 r 1 x", "flakey: Invalid corrupt bio flags mask"},
        {"0 8192 flakey a 0 5 5 4 corrupt_bio_byte 1 r 1", "flakey: Invalid corrupt bio flags mask"},
        {"0 8192 flakey a 0 5 5 6 drop_writes corrupt_bio_byte 1 w 1 0",
         "flakey: drop_writes is incompatible with corrupt_bio_byte with the WRITE flag set"},
        {"0 8192 flakey a 0 5 5 6 corrupt_bio_byte 1 w 1 0 error_writes",
         "flakey: error_writes is incompatible with corrupt_bio_byte with the WRITE flag set"},
    };
    for (const auto& [text, words] : cases) {
        const std::string message = w.refusal(text);
        ASSERT_TRUE(message.starts_with("table: 253:")) << text;
        const std::string after = message.substr(message.find(": ", message.find(':') + 1) + 2);
        EXPECT_TRUE(after.starts_with(words)) << text << "\n  said " << after;
    }
    EXPECT_EQ(w.opener.open_count("a"), 0u);
    EXPECT_EQ(w.opener.open_count("b"), 0u);
}

TEST_F(SmallTargets, HandOnWhyADeviceCannotBeOpened) {
    w.disk("a");
    Device& device = w.device("d");
    w.opener.fail_open("a", Errc::busy);
    const auto busy = w.load(device, "0 8 linear a 0");
    ASSERT_FALSE(busy.has_value());
    EXPECT_EQ(busy.error().code, Errc::busy);
    const auto none = w.load(device, "0 8 linear none 0");
    ASSERT_FALSE(none.has_value());
    EXPECT_EQ(none.error().code, Errc::no_device);
}

TEST_F(SmallTargets, OpenTheirDevicesForWritingOnlyIfTheTableIs) {
    Limits limits;
    limits.size = {100};
    limits.read_only = true;
    w.disk("ro", limits);
    EXPECT_TRUE(w.refusal("0 8 linear ro 0").find("read-only") != std::string::npos);
    EXPECT_EQ(w.refusal("0 8 linear ro 0", TableMode::read_only), "");
    EXPECT_EQ(w.refusal("0 8 striped 1 8 ro 0", TableMode::read_only), "");
    EXPECT_EQ(w.refusal("0 8 flakey ro 0 1 1", TableMode::read_only), "");
    EXPECT_EQ(w.refusal("0 8 delay ro 0 1 ro 0 1 ro 0 1", TableMode::read_only), "");
}

TEST_F(SmallTargets, LinearMovesItsRange) {
    SimDisk& disk = w.disk("a");
    Device& device = w.start("d", "0 8 zero\n8 8 error\n16 8 linear a 3");
    EXPECT_EQ(w.table_text(device), "0 8 zero \n8 8 error \n16 8 linear a 3\n");
    EXPECT_EQ(w.status_text(device), "0 8 zero \n8 8 error \n16 8 linear \n");
    EXPECT_EQ(w.write(device, 17, 2, 9, {.fua = true}), IoStatus::ok);
    EXPECT_EQ(w.read(disk, 4, 2), 9);
    EXPECT_EQ(w.read(disk, 3, 1), 0);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 17, 1), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::discard, 18, 1), IoStatus::ok);
    EXPECT_EQ(w.read(disk, 4, 2), 0);
    ExtentAnswer answer;
    EXPECT_EQ(w.reactor.io(device, Op::extent_status, {{16}, {8}}, nullptr, {}, &answer), IoStatus::ok);
    EXPECT_EQ(answer.length.v, 8u);
}

TEST_F(SmallTargets, LinearQuotesWhiteSpaceInItsDevice) {
    w.disk("my disk");
    Device& device = w.start("d", "0 8 linear my\\ disk 0");
    EXPECT_EQ(w.table_text(device), "0 8 linear my\\ disk 0\n");
}

TEST_F(SmallTargets, ZeroReadsZeroesAndForgetsWrites) {
    Device& device = w.start("d", "0 100 zero");
    EXPECT_EQ(w.read(device, 0, 100), 0);
    EXPECT_EQ(w.write(device, 0, 100, 5, {.fua = true}), IoStatus::ok);
    EXPECT_EQ(w.read(device, 0, 100), 0);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::discard, 0, 100), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 0, 100, nullptr, {.fast_only = true}), IoStatus::ok);
    ExtentAnswer answer;
    EXPECT_EQ(w.reactor.io(device, Op::extent_status, {{5}, {95}}, nullptr, {}, &answer), IoStatus::ok);
    EXPECT_EQ(answer.length.v, 95u);
    EXPECT_TRUE(answer.hole && answer.zero);
}

TEST_F(SmallTargets, ErrorFailsWhateverComes) {
    Device& device = w.start("d", "0 100 error these words are ignored");
    EXPECT_EQ(w.table_text(device), "0 100 error \n");
    EXPECT_EQ(w.io(device, Op::read, 0, 8, memory.at()), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::write, 0, 8, memory.at()), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::discard, 0, 8), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 0, 8), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::extent_status, 0, 8), IoStatus::io_error);
    EXPECT_TRUE(w.suspend(device).has_value());    // and can be got rid of
    ASSERT_TRUE(w.load(device, "0 100 zero").has_value());
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
}

}  // namespace
}  // namespace udm
