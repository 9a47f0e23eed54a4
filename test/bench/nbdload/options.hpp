// What nbdload was asked to do.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>

namespace load {

enum class Mode { read, write, randread, randwrite, firsttouch, again, discard };

struct Options {
    std::string uri;
    Mode mode = Mode::randread;
    unsigned connections = 1;
    unsigned depth = 32;         // requests in flight, each connection
    std::uint32_t size = 4096;   // bytes a request
    std::uint64_t start = 0;     // first byte of the range
    std::uint64_t range = 0;     // bytes; 0: to the end of the export
    std::uint64_t requests = 0;  // 0: until `seconds` are over (firsttouch, again, discard: all blocks)
    double seconds = 0;          // 0: until `requests` are done
    std::uint64_t slot = 0;      // firsttouch, again, discard: one block in each slot of so many bytes; 0: every block
    double warmup = 0;           // seconds not counted
    std::uint64_t flush_every = 0;  // a flush after so many writes; 0: none
    bool flush_at_end = false;      // and count the time until it is done
    bool fua = false;
    bool json = false;
    pid_t pid = 0;  // whose CPU and I/O are counted
    std::uint64_t seed = 1;

    // Something changes, with a discard as well; only writes have a payload.
    bool writes() const { return mode != Mode::read && mode != Mode::randread; }
    bool each_block_once() const {
        return mode == Mode::firsttouch || mode == Mode::again || mode == Mode::discard;
    }
};

const char* mode_name(Mode mode);
// Prints what is wrong, or the help, and exits where the words cannot be used.
Options parse_options(int argc, char** argv);

}  // namespace load
