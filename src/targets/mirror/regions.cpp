#include "targets/mirror/regions.hpp"

#include <algorithm>

namespace udm::mirror {

bool may_become(RegionState from, RegionState to) noexcept {
    switch (from) {
        case RegionState::clean: return to == RegionState::dirty || to == RegionState::nosync;
        case RegionState::dirty: return to == RegionState::clean || to == RegionState::nosync;
        case RegionState::nosync: return to == RegionState::recovering;
        case RegionState::recovering: return to != RegionState::recovering;
    }
    UNREACHABLE();
}

void RegionTable::start(dirty_log::DirtyLog& log) {
    log_ = &log;
    const std::uint64_t wanted = std::clamp<std::uint64_t>(log.region_count().v / 16, 64, 16384);
    const unsigned bits = static_cast<unsigned>(std::bit_width(wanted - 1));
    buckets_.assign(std::size_t{1} << bits, nullptr);
    shift_ = 64 - bits;
}

RegionEntry& RegionTable::find_or_add(Region region) noexcept {
    if (RegionEntry* entry = find(region)) return *entry;
    // Whatever is no clear yes is out of sync (defect M41).
    const bool in_sync = log_->in_sync(region) == dirty_log::Answer::yes;
    RegionEntry& entry = pool_.take(region, in_sync ? RegionState::clean : RegionState::nosync);
    RegionEntry*& bucket = buckets_[slot(region)];
    entry.next = bucket;
    bucket = &entry;
    ++count_;
    return entry;
}

RegionEntry& RegionTable::enter(Region region) noexcept {
    RegionEntry& entry = find_or_add(region);
    ++entry.writes;
    ++writes_;
    if (entry.state == RegionState::clean) entry.to(RegionState::dirty);
    return entry;
}

void RegionTable::leave(RegionEntry& entry) noexcept {
    ASSERT(entry.writes > 0 && writes_ > 0);
    --writes_;
    if (--entry.writes != 0) return;
    if (entry.state == RegionState::dirty) entry.to(RegionState::clean);
    log_->clear(entry.region);
    settle(entry);
}

void RegionTable::settle(RegionEntry& entry) noexcept {
    if (entry.writes != 0 || entry.state == RegionState::recovering) return;
    ASSERT(entry.under_way.empty() && entry.waiting.empty() && entry.reads.empty());
    RegionEntry** link = &buckets_[slot(entry.region)];
    while (*link != &entry) link = &(*link)->next;
    *link = entry.next;
    --count_;
    pool_.give(entry);
}

}  // namespace udm::mirror
