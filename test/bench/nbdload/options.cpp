#include "test/bench/nbdload/options.hpp"

#include <getopt.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/parse.hpp"

namespace load {
namespace {

constexpr std::array<std::pair<const char*, Mode>, 7> kModes{{{"read", Mode::read},
                                                              {"write", Mode::write},
                                                              {"randread", Mode::randread},
                                                              {"randwrite", Mode::randwrite},
                                                              {"firsttouch", Mode::firsttouch},
                                                              {"again", Mode::again},
                                                              {"discard", Mode::discard}}};

constexpr const char* kHelp =
    R"(usage: nbdload [options] URI        nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH

Loads an NBD server and prints requests per second, latencies and the server's CPU time per request.

  --mode M          read, write (one after the other), randread (default), randwrite,
                    firsttouch (each block of the range exactly once, in random order),
                    again (the blocks of firsttouch with the same seed, range and number, in another order),
                    discard (each block of the range exactly once, in random order)
  --connections N   1      --depth N  32, each connection      --size BYTES  4K, of a request
  --start BYTES     0      --range BYTES  rest of the export
  --requests N      end after so many        --seconds S   end after so long (5 if neither is given)
  --warmup S        seconds that are not counted
  --slot BYTES      firsttouch, again, discard: one block, anywhere in it, for each slot of the range
  --flush-every N   a flush after every N writes, each connection      --fua  on every write
  --flush-at-end    one flush when all is written; it belongs to the time and the CPU measured
  --pid PID         count the CPU time (workers of its rings included), I/O and memory of this process
  --seed N          1
  --json            the result as one JSON object
)";

[[noreturn]] void refuse(const std::string& what) {
    std::fprintf(stderr, "nbdload: %s\nnbdload: try --help\n", what.c_str());
    std::exit(2);
}

std::uint64_t size_of(const char* option, const char* word) {
    const auto v = udm::parse_size(word);
    if (!v)
        refuse(std::string("--") + option + ": a number of bytes, such as 4096 or 4K, not '" + word + "'");
    return *v;
}
std::uint64_t count_of(const char* option, const char* word) {
    const auto v = udm::parse_u64(word);
    if (!v) refuse(std::string("--") + option + ": a number, not '" + word + "'");
    return *v;
}
double seconds_of(const char* option, const char* word) {
    char* end = nullptr;
    const double v = std::strtod(word, &end);
    if (end == word || *end != 0 || v < 0)
        refuse(std::string("--") + option + ": seconds, not '" + word + "'");
    return v;
}

Mode mode_of(const char* word) {
    for (const auto& [name, mode] : kModes)
        if (std::strcmp(name, word) == 0) return mode;
    refuse(std::string("--mode: unknown mode '") + word + "'");
}

}  // namespace

const char* mode_name(Mode mode) {
    for (const auto& [name, m] : kModes)
        if (m == mode) return name;
    return "";
}

Options parse_options(int argc, char** argv) {
    Options o;
    struct Word {
        const char* name;
        bool takes_value;
        std::function<void(const char* name, const char* value)> set;
    };
    const auto bytes = [](auto& to) {
        return [&to](const char* name, const char* value) {
            to = static_cast<std::remove_reference_t<decltype(to)>>(size_of(name, value));
        };
    };
    const auto count = [](auto& to) {
        return [&to](const char* name, const char* value) {
            to = static_cast<std::remove_reference_t<decltype(to)>>(count_of(name, value));
        };
    };
    const auto seconds = [](double& to) {
        return [&to](const char* name, const char* value) { to = seconds_of(name, value); };
    };
    const auto yes = [](bool& to) { return [&to](const char*, const char*) { to = true; }; };
    const Word words[] = {
        {"mode", true, [&](const char*, const char* value) { o.mode = mode_of(value); }},
        {"connections", true, count(o.connections)},
        {"depth", true, count(o.depth)},
        {"size", true, bytes(o.size)},
        {"start", true, bytes(o.start)},
        {"range", true, bytes(o.range)},
        {"slot", true, bytes(o.slot)},
        {"requests", true, count(o.requests)},
        {"seconds", true, seconds(o.seconds)},
        {"warmup", true, seconds(o.warmup)},
        {"flush-every", true, count(o.flush_every)},
        {"flush-at-end", false, yes(o.flush_at_end)},
        {"fua", false, yes(o.fua)},
        {"pid", true, count(o.pid)},
        {"seed", true, count(o.seed)},
        {"json", false, yes(o.json)},
    };
    std::vector<option> table;
    for (int i = 0; const Word& word : words) table.push_back({word.name, word.takes_value, nullptr, i++});
    constexpr int kHelpWord = 1000;
    table.push_back({"help", 0, nullptr, kHelpWord});
    table.push_back({});
    for (int c; (c = ::getopt_long(argc, argv, "", table.data(), nullptr)) != -1;) {
        if (c == kHelpWord) {
            std::fputs(kHelp, stdout);
            std::exit(0);
        }
        if (c == '?') refuse("unknown option or missing value");
        words[c].set(words[c].name, optarg);
    }
    if (optind + 1 != argc) refuse("one URI is needed");
    o.uri = argv[optind];
    if (o.connections < 1 || o.connections > 1024) refuse("--connections: 1 to 1024");
    if (o.depth < 1 || o.depth > 4096) refuse("--depth: 1 to 4096");
    if (o.size < 1 || o.size > (32u << 20)) refuse("--size: 1 byte to 32M");
    if (o.slot != 0 && (!o.each_block_once() || o.slot < o.size))
        refuse("--slot: for firsttouch, again and discard, and not below --size");
    if (o.requests == 0 && o.seconds == 0 && !o.each_block_once()) o.seconds = 5;
    return o;
}

}  // namespace load
