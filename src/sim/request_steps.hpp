// The steps that stories have in common: requests of clients, and what is done to disks.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "sim/clients.hpp"
#include "sim/sim_disk.hpp"
#include "sim/story.hpp"

namespace udm::steps {

// Kinds below kFirstOfStory are these; a story's own start there.
enum Kind : std::uint32_t {
    kRead,            // a: which volume, b: first sector, c: sectors, d: 1 FUA
    kWrite,
    kFlush,
    kDiscard,
    kZeroes,
    kExtentStatus,
    kFault,           // a: which disk, b: Trouble, c: sector or requests to skip, d: length or how often
    kHeal,            // a: which disk
    kCut,             // a: 1 what is wrong with disks stays so; b: events until the power goes again, 0: it doesn't
    kFirstOfStory = 100,
};

enum class Trouble : std::uint64_t {
    write_once,
    read_once,
    any_once,
    writes,           // all, until healed
    everything,
    from_sector,
    range,
    stall_writes,
    stall_reads,
    stall_all,
    gone,
    slow,
    count,
};

// What the requests of a history are like. They go where they meet: few hot spots, whole chunks and pieces of them,
// sometimes long ones. A mood makes histories differ in kind: one writes in haste, another flushes all the time.
struct Shape {
    std::uint64_t sectors = 64;                // of a volume
    std::uint64_t first = 0;                   // requests start no lower
    std::vector<std::uint64_t> chunks{};       // sizes in sectors that matter
    std::uint64_t longest = 64;
    std::uint64_t block = 1;                   // requests start and end on multiples of it
    std::vector<std::uint64_t> volumes{1};     // weight of each volume
    std::array<std::uint64_t, 6> ops{30, 50, 8, 4, 5, 3};    // weight of each kind, in the order of Kind
    std::uint64_t fua_percent = 12;
    std::uint64_t hot_percent = 33;            // of the requests that fall onto the first chunks
    std::uint64_t haste = 1;                   // 0 leisurely, 1 mixed, 2 in haste
    void draw_mood(Prng& random);
};
Step draw_request(Prng& random, const Shape& shape);
std::uint32_t draw_pause(Prng& random, std::uint64_t haste = 1);
Step draw_fault(Prng& random, std::uint64_t disk, std::uint64_t sectors);

bool is_request(const Step& step) noexcept;
// Submits the request of a step to a volume that is attached; cut down to its size, dropped if nothing is left.
void submit(Clients& clients, Volume& volume, const Step& step);
void apply_fault(SimDisk& disk, const Step& step, IoStatus of_writes = IoStatus::io_error);
void heal(SimDisk& disk);
// Without the stalls, which nobody would survive; and what is gone comes back.
void heal_for_boot(SimDisk& disk, bool keep_faults);

std::string describe(const Step& step);

}  // namespace udm::steps
