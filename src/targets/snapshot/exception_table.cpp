#include "targets/snapshot/exception_table.hpp"

#include <algorithm>
#include <cstring>

namespace udm::snapshot {
namespace {

std::size_t where_if_even(std::size_t count, std::uint64_t low, std::uint64_t end, std::uint64_t key) noexcept {
    return (key - low) * count / (end - low);    // of 40 bits and 9: fits
}

// The last of `count` ascending keys that is not above `key`. The first one is `low` (<= key), and all are below `end` (> key).
//
// Begins where the key would be if they were evenly spread, and looks around from there in growing steps. A table that is
// asked at random is not in the caches, and what halving it costs is a line of memory for each step: measured beside
// copies of 4 KiB, 0.45 us a search, more than the copy costs. This takes one or two lines.
template <class KeyOf>
std::size_t last_not_above(std::size_t count, std::uint64_t low, std::uint64_t end, std::uint64_t key, const KeyOf& key_of) noexcept {
    std::size_t at = where_if_even(count, low, end, key);
    std::size_t step = 1;
    std::size_t above;
    if (key_of(at) <= key) {
        while (at + step < count && key_of(at + step) <= key) {
            at += step;
            step *= 2;
        }
        above = std::min(at + step, count);
    } else {
        above = at;
        while (above > step && key_of(above - step) > key) {
            above -= step;
            step *= 2;
        }
        at = above > step ? above - step : 0;
    }
    while (above - at > 1) {
        const std::size_t middle = at + (above - at) / 2;
        (key_of(middle) <= key ? at : above) = middle;
    }
    return at;
}

}  // namespace

// Invariant: pages and leaves are never empty, but for the first leaf of an empty table; first_key of a leaf
// is the first chunk of its first entry; entries do not overlap.

ExceptionTable::ExceptionTable() {
    pages_.push_back(std::make_unique<Page>());
    pages_.front()->leaves[0] = {0, take_leaf(), 0};
    pages_.front()->count = 1;
}

ExceptionTable::Leaf* ExceptionTable::take_leaf() {
    if (spare_.empty()) {
        owned_.push_back(std::make_unique_for_overwrite<Leaf>());
        return owned_.back().get();
    }
    Leaf* leaf = spare_.back();
    spare_.pop_back();
    return leaf;
}

void ExceptionTable::reserve() {
    while (spare_.size() < kSpareFull) {
        owned_.push_back(std::make_unique_for_overwrite<Leaf>());
        std::memset(owned_.back().get(), 0, sizeof(Leaf));    // touched here, not on the request's path
        spare_.push_back(owned_.back().get());
    }
}

std::uint64_t ExceptionTable::bytes() const noexcept {
    return owned_.size() * sizeof(Leaf) + pages_.size() * sizeof(Page) + pages_.capacity() * sizeof(void*) +
           owned_.capacity() * sizeof(void*) + spare_.capacity() * sizeof(void*);
}

// The last leaf that begins at or before the chunk, or the first one.
ExceptionTable::LeafPlace ExceptionTable::leaf_for(std::uint64_t chunk) const noexcept {
    const auto page_key = [this](std::size_t p) { return pages_[p]->leaves[0].first_key; };
    std::size_t page = pages_.size() - 1;
    if (chunk < page_key(page)) page = chunk < page_key(0) ? 0 : last_not_above(page, page_key(0), page_key(page), chunk, page_key);

    const Page& p = *pages_[page];
    const auto leaf_key = [&p](std::size_t l) { return p.leaves[l].first_key; };
    std::size_t leaf = p.count - 1;
    if (chunk < leaf_key(leaf)) leaf = chunk < leaf_key(0) ? 0 : last_not_above(leaf, leaf_key(0), leaf_key(leaf), chunk, leaf_key);

    std::uint64_t end = 0;
    if (leaf + 1 < p.count) {
        end = leaf_key(leaf + 1);
    } else if (page + 1 < pages_.size()) {
        end = page_key(page + 1);
    }
    return {page, static_cast<unsigned>(leaf), end};
}

ExceptionTable::Place ExceptionTable::last_at_or_below(std::uint64_t chunk) const noexcept {
    auto [page, leaf, end] = leaf_for(chunk);
    const LeafRef& l = pages_[page]->leaves[leaf];
    if (l.count == 0 || chunk < l.first_key) return {page, leaf, kBefore};
    const Entry* entries = l.leaf->entries.data();
    const auto key = [entries](std::size_t e) { return entries[e].old_first(); };
    if (end == 0) {
        end = key(l.count - 1);
        if (end <= chunk) return {page, leaf, l.count - 1};
    }
    return {page, leaf, static_cast<unsigned>(last_not_above(l.count, l.first_key, end, chunk, key))};
}

void ExceptionTable::prefetch(Chunk chunk) const noexcept {
    const LeafPlace place = leaf_for(chunk.v);
    const LeafRef& l = pages_[place.page]->leaves[place.leaf];
    if (chunk.v < l.first_key || chunk.v >= place.end) return;    // before all, or in the last leaf
    __builtin_prefetch(&l.leaf->entries[where_if_even(l.count, l.first_key, place.end, chunk.v)]);
}

std::optional<ExceptionTable::Place> ExceptionTable::after(Place place) const noexcept {
    ++place.entry;    // kBefore becomes 0
    if (place.entry < leaf_at(place).count) return place;
    if (++place.leaf < pages_[place.page]->count) return Place{place.page, place.leaf, 0};
    if (++place.page < pages_.size()) return Place{place.page, 0, 0};
    return std::nullopt;
}

std::optional<ExceptionTable::Run> ExceptionTable::find(Chunk chunk) const noexcept {
    const Place place = last_at_or_below(chunk.v);
    if (place.entry == kBefore) return std::nullopt;
    const Run run = leaf_at(place).leaf->entries[place.entry].run();
    const std::uint64_t skip = chunk.v - run.old_first.v;
    if (skip >= run.count.v) return std::nullopt;
    return Run{chunk, run.new_first + Chunks{skip}, run.count - Chunks{skip}};
}

std::optional<Chunk> ExceptionTable::next_mapped(Chunk chunk) const noexcept {
    const Place place = last_at_or_below(chunk.v);
    if (place.entry != kBefore) {
        const Entry& entry = leaf_at(place).leaf->entries[place.entry];
        if (chunk.v < entry.old_first() + entry.count()) return chunk;
    }
    const auto next = after(place);
    if (!next) return std::nullopt;
    return Chunk{leaf_at(*next).leaf->entries[next->entry].old_first()};
}

void ExceptionTable::insert(Run run) {
    ASSERT(run.count.v > 0 && run.old_first.v + run.count.v - 1 <= kChunkMax && run.new_first.v + run.count.v - 1 <= kChunkMax);
    exceptions_ += run.count.v;
    while (run.count.v != 0) {
        Run part = run;
        part.count.v = std::min(part.count.v, kRunMax);
        run.old_first += part.count;
        run.new_first += part.count;
        run.count -= part.count;

        const Place below = last_at_or_below(part.old_first.v);
        const auto above = after(below);
        if (above) {
            const Run next = leaf_at(*above).leaf->entries[above->entry].run();
            ASSERT(part.old_first.v + part.count.v <= next.old_first.v);
        }
        if (below.entry != kBefore) {
            Entry& entry = leaf_at(below).leaf->entries[below.entry];
            const Run before = entry.run();
            ASSERT(before.old_first.v + before.count.v <= part.old_first.v);
            if (before.old_first + before.count == part.old_first && before.new_first + before.count == part.new_first &&
                before.count.v + part.count.v <= kRunMax) {
                Run joined{before.old_first, before.new_first, before.count + part.count};
                if (above) {
                    const Run next = leaf_at(*above).leaf->entries[above->entry].run();
                    if (joined.old_first + joined.count == next.old_first &&
                        joined.new_first + joined.count == next.new_first && joined.count.v + next.count.v <= kRunMax) {
                        joined.count += next.count;
                        entry = Entry::of(joined);
                        erase(*above);
                        continue;
                    }
                }
                entry = Entry::of(joined);
                continue;
            }
        }
        if (above) {
            LeafRef& leaf = leaf_at(*above);
            Entry& entry = leaf.leaf->entries[above->entry];
            const Run next = entry.run();
            if (part.old_first + part.count == next.old_first && part.new_first + part.count == next.new_first &&
                part.count.v + next.count.v <= kRunMax) {
                entry = Entry::of({part.old_first, part.new_first, part.count + next.count});
                if (above->entry == 0) leaf.first_key = part.old_first.v;
                continue;
            }
        }
        put({below.page, below.leaf, below.entry + 1}, Entry::of(part));
    }
}

void ExceptionTable::remove(Chunk first, Chunks count) {
    exceptions_ -= count.v;
    while (count) {
        const Place place = last_at_or_below(first.v);
        ASSERT(place.entry != kBefore);
        LeafRef& leaf = leaf_at(place);
        Entry& entry = leaf.leaf->entries[place.entry];
        const Run run = entry.run();
        const Chunks before = first - run.old_first;
        ASSERT(before < run.count);
        const Chunks n = std::min(count, run.count - before);
        const Chunks after = run.count - before - n;
        const Run rest{first + n, run.new_first + before + n, after};
        if (before) {
            entry = Entry::of({run.old_first, run.new_first, before});
            if (after) put({place.page, place.leaf, place.entry + 1}, Entry::of(rest));
        } else if (after) {
            entry = Entry::of(rest);
            if (place.entry == 0) leaf.first_key = rest.old_first.v;
        } else {
            erase(place);
        }
        first += n;
        count -= n;
    }
}

void ExceptionTable::erase(Place where) noexcept {
    LeafRef& leaf = leaf_at(where);
    Entry* entries = leaf.leaf->entries.data();
    std::move(entries + where.entry + 1, entries + leaf.count, entries + where.entry);
    --leaf.count;
    --entries_;
    if (leaf.count != 0) {
        if (where.entry == 0) leaf.first_key = entries[0].old_first();
        return;
    }
    Page& page = *pages_[where.page];
    if (page.count == 1 && pages_.size() == 1) {
        leaf.first_key = 0;
        return;
    }
    spare_.push_back(leaf.leaf);
    std::move(page.leaves.begin() + where.leaf + 1, page.leaves.begin() + page.count, page.leaves.begin() + where.leaf);
    if (--page.count == 0) pages_.erase(pages_.begin() + static_cast<std::ptrdiff_t>(where.page));
}

void ExceptionTable::put(Place where, const Entry& entry) {
    if (leaf_at(where).count == kLeafEntries) where = make_room(where);
    LeafRef& leaf = leaf_at(where);
    Entry* entries = leaf.leaf->entries.data();
    std::move_backward(entries + where.entry, entries + leaf.count, entries + leaf.count + 1);
    entries[where.entry] = entry;
    ++leaf.count;
    ++entries_;
    if (where.entry == 0) leaf.first_key = entry.old_first();
}

// Moves entries between neighbours so that the left one has `left_wants`.
void ExceptionTable::move_entries(LeafRef& left, LeafRef& right, unsigned left_wants) noexcept {
    Entry* l = left.leaf->entries.data();
    Entry* r = right.leaf->entries.data();
    if (left.count > left_wants) {
        const unsigned n = left.count - left_wants;
        std::move_backward(r, r + right.count, r + right.count + n);
        std::copy(l + left_wants, l + left.count, r);
        left.count -= n;
        right.count += n;
    } else {
        const unsigned n = left_wants - left.count;
        std::copy(r, r + n, l + left.count);
        std::move(r + n, r + right.count, r);
        left.count += n;
        right.count -= n;
    }
    if (left.count != 0) left.first_key = l[0].old_first();
    if (right.count != 0) right.first_key = r[0].old_first();
}

void ExceptionTable::insert_leaf(std::size_t page_index, unsigned at, LeafRef leaf) {
    Page& page = *pages_[page_index];
    ASSERT(page.count < kPageLeaves);
    std::move_backward(page.leaves.begin() + at, page.leaves.begin() + page.count, page.leaves.begin() + page.count + 1);
    page.leaves[at] = leaf;
    ++page.count;
}

// The leaf at `where` is full: shares with a neighbour that has room, or makes three leaves of two full ones (two of
// one at the end, where entries often come in order). Returns where the entry belongs now.
ExceptionTable::Place ExceptionTable::make_room(Place where) {
    if (pages_[where.page]->count == kPageLeaves) {
        auto upper = std::make_unique<Page>();
        Page& lower = *pages_[where.page];
        upper->count = kPageLeaves / 2;
        lower.count = kPageLeaves - upper->count;
        std::copy(lower.leaves.begin() + lower.count, lower.leaves.end(), upper->leaves.begin());
        pages_.insert(pages_.begin() + static_cast<std::ptrdiff_t>(where.page) + 1, std::move(upper));
        if (where.leaf >= pages_[where.page]->count) {
            where.leaf -= pages_[where.page]->count;
            ++where.page;
        }
    }
    Page& page = *pages_[where.page];
    LeafRef* leaves = page.leaves.data();
    static constexpr unsigned kWorthSharing = 16;
    // Position among the entries of the two (or three) leaves concerned, to find it again afterwards.
    const auto settle = [&](unsigned first_leaf, unsigned position) {
        while (position > leaves[first_leaf].count || (position == leaves[first_leaf].count && leaves[first_leaf].count == kLeafEntries)) {
            position -= leaves[first_leaf].count;
            ++first_leaf;
        }
        return Place{where.page, first_leaf, position};
    };
    if (where.leaf + 1 < page.count && leaves[where.leaf + 1].count + kWorthSharing <= kLeafEntries) {
        const unsigned total = leaves[where.leaf].count + leaves[where.leaf + 1].count;
        move_entries(leaves[where.leaf], leaves[where.leaf + 1], total / 2);
        return settle(where.leaf, where.entry);
    }
    if (where.leaf > 0 && leaves[where.leaf - 1].count + kWorthSharing <= kLeafEntries) {
        const unsigned position = leaves[where.leaf - 1].count + where.entry;
        const unsigned total = leaves[where.leaf].count + leaves[where.leaf - 1].count;
        move_entries(leaves[where.leaf - 1], leaves[where.leaf], (total + 1) / 2);
        return settle(where.leaf - 1, position);
    }
    const bool at_the_end = where.page + 1 == pages_.size() && where.leaf + 1 == page.count;
    if (at_the_end && where.entry == kLeafEntries) {
        insert_leaf(where.page, where.leaf + 1, {~std::uint64_t{0}, take_leaf(), 0});
        return {where.page, where.leaf + 1, 0};
    }
    if (where.leaf + 1 == page.count) {    // no right neighbour in this page: two of one
        insert_leaf(where.page, where.leaf + 1, {0, take_leaf(), 0});
        move_entries(leaves[where.leaf], leaves[where.leaf + 1], kLeafEntries / 2);
        return settle(where.leaf, where.entry);
    }
    // Both full: three of two.
    insert_leaf(where.page, where.leaf + 2, {0, take_leaf(), 0});
    const unsigned total = leaves[where.leaf].count + leaves[where.leaf + 1].count;
    move_entries(leaves[where.leaf + 1], leaves[where.leaf + 2], leaves[where.leaf + 1].count - total / 3);
    move_entries(leaves[where.leaf], leaves[where.leaf + 1], total / 3 + total % 3);
    return settle(where.leaf, where.entry);
}

}  // namespace udm::snapshot
