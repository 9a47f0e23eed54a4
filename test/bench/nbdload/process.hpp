// What a process has used so far.
#pragma once

#include <sys/types.h>
#include <time.h>

#include <cstdint>
#include <fstream>
#include <string>

namespace load {

struct Usage {
    std::uint64_t cpu_ns = 0;  // user and system; all threads, those of its rings' workers too, alive or not
    std::uint64_t write_bytes = 0;  // sent to block devices
    std::uint64_t read_bytes = 0;
    std::uint64_t wchar = 0;  // through write(2) and its kin, whatever is behind
    std::uint64_t rchar = 0;
    std::uint64_t calls = 0;  // read- and write-like system calls
    std::uint64_t rss_kib = 0;
    std::uint64_t peak_rss_kib = 0;
};

// Of process `pid` (0: this one). Fields that cannot be read stay 0.
inline Usage usage_of(pid_t pid) {
    Usage u;
    clockid_t clock = CLOCK_PROCESS_CPUTIME_ID;
    timespec t{};
    if (pid != 0 && ::clock_getcpuclockid(pid, &clock) != 0) return u;
    if (::clock_gettime(clock, &t) == 0)
        u.cpu_ns = std::uint64_t(t.tv_sec) * 1'000'000'000 + std::uint64_t(t.tv_nsec);
    const std::string dir = "/proc/" + (pid == 0 ? std::string("self") : std::to_string(pid));
    std::string word;
    for (std::ifstream io(dir + "/io"); io >> word;) {
        std::uint64_t v = 0;
        io >> v;
        if (word == "rchar:")
            u.rchar = v;
        else if (word == "wchar:")
            u.wchar = v;
        else if (word == "syscr:" || word == "syscw:")
            u.calls += v;
        else if (word == "read_bytes:")
            u.read_bytes = v;
        else if (word == "write_bytes:")
            u.write_bytes = v;
    }
    for (std::ifstream status(dir + "/status"); status >> word;) {
        if (word == "VmRSS:")
            status >> u.rss_kib;
        else if (word == "VmHWM:")
            status >> u.peak_rss_kib;
    }
    return u;
}

}  // namespace load
