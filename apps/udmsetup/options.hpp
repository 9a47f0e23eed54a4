// The command line, as dmsetup 1.02.185 takes it: options anywhere, long ones may be abbreviated.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace udm::udmsetup {

enum class Mangling { automatic, hex, none };

struct Options {
    // Flags that mean something here.
    bool columns = false;
    bool concise = false;
    bool deferred = false;
    bool force = false;
    bool help = false;
    bool inactive = false;
    bool json = false;  // ours: results as JSON
    bool nameprefixes = false;
    bool noflush = false;
    bool noheadings = false;
    bool nolockfs = false;
    bool notable = false;
    bool readonly = false;
    bool retry = false;
    bool rows = false;
    bool setuuid = false;
    bool tree = false;
    bool unquoted = false;
    bool version = false;
    unsigned verbose = 0;

    std::optional<std::string> exec;
    std::optional<std::string> fields;     // -o
    std::optional<std::string> selection;  // -S
    std::optional<std::string> separator;
    std::optional<std::string> sort;  // -O
    std::optional<std::string> table;
    std::optional<std::string> target;
    std::optional<std::string> uuid;
    std::optional<std::uint32_t> major;
    std::optional<std::uint32_t> minor;
    std::optional<std::uint64_t> count;  // of repeats; 0: without end
    std::optional<std::uint64_t> interval_seconds;
    Mangling mangling = Mangling::automatic;
    std::string socket;  // ours: of the daemon

    std::string verb;
    std::vector<std::string> words;  // after the verb
};

// Nothing, with the reason printed on standard error, when the options cannot be used.
std::optional<Options> parse_options(int argc, char** argv);

}  // namespace udm::udmsetup
