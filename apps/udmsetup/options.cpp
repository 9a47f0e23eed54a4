#include "apps/udmsetup/options.hpp"

#include <fmt/format.h>
#include <getopt.h>

#include <array>
#include <cstdlib>
#include <cstring>

#include "base/parse.hpp"

namespace udm::udmsetup {
namespace {

enum LongOption : int {
    kConcise = 256,
    kCount,
    kDeferred,
    kExec,
    kInactive,
    kInterval,
    kJson,
    kMangleName,
    kNamePrefixes,
    kNoFlush,
    kNoHeadings,
    kNoLockFs,
    kAddNodeOnCreate,
    kAddNodeOnResume,
    kNothing,          // accepted: there is nothing to do in user space
    kNothingWithWord,  // the same, with an argument
    kRetry,
    kRows,
    kSeparator,
    kSetUuid,
    kSocket,
    kTable,
    kTarget,
    kTree,
    kUnquoted,
    kVersion,
};

constexpr option kLong[] = {
    {"addnodeoncreate", no_argument, nullptr, kAddNodeOnCreate},
    {"addnodeonresume", no_argument, nullptr, kAddNodeOnResume},
    {"checks", no_argument, nullptr, kNothing},
    {"columns", no_argument, nullptr, 'c'},
    {"concise", no_argument, nullptr, kConcise},
    {"count", required_argument, nullptr, kCount},
    {"deferred", no_argument, nullptr, kDeferred},
    {"exec", required_argument, nullptr, kExec},
    {"force", no_argument, nullptr, 'f'},
    {"gid", required_argument, nullptr, 'G'},
    {"help", no_argument, nullptr, 'h'},
    {"inactive", no_argument, nullptr, kInactive},
    {"interval", required_argument, nullptr, kInterval},
    {"json", no_argument, nullptr, kJson},
    {"major", required_argument, nullptr, 'j'},
    {"manglename", required_argument, nullptr, kMangleName},
    {"minor", required_argument, nullptr, 'm'},
    {"mode", required_argument, nullptr, 'M'},
    {"nameprefixes", no_argument, nullptr, kNamePrefixes},
    {"noflush", no_argument, nullptr, kNoFlush},
    {"noheadings", no_argument, nullptr, kNoHeadings},
    {"nolockfs", no_argument, nullptr, kNoLockFs},
    {"noopencount", no_argument, nullptr, kNothing},
    {"notable", no_argument, nullptr, 'n'},
    {"noudevrules", no_argument, nullptr, kNothing},
    {"noudevsync", no_argument, nullptr, kNothing},
    {"options", required_argument, nullptr, 'o'},
    {"readahead", required_argument, nullptr, kNothingWithWord},
    {"readonly", no_argument, nullptr, 'r'},
    {"retry", no_argument, nullptr, kRetry},
    {"rows", no_argument, nullptr, kRows},
    {"select", required_argument, nullptr, 'S'},
    {"separator", required_argument, nullptr, kSeparator},
    {"setuuid", no_argument, nullptr, kSetUuid},
    {"showkeys", no_argument, nullptr, kNothing},
    {"socket", required_argument, nullptr, kSocket},
    {"sort", required_argument, nullptr, 'O'},
    {"table", required_argument, nullptr, kTable},
    {"target", required_argument, nullptr, kTarget},
    {"tree", no_argument, nullptr, kTree},
    {"udevcookie", required_argument, nullptr, kNothingWithWord},
    {"uid", required_argument, nullptr, 'U'},
    {"unbuffered", no_argument, nullptr, kNothing},
    {"unquoted", no_argument, nullptr, kUnquoted},
    {"uuid", required_argument, nullptr, 'u'},
    {"verbose", no_argument, nullptr, 'v'},
    {"verifyudev", no_argument, nullptr, kNothing},
    {"version", no_argument, nullptr, kVersion},
    {"yes", no_argument, nullptr, 'y'},
    {nullptr, 0, nullptr, 0},
};

std::optional<Mangling> mangling_of(std::string_view word) {
    if (word == "auto") return Mangling::automatic;
    if (word == "hex") return Mangling::hex;
    if (word == "none") return Mangling::none;
    return std::nullopt;
}

class Parser {
  public:
    std::optional<Options> parse(int argc, char** argv) {
        if (const char* mode = std::getenv("DM_DEFAULT_NAME_MANGLING_MODE")) {
            options_.mangling =
                mangling_of(mode).value_or(Mangling::automatic);  // as dmsetup: others are ignored
        }
        optind = 0;  // getopt starts anew: tests parse several command lines
        bool good = true;
        for (int got;
             good && (got = ::getopt_long(argc, argv, "cCfG:hj:m:M:no:O:rS:u:U:vy", kLong, nullptr)) != -1;) {
            good = take(got);
        }
        if (!good || !check()) {
            fmt::print(stderr, "Couldn't process command line.\n");
            return std::nullopt;
        }
        for (int i = optind; i < argc; ++i) options_.words.emplace_back(argv[i]);
        if (!options_.words.empty()) {
            options_.verb = options_.words.front();
            options_.words.erase(options_.words.begin());
        }
        return std::move(options_);
    }

  private:
    bool take(int got) {
        switch (got) {
            case 'c':
            case 'C':
                options_.columns = true;
                return true;
            case 'f':
                options_.force = true;
                return true;
            case 'h':
                options_.help = true;
                return true;
            case 'j':
                return number("Major number", options_.major);
            case 'm':
                return number("Minor number", options_.minor);
            case 'n':
                options_.notable = true;
                return true;
            case 'o':
                options_.fields = optarg;
                return true;
            case 'O':
                options_.sort = optarg;
                return true;
            case 'r':
                options_.readonly = true;
                return true;
            case 'S':
                options_.selection = optarg;
                return true;
            case 'u':
                options_.uuid = optarg;
                return true;
            case 'v':
                ++options_.verbose;
                return true;
            case 'G':
            case 'M':
            case 'U':
            case 'y':
            case kNothing:
            case kNothingWithWord:
                return true;
            case kAddNodeOnCreate:
                node_on_create_ = true;
                return true;
            case kAddNodeOnResume:
                node_on_resume_ = true;
                return true;
            case kConcise:
                options_.concise = true;
                return true;
            case kCount: {
                std::optional<std::uint64_t>& count = options_.count;
                count = parse_u64(optarg);
                if (!count) fmt::print(stderr, "Count must be zero or a positive integer.\n");
                return count.has_value();
            }
            case kDeferred:
                options_.deferred = true;
                return true;
            case kExec:
                options_.exec = optarg;
                return true;
            case kInactive:
                options_.inactive = true;
                return true;
            case kInterval:
                options_.interval_seconds = parse_u64(optarg);
                if (options_.interval_seconds.value_or(0) == 0) {
                    fmt::print(stderr, "Interval must be a positive integer.\n");
                    return false;
                }
                return true;
            case kJson:
                options_.json = true;
                return true;
            case kMangleName:
                if (const auto mode = mangling_of(optarg)) {
                    options_.mangling = *mode;
                    return true;
                }
                fmt::print(stderr, "Unknown name mangling mode.\n");
                return false;
            case kNamePrefixes:
                options_.nameprefixes = true;
                return true;
            case kNoFlush:
                options_.noflush = true;
                return true;
            case kNoHeadings:
                options_.noheadings = true;
                return true;
            case kNoLockFs:
                options_.nolockfs = true;
                return true;
            case kRetry:
                options_.retry = true;
                return true;
            case kRows:
                options_.rows = true;
                return true;
            case kSeparator:
                options_.separator = optarg;
                return true;
            case kSetUuid:
                options_.setuuid = true;
                return true;
            case kSocket:
                options_.socket = optarg;
                return true;
            case kTable:
                options_.table = optarg;
                return true;
            case kTarget:
                options_.target = optarg;
                return true;
            case kTree:
                options_.tree = true;
                return true;
            case kUnquoted:
                options_.unquoted = true;
                return true;
            case kVersion:
                options_.version = true;
                return true;
            default:
                return false;  // getopt has said what is wrong
        }
    }

    static bool number(const char* what, std::optional<std::uint32_t>& into) {
        into = parse_u32(optarg);
        if (!into) fmt::print(stderr, "{} must be a number: {}.\n", what, optarg);
        return into.has_value();
    }

    bool check() const {
        const auto refuse = [](const char* why) {
            fmt::print(stderr, "{}\n", why);
            return false;
        };
        if (node_on_create_ && node_on_resume_) {
            return refuse("--addnodeonresume and --addnodeoncreate are incompatible.");
        }
        if (options_.table && options_.notable) return refuse("--table and --notable are incompatible.");
        if (options_.major.has_value() != options_.minor.has_value()) {
            return refuse("Please specify both major number and minor number.");
        }
        return true;
    }

    Options options_;
    bool node_on_create_ = false;
    bool node_on_resume_ = false;
};

}  // namespace

std::optional<Options> parse_options(int argc, char** argv) { return Parser{}.parse(argc, argv); }

}  // namespace udm::udmsetup
