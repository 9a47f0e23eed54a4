// Reports and selection on rows of its own.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "apps/udmsetup/report.hpp"
#include "apps/udmsetup/selection.hpp"

namespace udm::udmsetup {
namespace {

constexpr Field kFields[] = {
    {"name", "Name", 8, FieldType::text, "name", "Name."},
    {"uuid", "UUID", 4, FieldType::text, "name", "Uuid."},
    {"open", "Open", 4, FieldType::number, "info", "Opens."},
    {"devs_used", "Devs", 4, FieldType::list, "deps", "Devices."},
    {"selected", "Selected", 8, FieldType::number, "special", "Selected."},
    {"help", "", 0, FieldType::text, "special", "Help."},
};

struct Thing {
    std::string name, uuid;
    std::uint64_t open;
    std::vector<std::string> used;
};
const std::vector<Thing> kThings{
    {"base", "", 2, {}}, {"mid", "UU-1", 1, {"base", "other"}}, {"averylongname", "", 10, {"mid"}}};

Row row_of(const Thing& thing) {
    return [&thing](std::size_t field) {
        switch (field) {
            case 0:
                return Cell::of(thing.name);
            case 1:
                return Cell::of(thing.uuid);
            case 2:
                return Cell::of(thing.open);
            default:
                return Cell::of(thing.used);
        }
    };
}

std::string printed(std::string_view columns, std::string_view sort = "", ReportOptions options = {},
                    std::string_view selection = "") {
    Report report{kFields, columns, "name,open", sort, std::move(options)};
    const Selection chosen{kFields, selection};
    for (const Thing& thing : kThings) report.add(row_of(thing), &chosen);
    char* text = nullptr;
    std::size_t size = 0;
    std::FILE* stream = ::open_memstream(&text, &size);
    report.print(stream);
    std::fclose(stream);
    std::string result{text, size};
    std::free(text);
    return result;
}

TEST(ReportColumns, AreAlignedNumbersToTheRight) {
    EXPECT_EQ(printed("name,open,uuid"),
              "Name          Open UUID\n"
              "base             2     \n"
              "mid              1 UU-1\n"
              "averylongname   10     \n");
}

TEST(ReportColumns, AreAddedToTheDefaultWithAPlus) {
    EXPECT_EQ(printed("+devs_used", "", {.headings = false}),
              "base:2:\nmid:1:base,other\naverylongname:10:mid\n");
}

TEST(ReportColumns, CanBeNamedByGroupAndWithoutRegardToCaseAndUnderscores) {
    EXPECT_EQ(printed("name_all", "", {.headings = false}), "base:\nmid:UU-1\naverylongname:\n");
    EXPECT_EQ(printed("all", "", {.headings = false}),
              "base::2:\nmid:UU-1:1:base,other\naverylongname::10:mid\n");
    EXPECT_EQ(printed("DevsUsed,NAME", "", {.headings = false}),
              ":base\nbase,other:mid\nmid:averylongname\n");
}

TEST(ReportColumns, CanBeSeparatedPrefixedAndTurned) {
    EXPECT_EQ(printed("name,open", "", {.separator = "|"}), "Name|Open\nbase|2\nmid|1\naverylongname|10\n");
    EXPECT_EQ(
        printed("name,open", "", {.headings = false, .prefixes = true}),
        "DM_NAME='base':DM_OPEN='2'\nDM_NAME='mid':DM_OPEN='1'\nDM_NAME='averylongname':DM_OPEN='10'\n");
    EXPECT_EQ(printed("devs_used", "", {.prefixes = true, .quotes = false}),
              "Devs\nDM_DEVS_USED=\nDM_DEVS_USED=base,other\nDM_DEVS_USED=mid\n");
    EXPECT_EQ(printed("name,open", "", {.rows = true}), "Name base mid averylongname\nOpen 2 1 10\n");
    EXPECT_EQ(printed("name,open", "", {.headings = false, .rows = true}),
              "base:mid:averylongname\n2:1:10\n");
}

TEST(ReportSorting, TakesNumbersAsNumbersAndSeveralKeys) {
    EXPECT_EQ(printed("name", "open", {.headings = false}), "mid\nbase\naverylongname\n");
    EXPECT_EQ(printed("name", "-open", {.headings = false}), "averylongname\nbase\nmid\n");
    EXPECT_EQ(printed("name", "uuid,-name", {.headings = false}), "base\naverylongname\nmid\n");
}

TEST(ReportColumns, OfNoRowsPrintNothingNotEvenHeadings) {
    EXPECT_EQ(printed("name", "", {}, "name=nobody"), "");
}

TEST(ReportColumns, WithSelectedShowEveryRow) {
    EXPECT_EQ(printed("name,selected", "", {.headings = false}, "open>1"),
              "base:1\nmid:0\naverylongname:1\n");
}

TEST(ReportColumns, ThatAreUnknownAreNamed) {
    try {
        printed("name,nosuch");
        FAIL();
    } catch (const BadReport& bad) {
        EXPECT_EQ(bad.message, "Unrecognised field: nosuch");
        EXPECT_TRUE(bad.fields_help);
    }
    EXPECT_THROW(printed("name", "nosuch"), BadReport);
    try {
        printed("help");
        FAIL();
    } catch (const BadReport& bad) {
        EXPECT_FALSE(bad.failed);
    }
}

// The names that are selected, in order.
std::string selected(std::string_view selection) {
    std::string text;
    const Selection chosen{kFields, selection};
    for (const Thing& thing : kThings) {
        if (chosen.matches(row_of(thing))) text += thing.name.substr(0, 1);
    }
    return text;
}

std::string selection_error(std::string_view selection) {
    try {
        selected(selection);
    } catch (const BadReport& bad) {
        return bad.message.substr(0, bad.message.find("\nUse 'help'"));
    }
    return "";
}

TEST(SelectionLanguage, ComparesTextAndNumbers) {
    EXPECT_EQ(selected(""), "bma");
    EXPECT_EQ(selected("name=mid"), "m");
    EXPECT_EQ(selected("name != mid"), "ba");
    EXPECT_EQ(selected("name='mid'"), "m");
    EXPECT_EQ(selected("uuid=\"\""), "ba");
    EXPECT_EQ(selected("uuid="), "ba");
    EXPECT_EQ(selected("open>=2"), "ba");
    EXPECT_EQ(selected("open>2"), "a");
    EXPECT_EQ(selected("open<2"), "m");
    EXPECT_EQ(selected("open<=2"), "bm");
    EXPECT_EQ(selected("open!=1"), "ba");
    EXPECT_EQ(selected("open=1.9"), "m");  // fractions are left out
}

TEST(SelectionLanguage, FindsRegularExpressionsBareAndQuoted) {
    EXPECT_EQ(selected("name=~^b"), "b");
    EXPECT_EQ(selected("name!~^b"), "ma");
    EXPECT_EQ(selected("name=~(base|mid)"), "bm");
    EXPECT_EQ(selected("name=~'^[bm]'"), "bm");
    EXPECT_EQ(selected("name=~[i.$]"), "m");  // brackets quote, too
    EXPECT_EQ(selected("devs_used=~^oth"), "m");
}

TEST(SelectionLanguage, JoinsWithAndBeforeOr) {
    EXPECT_EQ(selected("name=mid||name=base&&open=99"), "m");
    EXPECT_EQ(selected("(name=mid||name=base)&&open=2"), "b");
    EXPECT_EQ(selected("name=mid#name=base"), "bm");
    EXPECT_EQ(selected("name=mid,open=1"), "m");
    EXPECT_EQ(selected("!(name=mid)"), "ba");
    EXPECT_EQ(selected("! (name=mid || open=2)"), "a");
    EXPECT_EQ(selected("!(!(name=mid))"), "m");
}

TEST(SelectionLanguage, ComparesListsByTheirItems) {
    EXPECT_EQ(selected("devs_used=base,name=mid"), "");  // as printed: base,other
    EXPECT_EQ(selected("devs_used=mid"), "a");
    EXPECT_EQ(selected("devs_used=[other,base]"), "m");
    EXPECT_EQ(selected("devs_used=[base]"), "");
    EXPECT_EQ(selected("devs_used={base}"), "m");
    EXPECT_EQ(selected("devs_used={mid#other}"), "ma");
    EXPECT_EQ(selected("devs_used={'mid' || other}"), "ma");
    EXPECT_EQ(selected("devs_used=[]"), "b");
    EXPECT_EQ(selected("devs_used!={base}"), "ba");
}

TEST(SelectionLanguage, SaysWhereItIsWrong) {
    EXPECT_EQ(selection_error("nosuch=1"),
              "Unrecognised selection field: nosuch\nSelection syntax error at 'nosuch=1'.");
    EXPECT_EQ(selection_error("=mid"), "Expecting field name\nSelection syntax error at '=mid'.");
    EXPECT_EQ(selection_error("name=mid &&"), "Expecting field name\nSelection syntax error at ''.");
    EXPECT_EQ(selection_error("name=mid x"), "Expecting logical operator\nSelection syntax error at 'x'.");
    EXPECT_EQ(selection_error("name=mid)"), "Expecting logical operator\nSelection syntax error at ')'.");
    EXPECT_EQ(selection_error("(name=mid"), "Syntax error: right parenthesis expected at ''");
    EXPECT_EQ(selection_error("!name=mid"), "Syntax error: left parenthesis expected at 'name=mid'");
    EXPECT_EQ(selection_error("open=x"),
              "Failed to parse numeric value for selection field open.\nSelection syntax error at 'open=x'.");
    EXPECT_EQ(selection_error("open=1k"),
              "Found size unit specifier but numeric value expected for selection field open.\nSelection "
              "syntax error at 'open=1k'.");
    EXPECT_EQ(selection_error("open=99999999999999999999"),
              "Field selection value 99999999999999999999 out of supported range for field open.");
    EXPECT_EQ(selection_error("name>mid"),
              "Operator can be used only with number, size, time or percent fields: name>mid\nSelection "
              "syntax error at 'name>mid'.");
    EXPECT_EQ(selection_error("open=~1"), "dm_report: incompatible comparison type for selection field open");
    EXPECT_EQ(selection_error("name=~["),
              "Missing end quote.\nFailed to parse regex value for selection field name.\nSelection syntax "
              "error at 'name=~['.");
    EXPECT_EQ(selection_error("name=~'('").substr(0, 23), "Couldn't parse regex '(");
    EXPECT_EQ(selection_error("devs_used=[a"),
              "Failed to parse list of string values for selection field devs_used.\nSelection syntax error "
              "at 'devs_used=[a'.");
}

}  // namespace
}  // namespace udm::udmsetup
