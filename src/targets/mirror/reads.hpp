// Reads: from any leg in use where the region is in sync, by sequence and by how much the legs have to do (defect M8); from the
// source leg where it is not, and where a write is under way over the same sectors: on one leg it may be done and on another not,
// and who has read the new data must not read the old again. (A read that such a write has overtaken is done again.)
//
// A read that fails is tried on the other legs that have the data. Where another leg had them, and all should, the place is
// written anew from there and read back (defect M29).
#pragma once

#include "targets/mirror/failures.hpp"

namespace udm::mirror {

class Reads {
  public:
    Reads(Set& set, Writes& writes, Failures& failures, Layer& layer) noexcept
        : set_{set}, writes_{writes}, failures_{failures}, layer_{layer} {}

    // A read, or a question about an extent, within one region. It comes back to `layer`, which hands it to done().
    Mapped map(Io& io) noexcept;
    void done(Io& io, Frame& frame) noexcept;
    // It is settled which leg is the source.
    void go_on() noexcept;
    std::uint64_t repaired() const noexcept { return repaired_; }    // places rewritten and read back
    // Writes anew what these legs cannot read, from another that has it, and reads it back. Whether that went well.
    Job<bool> rewrite(Extent extent, LegMask bad);

  private:
    static constexpr unsigned kTimed = 8;          // one of so many reads of a leg is timed
    static constexpr unsigned kRepairs = 8;        // under way at once; what is more is repaired when it is read again

    bool waits(const Io& io) noexcept;
    LegMask having(const Io& io) noexcept;
    RegionEntry* being_written(const Io& io) noexcept;    // its region, if a write under way overlaps it
    void push(Io& io, unsigned leg, LegMask tried) noexcept;
    void send(Io& io, unsigned leg, LegMask tried) noexcept;
    void repair(const Extent& extent, LegMask bad) noexcept;
    Job<void> repair_now(Extent extent, LegMask bad);
    Job<bool> rewrite_region(Extent extent, LegMask bad);
    Job<bool> rewrite_claimed(Extent extent, LegMask bad, bool logged);

    Set& set_;
    Writes& writes_;
    Failures& failures_;
    Layer& layer_;
    List<Io> waiting_;    // until it is settled which leg is the source
    unsigned repairs_ = 0;
    std::uint64_t repaired_ = 0;
};

}  // namespace udm::mirror
