// What changes data, on its way to the legs: writes, zeroes, discards; and flushes.
//
// A write
//   1. enters its region, and waits for the region's mark unless that is durable already; all who come in the same round
//      share one write of the log and one flush of its device;
//   2. waits for those writes under way that it overlaps, and for no other (decision 3), since two that cross would leave
//      legs different;
//   3. goes to all legs that have the region, or are getting it, at once, from the memory of the request;
//   4. ends when all have answered. If some failed, failures.hpp says what that means, and it is acknowledged when what must be
//      known of it after a crash is durable.
// A copy (or a repair) claims its sectors: it waits for the writes there that are under way, and those that come later wait.
#pragma once

#include "targets/mirror/set.hpp"

namespace udm::mirror {

class Failures;
class Writes;

struct Write final : dirty_log::DirtyLog::Waiter {
    Write(Writes& o, Io& i) noexcept : owner{o}, io{i} {}
    Writes& owner;
    Io& io;
    RegionEntry* region = nullptr;    // of flushes: none
    LegMask sent = 0, failed = 0, refused = 0;    // refused: answered `unsupported`
    bool acknowledging = false;       // done, and it waits until that is known for good
    std::uint8_t pending = 0;         // legs
    IoStatus status{IoStatus::ok};    // the first error of a leg
    std::uint64_t failures = 0;       // of legs that had happened by then
    void flushed(IoStatus s) noexcept override;
};

// Sectors of the device that no write touches while a job works on them: `Claim claim{writes, extent}; co_await claim; …
// claim.release();`
class Claim final : public ListHook {
  public:
    Claim(Writes& writes, const Extent& extent) noexcept : writes_{writes}, extent_{extent}, wake_{*this} {}
    bool await_ready() noexcept;
    void await_suspend(std::coroutine_handle<> awaiting) noexcept { awaiting_ = awaiting; }
    void await_resume() const noexcept {}
    void release() noexcept;

  private:
    friend class Writes;
    class Wake final : public Task {
      public:
        explicit Wake(Claim& claim) noexcept : claim_{claim} {}
        void run() noexcept override { claim_.awaiting_.resume(); }

      private:
        Claim& claim_;
    };
    Writes& writes_;
    const Extent extent_;
    bool granted_ = false;
    Wake wake_;
    std::coroutine_handle<> awaiting_;
};

class Writes final : Layer {
  public:
    Writes(Set& set, Failures& failures) noexcept : set_{set}, failures_{failures} {}

    // A request of the device: a write, zeroes or a discard within one region, or a flush. Ends it, later.
    void start(Io& io) noexcept;
    // For failures: what was to be known after a crash is durable, or could not be made so.
    void settled(Write& write, IoStatus status) noexcept { conclude(write, status, true); }
    // Whether a write under way touches these sectors of the region.
    bool touches(const RegionEntry& entry, const Extent& extent) const noexcept;

  private:
    friend struct Write;
    friend class Claim;
    void flushed(Write& write, IoStatus status) noexcept;
    void order(Write& write) noexcept;
    void send(Write& write) noexcept;
    LegMask targets(RegionEntry& entry) noexcept;
    void on_complete(Io& child, Frame& frame) noexcept override;
    void answered(Write& write) noexcept;
    void settle(Write& write, IoStatus status) noexcept;
    void conclude(Write& write, IoStatus status, bool later) noexcept;
    void end(Write& write, IoStatus status, bool later) noexcept;
    void wake(RegionEntry& entry) noexcept;
    bool grant(Claim& claim) noexcept;
    void wake_claims(const Extent& extent) noexcept;

    Set& set_;
    Failures& failures_;
    Pool<Write> writes_{64};
    Pool<Io> children_{64};
    List<Claim> claims_;
};

}  // namespace udm::mirror
