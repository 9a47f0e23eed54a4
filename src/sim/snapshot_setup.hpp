// What a history of the story "snapshot" starts from, and the steps that are its own.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "sim/disk_setup.hpp"
#include "sim/request_steps.hpp"

namespace udm {

inline constexpr unsigned kSlots = 4;    // for snapshots, each with a COW device

struct SnapshotSetup : DiskSetup {    // disk 0 is the origin, 1.. are the COW devices
    std::uint64_t sectors = 0;               // of the origin
    std::uint64_t orderly_end = 0;           // everything is removed at the end, and nothing may be left
    std::uint64_t flush_at_end = 0;          // before the last cut
    struct Slot {
        std::uint64_t chunk = 0, cow_sectors = 0;
        std::uint64_t roomy = 0;             // can never be full
        std::uint64_t discard_zeroes_cow = 0;
    };
    std::array<Slot, kSlots> slots{};
    std::uint64_t stacked = 0;               // the origin is a mapped device
    std::uint64_t premade = 0;               // exceptions of a snapshot that is there from the start, in the first slot
    // Bounds on copies; 0: as the daemon has them.
    std::uint64_t copy_memory = 0;           // in 4 KiB
    std::uint64_t cow_threshold = 0;         // one more than it is
    std::uint64_t copy_throttle = 0;
    std::uint64_t auto_extend = 0;           // bits: slots whose COW device is extended when it fills up

    static SnapshotSetup draw(Prng& random);
    std::string describe() const;
    // For History::setup. New members go to the end: what a saved history doesn't have is zero.
    std::vector<std::uint64_t> pack() const;
    static SnapshotSetup unpack(const std::vector<std::uint64_t>& words);
};

namespace steps {
enum SnapshotKind : std::uint32_t {
    kTake = kFirstOfStory,    // a: slot, b: 0 P, 1 PO, 2 N, c: Way, d: 1 goes on with a store that a cut left half made
    kDrop,                    // a: slot
    kCycle,                   // a: volume, or 5: what the origin stands on; b: 1 noflush, c: microseconds to stay suspended
    kReload,                  // the origin's table again
    kGrow,                    // a: slot, b: sectors more for its COW device
    kBound,                   // a: copy_memory, b: cow_threshold, c: copy_throttle, as in the setup
    // Of the story "merge":
    kMerge,                   // a: slot, b: bytes per second, 0 no limit, c: bits of HowToMerge
    kTurn,                    // the merging device becomes a snapshot of its origin, or merges again
    kSettle,                  // a merge that is done: the device becomes an origin again
    kSay,                     // to the merge; b: Say, c: bytes per second
    kReplace,                 // a: slot, its table again, with other features
    // Of the story "snapshot" again:
    kCutOff,                  // a: slot, b: sectors that its COW device loses
    kResize,                  // the origin; a: 1 it becomes smaller, b: by so many sectors
};
enum HowToMerge : std::uint64_t {
    kPausedAtFirst = 1,
    kTooEarly = 2,       // tried while the snapshot is in use
    kSourceAgain = 4,    // the snapshot's device is to be resumed with its store promised to the origin's
};
enum class Say : std::uint64_t { pause, go_on, retry, rate };
enum class Way : std::uint64_t {    // of taking a snapshot
    flush,      // the origin is suspended
    noflush,    // without flush
    live,       // it is not
};
}  // namespace steps

}  // namespace udm
