// What a scrub (scrub.hpp) knows: how far it is, and what it has found. As text it is the answer of the message `scrub_status`, and
// what the control plane keeps and gives back after a restart:
//
//   mode=check state=running from=0 at=8192 end=16384 compared=8192 differing=16 repaired=0 unrepaired=0 mended=0 left=0 unlisted=0
//       legs=2 map=1f… again=-
//   1024+16 believed=0 why=source wrong=1 zeroes=1 sums=3f2a…,0000… repaired=no
//
// the first in one line, then a line for each place. Sectors are the device's, legs are numbered as in the table. docs/targets/mirror.md
// says what the words mean.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "targets/mirror/legs.hpp"

namespace udm::mirror {

// Why one leg is believed and not another.
enum class Why : std::uint8_t {
    majority,    // more legs hold this than anything else together
    source,      // no majority: it is the leg that counts where regions are out of sync (decisions 4 and 5)
    readable,    // no majority, and the source cannot be read: the first that can be
};

// A place where the legs differ.
struct Place {
    Extent extent;
    LegMask read = 0;          // legs whose content is known
    LegMask wrong = 0;         // hold something else than the believed leg, or cannot be read
    LegMask zeroes = 0;        // hold nothing but zeroes
    std::uint8_t believed = 0;
    Why why = Why::source;
    bool repaired = false;
    std::array<std::uint32_t, kLegsMax> sums{};    // CRC-32C of what each holds that was read

    LegMask unreadable() const noexcept { return without(wrong, read); }

    // One behind the other, and alike in all but what they hold: may be told as one.
    bool continues_as(const Place& next) const noexcept;
    void append(const Place& next) noexcept;
};

struct ScrubReport {
    static constexpr std::size_t kPlacesMax = 256;    // listed; what is more is only counted
    static constexpr std::size_t kAgainMax = 128;     // runs of sectors to be looked at again

    enum class Mode : std::uint8_t { check, repair };
    enum class State : std::uint8_t { none, running, paused, done, stopped };

    Mode mode = Mode::check;
    State state = State::none;
    Sector from{}, at{}, end{};    // of the walk; `at`: all before it was looked at
    Sectors compared{};            // on all legs in use
    Sectors differing{};
    Sectors repaired{};            // of these
    Sectors unrepaired{};          // could not be: a leg failed, or its content changed meanwhile
    Sectors mended{};              // could not be read on some leg, and were written anew from another
    Sectors left{};                // not compared: out of sync, or on one leg only, also when looked at again
    std::uint64_t unlisted = 0;    // places beyond kPlacesMax
    std::vector<Extent> again;     // were not in sync: to be looked at again at the end; ascending
    std::vector<Place> places;     // ascending

    // Adds a place, or makes it a part of one that is there.
    void add(const Place& place);
    // Where there would be too many, they are told as one, with what is between them.
    void look_again_at(const Extent& extent);

    // `map` is the number by which the legs are known (restore()).
    std::string text(unsigned legs, std::uint64_t map) const;
    // The reverse. Of other legs nothing is taken over but the mode, and a walk that was not at its end begins anew: `extent` is the
    // mirror's; so it does where the mirror has another size. Errors: bad_argument.
    Result<void> restore(std::string_view text, unsigned legs, std::uint64_t map, const Extent& extent);
};

}  // namespace udm::mirror
