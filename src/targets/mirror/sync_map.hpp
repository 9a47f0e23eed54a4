// Which legs have which regions. The log knows for each region whether all legs have it; where not all do, the source leg
// has it, and this map remembers which others do as well: those that were in use when a leg failed. So a mirror of three legs
// that has lost one still has two copies of everything, and either may become the source.
//
// Kept in memory only: after a restart the source leg alone counts where regions are out of sync (decision 5).
#pragma once

#include <vector>

#include "targets/mirror/legs.hpp"
#include "targets/mirror/regions.hpp"

namespace udm::mirror {

class SyncMap {
  public:
    SyncMap(Legs& legs, dirty_log::DirtyLog& log, RegionTable& regions) noexcept : legs_{legs}, log_{log}, regions_{regions} {}
    // After the log is loaded.
    void start();
    // The log was read again: forgets what it says to be in sync now.
    void log_resumed() noexcept;
    // Where regions are out of sync the source leg alone counts.
    void trust_source_only() noexcept;

    // The regions that the leg has, whether it is away or not; and the same told to the map of another table, right after its log
    // was resumed: those that all legs have are in sync.
    dirty_log::Bitmap regions_of(unsigned leg) const;
    void start_with(const std::vector<dirty_log::Bitmap>& regions_of_legs);
    // The source is another from now on, and lacks nothing.
    void source_keeps_all(unsigned old_source) noexcept;

    bool in_sync(Region region) const noexcept { return log_.in_sync(region) == dirty_log::Answer::yes; }
    bool all_in_sync() const noexcept { return log_.sync_count() == log_.region_count(); }
    // The legs in use that have the region's newest data. Never none.
    LegMask having(Region region) const noexcept;
    // Whether the leg has all regions, so that it can be the source.
    bool has_all(unsigned leg) const noexcept;
    // How many of these regions, `out_of_sync` of which are out of sync, the leg lacks.
    Regions lacked_by(unsigned leg, RegionRun run, Regions out_of_sync) const noexcept;

    // The legs do not have the region any more. The others in use do.
    void lose(Region region, LegMask legs) noexcept;
    // The legs have got it. True when all have it now: it is in sync; its state is the caller's business.
    bool gain(Region region, LegMask legs) noexcept;
    // The leg is away, with whatever it has not been told to flush: it loses all regions that are not clean.
    void lose_unflushed(unsigned leg) noexcept;

  private:
    bool has(unsigned leg, Region region) const noexcept { return (have_[leg][region.v / 64] >> region.v % 64 & 1) != 0; }
    void set(unsigned leg, Region region, bool has_it) noexcept;

    Legs& legs_;
    dirty_log::DirtyLog& log_;
    RegionTable& regions_;
    // Of regions out of sync; bits of regions in sync are 0. The source's own are not looked at.
    std::vector<std::vector<std::uint64_t>> have_;
    std::vector<std::uint64_t> have_count_;
};

}  // namespace udm::mirror
