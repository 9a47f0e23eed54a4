// How fast a resync may go: as fast as it can while nobody else uses the mirror. While requests from above are under way one
// piece at a time, in a share of the time, so that it gets on and they hardly notice. A rate and the daemon's throttle
// (raid1_resync_throttle, percent of the time) limit it on top. All may change at any time.
#pragma once

#include "base/units.hpp"

namespace udm::mirror {

class Pace {
  public:
    static constexpr unsigned kShare = 30;          // percent
    // At once, with nobody else: as many at first, so that short copies of many mirrors take little memory; one more for each
    // that has ended, up to as many as a disk wants.
    static constexpr unsigned kPiecesFirst = 8, kPiecesMost = 16;

    explicit Pace(const std::uint64_t& throttle) noexcept : throttle_{throttle} {}

    std::uint64_t rate = 0;     // bytes a second; 0: no limit
    unsigned share = kShare;    // of the time, percent, with others

    void restart(Nanoseconds now) noexcept {
        next_ = mark_time_ = now;
        mark_bytes_ = bytes_;
        last_rate_ = 0;
        pieces_alone_ = kPiecesFirst;
    }
    unsigned pieces_alone() const noexcept { return pieces_alone_; }
    // Until when a piece that would be the `pieces`-th under way must wait: not after `now`: it may begin. ~0: until one has ended.
    Nanoseconds may_begin(Nanoseconds now, unsigned pieces, bool busy) const noexcept {
        const bool alone = !busy && throttle_ >= 100;
        if (pieces >= (alone ? pieces_alone_ : 1)) return ~Nanoseconds{0};
        return next_ > now ? next_ : 0;
    }
    void begins(Nanoseconds now, std::uint64_t bytes) noexcept {
        if (now - ended_ > kIdle) restart(now);    // what was before says nothing of how fast it is
        if (rate != 0) next_ = (next_ > now ? next_ : now) + bytes * kSecond / rate;
    }
    void ends(Nanoseconds now, Nanoseconds took, std::uint64_t bytes, bool busy) noexcept {
        bytes_ += bytes;
        if (pieces_alone_ < kPiecesMost) ++pieces_alone_;
        ended_ = now;
        unsigned percent = busy ? share : 100;
        if (throttle_ < percent) percent = static_cast<unsigned>(throttle_);
        if (percent < 100) {    // one that hung is no reason to rest for ever
            const Nanoseconds worked = took < kSecond ? took : kSecond;
            const Nanoseconds rest_ends = now + worked * (100 - percent) / (percent == 0 ? 1 : percent);
            if (rest_ends > next_) next_ = rest_ends;
        }
        if (now - mark_time_ >= 2 * kSecond) {
            last_rate_ = (bytes_ - mark_bytes_) * kSecond / (now - mark_time_);
            mark_time_ = now;
            mark_bytes_ = bytes_;
        }
    }
    std::uint64_t bytes() const noexcept { return bytes_; }    // so far
    // Of the last seconds.
    std::uint64_t bytes_per_second(Nanoseconds now) const noexcept {
        const Nanoseconds elapsed = now - mark_time_;
        if (elapsed < kSecond / 2) return last_rate_;
        return (bytes_ - mark_bytes_) * kSecond / elapsed;
    }

  private:
    const std::uint64_t& throttle_;
    static constexpr Nanoseconds kIdle = 5 * kSecond;    // longer than most rests, and than the pauses of a rate of 128 KiB/s
    Nanoseconds next_ = 0, ended_ = 0;
    unsigned pieces_alone_ = kPiecesFirst;
    std::uint64_t bytes_ = 0, mark_bytes_ = 0, last_rate_ = 0;
    Nanoseconds mark_time_ = 0;
};

}  // namespace udm::mirror
