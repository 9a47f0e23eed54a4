#include "test/bench/nbdload/options.hpp"

#include <getopt.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <utility>

#include "base/parse.hpp"

namespace load {
namespace {

constexpr std::array<std::pair<const char*, Mode>, 6> kModes{{{"read", Mode::read},
                                                              {"write", Mode::write},
                                                              {"randread", Mode::randread},
                                                              {"randwrite", Mode::randwrite},
                                                              {"firsttouch", Mode::firsttouch},
                                                              {"again", Mode::again}}};

constexpr const char* kHelp =
    R"(usage: nbdload [options] URI        nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH

Loads an NBD server and prints requests per second, latencies and the server's CPU time per request.

  --mode M          read, write (one after the other), randread (default), randwrite,
                    firsttouch (each block of the range exactly once, in random order),
                    again (the blocks of firsttouch with the same seed, range and number, in another order)
  --connections N   1      --depth N  32, each connection      --size BYTES  4K, of a request
  --start BYTES     0      --range BYTES  rest of the export
  --requests N      end after so many        --seconds S   end after so long (5 if neither is given)
  --warmup S        seconds that are not counted
  --flush-every N   a flush after every N writes, each connection      --fua  on every write
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

}  // namespace

const char* mode_name(Mode mode) {
    for (const auto& [name, m] : kModes)
        if (m == mode) return name;
    return "";
}

Options parse_options(int argc, char** argv) {
    enum {
        mode,
        connections,
        depth,
        size,
        start,
        range,
        requests,
        seconds,
        warmup,
        flush_every,
        fua,
        pid,
        seed,
        json,
        help
    };
    static const option kLong[] = {
        {"mode", 1, nullptr, mode},         {"connections", 1, nullptr, connections},
        {"depth", 1, nullptr, depth},       {"size", 1, nullptr, size},
        {"start", 1, nullptr, start},       {"range", 1, nullptr, range},
        {"requests", 1, nullptr, requests}, {"seconds", 1, nullptr, seconds},
        {"warmup", 1, nullptr, warmup},     {"flush-every", 1, nullptr, flush_every},
        {"fua", 0, nullptr, fua},           {"pid", 1, nullptr, pid},
        {"seed", 1, nullptr, seed},         {"json", 0, nullptr, json},
        {"help", 0, nullptr, help},         {}};
    Options o;
    int which = 0;
    for (int c; (c = ::getopt_long(argc, argv, "", kLong, &which)) != -1;) {
        const char* name = c == '?' ? "" : kLong[which].name;
        switch (c) {
            case mode: {
                bool known = false;
                for (const auto& [word, m] : kModes)
                    if (std::strcmp(word, optarg) == 0) o.mode = m, known = true;
                if (!known) refuse(std::string("--mode: unknown mode '") + optarg + "'");
                break;
            }
            case connections:
                o.connections = static_cast<unsigned>(count_of(name, optarg));
                break;
            case depth:
                o.depth = static_cast<unsigned>(count_of(name, optarg));
                break;
            case size:
                o.size = static_cast<std::uint32_t>(size_of(name, optarg));
                break;
            case start:
                o.start = size_of(name, optarg);
                break;
            case range:
                o.range = size_of(name, optarg);
                break;
            case requests:
                o.requests = count_of(name, optarg);
                break;
            case seconds:
                o.seconds = seconds_of(name, optarg);
                break;
            case warmup:
                o.warmup = seconds_of(name, optarg);
                break;
            case flush_every:
                o.flush_every = count_of(name, optarg);
                break;
            case fua:
                o.fua = true;
                break;
            case pid:
                o.pid = static_cast<pid_t>(count_of(name, optarg));
                break;
            case seed:
                o.seed = count_of(name, optarg);
                break;
            case json:
                o.json = true;
                break;
            case help:
                std::fputs(kHelp, stdout);
                std::exit(0);
            default:
                refuse("unknown option or missing value");
        }
    }
    if (optind + 1 != argc) refuse("one URI is needed");
    o.uri = argv[optind];
    if (o.connections < 1 || o.connections > 1024) refuse("--connections: 1 to 1024");
    if (o.depth < 1 || o.depth > 4096) refuse("--depth: 1 to 4096");
    if (o.size < 1 || o.size > (32u << 20)) refuse("--size: 1 byte to 32M");
    if (o.requests == 0 && o.seconds == 0 && !o.each_block_once()) o.seconds = 5;
    return o;
}

}  // namespace load
