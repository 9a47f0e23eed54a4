// How many copies may be under way on one reactor, and how much memory they have (decision 16, defects N1 to N4).
//
// A copy is admitted for each store by itself, before it reads anything:
//   - a store has at most `per_store` copies under way;
//   - all together have at most `bytes` of memory; a store that has some gets no more than what it leaves to the others, so
//     that one that hangs takes half at most, two take two thirds, and so on;
//   - they are under way at most `percent` of the time.
// What is not admitted waits in its store's line and holds nothing: so nobody waits for who waits for him, whatever the
// bounds. Where nothing is under way one copy may always begin.
#pragma once

#include <algorithm>
#include <cstdint>

#include "port/reactor.hpp"
#include "targets/snapshot/copy_job.hpp"

namespace udm::snapshot {

struct CopyLimits {    // may change at any time; look_again() afterwards
    std::uint64_t bytes = std::uint64_t{32} << 20;
    std::uint64_t per_store = 2048;    // the kernel's snapshot_cow_threshold; 0: one at a time
    std::uint64_t percent = 100;       // the kernel's snapshot_copy_throttle
};

// What one store has under way, and who waits for it.
class StoreAccount : public ListHook {
  private:
    friend class Copies;
    std::uint64_t copies_ = 0;
    std::uint64_t bytes_ = 0;
    List<CopyJob> waiting_;
};

class Copies final : Task, Timer {
  public:
    explicit Copies(Env& env) noexcept : env_{env} {}
    ~Copies() override;
    CopyLimits limits;

    // Whether a part for the store may join a job that then has `bytes` of memory, `more` of which it hasn't taken yet.
    bool admits(StoreAccount& store, std::uint64_t bytes, std::uint64_t more, bool copies_data) noexcept;
    // Starts the job, which is of one store, when it is admitted: now, or later.
    void start(CopyJob& job) noexcept;
    void wait(CopyJob& job) noexcept;
    // Something has changed that is not a copy's end: limits, or a snapshot for which copies wait was lost.
    void look_again() noexcept;

    // --- for jobs ---------------------------------------------------------------------------------------------------
    void begin(StoreAccount& store, std::uint64_t bytes) noexcept;
    void end(StoreAccount& store, std::uint64_t bytes) noexcept;
    void take(std::uint64_t bytes) noexcept { bytes_ += bytes; }
    void give(std::uint64_t bytes) noexcept;
    void copying(bool begins) noexcept;    // data are read and written from now on, or no longer
    std::uint64_t bytes() const noexcept { return bytes_; }
    // No copy has more memory than all may have, nor less than a block.
    Sectors longest_piece() const noexcept { return {std::max<std::uint64_t>(limits.bytes / 4096, 1) * 8}; }

  private:
    enum class Verdict : std::uint8_t { admitted, store_has_its_share, no_memory, too_busy };
    Verdict judge(const StoreAccount& store, std::uint64_t bytes, std::uint64_t more, bool copies_data) noexcept;
    Nanoseconds must_rest() noexcept;
    void run() noexcept override;
    void expired() noexcept override { look_again(); }

    Env& env_;
    List<StoreAccount> in_line_;
    std::uint64_t bytes_ = 0;
    bool short_ = false;    // the first in line waits for memory: nobody gets any before it
    // Time with copies under way, of the time since window_start_; both are halved every second.
    Nanoseconds window_start_ = 0, busy_ = 0, busy_since_ = 0;
    std::uint64_t copying_ = 0;
};

}  // namespace udm::snapshot
