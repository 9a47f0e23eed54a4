// udm mirror show: how the legs of a mirror are, what is left to copy, and a picture of its regions.
#include <fmt/format.h>
#include <langinfo.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "apps/udm/commands.hpp"
#include "apps/udm/mirror_text.hpp"
#include "apps/udm/signals.hpp"
#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

constexpr std::size_t kRowsMost = 8, kColumnsMost = 512;    // 4096 cells

struct Window {
    bool terminal = false;
    std::size_t rows = 24, columns = 80;
};

Window window_of_output() {
    Window window;
    winsize size{};
    window.terminal = ::isatty(STDOUT_FILENO) != 0;
    if (window.terminal && ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 && size.ws_row > 0) {
        window.columns = size.ws_col;
        window.rows = size.ws_row;
    }
    return window;
}

PictureStyle style_for(const Window& window) {
    const char* const no_colour = std::getenv("NO_COLOR");
    const char* const terminal = std::getenv("TERM");
    PictureStyle style;
    style.columns = std::min(window.columns, kColumnsMost);
    style.blocks = window.terminal && std::string_view{::nl_langinfo(CODESET)} == "UTF-8";
    style.colours = window.terminal && (!no_colour || *no_colour == '\0') && terminal && std::string_view{terminal} != "dumb";
    return style;
}

// Requests and errors of the volume so far.
struct Traffic {
    Clock::time_point time = Clock::now();
    double reads = 0, writes = 0, errors = 0;
};

Traffic traffic_of(Context& context, const std::string& name) {
    const Json counters = context.call("device.counters", {{"device", name}}).at(0);
    Traffic traffic;
    traffic.reads = counters["read"].value("requests", 0.0);
    traffic.writes = counters["write"].value("requests", 0.0) + counters["write_zeroes"].value("requests", 0.0);
    for (const char* op : {"read", "write", "flush", "discard", "write_zeroes"}) traffic.errors += counters[op].value("errors", 0.0);
    return traffic;
}

std::string traffic_words(const Traffic& before, const Traffic& now) {
    const double seconds = std::max(1e-3, std::chrono::duration<double>(now.time - before.time).count());
    return fmt::format("clients: {:.0f} reads/s, {:.0f} writes/s; {:.0f} errors so far", std::max(0.0, now.reads - before.reads) / seconds,
                       std::max(0.0, now.writes - before.writes) / seconds, now.errors);
}

struct Show {
    std::string name;
    bool watch = false, until_sync = false;
    double interval = 1.0, seconds = 0;

    void run(Context& context) const {
        if (!watch && !until_sync && seconds <= 0) {
            const Json mirrors = ask(context);
            context.print(mirrors, fmt::format("{}", fmt::join(text_of(mirrors, window_of_output()), "\n")));
            return;
        }
        catch_signals();
        const auto pause = std::chrono::duration_cast<milliseconds>(std::chrono::duration<double>(interval));
        const auto end = Clock::now() + std::chrono::duration<double>(seconds);
        std::size_t drawn = 0;    // lines on the terminal
        Json last;
        for (Traffic before = traffic_of(context, name);;) {
            const Json mirrors = ask(context);
            const Traffic now = traffic_of(context, name);
            const Window window = window_of_output();
            std::vector<std::string> lines = text_of(mirrors, window);
            lines.push_back(traffic_words(before, now));
            if (context.json) {
                fmt::print("{}\n", mirrors.dump(-1, ' ', false, Json::error_handler_t::replace));
            } else if (window.terminal) {
                redraw(lines, window, drawn);
            } else if (mirrors != last) {
                fmt::print("{}{}  {}\n", last.is_null() ? "" : "\n", clock_time(), fmt::join(lines, "\n"));
            }
            std::fflush(stdout);
            if (until_sync && std::all_of(mirrors.begin(), mirrors.end(), all_legs_have_all)) return;
            if (seconds > 0 && Clock::now() >= end) {
                if (until_sync) context.exit_code = kFailed;
                return;
            }
            last = mirrors;
            before = now;
            if (!sleep_unless_stopped(pause)) return;
        }
    }

  private:
    Json ask(Context& context) const {
        const Window window = window_of_output();
        return context.call("table.regions", {{"device", name}, {"cells", style_for(window).columns * rows_for(window)}});
    }

    static std::size_t rows_for(const Window& window) {
        constexpr std::size_t kOtherLines = 14;
        return window.rows > kOtherLines ? std::min(kRowsMost, window.rows - kOtherLines) : 1;
    }

    std::vector<std::string> text_of(const Json& mirrors, const Window& window) const {
        std::vector<std::string> lines;
        for (const Json& mirror : mirrors) {
            if (!lines.empty()) lines.emplace_back();
            for (std::string& line : mirror_lines(mirror, name)) lines.push_back(std::move(line));
            lines.emplace_back();
            for (std::string& line : draw_regions(mirror, style_for(window))) lines.push_back(std::move(line));
        }
        return lines;
    }

    // Over what was drawn before, so that the last picture stays.
    static void redraw(const std::vector<std::string>& lines, const Window& window, std::size_t& drawn) {
        std::string text = drawn == 0 ? "" : fmt::format("\x1b[{}A\r", drawn);
        const std::size_t count = std::min(lines.size(), window.rows - 1);
        for (std::size_t i = 0; i < count; ++i) text += cut_to(lines[i], window.columns) + "\x1b[K\n";
        fmt::print("{}\x1b[J", text);
        drawn = count;
    }
};

}  // namespace

void add_mirror_show_command(CLI::App& mirror, Context& context) {
    auto show = std::make_shared<Show>();
    auto* command = mirror.add_subcommand("show", "How its legs are, what is left to copy, and a picture of its regions");
    command->add_option("NAME", show->name)->required();
    command->add_flag("--watch", show->watch, "Again and again, until Ctrl-C; into a file or pipe, each time something has changed");
    command->add_option("--interval", show->interval, "Seconds between two looks")->check(CLI::Range(0.05, 3600.0));
    command->add_flag("--until-sync", show->until_sync, "Watch until all legs have everything");
    command->add_option("--for", show->seconds, "Watch for so many seconds; with --until-sync: exit status 1 if it is not in sync by then");
    command->callback([show, &context] { show->run(context); });
}

}  // namespace udm::app
