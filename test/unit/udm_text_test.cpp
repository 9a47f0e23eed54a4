// What udm says to people: sizes, columns, progress, URIs.
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <unistd.h>

#include <filesystem>

#include "apps/udm/blank.hpp"
#include "apps/udm/context.hpp"
#include "apps/udm/mirror_text.hpp"
#include "apps/udm/progress.hpp"
#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

using std::chrono::milliseconds;

TEST(ReadableSizes, HaveAUnitAndOneDigitAfterThePoint) {
    EXPECT_EQ(human_size(0), "0 B");
    EXPECT_EQ(human_size(1023), "1023 B");
    EXPECT_EQ(human_size(1024), "1.0 KiB");
    EXPECT_EQ(human_size(1536), "1.5 KiB");
    EXPECT_EQ(human_size((std::uint64_t{1} << 20) - 1), "1.0 MiB");  // not 1024.0 KiB
    EXPECT_EQ(human_sectors(2048), "1.0 MiB");
    EXPECT_EQ(human_size(~std::uint64_t{0}), "16.0 EiB");
}

TEST(ReadableTimes, NameTheTwoLargestUnits) {
    EXPECT_EQ(human_time(milliseconds{900}), "0 s");
    EXPECT_EQ(human_time(milliseconds{59'000}), "59 s");
    EXPECT_EQ(human_time(milliseconds{61'000}), "1 min 1 s");
    EXPECT_EQ(human_time(milliseconds{7'500'000}), "2 h 5 min");
    EXPECT_EQ(human_time(std::chrono::hours{50}), "2 d 2 h");
}

TEST(TextColumns, StandBelowEachOtherWithNumbersToTheRight) {
    Columns columns{{"NAME", "SIZE>", "X"}};
    EXPECT_TRUE(columns.empty());
    columns.add({"é", "1", "a"});
    columns.add({"longer", "1000", ""});
    EXPECT_EQ(columns.text(),
              "NAME    SIZE  X\n"
              "é          1  a\n"
              "longer  1000\n");
}

TEST(SizeArguments, AreSizesInSectorsOrRefusedByName) {
    EXPECT_EQ(size_argument("64K", "--size"), 65536u);
    EXPECT_EQ(size_argument("1M", "--size"), 1048576u);
    for (const char* word : {"", "0", "100", "16Q", "-1", "1.5G"}) {
        try {
            size_argument(word, "--chunk");
            ADD_FAILURE() << word;
        } catch (const WrongWords& wrong) {
            EXPECT_EQ(std::string{wrong.what()}, "--chunk: '" + std::string{word} + "' is no size");
            EXPECT_EQ(wrong.code(), kUsage);
        }
    }
}

TEST(ExportUris, WithARelativeSocketAreOfTheCallersFolder) {
    const std::string here = std::filesystem::current_path().string();
    EXPECT_EQ(with_absolute_socket("nbd+unix:///v?socket=n.sock"),
              "nbd+unix:///v?socket=" + here + "/n.sock");
    EXPECT_EQ(with_absolute_socket("nbd+unix:///v?socket=a%20b/n&x=1"),
              "nbd+unix:///v?socket=" + here + "/a%20b/n&x=1");
    for (const char* uri : {"nbd+unix:///v?socket=/run/n.sock", "nbd+unix:///v?socket=%2Frun%2Fn",
                            "nbd://localhost/v", "nbd+unix:///v?socket="}) {
        EXPECT_EQ(with_absolute_socket(uri), uri);
    }
}

TEST(ProgressLine, SaysHowLongAndHowFar) {
    EXPECT_EQ(Progress::line("taking the snapshot", 0, 0, milliseconds{3100}, 80),
              "taking the snapshot  3 s");
    EXPECT_EQ(Progress::line("copying", 50, 100, milliseconds{4000}, 80),
              "copying  [############............] 50%  4 s, 4 s left");
    EXPECT_EQ(Progress::line("copying", 0, 100, milliseconds{1000}, 80),
              "copying  [........................] 0%  1 s");
    EXPECT_EQ(Progress::line("copying", 200, 100, milliseconds{4000}, 80),
              "copying  [########################] 100%  4 s, 0 s left");
    EXPECT_EQ(Progress::line("a long thing to do", 0, 0, milliseconds{0}, 6), "a long");
}

// Standard error is a terminal for as long as this lives.
class Terminal {
  public:
    Terminal() : saved_{::dup(STDERR_FILENO)} {
        int side = -1;
        EXPECT_EQ(::openpty(&master_, &side, nullptr, nullptr, nullptr), 0);
        ::dup2(side, STDERR_FILENO);
        ::close(side);
    }
    ~Terminal() {
        ::dup2(saved_, STDERR_FILENO);
        ::close(saved_);
        ::close(master_);
    }
    // What was shown until `wanted` came, or nothing came for ten seconds.
    std::string read_until(const std::string& wanted) {
        std::string shown;
        pollfd readable{master_, POLLIN, 0};
        while (shown.find(wanted) == std::string::npos && ::poll(&readable, 1, 10'000) > 0) {
            char buffer[512];
            const ssize_t n = ::read(master_, buffer, sizeof buffer);
            if (n <= 0) break;
            shown.append(buffer, static_cast<std::size_t>(n));
        }
        return shown;
    }
    bool quiet() {
        pollfd readable{master_, POLLIN, 0};
        return ::poll(&readable, 1, 0) == 0;
    }

  private:
    int saved_;
    int master_ = -1;
};

TEST(ProgressLine, IsDrawnOnATerminalAfterAWhileAndWipedAway) {
    Terminal terminal;
    {
        Progress progress{"merging"};
        progress.update(1, 4);
        EXPECT_NE(terminal.read_until("25%").find("merging"), std::string::npos);
    }
    EXPECT_TRUE(terminal.read_until("\r\x1b[K").ends_with("\r\x1b[K"));
}

TEST(ProgressLine, IsNotThereForWhatIsDoneAtOnce) {
    Terminal terminal;
    { Progress progress{"quick"}; }
    { Progress nothing{""}; }
    EXPECT_TRUE(terminal.quiet());
}

using ctl::Json;

// Of 8 regions of 1 MiB in 4 cells; leg 1 is away and lacks two, one of which is being copied (by whom, is not asked here).
Json a_mirror() {
    return {{"start", 0},
            {"length", 16384},
            {"type", "mirror"},
            {"region_size", 1 << 20},
            {"regions", 8},
            {"clean", 4},
            {"dirty", 2},
            {"recovering", 1},
            {"nosync", 1},
            {"cells", {{"clean", {2, 0, 1, 1}}, {"dirty", {0, 2, 0, 0}}, {"recovering", {0, 0, 1, 0}}, {"nosync", {0, 0, 0, 1}}}},
            {"legs",
             {{{"device", "/a"}, {"offset", 0}, {"health", "A"}, {"source", true}, {"away", false}, {"slow", false}, {"lacks", 0}},
              {{"device", "/b"}, {"offset", 0}, {"health", "D"}, {"source", false}, {"away", true}, {"slow", false}, {"lacks", 2}}}},
            {"log", {{"kind", "disk"}, {"device", "/l"}, {"health", "A"}}},
            {"details", {{"resync_left_bytes", 2 << 20}, {"resync_bytes_per_second", 1 << 20}, {"resync_seconds_left", 2}}}};
}

TEST(MirrorText, DrawsCellsByWhatMostNeedsToBeSeenAndAddsALegend) {
    EXPECT_EQ(draw_regions(a_mirror(), {.columns = 80}), (std::vector<std::string>{".+>#", ". clean 4   + dirty 2   # out of sync 1   > being copied 1   (a mark: 2 regions)"}));
    EXPECT_EQ(draw_regions(a_mirror(), {.columns = 3}).at(0), ".+>");
    EXPECT_EQ(draw_regions(a_mirror(), {.columns = 3}).at(1), "#");
    EXPECT_EQ(draw_regions(a_mirror(), {.colours = false, .blocks = true, .columns = 80}).at(0), "·▒▶█");
    const std::string coloured = draw_regions(a_mirror(), {.colours = true, .columns = 80}).at(0);
    EXPECT_EQ(coloured, "\x1b[32m.\x1b[33m+\x1b[94m>\x1b[91m#\x1b[0m");
    EXPECT_EQ(cut_to(coloured, 2), "\x1b[32m.\x1b[33m+\x1b[94m\x1b[91m\x1b[0m");    // and the terminal's own colour at the end
}

TEST(MirrorText, SaysOfEachLegHowItIsAndWhatItLacks) {
    const std::vector<std::string> expected{"vol: 8.0 MiB on 2 legs, in 8 regions of 1.0 MiB",
                                            "LEG  DEVICE  ROLE    STATE                   LACKS",
                                            "0    /a      source  well                        -",
                                            "1    /b              away: a write failed  2.0 MiB",
                                            "log  /l              well",
                                            "2 of 8 regions out of sync, 2.0 MiB to copy, 1.0 MiB/s, 2 s left"};
    EXPECT_EQ(mirror_lines(a_mirror(), "vol"), expected);
    EXPECT_FALSE(all_legs_have_all(a_mirror()));
    Json away = a_mirror();
    away["nosync"] = away["recovering"] = 0;
    EXPECT_EQ(mirror_lines(away).back(), "all regions are in sync");
    EXPECT_FALSE(all_legs_have_all(away));    // one is away, and will miss what is written
    away["legs"][1]["away"] = false;
    EXPECT_TRUE(all_legs_have_all(away));
}

TEST(BlankFiles, AreFoundToHoldSomethingWhereverItIs) {
    const std::string path = std::filesystem::temp_directory_path() / ("udm-blank-" + std::to_string(::getpid()));
    std::FILE* file = std::fopen(path.c_str(), "wbe");
    ASSERT_NE(file, nullptr);
    ASSERT_EQ(::ftruncate(::fileno(file), 64 << 20), 0);
    EXPECT_EQ(first_data(path, ""), std::nullopt);
    std::fseek(file, (48 << 20) + 5, SEEK_SET);
    std::fputc(1, file);
    std::fclose(file);
    EXPECT_EQ(first_data(path, ""), std::uint64_t{(48 << 20) + 5});
    std::filesystem::remove(path);
    EXPECT_THROW(first_data(path, ""), Refusal);
}

}  // namespace
}  // namespace udm::app
