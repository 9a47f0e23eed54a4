#include "targets/mirror/sync_map.hpp"

#include <algorithm>

#include "targets/mirror/copy.hpp"

namespace udm::mirror {

void SyncMap::start() {
    const std::size_t words = (log_.region_count().v + 63) / 64;
    have_.assign(legs_.count(), std::vector<std::uint64_t>(words));
    have_count_.assign(legs_.count(), 0);
}

void SyncMap::log_resumed() noexcept {
    for (unsigned leg = 0; leg < legs_.count(); ++leg) {
        for (std::size_t word = 0; have_count_[leg] != 0 && word < have_[leg].size(); ++word) {
            for (std::uint64_t bits = have_[leg][word]; bits != 0; bits &= bits - 1) {
                const Region region{word * 64 + static_cast<unsigned>(std::countr_zero(bits))};
                if (in_sync(region)) set(leg, region, false);
            }
        }
    }
}

void SyncMap::trust_source_only() noexcept {
    for (unsigned leg = 0; leg < legs_.count(); ++leg) {
        if (have_count_[leg] != 0) std::fill(have_[leg].begin(), have_[leg].end(), 0);
        have_count_[leg] = 0;
    }
}

void SyncMap::set(unsigned leg, Region region, bool has_it) noexcept {
    if (has(leg, region) == has_it) return;
    have_[leg][region.v / 64] ^= std::uint64_t{1} << region.v % 64;
    has_it ? ++have_count_[leg] : --have_count_[leg];
}

LegMask SyncMap::having(Region region) const noexcept {
    if (in_sync(region)) return legs_.alive();
    LegMask legs = leg_bit(legs_.source());
    for_each_leg(legs_.alive(), [&](unsigned leg) {
        if (has(leg, region)) legs |= leg_bit(leg);
    });
    return legs;
}

bool SyncMap::has_all(unsigned leg) const noexcept {
    return leg == legs_.source() || have_count_[leg] == (log_.region_count() - log_.sync_count()).v;
}

void SyncMap::lose(Region region, LegMask legs) noexcept {
    RegionEntry* entry = regions_.find(region);
    if (!in_sync(region)) {
        for_each_leg(legs, [&](unsigned leg) { set(leg, region, false); });
        // What was copied to them so far is worth nothing.
        if (entry && entry->copy && (legs & entry->copy->to) != 0) entry->copy->spoiled = true;
        return;
    }
    log_.set_sync(region, false);
    for_each_leg(without(legs_.alive(), legs), [&](unsigned leg) { set(leg, region, true); });
    if (entry) entry->to(RegionState::nosync);
}

bool SyncMap::gain(Region region, LegMask legs) noexcept {
    ASSERT(!in_sync(region));
    for_each_leg(legs, [&](unsigned leg) { set(leg, region, true); });
    for (unsigned leg = 0; leg < legs_.count(); ++leg) {
        if (leg != legs_.source() && !has(leg, region)) return false;
    }
    for (unsigned leg = 0; leg < legs_.count(); ++leg) set(leg, region, false);
    log_.set_sync(region, true);
    return true;
}

void SyncMap::lose_unflushed(unsigned leg) noexcept {
    std::fill(have_[leg].begin(), have_[leg].end(), 0);
    have_count_[leg] = 0;
    for (auto region = log_.next_dirty_in_sync({}); region; region = log_.next_dirty_in_sync(*region + Regions{1})) {
        lose(*region, leg_bit(leg));
    }
}

}  // namespace udm::mirror
