// Compares the legs while the mirror is in use, and writes what is believed over what is wrong, if that is asked for.
//
// A walk over the regions that are in sync, in pieces of 512 KiB or less, as many at a time as its pace allows. A piece is read
// from all legs in use and compared in place. No write waits for that: what differs may only be a write under way, so it is read
// once more, and then with its sectors claimed (writes.hpp). What differs while no write is under way there, differs.
// Regions that are out of sync are the resync's; they are looked at again when the walk is at its end, and all was copied that can be.
//
// Which leg is believed is said in scrub_judge.hpp. A repair is a write as any other: its regions are marked in the log, so that
// after a crash in the middle they are copied from the source leg. Only where the source leg is what is wrong that would make the
// bad data everybody's: there nothing is marked, a crash leaves the place as it was found or repaired, and the legs are
// flushed before it counts as repaired. With its sectors claimed the place is read and judged anew before it is written, and read
// back afterwards.
//
// What a leg cannot read while others agree is written anew from them, as it is for reads from above (reads.hpp, defect M29).
#pragma once

#include "targets/mirror/pace.hpp"
#include "targets/mirror/reads.hpp"
#include "targets/mirror/resync.hpp"
#include "targets/mirror/scrub_judge.hpp"

namespace udm::mirror {

class Scrub final {
  public:
    Scrub(Set& set, Writes& writes, Reads& reads, Failures& failures, Resync& resync, const std::uint64_t& throttle, bool read_only);
    ~Scrub();

    // --- life ---------------------------------------------------------------------------------------------------
    void resume() noexcept;    // goes on where it was, if one was under way
    Job<void> suspend();       // ends what has begun; the mirror is stopping

    // --- messages -----------------------------------------------------------------------------------------------
    // From the region of this sector of the device on. Errors: busy, bad_argument.
    Result<void> start(ScrubReport::Mode mode, Sector from);
    Result<void> stop();
    Result<void> set_paused(bool paused);
    std::string text() const;                        // scrub_report.hpp
    Result<void> restore(std::string_view text);     // of another table, or another daemon's life
    Pace& pace() noexcept { return pace_; }
    void look_again() noexcept { changed_.notify_all(); }    // the pace may have changed

    // --- for people ---------------------------------------------------------------------------------------------
    const ScrubReport& report() const noexcept { return report_; }
    bool under_way() const noexcept { return report_.state == ScrubReport::State::running || report_.state == ScrubReport::State::paused; }
    Sectors left() const noexcept;                       // to look at
    std::uint64_t bytes_per_second() const noexcept;     // of late

  private:
    static constexpr unsigned kBuffers = 16;         // pieces under way times legs
    static constexpr Sectors kUnit{8};               // of a piece with bad places
    static constexpr Nanoseconds kResyncLook = kSecond / 2;
    static constexpr unsigned kSkipped = 4096;       // regions in one turn of the reactor
    class TurnTimer final : public Timer {
      public:
        explicit TurnTimer(Scrub& scrub) noexcept : scrub_{scrub} {}
        void expired() noexcept override { scrub_.look_again(); }

      private:
        Scrub& scrub_;
    };
    struct Piece : ListHook {
        Extent extent;
        LegMask legs = 0;      // read and compared
        LegBuffers data{};     // of each of them
    };
    struct Glance {
        bool counts = false;   // all of it was in sync, on the same legs, all the time
        LegMask failed = 0;
        Extent differs;
    };

    bool going() const noexcept { return !set_.stopping && report_.state == ScrubReport::State::running; }
    Job<void> run();
    Job<void> wait_turn();
    bool resync_goes_on() const noexcept;
    Extent next_piece();
    std::optional<Extent> rest_of_pass() const noexcept;
    void put_off(const Extent& extent);
    void note_position() noexcept;
    Job<void> finish();
    Job<void> piece_run(Piece* piece);
    Job<void> compare(Piece* piece);
    Job<Glance> glance(Piece* piece, Extent extent);
    Job<void> examine_units(Piece* piece, Extent extent);
    Job<void> examine(Piece* piece, Extent extent);
    bool comparable(Region region) const noexcept;
    bool comparable(const Extent& extent, LegMask legs) const noexcept;
    RegionRun regions_of(const Extent& extent) const noexcept;
    Judged judged(const Piece& piece, const Extent& extent, LegMask failed) const noexcept;
    void found(const Place& place);

    // scrub_repair.cpp
    Job<bool> repair(Piece* piece, const Place* place);
    Job<bool> rewrite_claimed(Piece* piece, const Place* place, bool logged);
    bool judged_the_same(const Piece& piece, const Place& place) const;

    Set& set_;
    Writes& writes_;
    Reads& reads_;
    Failures& failures_;
    Resync& resync_;
    const bool read_only_;
    Pace pace_;
    ScrubReport report_;
    Sector next_{};              // of this pass
    bool last_pass_ = false;     // over what was not in sync
    bool all_looked_at_ = false; // in this pass
    bool running_ = false;
    Pool<Piece> pieces_{kBuffers / 2};
    List<Piece> under_way_;      // in the order of their sectors
    unsigned piece_count_ = 0;
    Sectors block_{};            // what all legs can write
    Signal changed_;
    TurnTimer turn_timer_{*this};
};

}  // namespace udm::mirror
