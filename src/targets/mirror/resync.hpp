// Copies regions that are out of sync from the source leg to the legs that lack them.
//
// Several runs of adjacent regions at a time, each up to 512 KiB or one region, in pieces of 512 KiB or less: a piece claims its
// sectors (writes.hpp), is read once, and written to all legs that need it. A region is not closed to writes while it is copied:
// they go to the legs it is copied to as well, and wait only for a piece that they overlap.
//
// A region that was copied is in sync, and still dirty in the log, until the legs were flushed (M9, M35). What could not be copied
// is tried again, after 1 s at first, then 2, 4, … 60 s (M25).
#pragma once

#include "targets/mirror/copy.hpp"
#include "targets/mirror/failures.hpp"
#include "targets/mirror/pace.hpp"

namespace udm::mirror {

class Resync final {
  public:
    Resync(Set& set, Writes& writes, Failures& failures, const std::uint64_t& throttle);
    ~Resync();

    void start() noexcept;
    Job<void> stop();            // ends what has begun
    void look_again() noexcept;  // there may be something to copy
    void retry() noexcept;       // what failed, at once
    void drop_leg(unsigned leg) noexcept;
    void spoil_copies() noexcept;    // those under way are worth nothing
    void set_paused(bool paused) noexcept;
    bool paused() const noexcept { return paused_; }
    Pace& pace() noexcept { return pace_; }

    std::uint64_t bytes_left() const noexcept;
    std::uint64_t bytes_per_second() const noexcept;    // of late
    std::uint64_t bytes_copied() const noexcept { return pace_.bytes(); }    // since the table was loaded, each once whatever legs got it

  private:
    static constexpr Sectors kRun{1024};    // of regions that are not larger: 512 KiB
    static constexpr Nanoseconds kBackOffFirst = kSecond, kBackOffMost = 60 * kSecond;
    class LookTimer final : public Timer {
      public:
        explicit LookTimer(Resync& resync, bool retries) noexcept : resync_{resync}, retries_{retries} {}
        void expired() noexcept override { retries_ ? resync_.retry() : resync_.look_again(); }

      private:
        Resync& resync_;
        const bool retries_;
    };

    Job<void> run();
    Job<void> copy_run(Copy* copy);
    Job<bool> copy_piece(Copy* copy, Extent piece);
    Job<void> wait_turn();
    LegMask lacking(RegionRun run) const noexcept;
    LegMask having_all(RegionRun run) const noexcept;
    void begin(Copy& copy) noexcept;
    void end(Copy& copy, bool copied) noexcept;
    void plan_retry() noexcept;

    Set& set_;
    Writes& writes_;
    Failures& failures_;
    Pace pace_;
    Pool<Copy> copies_{Pace::kPiecesMost};
    List<Copy> under_way_;
    unsigned pieces_ = 0;        // under way
    bool running_ = false;
    bool paused_ = false;
    bool again_ = false;         // look_again() was called
    Nanoseconds back_off_ = 0;
    Signal changed_;
    LookTimer turn_timer_{*this, false};
    LookTimer retry_timer_{*this, true};
};

}  // namespace udm::mirror
