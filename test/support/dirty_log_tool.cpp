// A mirror's log in a file, used without a mirror: for tests that compare with Linux.
//
//   dirty_log_tool FILE LENGTH WORDS STEP...
//
// WORDS: what a table says after the device, "1024" or "1024 nosync". Loads and resumes the log, says on one line of JSON what it
// found, does the steps, and writes the file back. Steps: sync A B (regions A .. B-1 were copied), out A, mark A, clear A, record COUNT
// SOURCE FAILED, no-record, flush, rest, say, anew. Last comes an orderly end, or after the step `crash` none.
#include <fmt/format.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "base/parse.hpp"
#include "services/dirty_log/make.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_opener.hpp"
#include "sim/sim_reactor.hpp"
#include "test/support/log_alone.hpp"

namespace {

using namespace udm;
using namespace udm::dirty_log;

[[noreturn]] void give_up(const std::string& why) {
    fmt::print(stderr, "dirty_log_tool: {}\n", why);
    std::exit(1);
}

struct Tool {
    SimEnv sim;
    test::QuietLegs legs;
    test::NoEvents events;
    SimOpener opener;
    std::unique_ptr<SimDisk> disk;
    std::unique_ptr<DirtyLog> log;
    std::vector<std::string> steps;
    std::size_t at = 0;

    std::uint64_t number() {
        const auto value = at < steps.size() ? parse_u64(steps[at++]) : std::nullopt;
        if (!value) give_up("a number is missing");
        return *value;
    }
    void flush() {
        test::TestWaiter waiter;
        log->flush(waiter);
        sim.reactor.run_until([&] { return waiter.done; });
        if (waiter.status != IoStatus::ok) give_up("cannot flush");
    }
    void say(const Found& found) {
        std::string out, record = "null";
        for (std::uint64_t r = 0; r < log->region_count().v; ++r) {
            if (log->in_sync({r}) != Answer::yes) out += fmt::format("{}{}", out.empty() ? "" : ", ", r);
        }
        if (const auto& legs_record = log->leg_record()) {
            record = fmt::format(R"({{"legs": {}, "source": {}, "failed": {}}})", legs_record->leg_count, legs_record->source, legs_record->failed);
        }
        static constexpr const char* kKinds[] = {"fresh", "trusted", "distrusted", "unreadable"};
        fmt::print("{{\"found\": \"{}\", \"why\": \"{}\", \"in_sync\": {}, \"regions\": {}, \"out\": [{}], \"record\": {}, \"info\": \"{}\"}}\n",
                   kKinds[static_cast<unsigned>(found.kind)], found.why, log->sync_count().v, log->region_count().v, out, record, log->info());
    }
    // False: `crash`.
    bool step(const Found& found) {
        const std::string& verb = steps[at++];
        if (verb == "crash") return false;
        if (verb == "say") return say(found), true;
        if (verb == "flush") return flush(), true;
        if (verb == "rest") return sim.reactor.run_until_idle(), true;
        if (verb == "no-record") return log->record(std::nullopt), true;
        if (verb == "anew") {
            if (!sim.reactor.run(log->start_anew())) give_up("cannot start anew");
        } else if (verb == "sync") {
            const std::uint64_t first = number(), last = number();
            for (std::uint64_t r = first; r < last; ++r) {
                log->set_sync({r}, true);
                log->clear({r});
            }
        } else if (verb == "out") {
            log->set_sync({number()}, false);
        } else if (verb == "mark") {
            if (!log->mark({number()})) flush();
        } else if (verb == "clear") {
            log->clear({number()});
        } else if (verb == "record") {
            LegRecord record;
            record.leg_count = static_cast<std::uint8_t>(number());
            record.source = static_cast<std::uint8_t>(number());
            record.failed = static_cast<std::uint16_t>(number());
            log->record(record);
        } else {
            give_up("no step " + verb);
        }
        return true;
    }
};

}  // namespace

int main(int argc, char** argv) {
    if (argc < 4) give_up("FILE LENGTH WORDS STEP...");
    const std::string path = argv[1];
    std::ifstream in{path, std::ios::binary};
    std::vector<char> bytes{std::istreambuf_iterator<char>{in}, {}};
    if (bytes.empty() || bytes.size() % kSectorSize != 0) give_up(path + ": not a file of whole sectors");
    Tool tool;
    const Extent whole{{0}, whole_sectors(bytes.size())};
    tool.disk = std::make_unique<SimDisk>(tool.sim.reactor, whole.length);
    tool.disk->write_now(whole, bytes.data());
    tool.opener.add("log", *tool.disk);
    auto words = split_words(argv[3]);
    const auto length = parse_u64(argv[2]);
    if (!words || !length) give_up("LENGTH is a number of sectors");
    words->insert(words->begin(), "log");
    TargetArgs args{tool.sim.env, {0}, {*length}, TableMode::read_write, *words, tool.opener, tool.events, nullptr, "m"};
    auto made = make(args, "disk", *words);
    if (!made) give_up(made.error().message);
    tool.log = std::move(*made);
    SimReactor& reactor = tool.sim.reactor;
    if (auto loaded = reactor.run(tool.log->load(&tool.legs)); !loaded) give_up(loaded.error().message);
    auto found = reactor.run(tool.log->resume());
    if (!found) give_up(found.error().message);
    tool.say(*found);
    for (int i = 4; i < argc; ++i) tool.steps.emplace_back(argv[i]);
    bool orderly = true;
    while (orderly && tool.at < tool.steps.size()) orderly = tool.step(*found);
    if (orderly) {
        reactor.run(tool.log->presuspend());
        if (auto ended = reactor.run(tool.log->postsuspend()); !ended) give_up(ended.error().message);
        tool.log.reset();
    } else {
        const Abandoning abandoning;
        reactor.cut();
        tool.log.reset();
    }
    tool.disk->read_now(whole, bytes.data());
    std::ofstream{path, std::ios::binary}.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    return 0;
}
