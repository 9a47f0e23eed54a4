// The state directory: what survives, what is dropped, and what is never guessed from.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "base/crc32c.hpp"
#include "ctl/state.hpp"
#include "test/support/temp_folder.hpp"

namespace udm::ctl {
namespace {

std::string read_file(const std::string& path) {
    std::ostringstream text;
    text << std::ifstream{path, std::ios::binary}.rdbuf();
    return text.str();
}
void write_file(const std::string& path, const std::string& text) { std::ofstream{path, std::ios::binary} << text; }

class StateDirectory : public testing::Test {
  protected:
    std::string log() const { return folder / "st/state.log"; }
    std::string directory() const { return folder / "st"; }
    // A state with three devices, one record each.
    void fill() {
        State state;
        ASSERT_TRUE(state.open(directory()));
        for (const char* name : {"a", "b", "c"}) {
            ASSERT_TRUE(state.commit({{std::string{"device/"} + name, Json{{"name", name}}}}));
        }
    }
    std::vector<std::string> damaged_files() const {
        std::vector<std::string> found;
        for (const auto& entry : std::filesystem::directory_iterator{directory()}) {
            const std::string name = entry.path().filename();
            if (name.starts_with("state.log.damaged-")) found.push_back(entry.path());
        }
        return found;
    }
    test::TempFolder folder;
};

TEST(Crc32c, HasTheKnownValues) {
    EXPECT_EQ(crc32c("123456789"), 0xE3069283u);
    EXPECT_EQ(crc32c(std::string(32, '\0')), 0x8A9136AAu);
    EXPECT_EQ(crc32c("6789", crc32c("12345")), 0xE3069283u);
}

TEST_F(StateDirectory, KeepsWhatWasCommitted) {
    {
        State state;
        ASSERT_TRUE(state.open(directory()));
        ASSERT_TRUE(state.commit({{"device/0", Json{{"name", "a"}}}, {"device/1", Json{{"name", "b"}}}}));
        ASSERT_TRUE(state.commit({{"device/0", std::nullopt}, {"export/x", Json{{"n", 1}}}}));
    }
    State again;
    ASSERT_TRUE(again.open(directory()));
    EXPECT_FALSE(again.get("device/0"));
    EXPECT_EQ(again.get("device/1").value(), Json::parse(R"({"name":"b"})"));
    EXPECT_EQ(again.all("export/").size(), 1u);
    EXPECT_EQ(again.warning(), "");
    struct stat about{};
    ASSERT_EQ(::stat(directory().c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777, 0700u);
}

TEST_F(StateDirectory, LivesWithoutADirectory) {
    State state;
    ASSERT_TRUE(state.commit({{"device/0", Json{{"name", "a"}}}}));
    EXPECT_TRUE(state.get("device/0"));
    EXPECT_FALSE(state.is_kept());
}

TEST_F(StateDirectory, IsOneDaemonsAtATime) {
    State first, second;
    ASSERT_TRUE(first.open(directory()));
    const auto refused = second.open(directory());
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().code, Errc::busy);
    EXPECT_NE(refused.error().message.find(directory()), std::string::npos);
}

TEST_F(StateDirectory, CommitsOneOfTenThousandDevicesWithOneSmallWrite) {
    State state;
    ASSERT_TRUE(state.open(directory()));
    std::vector<State::Change> all;
    const auto value = [](int i, const std::string& params) {
        return Json{{"name", "volume-" + std::to_string(i)},
                    {"table", {{{"start", 0}, {"length", 2097152}, {"type", "linear"}, {"params", params}}}}};
    };
    for (int i = 0; i < 10'000; ++i) all.push_back({"device/" + std::to_string(i), value(i, "/srv/images/disk 0")});
    ASSERT_TRUE(state.commit(all));
    const auto before = state.bytes_written();
    ASSERT_TRUE(state.commit({{"device/5000", value(5000, "/srv/images/other 0")}}));
    EXPECT_LT(state.bytes_written() - before, 400u);
    ASSERT_TRUE(state.commit({{"device/5000", value(5000, "/srv/images/other 0")}}));
    EXPECT_LT(state.bytes_written() - before, 400u);    // nothing new, nothing written
}

TEST_F(StateDirectory, CompactsSoThatTheFileStaysInProportion) {
    State state;
    ASSERT_TRUE(state.open(directory()));
    const std::string filler(1000, 'x');
    for (int i = 0; i < 5000; ++i) {
        ASSERT_TRUE(state.commit({{"device/" + std::to_string(i % 10), Json{{"n", i}, {"filler", filler}}}}));
    }
    EXPECT_LT(std::filesystem::file_size(log()), 2'000'000u);
    EXPECT_LT(state.bytes_written(), 6'000'000u);    // 5 MB of changes, and the rewriting beside them
    EXPECT_FALSE(std::filesystem::exists(log() + ".new"));
    State again;
    EXPECT_FALSE(again.open(directory()));    // still locked
}

TEST_F(StateDirectory, ReadsBackWhatItCompacted) {
    {
        State state;
        ASSERT_TRUE(state.open(directory()));
        const std::string filler(5000, 'x');
        for (int i = 0; i < 600; ++i) {
            ASSERT_TRUE(state.commit({{"device/" + std::to_string(i % 100), Json{{"n", i}, {"filler", filler}}}}));
        }
    }
    State again;
    ASSERT_TRUE(again.open(directory()));
    const auto all = again.all("device/");
    ASSERT_EQ(all.size(), 100u);
    for (const auto& [key, value] : all) EXPECT_GE(value["n"], 500);
}

TEST_F(StateDirectory, DropsAnUnfinishedLastRecordWhereverItWasCut) {
    fill();
    const std::string whole = read_file(log());
    const std::size_t last = whole.rfind('\n', whole.size() - 2) + 1;
    for (std::size_t cut = last; cut < whole.size(); ++cut) {
        write_file(log(), whole.substr(0, cut));
        State state;
        ASSERT_TRUE(state.open(directory())) << cut;
        EXPECT_EQ(state.warning(), "") << cut;
        EXPECT_TRUE(state.get("device/a") && state.get("device/b")) << cut;
        EXPECT_FALSE(state.get("device/c")) << cut;
        ASSERT_TRUE(state.commit({{"device/d", Json{{"name", "d"}}}})) << cut;    // and goes on from there
        EXPECT_EQ(read_file(log()).substr(0, last), whole.substr(0, last));
    }
}

TEST_F(StateDirectory, DropsALastRecordOfWhichSectorsAreMissing) {
    fill();
    std::string whole;
    std::size_t last = 0;
    {
        State state;
        ASSERT_TRUE(state.open(directory()));
        last = std::filesystem::file_size(log());
        ASSERT_TRUE(state.commit({{"device/long", Json{{"filler", std::string(3000, 'x')}}}}));
        whole = read_file(log());
    }
    for (std::size_t sector = last / 512; sector * 512 < whole.size(); ++sector) {
        std::string torn = whole;
        const std::size_t from = std::max(last, sector * 512), to = std::min(whole.size(), (sector + 1) * 512);
        std::fill(torn.begin() + static_cast<std::ptrdiff_t>(from), torn.begin() + static_cast<std::ptrdiff_t>(to), '\0');
        write_file(log(), torn);
        State state;
        ASSERT_TRUE(state.open(directory())) << sector;
        EXPECT_EQ(state.warning(), "") << sector;
        EXPECT_TRUE(state.get("device/c")) << sector;
        EXPECT_FALSE(state.get("device/long")) << sector;
    }
}

TEST_F(StateDirectory, TakesNothingFromAFileWithOneBitWrongAnywhere) {
    fill();
    const std::string whole = read_file(log());
    for (std::size_t at = 0; at < whole.size(); ++at) {
        std::string damaged = whole;
        damaged[at] = static_cast<char>(damaged[at] ^ (1 << (at % 7)));
        write_file(log(), damaged);
        {
            State state;
            ASSERT_TRUE(state.open(directory())) << at;
            EXPECT_TRUE(state.all("").empty()) << at;
            EXPECT_NE(state.warning().find("damaged"), std::string::npos) << at;
            ASSERT_TRUE(state.commit({{"device/new", Json{{"name", "new"}}}}));
        }
        const auto aside = damaged_files();
        ASSERT_EQ(aside.size(), 1u) << at;
        EXPECT_EQ(read_file(aside[0]), damaged) << at;
        std::filesystem::remove(aside[0]);
    }
}

TEST_F(StateDirectory, TakesAMissingMiddleForDamage) {
    fill();
    const std::string whole = read_file(log());
    const std::size_t first = whole.find('\n') + 1, second = whole.find('\n', first) + 1;
    std::string without = whole.substr(0, first + 20) + whole.substr(second);
    write_file(log(), without);
    State state;
    ASSERT_TRUE(state.open(directory()));
    EXPECT_TRUE(state.all("").empty());
    EXPECT_EQ(damaged_files().size(), 1u);
}

TEST_F(StateDirectory, TakesAnEmptyFileForDamage) {
    fill();
    write_file(log(), "");
    State state;
    ASSERT_TRUE(state.open(directory()));
    EXPECT_NE(state.warning(), "");
}

TEST_F(StateDirectory, LeavesAFileOfANewerVersionAsItIs) {
    std::filesystem::create_directory(directory());
    const std::string newer = format_record(R"({"format":"udm state","version":9})") + format_record("whatever");
    write_file(log(), newer);
    State state;
    EXPECT_FALSE(state.open(directory()));
    EXPECT_EQ(read_file(log()), newer);
}

TEST_F(StateDirectory, KeepsSeveralDamagedFilesApart) {
    for (int i = 0; i < 3; ++i) {
        std::filesystem::create_directories(directory());
        write_file(log(), "rubbish " + std::to_string(i) + "\n");
        State state;
        ASSERT_TRUE(state.open(directory()));
    }
    EXPECT_EQ(damaged_files().size(), 3u);
}

TEST_F(StateDirectory, AFailedWriteChangesNothing) {
    State state;
    ASSERT_TRUE(state.open(directory()));
    ASSERT_TRUE(state.commit({{"device/a", Json{{"name", "a"}}}}));
    const std::string before = read_file(log());
    // No room for the next record, as on a full disk.
    rlimit old{};
    ::getrlimit(RLIMIT_FSIZE, &old);
    const rlimit small{before.size() + 20, old.rlim_max};
    const auto former = std::signal(SIGXFSZ, SIG_IGN);
    ::setrlimit(RLIMIT_FSIZE, &small);
    const auto refused = state.commit({{"device/b", Json{{"name", std::string(100, 'b')}}}});
    ::setrlimit(RLIMIT_FSIZE, &old);
    std::signal(SIGXFSZ, former);
    ASSERT_FALSE(refused);
    EXPECT_FALSE(state.get("device/b"));
    EXPECT_EQ(read_file(log()), before);
    ASSERT_TRUE(state.commit({{"device/c", Json{{"name", "c"}}}}));
    EXPECT_EQ(state.all("device/").size(), 2u);
}

}  // namespace
}  // namespace udm::ctl
