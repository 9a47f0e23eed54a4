// The legs of a mirror: where they are, how they are, and which of them a read goes to.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/target_type.hpp"

namespace udm::mirror {

inline constexpr unsigned kLegsMax = 9;
// Bit i: leg i, numbered as in the table.
using LegMask = std::uint16_t;
constexpr LegMask leg_bit(unsigned leg) { return static_cast<LegMask>(1U << leg); }
constexpr LegMask without(LegMask mask, LegMask less) { return static_cast<LegMask>(mask & ~less); }
constexpr unsigned lowest(LegMask mask) { return static_cast<unsigned>(std::countr_zero(mask)); }
// Calls f(leg) for each leg of the mask, the lowest first.
template <class F>
constexpr void for_each_leg(LegMask mask, F&& f) {
    for (unsigned left = mask; left != 0; left &= left - 1) f(static_cast<unsigned>(std::countr_zero(left)));
}

// What has failed on a leg, the worst last: the letters R, S, D, F of the status line.
enum class LegError : std::uint8_t { read, sync, write, flush };

struct Leg {
    std::unique_ptr<OpenDevice> device;
    Sector start;
    std::uint8_t errors = 0;    // bits of LegError
    std::uint8_t told = 0;      // an event was raised for it
    bool away = false;          // it missed something: nothing is sent there
    bool slow = false;          // it takes much longer than the others, and that was told
    // For the choice of a leg to read from.
    unsigned reads = 0;         // under way
    unsigned begun = 0;         // so far, to time some of them
    Sector next_read{};         // where the last one ended
    Nanoseconds latency = 0;    // of reads, a moving mean; 0: not known
    unsigned weight = 1;        // how many times slower than the fastest
};

class Legs {
  public:
    explicit Legs(std::vector<Leg> legs) : legs_{std::move(legs)} {}

    unsigned count() const noexcept { return static_cast<unsigned>(legs_.size()); }
    Leg& operator[](unsigned leg) noexcept { return legs_[leg]; }
    const Leg& operator[](unsigned leg) const noexcept { return legs_[leg]; }
    Disk& disk(unsigned leg) const noexcept { return legs_[leg].device->disk(); }
    LegMask all() const noexcept { return static_cast<LegMask>((1U << legs_.size()) - 1); }
    LegMask alive() const noexcept { return alive_; }    // not away
    LegMask away() const noexcept { return without(all(), alive_); }
    bool any_error() const noexcept;

    // The leg that counts where the legs may differ. Never away.
    unsigned source() const noexcept { return source_; }
    void set_source(unsigned leg) noexcept {
        ASSERT((alive_ & leg_bit(leg)) != 0);
        source_ = leg;
    }
    void set_away(unsigned leg, bool away) noexcept;

    // True when it is the first of its kind that is to be told.
    bool note_error(unsigned leg, LegError error) noexcept;
    void clear_error(unsigned leg, LegError error) noexcept;
    void clear_errors() noexcept;
    std::string health() const;    // a letter for each leg

    // Which of `from` (not empty) a read should go to: legs without errors first; where it continues the leg's last read,
    // unless the others have much less to do; else where it would end soonest.
    unsigned choose(LegMask from, Sector first) noexcept;
    // How long a read took. A leg that has just turned out to be slow, if there is one.
    std::optional<unsigned> note_latency(unsigned leg, Nanoseconds took) noexcept;

  private:
    static constexpr unsigned kRunAhead = 2;       // reads more than another leg has, for the sake of the sequence
    static constexpr unsigned kTryAnyway = 256;    // each so many-th read asks a slow leg whether it still is
    static constexpr unsigned kSlowWeight = 8;
    static constexpr Nanoseconds kSlowLatency = 5 * kMillisecond;

    std::vector<Leg> legs_;
    LegMask alive_ = all();
    unsigned source_ = 0;
    unsigned turn_ = 0;
};

}  // namespace udm::mirror
