// udm top, udm events.
#include <fmt/format.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <optional>

#include "apps/udm/commands.hpp"
#include "apps/udm/signals.hpp"
#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::milliseconds;

struct Sample {
    Clock::time_point time;
    std::map<std::string, Json> counters;  // by device
};

Sample sample(Context& context) {
    Sample taken{Clock::now(), {}};
    Json all = context.list("device.counters", "device");
    for (Json& one : all) {
        const std::string name = one.value("device", "");
        taken.counters[name] = std::move(one);
    }
    return taken;
}

constexpr const char* kOps[] = {"read", "write", "flush", "discard", "write_zeroes"};

// Rates between two samples, one object a device. A device that is new counts from its beginning.
Json rates(const Sample& before, const Sample& now) {
    const double seconds = std::max(1e-6, std::chrono::duration<double>(now.time - before.time).count());
    Json lines = Json::array();
    for (const auto& [name, counters] : now.counters) {
        const auto old = before.counters.find(name);
        const auto rate = [&](const char* op, const char* what) {
            const auto value = [&](const Json& from) {
                return from.value(op, Json::object()).value(what, 0.0);
            };
            // One that was made anew under its name starts from zero.
            return std::max(0.0,
                            value(counters) - (old == before.counters.end() ? 0.0 : value(old->second))) /
                   seconds;
        };
        double errors = 0;
        for (const char* op : kOps) errors += rate(op, "errors");
        lines.push_back({{"device", name},
                         {"reads_per_s", rate("read", "requests")},
                         {"read_bytes_per_s", rate("read", "sectors") * 512},
                         {"writes_per_s", rate("write", "requests")},
                         {"write_bytes_per_s", rate("write", "sectors") * 512},
                         {"flushes_per_s", rate("flush", "requests")},
                         {"discards_per_s", rate("discard", "requests")},
                         {"zeroes_per_s", rate("write_zeroes", "requests")},
                         {"errors_per_s", errors},
                         {"in_flight", counters.value("in_flight", std::uint64_t{0})},
                         {"held_back", counters.value("held_back", std::uint64_t{0})}});
    }
    return lines;
}

std::vector<std::string> as_lines(const Json& rates) {
    Columns columns{{"DEVICE", "READS/S>", "READ/S>", "WRITES/S>", "WRITTEN/S>", "FLUSHES/S>", "TRIMS/S>",
                     "ERRORS/S>", "IN FLIGHT>", "HELD>"}};
    for (const Json& one : rates) {
        const auto number = [&](double value) { return fmt::format("{:.0f}", value); };
        const auto bytes = [&](const char* key) {
            return human_size(static_cast<std::uint64_t>(one.value(key, 0.0)));
        };
        columns.add({one.value("device", ""), number(one.value("reads_per_s", 0.0)),
                     bytes("read_bytes_per_s"), number(one.value("writes_per_s", 0.0)),
                     bytes("write_bytes_per_s"), number(one.value("flushes_per_s", 0.0)),
                     number(one.value("discards_per_s", 0.0) + one.value("zeroes_per_s", 0.0)),
                     number(one.value("errors_per_s", 0.0)), number(one.value("in_flight", 0.0)),
                     number(one.value("held_back", 0.0))});
    }
    return columns.lines();
}

// The terminal while a screen is shown: an area of its own, no cursor, keys as they are pressed.
class Screen {
  public:
    Screen() {
        if (::isatty(STDIN_FILENO) && ::tcgetattr(STDIN_FILENO, &saved_) == 0) {
            termios keys = saved_;
            keys.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
            keys_ = ::tcsetattr(STDIN_FILENO, TCSANOW, &keys) == 0;
        }
        fmt::print("\x1b[?1049h\x1b[?25l");
    }
    ~Screen() {
        fmt::print("\x1b[?25h\x1b[?1049l");
        std::fflush(stdout);
        if (keys_) ::tcsetattr(STDIN_FILENO, TCSANOW, &saved_);
    }
    Screen(const Screen&) = delete;
    Screen& operator=(const Screen&) = delete;

    void draw(const std::vector<std::string>& lines) const {
        winsize size{};
        const bool known = ::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_row > 1;
        const std::size_t rows = known ? size.ws_row - 1u : 24, columns = known ? size.ws_col : 80;
        std::string text = "\x1b[H";
        for (std::size_t i = 0; i < lines.size() && i < rows; ++i)
            text += lines[i].substr(0, columns) + "\x1b[K\r\n";
        fmt::print("{}\x1b[J", text);
        std::fflush(stdout);
    }
    // False when it is time to end: a signal, or `q`.
    bool wait(milliseconds time) const {
        const auto end = Clock::now() + time;
        for (;;) {
            const auto left = std::chrono::ceil<milliseconds>(end - Clock::now());
            if (left.count() <= 0) return true;
            if (!sleep_unless_stopped(left, keys_ ? STDIN_FILENO : -1)) return false;
            if (!keys_ || Clock::now() >= end) continue;
            char key = 0;
            if (::read(STDIN_FILENO, &key, 1) != 1 || key == 'q') return false;
        }
    }

  private:
    termios saved_{};
    bool keys_ = false;
};

struct Top {
    double interval = 1.0;
    bool once = false;

    void run(Context& context) const {
        catch_signals();
        const auto pause = std::chrono::duration_cast<milliseconds>(std::chrono::duration<double>(interval));
        if (!once && !context.json && ::isatty(STDOUT_FILENO)) {
            on_screen(context, pause);
            return;
        }
        Sample before = sample(context);
        for (bool first = true; sleep_unless_stopped(pause); first = false) {
            Sample now = sample(context);
            const Json lines = rates(before, now);
            if (context.json) {
                fmt::print("{}\n", lines.dump(once ? 2 : -1, ' ', false,
                                              Json::error_handler_t::replace));  // a line a sample
            } else if (once) {
                fmt::print("{}\n", lines.empty() ? "No devices."
                                                 : fmt::format("{}", fmt::join(as_lines(lines), "\n")));
            } else {
                print_a_line_each(as_lines(lines), first);
            }
            std::fflush(stdout);
            if (once) return;
            before = std::move(now);
        }
    }

  private:
    // Into a file or pipe: a line a device and sample, with the time in front.
    static void print_a_line_each(const std::vector<std::string>& lines, bool with_heads) {
        const std::string time = clock_time();
        for (std::size_t i = with_heads ? 0 : 1; i < lines.size(); ++i)
            fmt::print("{:<8}  {}\n", i == 0 ? "TIME" : time, lines[i]);
    }

    static void on_screen(Context& context, milliseconds pause) {
        Sample before = sample(context);
        const Screen screen;
        Json lines = rates(before, before);
        for (;;) {
            std::vector<std::string> text{fmt::format("udm top  {}  {} device{}  (q ends)", clock_time(),
                                                      lines.size(), lines.size() == 1 ? "" : "s"),
                                          ""};
            if (!lines.empty()) {
                for (std::string& line : as_lines(lines)) text.push_back(std::move(line));
            }
            screen.draw(text);
            if (!screen.wait(pause)) return;
            Sample now = sample(context);
            lines = rates(before, now);
            before = std::move(now);
        }
    }
};

struct Events {
    std::string device;
    bool follow = false;
    double seconds = 0;

    void run(Context& context) const {
        if (!follow && seconds <= 0)
            throw WrongWords{"events are told as they happen", "`udm events --follow`"};
        catch_signals();
        Json params = Json::object();
        if (!device.empty()) params["device"] = device;
        context.call("events.subscribe", std::move(params));
        const auto end = Clock::now() + std::chrono::duration<double>(seconds);
        while (!stop_requested()) {
            std::optional<milliseconds> left;
            if (!follow) {
                left = std::chrono::ceil<milliseconds>(end - Clock::now());
                if (left->count() <= 0) return;
            }
            const std::optional<Json> event = context.daemon().next_event(left, stop_descriptor());
            if (!event) continue;
            if (context.json) {
                fmt::print("{}\n", event->dump(-1, ' ', false, Json::error_handler_t::replace));
            } else {
                fmt::print("{}  {:16} {:10} {}\n", event->value("time", ""), event->value("device", ""),
                           event->value("kind", ""), event->value("what", ""));
            }
            std::fflush(stdout);
        }
    }
};

}  // namespace

void add_watch_commands(CLI::App& app, Context& context) {
    auto top = std::make_shared<Top>();
    auto* watching = app.add_subcommand("top", "Live rates of all devices");
    watching->add_option("--interval", top->interval, "Seconds between two samples")
        ->check(CLI::Range(0.05, 3600.0));
    watching->add_flag("--once", top->once, "One sample, then end");
    watching->callback([top, &context] { top->run(context); });

    auto events = std::make_shared<Events>();
    auto* telling = app.add_subcommand("events", "What happens to devices, as it happens");
    telling->add_option("DEVICE", events->device, "Only of this one");
    telling->add_flag("-f,--follow", events->follow, "Until Ctrl-C");
    telling->add_option("--for", events->seconds, "For so many seconds");
    telling->callback([events, &context] { events->run(context); });
}

}  // namespace udm::app
