// The parts of udmsetup that turn text into text: tables, names, trees.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "apps/udmsetup/names.hpp"
#include "apps/udmsetup/concise.hpp"
#include "apps/udmsetup/tree.hpp"
#include "ctl/client_table.hpp"

namespace udm::udmsetup {
namespace {

std::string error_of(std::string_view text, std::string_view source = " ") {
    try {
        parse_table(text, source);
    } catch (const BadTable& bad) {
        return bad.what();
    }
    return "";
}

TEST(TableText, IsALineATargetWithoutCommentsAndEmptyLines) {
    const auto table = parse_table("0 8 zero\n# comment\n\n   8 8 linear   /dev/sda 3 \n", " on stdin");
    ASSERT_EQ(table.size(), 2u);
    EXPECT_EQ(table[0], (nlohmann::json{{"start", 0}, {"length", 8}, {"type", "zero"}, {"params", ""}}));
    EXPECT_EQ(table[1],
              (nlohmann::json{{"start", 8}, {"length", 8}, {"type", "linear"}, {"params", "/dev/sda 3"}}));
    EXPECT_TRUE(parse_table("", " ").empty());
}

TEST(TableText, NamesTheLineThatIsWrong) {
    EXPECT_EQ(error_of("garbage"), "Invalid format on line 1 of table .");
    EXPECT_EQ(error_of("0 8 zero\n0 8", " on stdin"), "Invalid format on line 2 of table on stdin.");
    EXPECT_EQ(error_of("0 8 zero\nx", " /tmp/t"), "Invalid format on line 2 of table /tmp/t.");
    EXPECT_EQ(error_of("-1 8 zero"), "Invalid format on line 1 of table .");
    EXPECT_EQ(error_of("0 8 averyveryverylongtype"), "Target type name averyveryverylongtype is too long.");
}

TEST(ConciseText, HoldsSeveralDevicesAndQuotes) {
    const auto devices = parse_concise("c1,,,rw,0 8 zero;c\\,2,UU-2,7,ro,0 8 error,8 8 zero;");
    ASSERT_EQ(devices.size(), 2u);
    EXPECT_EQ(devices[0].name, "c1");
    EXPECT_FALSE(devices[0].read_only);
    EXPECT_FALSE(devices[0].minor);
    EXPECT_EQ(devices[0].table, "0 8 zero");
    EXPECT_EQ(devices[1].name, "c,2");
    EXPECT_EQ(devices[1].uuid, "UU-2");
    EXPECT_EQ(devices[1].minor, 7u);
    EXPECT_TRUE(devices[1].read_only);
    EXPECT_EQ(devices[1].table, "0 8 error\n8 8 zero");
    EXPECT_TRUE(parse_concise("").empty());
}

TEST(ConciseText, SaysWhichFieldIsMissingOrWrong) {
    const auto error = [](std::string_view text) -> std::string {
        try {
            parse_concise(text);
        } catch (const BadTable& bad) {
            return bad.what();
        }
        return "";
    };
    EXPECT_EQ(error("a,b"),
              "Five comma-separated fields are required for each device\n"
              "Parsed 2 fields: name: a uuid: b minor: (null) flags: (null) table: (null)");
    EXPECT_EQ(error("a,,,rw,"),
              "Incomplete entry: five comma-separated fields are required for each device\n"
              "Parsed 5 fields: name: a uuid:  minor:  flags: rw table: ");
    EXPECT_EQ(error("a,,,xx,0 8 zero"), "Invalid flags parameter 'xx' must be 'ro' or 'rw' or empty.");
    EXPECT_EQ(error("a,,x,rw,0 8 zero"), "Invalid minor number 'x' must be a number or empty.");
}

TEST(ConciseText, WhatIsPrintedCanBeReadAgain) {
    const std::string name = "a,b;c\\d";
    EXPECT_EQ(quote_concise(name), "a\\,b\\;c\\\\d");
    EXPECT_EQ(parse_concise(quote_concise(name) + ",,,rw,0 8 zero")[0].name, name);
}

TEST(MangledNames, AreTakenForWhatTheyStandFor) {
    EXPECT_EQ(mangled("a b/é"), "a\\x20b\\x2f\\xc3\\xa9");
    EXPECT_EQ(mangled("vg-lv_1+#.:=@"), "vg-lv_1+#.:=@");
    EXPECT_EQ(plain_name("a\\x20b", Mangling::automatic), "a b");
    EXPECT_EQ(plain_name("a b", Mangling::automatic), "a b");
    EXPECT_EQ(plain_name("a\\x20b", Mangling::none), "a\\x20b");
    EXPECT_FALSE(plain_name("a\\x20b c", Mangling::automatic));  // mixed
    EXPECT_FALSE(plain_name("x\\x2", Mangling::automatic));
    EXPECT_FALSE(plain_name("x\\x", Mangling::automatic));
    for (std::string_view name : {"a b", "é", "%~!", "x"}) {
        EXPECT_EQ(plain_name(mangled(name), Mangling::automatic), name);
    }
}

TEST(SplitNames, AreLvmsParts) {
    const auto parts = [](std::string_view name) {
        const NameParts p = split_name(name, "LVM");
        return p.vg + "|" + p.lv + "|" + p.layer;
    };
    EXPECT_EQ(parts("vg00-lv00"), "vg00|lv00|");
    EXPECT_EQ(parts("vg--a-lv--b-x"), "vg-a|lv-b|x");
    EXPECT_EQ(parts("vg---lv"), "vg-|lv|");
    EXPECT_EQ(parts("vg-lv--"), "vg|lv-|");
    EXPECT_EQ(parts("vg-"), "vg-||");
    EXPECT_EQ(parts("-lv"), "|lv|");
    EXPECT_EQ(parts("a-b-c-d"), "a|b|c");
    EXPECT_EQ(split_name("vg-lv", "CRYPT").vg, "");
    EXPECT_EQ(subsystem_of("LVM-abc-def"), "LVM");
    EXPECT_EQ(subsystem_of("abc"), "");
}

TEST(DeviceWords, ThatAreRelativePathsBecomeAbsolute) {
    const std::string here = std::filesystem::current_path().string();
    EXPECT_EQ(ctl::with_absolute_paths("linear", "disk.img 8"), here + "/disk.img 8");
    EXPECT_EQ(ctl::with_absolute_paths("linear", "./x/../disk.img 8"), here + "/disk.img 8");
    EXPECT_EQ(ctl::with_absolute_paths("linear", "my\\ disk 8"), here + "/my\\ disk 8");
    EXPECT_EQ(ctl::with_absolute_paths("striped", "2 8 a 0 b 8"), "2 8 " + here + "/a 0 " + here + "/b 8");
    EXPECT_EQ(ctl::with_absolute_paths("delay", "a 0 5 b 8 6"), here + "/a 0 5 " + here + "/b 8 6");
    EXPECT_EQ(ctl::with_absolute_paths("snapshot", "origin cow P 8"), here + "/origin " + here + "/cow P 8");
    EXPECT_EQ(ctl::with_absolute_paths("mirror", "disk 2 log 1024 2 a 0 udm:b 8 1 handle_errors"),
              "disk 2 " + here + "/log 1024 2 " + here + "/a 0 udm:b 8 1 handle_errors");
    EXPECT_EQ(ctl::with_absolute_paths("mirror", "core 2 1024 nosync 3 a 0 b 0 c 0"), "core 2 1024 nosync 3 " + here + "/a 0 " + here + "/b 0 " + here + "/c 0");
    for (const char* odd : {"", "disk", "disk x log", "disk 9 log 1024", "core 1 1024", "core 1 1024 x a 0", "core 0"})
        EXPECT_EQ(ctl::with_absolute_paths("mirror", odd).find(here + "/0"), std::string::npos) << odd;
}

TEST(DeviceWords, OfOtherKindsStayAsTheyAre) {
    for (std::string_view word : {"/dev/sda", "253:0", "udm:vol", "ram:4M", "ram:name:4M", "nbd://host/x",
                                  "nbd+unix:///x?socket=/s"}) {
        EXPECT_EQ(ctl::with_absolute_paths("linear", std::string{word} + "  8"), std::string{word} + "  8")
            << word;
    }
    EXPECT_EQ(ctl::with_absolute_paths("unknown", "disk 8"), "disk 8");
    EXPECT_EQ(ctl::with_absolute_paths("linear", "a\\"), "a\\");  // cannot be split: the daemon says so
}

std::string drawn(const std::vector<TreeNode>& nodes, const std::vector<std::size_t>& roots,
                  TreeStyle style) {
    char* text = nullptr;
    std::size_t size = 0;
    std::FILE* stream = ::open_memstream(&text, &size);
    print_tree(stream, nodes, roots, style);
    std::fclose(stream);
    std::string result{text, size};
    std::free(text);
    return result;
}

const std::vector<TreeNode> kNodes{{"top (253:3)", {1}}, {"mid (253:2)", {2, 3}}, {"b2 (253:1)", {4}},
                                   {"b1 (253:0)", {5}},  {" (254:48)", {}},       {" (254:32)", {}}};

TEST(Trees, HaveALineANode) {
    EXPECT_EQ(drawn(kNodes, {0}, {}),
              "top (253:3)\n"
              " `-mid (253:2)\n"
              "    |-b2 (253:1)\n"
              "    |  `- (254:48)\n"
              "    `-b1 (253:0)\n"
              "       `- (254:32)\n");
    EXPECT_EQ(drawn(kNodes, {2}, {.lines = TreeLines::utf}), "b2 (253:1)\n └─ (254:48)\n");
    EXPECT_EQ(drawn(kNodes, {2}, {.lines = TreeLines::vt100}), "b2 (253:1)\n \x1b(0\x0fmq\x1b(B (254:48)\n");
}

TEST(Trees, CanBeCompactWithBranchesBelowEachOther) {
    EXPECT_EQ(drawn(kNodes, {0}, {.compact = true}),
              "top (253:3)---mid (253:2)-+-b2 (253:1)--- (254:48)\n"
              "                          `-b1 (253:0)--- (254:32)\n");
}

TEST(Trees, CutLongLinesAtTheWidthOfTheTerminal) {
    const std::vector<TreeNode> wide{{std::string(30, 'x'), {}}};
    EXPECT_EQ(drawn(wide, {0}, {.width = 20, .is_terminal = true}), std::string(17, 'x') + "...\n");
    EXPECT_EQ(drawn(wide, {0}, {.width = 30, .is_terminal = true}), std::string(30, 'x') + "\n");
    EXPECT_EQ(drawn(wide, {0}, {.width = 20}), std::string(19, 'x') + "...\n");  // as dmsetup into a pipe
    EXPECT_EQ(drawn(wide, {0}, {}), std::string(30, 'x') + "\n");
}

}  // namespace
}  // namespace udm::udmsetup
