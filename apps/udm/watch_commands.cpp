// udm top, udm events.
#include <fmt/format.h>
#include <unistd.h>

#include <chrono>
#include <map>
#include <thread>

#include "apps/udm/commands.hpp"

namespace udm::app {
namespace {

using Clock = std::chrono::steady_clock;

struct Sample {
    Clock::time_point time;
    std::map<std::string, Json> counters;
};

Sample sample(Context& context) {
    Sample taken{Clock::now(), {}};
    for (Json& one : context.call("device.counters")) {
        const std::string name = one["device"];
        taken.counters[name] = std::move(one);
    }
    return taken;
}

// Rates between two samples, a line a device.
Json rates(const Sample& before, const Sample& now) {
    const double seconds = std::chrono::duration<double>(now.time - before.time).count();
    Json lines = Json::array();
    for (const auto& [name, counters] : now.counters) {
        const auto old = before.counters.find(name);
        const auto rate = [&](const char* op, const char* what) {
            const double was = old == before.counters.end() ? 0 : old->second[op][what].get<double>();
            return (counters[op][what].get<double>() - was) / seconds;
        };
        lines.push_back({{"device", name},
                         {"reads_per_s", rate("read", "requests")},
                         {"read_bytes_per_s", rate("read", "sectors") * 512},
                         {"writes_per_s", rate("write", "requests")},
                         {"write_bytes_per_s", rate("write", "sectors") * 512},
                         {"flushes_per_s", rate("flush", "requests")},
                         {"errors_per_s", rate("read", "errors") + rate("write", "errors") + rate("flush", "errors")},
                         {"in_flight", counters["in_flight"]},
                         {"held_back", counters["held_back"]}});
    }
    return lines;
}

std::string as_text(const Json& lines) {
    Columns columns{{"DEVICE", "READS/S>", "READ/S>", "WRITES/S>", "WRITTEN/S>", "FLUSHES/S>", "ERRORS/S>", "NOW>"}};
    for (const Json& l : lines) {
        const auto number = [&](const char* key) { return fmt::format("{:.0f}", l[key].get<double>()); };
        const auto bytes = [&](const char* key) { return human_size(static_cast<std::uint64_t>(l[key].get<double>())); };
        const auto held = l["held_back"].get<std::uint64_t>();
        columns.add({l["device"], number("reads_per_s"), bytes("read_bytes_per_s"), number("writes_per_s"), bytes("write_bytes_per_s"),
                     number("flushes_per_s"), number("errors_per_s"),
                     fmt::format("{}{}", l["in_flight"].get<std::uint64_t>(), held ? fmt::format("+{} held", held) : "")});
    }
    return columns.empty() ? "No devices.\n" : columns.text();
}

void top(Context& context, double interval, bool once) {
    catch_signals();
    const bool screen = ::isatty(STDOUT_FILENO) && !context.json && !once;
    Sample before = sample(context);
    while (!stop_requested()) {
        std::this_thread::sleep_for(std::chrono::duration<double>(interval));    // a signal cuts it short
        if (stop_requested()) break;
        Sample now = sample(context);
        const Json lines = rates(before, now);
        if (screen) fmt::print("\033[H\033[2J");
        if (context.json) {
            fmt::print("{}\n", lines.dump());    // a line a sample
            std::fflush(stdout);
        } else {
            context.print(lines, as_text(lines));
        }
        if (once) break;
        before = std::move(now);
    }
}

void events(Context& context, const std::string& device, bool follow, double seconds) {
    if (!follow && seconds <= 0) throw Refusal("events are told as they happen", "udm events --follow");
    catch_signals();
    Json params = Json::object();
    if (!device.empty()) params["device"] = device;
    context.call("events.subscribe", std::move(params));
    const auto end = Clock::now() + std::chrono::duration<double>(seconds);
    while (!stop_requested()) {
        std::optional<std::chrono::milliseconds> left;
        if (!follow) {
            left = std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now());
            if (left->count() <= 0) break;
        }
        const std::optional<Json> event = context.daemon().next_event(left);
        if (!event) continue;
        if (context.json) {
            fmt::print("{}\n", event->dump());
        } else {
            fmt::print("{}  {:16} {:10} {}\n", event->value("time", ""), event->value("device", ""), event->value("kind", ""), event->value("what", ""));
        }
        std::fflush(stdout);
    }
}

}  // namespace

void add_watch_commands(CLI::App& app, Context& context) {
    auto* watching = app.add_subcommand("top", "Live rates of all devices");
    auto interval = std::make_shared<double>(1.0);
    auto once = std::make_shared<bool>(false);
    watching->add_option("--interval", *interval, "Seconds between two samples")->check(CLI::Range(0.05, 3600.0));
    watching->add_flag("--once", *once, "One sample, then end");
    watching->callback([interval, once, &context] { top(context, *interval, *once); });

    auto* telling = app.add_subcommand("events", "What happens to devices, as it happens");
    auto device = std::make_shared<std::string>();
    auto follow = std::make_shared<bool>(false);
    auto seconds = std::make_shared<double>(0);
    telling->add_option("DEVICE", *device, "Only of this one");
    telling->add_flag("-f,--follow", *follow, "Until Ctrl-C");
    telling->add_option("--for", *seconds, "For so many seconds");
    telling->callback([device, follow, seconds, &context] { events(context, *device, *follow, *seconds); });
}

}  // namespace udm::app
