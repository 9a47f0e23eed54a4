// Makes a damaged store load again, by dropping the exceptions that cannot be right. What it drops is said; the snapshot then
// shows the origin's present data in those chunks.
//
// Of two exceptions that contradict each other the one listed first stays: what crashes leave behind stands later in the list.
//
// Order of writes. Each dropped place is filled with a good exception from the end of the list; that is durable before the
// list is made shorter. A place is 16 bytes of one sector, so a crash at any moment leaves a store that lists every good
// exception at least once (twice the same is a fault that loses nothing), and the repair can be done again. A file is made
// longer after that: no exception may be left that would find zeroes where its data are missing.
#pragma once

#include <string>
#include <vector>

#include "inspect/snapshot_check.hpp"

namespace udm::inspect {

class RepairPlan final : private Findings {
  public:
    // Looks; nothing is written. Error: io, or unsupported when nothing can be done about it, saying why.
    // A header that is good is never replaced. A lost one is, given a chunk size for which the first area has a list.
    static Result<RepairPlan> make(Source& source, const CheckOptions& options);

    bool needed() const noexcept { return new_header_ || grown_bytes_ != 0 || before_.fault_count() != 0; }
    const Report& before() const noexcept { return before_; }
    std::uint64_t kept() const noexcept { return before_.exceptions - dropped_.size(); }
    const std::vector<Entry>& dropped() const noexcept { return dropped_; }
    // Whose old data are lost: of the dropped, those of origin chunks that no other exception is for. Ascending, each once.
    const std::vector<std::uint64_t>& lost() const noexcept { return lost_; }
    // Dropped, too, for an origin chunk that cannot be: which chunk was meant, nobody can tell.
    std::uint64_t lost_unnamed() const noexcept { return lost_unnamed_; }
    // Behind the end of what is there. possible: cut off there, or a store that Linux filled to its last chunk.
    enum class Beyond : std::uint8_t { none, possible, certain };
    Beyond lost_beyond() const noexcept;
    // Kept, though another exception said something else of that origin chunk or COW chunk. Origin chunks, ascending, each once.
    std::vector<std::uint64_t> doubtful() const;
    bool makes_header() const noexcept { return new_header_; }
    std::uint64_t grows_to() const noexcept { return grown_bytes_; }    // bytes, 0: it does not; only where the list's end has no place

    // Writes. Error: io; then it can be done again.
    Result<void> carry_out(Target& target) const;

  private:
    explicit RepairPlan(const CheckOptions& options) : options_{options} {}
    void found(const Finding& finding) override;
    void listed(const Entry& entry, bool good) override;
    bool has(Fault fault) const noexcept { return before_.faults[static_cast<std::size_t>(fault)] != 0; }
    Result<void> find_lost(Source& source);
    Result<void> write_header(Target& target) const;
    Result<void> fill_places(Target& target) const;
    Result<void> clear_tail(Target& target) const;
    Result<void> grow(Target& target) const;

    CheckOptions options_;
    Report before_;
    std::vector<Entry> dropped_;
    std::vector<std::uint64_t> contradicted_;
    std::vector<std::uint64_t> lost_;
    std::uint64_t lost_unnamed_ = 0;
    bool has_leftovers_ = false;
    bool new_header_ = false;
    std::uint64_t grown_bytes_ = 0;
};

}  // namespace udm::inspect
