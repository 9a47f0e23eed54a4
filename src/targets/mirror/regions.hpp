// The regions that something happens to now: those with writes under way or waiting, and those being copied. All others are
// known by the log alone: clean where it says that they are in sync, out of sync (nosync) elsewhere.
//
//   state        means                                     may become
//   clean        in sync, no write is under way            dirty: a write comes       nosync: a leg lost it
//   dirty        in sync, writes are under way             clean: the last has ended  nosync: a write failed, or a leg lost it
//   nosync       the legs differ, the source leg counts    recovering: its copy begins
//   recovering   as nosync; it is being copied             nosync: the copy failed    dirty, clean: it is in sync, with or without
//                                                                                     writes under way
// A region out of sync stays so whatever is written to it (defect M3), until it was copied.
#pragma once

#include <cstdint>
#include <vector>

#include "base/pool.hpp"
#include "services/dirty_log/dirty_log.hpp"

namespace udm::mirror {

struct Write;
struct Copy;

enum class RegionState : std::uint8_t { clean, dirty, nosync, recovering };
bool may_become(RegionState from, RegionState to) noexcept;

struct RegionEntry {
    explicit RegionEntry(Region number, RegionState now) noexcept : region{number}, state{now} {}
    const Region region;
    RegionState state;
    unsigned writes = 0;       // from enter() to leave(); repairs count as well
    Copy* copy = nullptr;      // recovering: who copies it
    RegionEntry* next = nullptr;
    List<Write> under_way;     // sent to legs
    List<Write> waiting;       // for one that overlaps, in order
    List<Io> reads;            // have failed, and wait for the end of a write that they overlap

    bool in_sync() const noexcept { return state <= RegionState::dirty; }
    void to(RegionState now) noexcept {
        ASSERT(may_become(state, now));
        state = now;
    }
};

class RegionTable {
  public:
    // After the log is loaded; before anything else.
    void start(dirty_log::DirtyLog& log);

    RegionEntry* find(Region region) noexcept {
        if (count_ == 0) return nullptr;
        for (RegionEntry* entry = buckets_[slot(region)]; entry; entry = entry->next) {
            if (entry->region == region) return entry;
        }
        return nullptr;
    }
    RegionEntry& find_or_add(Region region) noexcept;
    // A write to the region begins: it is not forgotten, nor made clean in the log, before leave().
    RegionEntry& enter(Region region) noexcept;
    void leave(RegionEntry& entry) noexcept;
    // Forgets it, if nothing happens to it.
    void settle(RegionEntry& entry) noexcept;
    // Calls f(RegionEntry&) for all; f must not add nor forget any.
    template <class F>
    void for_each(F&& f) const {
        for (RegionEntry* bucket : buckets_) {
            for (RegionEntry* entry = bucket; entry; entry = entry->next) f(*entry);
        }
    }
    std::size_t count() const noexcept { return count_; }
    std::uint64_t writes() const noexcept { return writes_; }    // that have entered any region

  private:
    std::size_t slot(Region region) const noexcept { return (region.v * 0x9e3779b97f4a7c15U) >> shift_; }

    dirty_log::DirtyLog* log_ = nullptr;
    std::vector<RegionEntry*> buckets_;
    unsigned shift_ = 0;
    std::size_t count_ = 0;
    std::uint64_t writes_ = 0;
    Pool<RegionEntry> pool_{256};
};

}  // namespace udm::mirror
