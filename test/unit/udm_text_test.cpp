// What udm says to people: sizes, columns, progress, URIs.
#include <gtest/gtest.h>
#include <poll.h>
#include <pty.h>
#include <unistd.h>

#include <filesystem>

#include "apps/udm/context.hpp"
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

}  // namespace
}  // namespace udm::app
