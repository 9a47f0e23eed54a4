// What a history of the story "mirror" starts from, and the steps that are its own.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "sim/disk_setup.hpp"
#include "sim/request_steps.hpp"

namespace udm {

inline constexpr unsigned kMirrorLegsMax = 9;

struct MirrorSetup : DiskSetup {    // disk 0 is the log, 1.. are the legs
    enum class Word : std::uint64_t { none, sync, nosync };
    // What the legs and the log hold before the mirror is first made.
    enum class Begin : std::uint64_t {
        blank,       // a log of zeroes, legs that differ
        equal,       // legs that are equal; the log of zeroes
        recorded,    // a log that says so of some regions, and there the legs are equal
    };
    std::uint64_t sectors = 0;             // of the mirror
    std::uint64_t front = 0;               // sectors of another target before it in the table
    std::uint64_t legs = 2;
    std::uint64_t region = 0;              // sectors
    std::uint64_t disk_log = 1;
    std::uint64_t word = 0;                // Word, of the table that makes it
    std::uint64_t word_stays = 0;          // in later tables, too
    std::uint64_t begin = 0;               // Begin
    std::uint64_t clean_bits = 0;          // of the recorded log, repeated every 64 regions
    std::uint64_t handle_errors = 0;
    std::uint64_t keep_log = 0;
    std::uint64_t survivor = 0;            // a leg that no fault is drawn for, counted from 1; 0: none is spared
    std::uint64_t orderly_end = 0;         // everything is removed at the end, and nothing may be left
    std::uint64_t flush_at_end = 0;        // before the last cut
    std::array<std::uint64_t, kMirrorLegsMax> offsets{};    // of the data on each leg
    // Settings in milliseconds, 0: as they are by themselves.
    std::uint64_t log_rest = 0, leg_retry = 0, hold_timeout = 0;
    std::uint64_t spares = 0;              // disks that may become legs later

    std::uint64_t leg_disks() const noexcept { return legs + spares; }
    std::uint64_t regions() const noexcept { return (sectors + region - 1) / region; }
    std::uint64_t log_sectors() const noexcept;
    bool recorded_clean(std::uint64_t of_region) const noexcept { return (clean_bits >> (of_region % 64) & 1) != 0; }

    static MirrorSetup draw(Prng& random);
    std::string describe() const;
    // For History::setup. New members go to the end: what a saved history doesn't have is zero.
    std::vector<std::uint64_t> pack() const;
    static MirrorSetup unpack(const std::vector<std::uint64_t>& words);
};

namespace steps {
enum MirrorKind : std::uint32_t {
    kMirrorCycle = kFirstOfStory,    // suspended and resumed; b: 1 noflush, c: microseconds to stay suspended
    kMirrorReload,                   // its table again
    kMirrorRest,                     // waits until nothing is under way, and looks at everything
    kMirrorTime,                     // c: milliseconds that pass, for what a mirror does in its own time
    kMirrorSay,                      // b: MirrorWord, c: its number
    kMirrorLegs,                     // its table with other legs; b: LegChange, c: which leg goes, d: which spare comes
    kMirrorRot,                      // a: a leg, b: sectors, c: from this one on: they change behind everybody's back
    kMirrorScrub,                    // b: ScrubWord
    kMirrorScrubLook,                // c: events to wait for its end; then what it says is kept, and judged
};
enum class MirrorWord : std::uint64_t { leg_return, pause, go_on, retry, rate, share, count };
enum class LegChange : std::uint64_t { add, drop, replace, reorder, count };
enum class ScrubWord : std::uint64_t { check, repair, stop, pause, go_on, slow, fast, count };
std::string words_of(ScrubWord word);
std::string words_of(MirrorWord word, std::uint64_t number);    // of the message
}  // namespace steps

}  // namespace udm
