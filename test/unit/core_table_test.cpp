// What a table refuses and in which words, and the limits it adds up.
#include <gtest/gtest.h>

#include "test/support/mapped_world.hpp"
#include "test/support/probe_target.hpp"

namespace udm {
namespace {

struct TableText : testing::Test {
    MappedWorld w;
    ProbeType& probes = add_probe_type(w.types);
    Memory memory{64};

    void expect_refusal(const std::string& text, const std::string& words) {
        const std::string message = w.refusal(text);
        const auto colon = message.find(": ", message.find(':') + 1);
        EXPECT_EQ(message.substr(0, 11), "table: 253:") << message;
        EXPECT_EQ(message.substr(colon + 2, words.size()), words) << text;
    }
};

TEST_F(TableText, IsRefusedInTheKernelsWords) {
    w.disk("a");
    expect_refusal("0 8 nosuch", "nosuch: unknown target type");
    expect_refusal("8 8 zero", "zero: Gap in table");
    expect_refusal("0 0 zero", "zero-length target");
    expect_refusal("0 8 zero\n4 8 zero", "zero: Gap in table");
    expect_refusal("0 8 zero\n16 8 zero", "zero: Gap in table");
    expect_refusal("", "no targets specified");
    expect_refusal("0 8 linear a \\", "linear: couldn't split parameters");
    expect_refusal("0 18014398509481985 zero", "zero: it ends beyond");
    expect_refusal("0 18014398509481984 zero\n18014398509481984 1 zero", "zero: it ends beyond");
    expect_refusal("0 18446744073709551615 zero", "zero: it ends beyond");
    EXPECT_EQ(w.refusal("0 18014398509481984 zero"), "");
}

TEST_F(TableText, NamesItsDeviceFirst) {
    w.device("zeroth");
    Device& device = w.device("first");
    const auto built = w.build(device, "0 8 nosuch");
    ASSERT_FALSE(built.has_value());
    EXPECT_EQ(built.error().message.find("table: 253:1: nosuch: unknown target type: there are "), 0u) << built.error().message;
    EXPECT_NE(built.error().message.find("linear, "), std::string::npos) << built.error().message;
    EXPECT_EQ(built.error().code, Errc::bad_argument);
}

TEST_F(TableText, ThatDoesNotFitItsDevicesIsRefused) {
    w.disk("vdc", 16384);
    expect_refusal("0 80192 linear vdc 0", "vdc too small for target: start=0, len=80192, dev_size=16384");
    expect_refusal("0 8192 linear vdc 12288", "vdc too small for target: start=12288, len=8192, dev_size=16384");
    expect_refusal("0 1 linear vdc 16384", "vdc too small for target: start=16384, len=1, dev_size=16384");
    expect_refusal("0 8192 striped 2 16 vdc 0 vdc 14000", "vdc too small for target: start=14000, len=4096, dev_size=16384");
    EXPECT_EQ(w.refusal("0 4096 linear vdc 12288"), "");
    w.disks["vdc"]->resize({20000});    // grown since: found again at load
    EXPECT_EQ(w.refusal("0 20000 linear vdc 0"), "");
}

TEST_F(TableText, MayUseADeviceWithoutASizeYet) {
    w.device("empty");
    EXPECT_EQ(w.refusal("0 80192 linear empty 5"), "");
}

TEST_F(TableText, NotOnLogicalBlocksIsRefused) {
    Limits limits;
    limits.size = {16384};
    limits.logical_block = 4096;
    w.disk("nullb0", limits);
    w.disk("a");
    expect_refusal("0 8 linear nullb0 3", "start=3 not aligned to h/w logical block size 4096 of nullb0");
    expect_refusal("0 7 linear nullb0 0", "len=7 not aligned to h/w logical block size 4096 of nullb0");
    expect_refusal("0 4 zero\n4 8 linear nullb0 0", "table line 1 (start sect 4 len 8) not aligned to h/w logical block size 4096");
    expect_refusal("0 8 linear nullb0 0\n8 3 linear a 0",
                   "table line 2 (start sect 8 len 3) not aligned to h/w logical block size 4096");
    EXPECT_EQ(w.refusal("0 8 linear nullb0 8\n8 8 zero"), "");
}

TEST_F(TableText, ThatUsesItsOwnDeviceIsRefused) {
    w.disk("a");
    Device& device = w.start("d", "0 100 linear a 0");
    const auto loaded = w.load(device, "0 100 linear d 0");
    ASSERT_FALSE(loaded.has_value());
    EXPECT_EQ(loaded.error().message, "table: 253:0: linear: Device lookup failed: d is the device the table is for");
    EXPECT_EQ(w.opener.open_count("d"), 0u);
    EXPECT_EQ(w.load(device, "0 100 linear 253:0 0").has_value(), false);
}

TEST_F(TableText, ThatLeadsBackToItsDeviceIsRefused) {
    w.disk("a");
    Device& one = w.start("one", "0 100 linear a 0");
    w.start("two", "0 100 linear one 0");
    w.start("three", "0 50 zero\n50 50 linear two 0");
    const auto loaded = w.load(one, "0 100 linear three 0");
    ASSERT_FALSE(loaded.has_value());
    EXPECT_EQ(loaded.error().message, "table: 253:0: Device lookup failed: three leads back to the device the table is for");
    // Not only through live tables.
    Device& four = w.start("four", "0 100 zero");
    ASSERT_TRUE(w.load(one, "0 100 linear four 0").has_value());
    EXPECT_FALSE(w.load(four, "0 100 linear three 0").has_value());
    one.clear_inactive();
    EXPECT_TRUE(w.load(four, "0 100 linear three 0").has_value());
}

TEST_F(TableText, ThatStacksTooHighIsRefused) {
    w.disk("a");
    std::string below = "a";
    for (unsigned level = 1; level <= Table::kLevelsMax; ++level) {
        const std::string name = "s" + std::to_string(level);
        EXPECT_EQ(w.start(name, "0 100 linear " + below + " 0").levels(), level);
        below = name;
    }
    expect_refusal("0 100 linear " + below + " 0", "too many mapped devices on top of each other: 65, at most 64");
    EXPECT_EQ(w.write(*w.disks["a"], 0, 1, 3), IoStatus::ok);
}

TEST_F(TableText, FailsToLoadWithItsTargetsWords) {
    probes["bad"].load_result = fail(Errc::corrupt, "Failed to read metadata");
    Device& device = w.device("d");
    const auto loaded = w.load(device, "0 8 probe good\n8 8 probe bad\n16 8 probe later");
    ASSERT_FALSE(loaded.has_value());
    EXPECT_EQ(loaded.error().message, "table: 253:0: probe: Failed to read metadata");
    EXPECT_EQ(loaded.error().code, Errc::corrupt);
    EXPECT_EQ(probes["good"].steps, (std::vector<std::string>{"load", "gone"}));
    EXPECT_EQ(probes["later"].steps, (std::vector<std::string>{"gone"}));
    EXPECT_EQ(device.inactive(), nullptr);
}

TEST_F(TableText, DestroysItsTargetsInReverse) {
    std::vector<std::string> order;
    probes["one"].shared_steps = probes["two"].shared_steps = &order;
    const auto built = w.build(w.device("d"), "0 8 probe one\n8 8 probe two\n16 8 nosuch");
    EXPECT_FALSE(built.has_value());
    EXPECT_EQ(order.size(), 2u);
}

TEST_F(TableText, FindsTheLineOfEachSector) {
    Prng random{3};
    std::string text;
    std::vector<std::uint64_t> ends;
    std::uint64_t size = 0;
    for (int i = 0; i < 200; ++i) {
        const std::uint64_t length = random.between(1, 5);
        text += std::to_string(size) + " " + std::to_string(length) + " zero\n";
        size += length;
        ends.push_back(size);
    }
    auto table = w.build(w.device("d"), text);
    ASSERT_TRUE(table.has_value());
    for (int i = 0; i < 5000; ++i) {
        const std::uint64_t sector = random.below(size);
        std::size_t line = 0;
        while (ends[line] <= sector) ++line;
        ASSERT_EQ(&(*table)->at({sector}), &(*table)->entries()[line]);
    }
}

TEST_F(TableText, ListsEachDeviceOnce) {
    w.disk("a");
    w.disk("b");
    Device& device = w.start("d", "0 8 linear b 0\n8 8 linear a 0\n16 16 striped 2 8 a 8 b 8\n32 8 zero");
    const auto& devices = device.live()->devices();
    ASSERT_EQ(devices.size(), 2u);
    EXPECT_EQ(devices[0]->words(), "b");
    EXPECT_EQ(devices[1]->words(), "a");
}

TEST_F(TableText, AddsUpTheLimitsOfWhatIsBelow) {
    Limits one, two;
    one.size = two.size = {16384};
    one.discard = two.discard = true;
    one.fast_zeroes = two.fast_zeroes = true;
    one.volatile_cache = two.volatile_cache = false;
    one.physical_block = 4096;
    two.logical_block = 1024;
    one.max_transfer = {2048};
    two.max_transfer = {1024};
    one.optimal_io = 65536;
    two.optimal_io = 3 * 4096;
    two.memory_alignment = 512;
    two.discard_granularity = 65536;
    w.disk("one", one);
    w.disk("two", two);
    const Limits limits = w.start("d", "0 1024 linear one 0\n1024 1024 linear two 0").limits();
    EXPECT_EQ(limits.size.v, 2048u);
    EXPECT_EQ(limits.logical_block, 1024u);
    EXPECT_EQ(limits.physical_block, 4096u);
    EXPECT_EQ(limits.max_transfer.v, 1024u);
    EXPECT_EQ(limits.optimal_io, 3u * 65536);
    EXPECT_EQ(limits.memory_alignment, 512u);
    EXPECT_EQ(limits.discard_granularity, 65536u);
    EXPECT_TRUE(limits.discard);
    EXPECT_TRUE(limits.fast_zeroes);
    EXPECT_TRUE(limits.write_zeroes);
    EXPECT_FALSE(limits.volatile_cache);
    EXPECT_FALSE(limits.read_only);

    Limits poor;
    poor.size = {16384};
    poor.write_zeroes = false;
    w.disk("poor", poor);
    const Limits mixed = w.start("e", "0 1024 linear one 0\n1024 1024 linear poor 0").limits();
    EXPECT_FALSE(mixed.discard);
    EXPECT_FALSE(mixed.fast_zeroes);
    EXPECT_TRUE(mixed.write_zeroes);    // core writes them by hand
    EXPECT_TRUE(mixed.volatile_cache);
    const Limits zero = w.start("z", "0 1024 zero").limits();
    EXPECT_TRUE(zero.discard && zero.fast_zeroes && !zero.volatile_cache);
}

}  // namespace
}  // namespace udm
