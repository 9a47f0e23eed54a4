// What a mirror remembers of its regions: which are in sync on all legs, and which may differ between legs after a crash.
//
// Three things are known of a region:
//   in sync    all legs in use have the same data there, but for writes under way. Kept in memory.
//   dirty      after a crash now the legs could differ there. A region that is out of sync is always dirty.
//   clean      not dirty. Recorded on the log device, so that a crash costs the copying of dirty regions only.
//
// The rule the log exists for: a write reaches a leg only when its region is dirty durably, and a region becomes clean only
// after all its writes have ended and the legs were flushed. How the mirror keeps it:
//
//   write to a region:           if (!log.mark(region)) { log.flush(waiter); wait; }   then write to the legs
//   its last write has ended:    log.clear(region)                                      nothing to wait for
//   a write failed on a leg:     log.set_sync(region, false); log.record(…); if (!log.settled()) { log.flush(waiter); wait; }
//   a region was copied:         log.set_sync(region, true); log.clear(region)
//
// Marks of all who call flush() in the same round of completions share one write of the log and one flush of its device;
// what comes while that is under way shares the next. A region that is dirty already costs nothing. Clears are lazy: a region
// is made clean some seconds after its last write, with others, after the legs were flushed; a mark takes them along.
//
// All members run on the home reactor. Nothing here is kept for each write, and a region costs about one byte of memory.
#pragma once

#include <array>
#include <coroutine>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "base/intrusive.hpp"
#include "base/result.hpp"
#include "port/disk.hpp"
#include "port/job.hpp"
#include "services/dirty_log/bitmap.hpp"
#include "services/dirty_log/region.hpp"

namespace udm::dirty_log {

// `ask`: only a log that is shared with other machines says so, because no answer here would be sure to hold there.
// No answer may be kept by the caller over a turn of the reactor or a co_await: it holds as long as nothing else ran (L22, L23).
enum class Answer : std::uint8_t { no, yes, ask };

// Which leg has the newest data where regions are out of sync, and which legs have failed. Kept durably by logs that can
// (decision 5, M30), so that after a restart a stale leg is not taken for the source. Legs are numbered as in the table.
struct LegRecord {
    static constexpr unsigned kLegsMax = 9;
    std::uint8_t leg_count = 0;    // of the table it was written for, 1 .. kLegsMax
    std::uint8_t source = 0;       // below leg_count
    std::uint16_t failed = 0;      // bit i: leg i has failed and misses what is out of sync; never the source's
    // What the mirror knows a leg by, so that it notices legs in another order or exchanged; opaque here, those from
    // leg_count on are 0. Must be the same after a restart.
    std::array<std::uint64_t, kLegsMax> tags{};
    bool makes_sense() const noexcept {
        return leg_count != 0 && leg_count <= kLegsMax && source < leg_count && failed >> leg_count == 0 && (failed >> source & 1) == 0;
    }
    bool operator==(const LegRecord&) const = default;
};

// What resume() found.
struct Found {
    enum class Kind : std::uint8_t {
        fresh,         // no log was there; one is now. All regions in sync with `nosync`, else none
        trusted,       // what was recorded counts
        distrusted,    // unknown or damaged, and left as it was (decision 7): all regions are out of sync and stay so,
                       // resync_work() gives none, and marks fail, until start_anew() or another resume(). No write may be acknowledged
                       // then, not even one to the source leg alone: the log may be understood tomorrow and say that all is clean
        unreadable,    // the device does not answer: as distrusted. What it has may name another leg as the source, so nobody
                       // knows which data are the newest: not even reads should be served
    };
    Kind kind = Kind::fresh;
    std::string why;    // distrusted, unreadable, or trusted in part (the volume has grown): what and why, for people
};

enum class Health : std::uint8_t {
    alive,           // A
    flush_failed,    // F: a flush of the log's device failed
    failed,          // D: a read or write of it failed, or it is distrusted
};

// Of some regions, how many are in sync, and how many of those are clean.
struct Known {
    Regions in_sync, clean;
};

// A mirror's log calls these on its home reactor.
class Owner {
  public:
    // Makes what was written to the legs before durable, on all legs in use. Called before regions become clean (M9) and
    // before a record is dropped. After an error the regions concerned stay dirty (M35); the mirror should then put every region that
    // next_dirty_in_sync() names out of sync, since the leg may have lost its writes.
    virtual Job<IoStatus> flush_legs() = 0;
    // The health has become worse, once each way: for the event. `what` is a word or two.
    virtual void log_failed(std::string_view what) noexcept = 0;
    // After log_failed(): all that is to be recorded has been. The health stays what it was (as in Linux) until resume().
    virtual void log_recovered() noexcept = 0;

  protected:
    ~Owner() = default;
};

class DirtyLog {
  public:
    // Somebody who waits for a flush. Belongs to the log from flush() until flushed().
    class Waiter : public ListHook {
      public:
        // ok: all that was noted when flush() was called is durable, or was taken back since. Else the log could not be written:
        // no mark that was missing may be relied on, and a write that needs it must not reach a leg as if it were in sync (M5, M22). Asking
        // again tries again. Called from a task or a completion, never from inside a member of the log; may call the log itself.
        virtual void flushed(IoStatus status) noexcept = 0;
        std::uint64_t wanted = 0;    // the log's own

      protected:
        ~Waiter() = default;
    };

    virtual ~DirtyLog() = default;

    // --- life, in this order ------------------------------------------------------------------------------------
    // The checks that need the device (its size, M24); reads and writes nothing, since an older table may still use it
    // (decision 10). The owner outlives the log. Errors are the table's: bad_argument "log device %s too small: need %llu bytes".
    virtual Job<Result<void>> load(Owner* owner) = 0;
    // Reads the log, or makes one; before the first and after each suspension. Until then all regions are out of sync. An error
    // (M18) says that the log could not be written or flushed: what was read counts, health() is `failed`, marks fail until a flush succeeds.
    virtual Job<Result<Found>> resume() = 0;
    // From here resync_work() gives no more. Marks and flushes still work.
    virtual Job<void> presuspend() = 0;
    // No write is under way: flushes the legs, makes clean what may be, durably, and stops. Waiters must be gone. An error says that regions
    // stay dirty on the device, or whether they do is not known: nothing worse.
    virtual Job<Result<void>> postsuspend() = 0;

    // --- size, fixed after load() -------------------------------------------------------------------------------
    virtual RegionSize region_size() const noexcept = 0;
    virtual Regions region_count() const noexcept = 0;

    // --- questions ----------------------------------------------------------------------------------------------
    virtual Answer in_sync(Region region) const noexcept = 0;
    // After `ask`. An error must be taken for `no` (M41).
    virtual Job<Result<bool>> ask_in_sync(Region region);
    // Whether another machine copies this region now (`ask` of logs that are shared): writes to it wait. Local logs: no.
    virtual Answer is_remote_recovering(Region region) const noexcept {
        static_cast<void>(region);
        return Answer::no;
    }
    virtual Job<Result<bool>> ask_is_remote_recovering(Region region);
    virtual Regions sync_count() const noexcept = 0;    // regions in sync
    virtual Known count(RegionRun run) const noexcept = 0;
    // The first region from `from` on that is dirty, if there is one. (One that is being made clean no longer is.)
    virtual std::optional<Region> next_dirty(Region from) const noexcept = 0;

    // The same, among regions that are in sync: what a leg may have lost that failed a flush.
    virtual std::optional<Region> next_dirty_in_sync(Region from) const noexcept;

    // --- notes; in memory until flushed -------------------------------------------------------------------------
    // The region is about to be written. True: it is dirty durably, go ahead. False: flush() first. Call it for each write
    // (to a region of any state): it also tells that the region doesn't rest. Constant time, no allocation.
    virtual bool mark(Region region) noexcept = 0;
    // No write to the region is under way. It is made clean later, unless it is marked before. Nothing happens if it is
    // out of sync (M3). Constant time, no allocation.
    virtual void clear(Region region) noexcept = 0;
    // Counts each region once (M36). False: it is dirty from now on, and handed out by resync_work(), also if an iteration had
    // passed it (M25); but when it was handed out before and this is how its copying ended, only after retry_failed(). True: ends its copying, if
    // it was handed out; it is dirty still: call clear() when no write is under way.
    virtual void set_sync(Region region, bool in_sync) noexcept = 0;
    // The record to keep from now on; goes with the next flush. Null: no leg is behind; allowed only when all regions are in sync. It is
    // dropped later, after the legs were flushed, as clears are. Logs that keep nothing have it until the daemon ends.
    virtual void record(const std::optional<LegRecord>& legs) noexcept = 0;
    // As noted last, or as found by resume().
    virtual const std::optional<LegRecord>& leg_record() const noexcept = 0;
    // Whether a restart may find a record: also one that is being dropped.
    virtual bool record_may_be_found() const noexcept { return leg_record().has_value(); }

    // --- flush --------------------------------------------------------------------------------------------------
    // Nothing noted would be lost by a crash now. (Clears don't count: their loss is harmless.)
    virtual bool settled() const noexcept = 0;
    // Wakes the waiter when all marks, regions put out of sync and records noted before are durable. Also when they are already.
    virtual void flush(Waiter& waiter) noexcept = 0;

    // --- resync -------------------------------------------------------------------------------------------------
    // The next run of adjacent regions, at most `most`, that are out of sync and neither handed out nor failed; they are handed
    // out then, until set_sync() or give_back(). None: nothing to do now. A region that was clean until now is handed out when it is
    // dirty durably, since a copy that is cut short leaves the legs different; if the log can't be written, none is. Else local logs
    // don't suspend the job.
    virtual Job<RegionRun> resync_work(Regions most) = 0;
    // Handed out but not tried: will be handed out again.
    virtual void give_back(RegionRun regions) noexcept = 0;
    // Regions whose copying failed are handed out again. When is the mirror's business (back-off, decision 6).
    virtual void retry_failed() noexcept = 0;
    virtual Regions failed_count() const noexcept = 0;

    // --- a mirror that is to have other legs: what it knows is not all that the log says -----------------------------
    // From now on every region is dirty, durably, with this record of the legs, whatever rests: whoever reads the log after a crash
    // copies everything from that record's source. Until trust(), or the next resume(). An error: it could not be written, and
    // trust() is to follow. A log that nobody reads after a crash has nothing to do. May be called between suspend and resume, too.
    virtual Job<Result<void>> doubt(const LegRecord* legs);
    // Regions may become clean again: clear() those in sync that nobody writes to.
    virtual void trust() noexcept {}
    virtual bool in_doubt() const noexcept { return false; }
    // Right after resume(): exactly these regions are in sync, by who knows better than the device. They are not clean by that. Nothing
    // happens if the log is distrusted.
    virtual void know(const Bitmap& in_sync) noexcept { static_cast<void>(in_sync); }
    // Everything is to be copied whenever the log is resumed: its table says `sync`.
    virtual bool copies_all() const noexcept { return false; }

    // --- for people ---------------------------------------------------------------------------------------------
    virtual Health health() const noexcept = 0;
    virtual std::string info() const = 0;     // "1 core", "3 disk /dev/log A": the end of the mirror's INFO
    virtual std::string table() const = 0;    // "core 1 1024 ", "disk 3 /dev/log 1024 nosync ": ends in a space
    virtual OpenDevice* device() noexcept { return nullptr; }    // for deps; core has none
    // What is asked for by who knows that the log's content is worthless (decision 7): all regions out of sync, recorded so.
    // After resume(), with no write or copy under way.
    virtual Job<Result<void>> start_anew() = 0;
    // How long a region rests before it is made clean: at least this, at most twice; less when the whole mirror rests.
    virtual void set_rest(Nanoseconds rest) noexcept { static_cast<void>(rest); }
    static constexpr Nanoseconds kRest = 5 * kSecond;
};

// co_await of a flush: `FlushWait wait{log}; const IoStatus status = co_await wait;`
class FlushWait final : DirtyLog::Waiter {
  public:
    explicit FlushWait(DirtyLog& log) noexcept : log_{log} {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) noexcept {
        awaiting_ = awaiting;
        log_.flush(*this);
    }
    IoStatus await_resume() const noexcept { return status_; }

  private:
    void flushed(IoStatus status) noexcept override {
        status_ = status;
        awaiting_.resume();
    }
    DirtyLog& log_;
    std::coroutine_handle<> awaiting_;
    IoStatus status_{IoStatus::ok};
};

}  // namespace udm::dirty_log
