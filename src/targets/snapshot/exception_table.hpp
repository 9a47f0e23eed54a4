// Where the chunks of a snapshot are that have left the origin: origin chunk → COW chunk, in memory.
//
// A sorted table of runs (old+i → new+i for i < count), 12 bytes each, in leaves of 4 KiB under two levels of
// index. Sorted rather than hashed, since reads and writes of many chunks ask for the next boundary; leaves hand
// entries to their neighbours before they split, so that random single chunks cost less than 16 bytes each with
// all the slack counted (measured in test/unit/exception_table_test.cpp).
//
// Limits: chunk numbers below 2^40 (4 PiB at 4 KiB chunks); a longer run takes several entries.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "base/units.hpp"

namespace udm::snapshot {

class ExceptionTable {
  public:
    static constexpr std::uint64_t kChunkMax = (std::uint64_t{1} << 40) - 1;

    struct Run {
        Chunk old_first;
        Chunk new_first;
        Chunks count;
    };

    ExceptionTable();
    ExceptionTable(const ExceptionTable&) = delete;
    ExceptionTable& operator=(const ExceptionTable&) = delete;

    // The run from `chunk` on, if it has an exception.
    std::optional<Run> find(Chunk chunk) const noexcept;
    // The first chunk at or after `chunk` that has an exception.
    std::optional<Chunk> next_mapped(Chunk chunk) const noexcept;
    // Fetches into the caches what find() will most likely look at.
    void prefetch(Chunk chunk) const noexcept;
    // Adds exceptions; none of the chunks may have one. Joins neighbours that continue it.
    void insert(Run run);
    // Takes exceptions out; each of the chunks must have one.
    void remove(Chunk first, Chunks count);

    std::uint64_t exceptions() const noexcept { return exceptions_; }
    std::uint64_t entries() const noexcept { return entries_; }
    // All memory held, unused slack included.
    std::uint64_t bytes() const noexcept;
    // Takes memory ahead of need, so that insert() does not: call it off the request's path when asked for. A table that
    // is nowhere near its second leaf wants none: most of ten thousand snapshots stay as small as that.
    bool wants_reserve() const noexcept { return spare_.size() < kSpareLow && entries_ >= kFewEntries; }
    void reserve();

    template <class F>
    void for_each(F&& f) const {    // f(Run), ascending
        for (const auto& page : pages_) {
            for (unsigned l = 0; l < page->count; ++l) {
                for (unsigned e = 0; e < page->leaves[l].count; ++e) f(page->leaves[l].leaf->entries[e].run());
            }
        }
    }

  private:
    struct Entry {    // 40 + 40 + 16 bits
        std::uint32_t old_low, new_low, rest;
        static Entry of(const Run& run) noexcept {
            return {static_cast<std::uint32_t>(run.old_first.v), static_cast<std::uint32_t>(run.new_first.v),
                    static_cast<std::uint32_t>(run.old_first.v >> 32) | static_cast<std::uint32_t>(run.new_first.v >> 32) << 8 |
                        static_cast<std::uint32_t>(run.count.v - 1) << 16};
        }
        std::uint64_t old_first() const noexcept { return old_low | std::uint64_t{rest & 0xff} << 32; }
        std::uint64_t new_first() const noexcept { return new_low | std::uint64_t{rest >> 8 & 0xff} << 32; }
        std::uint64_t count() const noexcept { return (rest >> 16) + 1; }
        Run run() const noexcept { return {{old_first()}, {new_first()}, {count()}}; }
    };
    static_assert(sizeof(Entry) == 12);
    static constexpr std::uint64_t kRunMax = 1u << 16;
    static constexpr unsigned kLeafEntries = 341;
    static constexpr unsigned kPageLeaves = 128;
    static constexpr std::uint64_t kFewEntries = kLeafEntries / 2;
    static constexpr std::size_t kSpareLow = 2;
    static constexpr std::size_t kSpareFull = 8;

    struct Leaf {
        std::array<Entry, kLeafEntries> entries;
    };
    struct LeafRef {
        std::uint64_t first_key;
        Leaf* leaf;
        std::uint32_t count;
    };
    struct Page {
        std::uint32_t count = 0;
        std::array<LeafRef, kPageLeaves> leaves;
    };
    // A place: an entry of a leaf of a page. `entry` may be one past the leaf's last.
    struct Place {
        std::size_t page;
        unsigned leaf, entry;
    };

    LeafRef& leaf_at(const Place& place) const noexcept { return pages_[place.page]->leaves[place.leaf]; }
    // The last entry whose first chunk is <= chunk; none: entry index is kBefore.
    static constexpr unsigned kBefore = ~0u;
    Place last_at_or_below(std::uint64_t chunk) const noexcept;
    struct LeafPlace {
        std::size_t page;
        unsigned leaf;
        std::uint64_t end;    // where the next leaf begins; 0: there is none
    };
    LeafPlace leaf_for(std::uint64_t chunk) const noexcept;
    std::optional<Place> after(Place place) const noexcept;
    Leaf* take_leaf();
    void put(Place where, const Entry& entry);
    void erase(Place where) noexcept;
    Place make_room(Place where);
    void move_entries(LeafRef& left, LeafRef& right, unsigned left_wants) noexcept;
    void insert_leaf(std::size_t page, unsigned at, LeafRef leaf);

    std::vector<std::unique_ptr<Page>> pages_;
    std::vector<std::unique_ptr<Leaf>> owned_;
    std::vector<Leaf*> spare_;
    std::uint64_t exceptions_ = 0;
    std::uint64_t entries_ = 0;
};

}  // namespace udm::snapshot
