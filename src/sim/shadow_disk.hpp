// What may be read from a disk, by the rules that every Disk promises (port/disk.hpp, decision 1) and nothing else: it
// knows no target. Told of each request at its beginning and its end, it says whether what a read brought can be.
//
// Values. A sector of a test's data holds one 64-bit word 64 times: zero, or tag(write, sector), so that each write of
// each sector is a value of its own.
//
// For each sector there are versions: writes that happened or may have happened. Moments are counted, one for each
// call. A version e is
//   - gone for readers once a write that began after e ended has ended well, or a read that began after e ended brought
//     another version;
//   - overwritten at the moment when a write that began after e ended has ended well, or when a later version that has
//     ended well was read in place of it;
//   - possible after a power cut as long as it isn't overwritten before the beginning of a flush that has ended well
//     (or by a write with FUA).
// A write that failed, and a discard, may have left the old or the new, sector by sector, but once read it stays so.
// After a cut every possible version may be there; the first read says which, for ever.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "base/status.hpp"
#include "base/units.hpp"

namespace udm {

class ShadowDisk {
  public:
    using Value = std::uint64_t;
    using Ticket = std::uint32_t;

    static constexpr Value kZero = 0;
    static constexpr unsigned kSectorBits = 24;
    static constexpr Value tag(std::uint64_t write, std::uint64_t sector) {
        ASSERT(sector >> kSectorBits == 0);
        return write << kSectorBits | sector;
    }
    // The data of write `write` (> 0) to that extent.
    static void fill(Extent extent, std::uint64_t write, void* to) noexcept;
    // The value that fills one sector; false if it isn't one value.
    static bool value_of(const void* sector, Value& value) noexcept;
    static std::string describe(Value value);    // "write 17", "zeroes"

    // A disk of zeroes, certain and stable.
    explicit ShadowDisk(Sectors size);
    // Everything now holds write `write`, certain and stable.
    void set_all(std::uint64_t write);

    Sectors size() const noexcept { return {sectors_.size()}; }
    // What is new is zeroes, certain and stable. Nothing may be under way.
    void resize(Sectors size);

    Ticket begin_write(Extent extent, std::uint64_t write, bool fua);    // write 0: zeroes
    Ticket begin_discard(Extent extent);
    void end_write(Ticket ticket, IoStatus status);                      // of discards too
    Ticket begin_flush();
    void end_flush(Ticket ticket, IoStatus status);
    Ticket begin_read(Extent extent);

    struct Violation {
        Sector sector;
        std::string expected, found;
    };
    // True: the data can be; it is now certain. False: `violation` says where it isn't. `data` may be of the first
    // sectors only.
    bool end_read(Ticket ticket, IoStatus status, const void* data, Violation& violation, Sectors length = {~0ULL});

    // What somebody put there behind everybody's back: who reads it has read nothing that counts.
    void tolerate(Sector sector, Value value) { tolerated_.emplace(sector.v, value); }
    void tolerate_no_more() { tolerated_.clear(); }

    // Power is cut: what is under way will not end, and what is not certainly stable may be there or not.
    void cut();

    // The same content as another disk, from now on on its own: a point-in-time view. Is the disk quiet, then writes
    // that have begun and not ended (they are held back) are not in it, else they may be. What is uncertain here is
    // uncertain there, and a flush there says nothing of what was written here.
    ShadowDisk fork(bool quiet) const;
    // A write (0: zeroes) that may be in it, for a view that is being made while the disk is written.
    void add_perhaps(Extent extent, std::uint64_t write);

    // How many values that sector may have for a reader now.
    std::size_t choices(Sector sector) const noexcept;
    // All values it may have now; for messages.
    std::string expectation(Sector sector) const;

  private:
    using Moment = std::uint64_t;
    static constexpr Moment kNever = ~Moment{0};
    static constexpr std::uint32_t kNone = ~std::uint32_t{0};

    struct Version {
        Value value;
        Moment begin = 0, end = 0;        // end kNever: under way
        Moment gone = kNever;             // for readers, from then on
        Moment overwritten = kNever;
        std::uint32_t next = kNone;
        bool certain = true;              // ended well, and not a discard
        bool stable = false;              // from before a cut: what is read of these is on the media
        bool foreign = false;             // from before a fork: this disk's flushes do not concern it
    };
    struct SectorState {
        Value value = kZero;               // if there is one version only
        std::uint32_t first = kNone;       // else the list
    };
    struct Operation {
        Extent extent;
        std::uint64_t write;
        Moment begin;
        bool fua, discard, active;
    };

    Ticket begin(Extent extent, std::uint64_t write, bool fua, bool discard);
    Operation finish(Ticket ticket);
    std::uint32_t take_version();
    void unfold(SectorState& state);    // makes a list of it
    void tidy(SectorState& state);      // drops what cannot matter any more
    bool possible_after_cut(const Version& version) const noexcept {
        return version.overwritten >= durable_before_;
    }
    void end_write(SectorState& state, const Operation& operation, Value value, bool well);
    bool read_sector(SectorState& state, Moment begin, Value value);
    bool is_tolerated(std::uint64_t sector, Value value) const;

    std::vector<SectorState> sectors_;
    std::multimap<std::uint64_t, Value> tolerated_;    // by sector
    std::vector<Version> versions_;
    std::vector<std::uint32_t> free_versions_;
    std::vector<Operation> operations_;
    std::vector<Ticket> free_operations_;
    std::vector<Ticket> reads_;          // under way
    Moment now_ = 1;
    Moment durable_before_ = 1;          // a flush that began then has ended well; 0 is before all
    Moment oldest_read_ = kNever;
};

}  // namespace udm
