#include "targets/mirror/sync_map.hpp"

#include <algorithm>

#include "services/dirty_log/bitmap.hpp"
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

dirty_log::Bitmap SyncMap::regions_of(unsigned leg) const {
    dirty_log::Bitmap regions{log_.region_count().v};
    if (leg == legs_.source()) {
        regions.set_all();
        return regions;
    }
    std::copy(have_[leg].begin(), have_[leg].end(), regions.words());
    for (Region region{0}; region.v < regions.size(); region += Regions{1}) {
        if (in_sync(region)) regions.set(region.v);
    }
    return regions;
}

void SyncMap::start_with(const std::vector<dirty_log::Bitmap>& regions_of_legs) {
    dirty_log::Bitmap all = regions_of_legs[0];
    for (const dirty_log::Bitmap& regions : regions_of_legs) {
        for (std::uint64_t word = 0; word < all.word_count(); ++word) all.words()[word] &= regions.word(word);
    }
    log_.know(all);
    for (unsigned leg = 0; leg < legs_.count(); ++leg) {
        have_count_[leg] = 0;
        for (std::uint64_t word = 0; word < all.word_count(); ++word) {
            have_[leg][word] = regions_of_legs[leg].word(word) & ~all.word(word);
            have_count_[leg] += static_cast<unsigned>(std::popcount(have_[leg][word]));
        }
    }
}

void SyncMap::source_keeps_all(unsigned old_source) noexcept {
    for (Region region{0}; region.v < log_.region_count().v; region += Regions{1}) {
        if (!in_sync(region)) set(old_source, region, true);
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

Regions SyncMap::lacked_by(unsigned leg, RegionRun run, Regions out_of_sync) const noexcept {
    if (leg == legs_.source()) return {0};
    if (have_count_[leg] == 0 || out_of_sync.v == 0) return out_of_sync;
    const std::uint64_t has_them = dirty_log::Bitmap::count_in(run.first.v, run.end().v, [&](std::uint64_t word) { return have_[leg][word]; });
    return {out_of_sync.v - has_them};
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
