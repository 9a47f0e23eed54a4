// What is done when a leg or the log fails (decisions 5 and 6).
//
// A leg that fails what another leg did is away from then on: nothing is sent to it, and it loses the regions that are written
// meanwhile, and those where it may hold writes that it was never told to flush. If it was the source, another leg that has all
// regions becomes the source, and that is durable before any write is acknowledged that is on the new one only. Where
// no other leg has everything, the source stays what it is and the request fails. A request that fails on all legs takes none away: its
// region is out of sync then, and the source counts.
//
// A leg that is away comes back when asked, and by itself after a while, and is copied what it missed.
//
// With `handle_errors` alone, as in Linux, writes of a mirror that is degraded are held until it is suspended: whoever watches is to
// load another table. Otherwise they go on.
#pragma once

#include <optional>

#include "targets/mirror/writes.hpp"

namespace udm::mirror {

class Reads;
class Resync;

class Failures final {
  public:
    Failures(Set& set, Writes& writes, Reads& reads, Resync& resync);
    ~Failures();

    // --- for requests -------------------------------------------------------------------------------------------
    // A request that some legs have failed or refused: what becomes of the legs, and how it ends.
    IoStatus judge(const Write& write) noexcept;
    void read_failed(unsigned leg, IoStatus status) noexcept { tell(leg, LegError::read, status); }
    // Legs that a copy could not be written to.
    void copy_failed(LegMask legs, IoStatus status) noexcept;
    void copy_source_failed(unsigned leg, IoStatus status) noexcept { tell(leg, LegError::sync, status); }
    // All legs in use, flushed for the log or a suspend.
    Job<IoStatus> flush_legs();

    // Something has become of the legs that must be durable before a write is acknowledged.
    bool unsettled() const noexcept { return settled_ != count_; }
    // The source is not the one that a crash now would leave. What it alone has is not to be read before that is settled: if
    // the log fails, the old source is the source again.
    bool source_moves() const noexcept { return set_.legs.source() != durable_source_; }
    // Tells writes.settled() when it is, or can't be.
    void settle(Write& write) noexcept;
    Job<IoStatus> settle_now();

    // --- held requests ------------------------------------------------------------------------------------------
    bool holds() const noexcept { return set_.legs.away() != 0 && holds_without_log(); }
    bool holds_without_log() const noexcept { return set_.features.handle_errors && !set_.features.keep_log && !hold_over_; }
    // Whether it was sent to legs or not: it will be sent (again) if the hold ends.
    void hold(Io& io) noexcept;
    unsigned held() const noexcept { return held_count_; }
    // For a suspend: ends them with `requeue`, or as errors.
    void end_held() noexcept;

    // --- life ---------------------------------------------------------------------------------------------------
    // The log was read: takes the source from its record; legs that were away are tried again.
    void resumed() noexcept;
    // Then: legs that are away from the start miss what is written. Refused if the source is one of them and regions are out of
    // sync, which nobody else has.
    Job<Result<void>> start_without_those_away();
    void start() noexcept;    // timers of legs that are away
    void stop() noexcept;
    // Nothing is under way any more: the source stays what it is until the log is resumed.
    void close() noexcept { closing_ = true; }
    // All regions are in sync, for the first time since some were not.
    void in_sync() noexcept;
    // Once all legs have everything again, any may be the source after a restart.
    void drop_record() noexcept;

    // --- for another table (succession.hpp) ---------------------------------------------------------------------
    // The first of them that has all regions.
    std::optional<unsigned> next_source(LegMask of) const noexcept;
    // Nothing is under way: this leg, which has all regions, is the source now; to be settled.
    void hand_source(unsigned leg) noexcept;
    // After resumed(), by who knows.
    void start_with_source(unsigned leg) noexcept;
    // What a restart would have to know.
    dirty_log::LegRecord record_now() const noexcept;
    // By which a leg is known again after a restart, wherever it stands in the table then.
    std::uint64_t tag(unsigned leg) const noexcept;

    // --- messages -----------------------------------------------------------------------------------------------
    Job<Result<void>> bring_back(unsigned leg);
    // By who knows better: what is out of sync is copied from this leg.
    Job<Result<void>> make_source(unsigned leg);
    void set_leg_retry(std::optional<Nanoseconds> first) noexcept;    // nothing: as usual; 0: never
    void set_hold_timeout(Nanoseconds timeout) noexcept;              // 0: never

  private:
    static constexpr Nanoseconds kRetryFirst = kSecond, kRetryMost = 60 * kSecond;

    class ReturnTimer final : public Timer {
      public:
        void expired() noexcept override { failures->try_to_return(leg); }
        Failures* failures = nullptr;
        unsigned leg = 0;
        Nanoseconds wait = 0;    // before the next try
    };
    class HoldTimer final : public Timer {
      public:
        explicit HoldTimer(Failures& failures) noexcept : failures_{failures} {}
        void expired() noexcept override { failures_.hold_ends(); }

      private:
        Failures& failures_;
    };

    IoStatus judge(LegMask sent, LegMask failed, LegMask refused, IoStatus status, LegError kind, const Region* region) noexcept;
    void only_source_counts(const Region* region) noexcept;    // null: wherever something is not flushed
    void tell(unsigned leg, LegError error, IoStatus status) noexcept;
    void goes_away(unsigned leg) noexcept;
    void start_settling() noexcept;
    Job<void> settle_all();
    Job<IoStatus> settle_waiting();
    void record() noexcept;
    void take_source_back() noexcept;
    unsigned recorded_source(const dirty_log::LegRecord& record) const noexcept;
    Nanoseconds first_wait() const noexcept;
    void plan_return(unsigned leg) noexcept;
    void try_to_return(unsigned leg) noexcept;
    Job<void> return_by_itself(unsigned leg);
    Job<IoStatus> probe(unsigned leg);
    void is_back(unsigned leg) noexcept;
    void hold_ends() noexcept;

    Set& set_;
    Writes& writes_;
    Reads& reads_;
    Resync& resync_;
    std::uint64_t count_ = 0, settled_ = 0;    // failures that must be known after a crash; those that are
    unsigned durable_source_ = 0;
    bool closing_ = false;
    bool settles_ = false;                     // settle_all() runs
    List<Write> settling_;
    std::array<ReturnTimer, kLegsMax> returns_;
    std::optional<Nanoseconds> leg_retry_;
    List<Io> held_;
    unsigned held_count_ = 0;
    bool hold_over_ = false;
    Nanoseconds hold_timeout_ = 0;
    HoldTimer hold_timer_{*this};
};

}  // namespace udm::mirror
