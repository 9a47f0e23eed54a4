// Stores looked at from outside (src/inspect): each kind of damage by hand, and repairs that are cut off at every write.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "base/prng.hpp"
#include "inspect/snapshot_guess.hpp"
#include "inspect/snapshot_repair.hpp"
#include "targets/snapshot/exception_table.hpp"

namespace udm::inspect {
namespace {

using snapshot::DiskException;
using snapshot::DiskHeader;
using snapshot::Geometry;

// A store in memory. What is written reaches it sector by sector; cut() forgets some of what was not synced.
class Memory : public Target {
  public:
    explicit Memory(std::uint64_t bytes) : bytes_(bytes) {}
    std::uint64_t size() const override { return bytes_.size(); }
    Result<void> read(std::uint64_t offset, std::span<std::byte> into) override {
        EXPECT_LE(offset + into.size(), bytes_.size());
        EXPECT_LE(into.size(), 64u * 1024);
        std::memcpy(into.data(), bytes_.data() + offset, into.size());
        return {};
    }
    Result<void> write(std::uint64_t offset, std::span<const std::byte> from) override {
        if (writes_left == 0) return fail(Errc::io, "cut");
        --writes_left;
        EXPECT_LE(offset + from.size(), bytes_.size());
        for (std::uint64_t s = offset / kSectorSize; s <= (offset + from.size() - 1) / kSectorSize; ++s) {
            if (!unsynced_.contains(s)) unsynced_[s] = sector(s);
        }
        std::memcpy(bytes_.data() + offset, from.data(), from.size());
        return {};
    }
    Result<void> sync() override {
        if (writes_left == 0) return fail(Errc::io, "cut");
        unsynced_.clear();
        return {};
    }
    Result<void> grow(std::uint64_t size) override {
        if (writes_left == 0) return fail(Errc::io, "cut");
        --writes_left;
        EXPECT_GT(size, bytes_.size());
        bytes_.resize(size);
        return {};
    }
    void cut(Prng& random) {
        for (const auto& [number, old] : unsynced_) {
            if (random.chance(1, 2)) std::memcpy(bytes_.data() + number * kSectorSize, old.data(), old.size());
        }
        unsynced_.clear();
    }
    std::vector<std::byte> sector(std::uint64_t number) const {
        const std::uint64_t at = number * kSectorSize, end = std::min<std::uint64_t>(at + kSectorSize, bytes_.size());
        return {bytes_.begin() + static_cast<std::ptrdiff_t>(at), bytes_.begin() + static_cast<std::ptrdiff_t>(end)};
    }
    template <class T>
    void put(std::uint64_t offset, const T& value) {
        std::memcpy(bytes_.data() + offset, &value, sizeof value);
    }
    void truncate(std::uint64_t size) { bytes_.resize(size); }
    std::uint64_t writes_left = ~std::uint64_t{0};

  private:
    std::vector<std::byte> bytes_;
    std::map<std::uint64_t, std::vector<std::byte>> unsynced_;
};

constexpr std::uint32_t kChunk = 1;    // sectors: 32 exceptions an area
const Geometry kGeometry{ChunkSize::of_sectors(kChunk)};

struct Store : Memory {
    explicit Store(std::uint64_t chunks) : Memory{chunks * kChunk * kSectorSize} { header(snapshot::kMagic, 1, snapshot::kVersion, kChunk); }
    void header(std::uint32_t magic, std::uint32_t valid, std::uint32_t version, std::uint32_t chunk) {
        DiskHeader header;
        header.magic = magic;
        header.valid = valid;
        header.version = version;
        header.chunk_size = chunk;
        put(0, header);
    }
    void entry(std::uint64_t index, std::uint64_t old_chunk, std::uint64_t new_chunk) {
        DiskException entry;
        entry.old_chunk = old_chunk;
        entry.new_chunk = new_chunk;
        put(to_bytes(kGeometry.chunk().start(kGeometry.area(index / 32))) + index % 32 * sizeof entry, entry);
    }
    void entries(const std::vector<std::pair<std::uint64_t, std::uint64_t>>& all) {
        for (std::size_t i = 0; i < all.size(); ++i) entry(i, all[i].first, all[i].second);
    }
};

struct Found final : Findings {
    std::vector<Finding> all;
    void found(const Finding& finding) override { all.push_back(finding); }
};

struct Checked {
    Report report;
    std::vector<std::string> words;    // explained
};
Checked checked(Source& store, const CheckOptions& options = {}) {
    Found found;
    auto report = check(store, options, &found);
    EXPECT_TRUE(report);
    Checked checked{*report, {}};
    for (const Finding& finding : found.all) checked.words.push_back(explain(finding, *report));
    EXPECT_EQ(report->fault_count(), found.all.size());
    return checked;
}
using Words = std::vector<std::string>;

// What a reader makes of it: the first exception of each origin chunk.
std::map<std::uint64_t, std::uint64_t> mapping(Source& store) {
    std::map<std::uint64_t, std::uint64_t> map;
    EntryReader reader{store, kGeometry};
    for (Entry entry; *reader.next(entry);) map.emplace(entry.old_chunk, entry.new_chunk);
    return map;
}

TEST(Check, AWholeStoreAndItsFigures) {
    Store store{200};
    store.entries({{100, 2}, {101, 3}, {102, 4}, {7, 9}, {8, 12}});
    const Checked c = checked(store);
    EXPECT_EQ(c.words, Words{});
    EXPECT_EQ(c.report.kind, Report::Kind::store);
    EXPECT_TRUE(c.report.valid());
    EXPECT_EQ(c.report.exceptions, 5u);
    EXPECT_EQ(c.report.runs, 3u);
    EXPECT_EQ(c.report.largest_run, 3u);
    EXPECT_EQ(c.report.areas, 1u);
    EXPECT_EQ(c.report.areas_max, 7u);
    EXPECT_EQ(c.report.next_free, 13u);
    EXPECT_EQ(c.report.holes, 2u);           // 5-8 and 10-11: no fault
    EXPECT_EQ(c.report.hole_chunks, 6u);
    EXPECT_EQ(c.report.largest_hole, 4u);
    EXPECT_EQ(c.report.allocated_sectors(), 13u);
    EXPECT_EQ(c.report.metadata_sectors(), 2u);
}

TEST(Check, AFullAreaGoesOnInTheNext) {
    Store store{200};
    for (std::uint64_t i = 0; i < 40; ++i) store.entry(i, 1000 + i, 2 + i + i / 32);
    const Checked c = checked(store);
    EXPECT_EQ(c.words, Words{});
    EXPECT_EQ(c.report.exceptions, 40u);
    EXPECT_EQ(c.report.areas, 2u);
    EXPECT_EQ(c.report.runs, 2u);
    EXPECT_EQ(c.report.holes, 0u);    // the area in between is none
    EXPECT_EQ(c.report.metadata_sectors(), 3u);
}

TEST(Check, HolesAreCountedAsIfOneByOne) {
    Prng random{5};
    for (int round = 0; round < 300; ++round) {
        Store store{400};
        std::set<std::uint64_t> used;
        const std::uint64_t count = random.between(1, 30);
        while (used.size() < count) {
            const std::uint64_t chunk = random.between(2, 399);
            if (!kGeometry.is_metadata({chunk})) used.insert(chunk);
        }
        std::uint64_t index = 0;
        for (const std::uint64_t chunk : used) store.entry(index++, chunk, chunk);
        std::uint64_t holes = 0, chunks = 0, largest = 0, length = 0;
        for (std::uint64_t chunk = 2; chunk <= *used.rbegin(); ++chunk) {
            const bool hole = !used.contains(chunk) && !kGeometry.is_metadata({chunk});
            length = hole ? length + 1 : 0;
            holes += length == 1;
            chunks += hole;
            largest = std::max(largest, length);
        }
        const Report report = checked(store).report;
        ASSERT_EQ(report.holes, holes);
        ASSERT_EQ(report.hole_chunks, chunks);
        ASSERT_EQ(report.largest_hole, largest);
    }
}

TEST(Check, DamagedHeaders) {
    Store store{200};
    store.entries({{1, 2}});
    store.header(0x12345678, 1, 1, kChunk);
    EXPECT_EQ(checked(store).words, Words{"no snapshot store: the first four bytes are 0x12345678, not 0x70416e53 (\"SnAp\")"});
    store.header(0, 1, 1, kChunk);
    EXPECT_EQ(checked(store).words,
              Words{"the header is zero, but something stands behind it: whoever loads this makes a new, empty store of it"});
    store.header(snapshot::kMagic, 1, 2, kChunk);
    EXPECT_EQ(checked(store).words, Words{"the header says version 2; there is only version 1"});
    for (const std::uint32_t chunk : {0u, 3u, 24u, 1u << 22, 0xffffffffu}) {
        store.header(snapshot::kMagic, 1, 1, chunk);
        const Checked c = checked(store);
        EXPECT_EQ(c.words, Words{"the header's chunk size, " + std::to_string(chunk) + " sectors, is no power of two up to 2097152"});
        EXPECT_EQ(c.report.kind, Report::Kind::unknown);
    }
    store.header(snapshot::kMagic, 7, 1, kChunk);
    EXPECT_EQ(checked(store).words, Words{"the header's valid field is 7, neither 0 nor 1: whether the snapshot was whole cannot be told"});
    // With a chunk size from elsewhere the list is looked at all the same.
    store.header(0x12345678, 1, 1, kChunk);
    EXPECT_EQ(checked(store, {.chunk_sectors = kChunk}).report.exceptions, 1u);
}

TEST(Check, NoStoreYetAndNoneThatFits) {
    Memory blank{100 * kSectorSize};
    EXPECT_EQ(checked(blank).report.kind, Report::Kind::blank);
    EXPECT_EQ(checked(blank).words, Words{});
    Memory tiny{511};
    EXPECT_EQ(checked(tiny).words, Words{"too small: a store is a header and an area, two chunks at least"});
    Store one{200};
    one.header(snapshot::kMagic, 1, 1, 256);
    EXPECT_EQ(checked(one).words, Words{"too small: a store is a header and an area, two chunks at least"});
    Store invalid{200};
    invalid.header(snapshot::kMagic, 0, 1, kChunk);
    EXPECT_EQ(checked(invalid).words, Words{});
    EXPECT_FALSE(checked(invalid).report.valid());
}

TEST(Check, DamagedExceptions) {
    Store store{100};
    store.entries({{10, 2}, {11, 100}, {12, 34}, {13, 1}, {14, 2}, {10, 5}, {10, 2}, {15, ~std::uint64_t{0}}, {~std::uint64_t{0}, 6}, {60, 7}});
    EXPECT_EQ(checked(store, {.origin_sectors = 60}).words,
              (Words{"area 0, entry 1 (origin chunk 11 -> COW chunk 100): the store has chunks 0 to 99: its data are not there. The store was cut "
                     "off, or the entry is damaged",
                     "area 0, entry 2 (origin chunk 12 -> COW chunk 34): COW chunk 34 is area 1 of the list, and has no data",
                     "area 0, entry 3 (origin chunk 13 -> COW chunk 1): COW chunk 1 is area 0, and has no data",
                     "area 0, entry 4 (origin chunk 14 -> COW chunk 2): that COW chunk has the old data of origin chunk 10 already: at most one of "
                     "the two is right",
                     "area 0, entry 5 (origin chunk 10 -> COW chunk 5): the old data of that origin chunk are in COW chunk 2 already: at most one "
                     "of the two is right",
                     "area 0, entry 6 (origin chunk 10 -> COW chunk 2): an earlier entry says the same: nothing is lost with this one",
                     "area 0, entry 7 (origin chunk 15 -> COW chunk 18446744073709551615): the store has chunks 0 to 99: its data are not there. "
                     "The store was cut off, or the entry is damaged",
                     "area 0, entry 8 (origin chunk 18446744073709551615 -> COW chunk 6): the origin has chunks 0 to 59 only",
                     "area 0, entry 9 (origin chunk 60 -> COW chunk 7): the origin has chunks 0 to 59 only"}));
}

TEST(Check, WhatStandsBehindTheEnd) {
    Store store{100};
    store.entries({{1, 2}, {2, 3}});
    store.entry(5, 9, 9);
    store.entry(20, 9, 0);
    EXPECT_EQ(checked(store).words, Words{"area 0, entry 5: 2 entries stand behind the end of the list: what a crash left of a commit. Nobody reads "
                                          "them, but Linux takes them for exceptions after its next write"});
    EXPECT_EQ(checked(store).report.exceptions, 2u);
}

TEST(Check, AListWithoutAnEnd) {
    Store store{36};
    for (std::uint64_t i = 0; i < 32; ++i) store.entry(i, i, 2 + i);
    EXPECT_EQ(checked(store).words, Words{});
    store.truncate(34 * kSectorSize);    // the next area's chunk is gone
    EXPECT_EQ(checked(store).words, Words{"area 1, entry 0: the list goes on in an area at chunk 34, but there are 34 chunks: the store was cut off, "
                                          "or its list fills all areas there are, which Linux cannot load"});
}

// A device as large as can be, of which nobody has the memory.
class Sparse final : public Source {
  public:
    explicit Sparse(std::uint32_t chunk) { header_.chunk_size = chunk; }
    std::uint64_t size() const override { return std::uint64_t{1} << 62; }
    Result<void> read(std::uint64_t offset, std::span<std::byte> into) override {
        read_bytes += into.size();
        std::memset(into.data(), 0, into.size());
        if (offset == 0) {
            header_.magic = snapshot::kMagic;
            header_.valid = header_.version = 1;
            std::memcpy(into.data(), &header_, sizeof header_);
        } else if (offset == to_bytes(Sectors{header_.chunk_size})) {
            DiskException far;
            far.old_chunk = 1;
            far.new_chunk = snapshot::ExceptionTable::kChunkMax - 5;
            std::memcpy(into.data(), &far, sizeof far);
        }
        return {};
    }
    std::uint64_t read_bytes = 0;

  private:
    DiskHeader header_{};
};

TEST(Check, CostsWhatIsListedNotWhatIsClaimed) {
    Sparse small{8};
    const Report report = checked(small).report;
    EXPECT_EQ(report.exceptions, 1u);
    EXPECT_GT(report.holes, 1'000'000'000u);
    EXPECT_LT(small.read_bytes, 100'000u);
}

// --- repair -----------------------------------------------------------------------------------------------------------

RepairPlan planned(Source& store, const CheckOptions& options = {}) {
    auto plan = RepairPlan::make(store, options);
    EXPECT_TRUE(plan) << plan.error().message;
    return std::move(*plan);
}

TEST(Repair, DropsWhatCannotBeRightAndSaysWhatIsLost) {
    Store store{100};
    store.entries({{10, 2}, {11, 100}, {12, 3}, {13, 2}, {10, 5}, {14, 6}, {15, 34}, {16, 7}});
    const RepairPlan plan = planned(store);
    EXPECT_TRUE(plan.needed());
    EXPECT_EQ(plan.kept(), 4u);
    EXPECT_EQ(plan.lost(), (std::vector<std::uint64_t>{11, 13, 15}));
    EXPECT_EQ(plan.doubtful(), (std::vector<std::uint64_t>{10}));
    EXPECT_TRUE(checked(store).report.fault_count() == 4);    // nothing was written so far
    ASSERT_TRUE(plan.carry_out(store));
    EXPECT_EQ(checked(store).words, Words{});
    EXPECT_EQ(mapping(store), (std::map<std::uint64_t, std::uint64_t>{{10, 2}, {12, 3}, {14, 6}, {16, 7}}));
    EXPECT_FALSE(planned(store).needed());
}

TEST(Repair, AChunkWithAGoodExceptionIsNotLostWithABadOne) {
    Store store{100};
    store.entries({{10, 100}, {11, 2}, {10, 3}, {11, 2}});
    const RepairPlan plan = planned(store);
    EXPECT_TRUE(plan.lost().empty());
    EXPECT_TRUE(plan.doubtful().empty());
    ASSERT_TRUE(plan.carry_out(store));
    EXPECT_EQ(mapping(store), (std::map<std::uint64_t, std::uint64_t>{{10, 3}, {11, 2}}));
}

TEST(Repair, ClearsWhatStandsBehindTheEndAndLosesNothing) {
    Store store{100};
    store.entries({{1, 2}});
    store.entry(9, 9, 9);
    const RepairPlan plan = planned(store);
    EXPECT_TRUE(plan.lost().empty());
    ASSERT_TRUE(plan.carry_out(store));
    EXPECT_EQ(checked(store).words, Words{});
    EXPECT_EQ(mapping(store).size(), 1u);
}

TEST(Repair, GivesATruncatedStoreItsEndBack) {
    Store store{200};
    for (std::uint64_t i = 0; i < 40; ++i) store.entry(i, i, 2 + i + i / 32);
    store.truncate(34 * kSectorSize + 64);    // in the midst of area 1: its first four entries are there
    const RepairPlan plan = planned(store);
    EXPECT_EQ(plan.grows_to(), 35 * kSectorSize);
    EXPECT_EQ(plan.lost(), (std::vector<std::uint64_t>{32, 33, 34, 35}));
    EXPECT_EQ(plan.lost_beyond(), RepairPlan::Beyond::certain);
    ASSERT_TRUE(plan.carry_out(store));
    EXPECT_EQ(store.size(), 35 * kSectorSize);
    EXPECT_EQ(checked(store).words, Words{});
    EXPECT_EQ(mapping(store).size(), 32u);
}

TEST(Repair, DoesNotMakeMissingChunksOfACutOffStore) {
    Store store{200};
    for (std::uint64_t i = 0; i < 40; ++i) store.entry(i, i, 2 + i + i / 32);
    store.truncate(32 * kSectorSize + 500);    // chunk 32 in part: the data of exceptions 30 and 31 are gone
    const RepairPlan plan = planned(store);
    EXPECT_EQ(plan.lost(), (std::vector<std::uint64_t>{30, 31}));
    EXPECT_EQ(plan.lost_beyond(), RepairPlan::Beyond::certain);
    EXPECT_EQ(plan.grows_to(), 0u);
    ASSERT_TRUE(plan.carry_out(store));
    EXPECT_EQ(store.size(), 32 * kSectorSize + 500);
    EXPECT_EQ(checked(store).words, Words{});
    EXPECT_EQ(mapping(store).size(), 30u);
}

TEST(Repair, DoesNotKnowAFullStoreFromOneThatWasCutOffBehindItsArea) {
    Store store{34};
    for (std::uint64_t i = 0; i < 32; ++i) store.entry(i, i, 2 + i);
    const RepairPlan plan = planned(store);
    EXPECT_TRUE(plan.lost().empty());
    EXPECT_EQ(plan.lost_beyond(), RepairPlan::Beyond::possible);
    EXPECT_EQ(plan.grows_to(), 35 * kSectorSize);
    Store longer{36};
    for (std::uint64_t i = 0; i < 32; ++i) longer.entry(i, i, 2 + i);
    EXPECT_EQ(planned(longer).lost_beyond(), RepairPlan::Beyond::none);
}

TEST(Repair, CountsExceptionsOfNoChunkAndListsThemNotAsChunks) {
    Store store{100};
    store.entries({{1, 2}, {~std::uint64_t{0}, 3}, {7, 100}, {std::uint64_t{1} << 40, 500}, {90, 4}});
    const RepairPlan plan = planned(store);
    EXPECT_EQ(plan.lost(), (std::vector<std::uint64_t>{7}));
    EXPECT_EQ(plan.lost_unnamed(), 2u);
    const RepairPlan smaller = planned(store, {.chunk_sectors = {}, .origin_sectors = 50});
    EXPECT_EQ(smaller.lost(), (std::vector<std::uint64_t>{7}));
    EXPECT_EQ(smaller.lost_unnamed(), 3u);
}

// Cut off at any byte, and the repair after any of its writes: an exception is kept where its entry and all of its data are
// there, lost by name where only the entry is, and whatever else was listed is said to be lost without a number.
TEST(Repair, OfAStoreCutOffAnywhereKeepsWhatIsThereAndSaysWhatIsNot) {
    Prng random{12};
    std::uint64_t grown = 0, moved = 0, cuts = 0;
    for (int round = 0; round < 400; ++round) {
        constexpr std::uint64_t kChunks = 140;
        Store damaged{kChunks};
        std::vector<std::uint64_t> free;
        for (std::uint64_t chunk = 2; chunk < kChunks; ++chunk) {
            if (!kGeometry.is_metadata({chunk})) free.push_back(chunk);
        }
        const std::uint64_t count = random.between(1, 127), mixed = random.between(0, 2) == 0 ? free.size() : random.between(1, 3);
        std::vector<std::uint64_t> cow;
        while (cow.size() < count) {
            const auto at = free.begin() + static_cast<std::ptrdiff_t>(random.between(0, std::min<std::uint64_t>(mixed, free.size()) - 1));
            cow.push_back(*at);
            free.erase(at);
        }
        for (std::uint64_t i = 0; i < count; ++i) damaged.entry(i, 1000 + i, cow[i]);
        const std::uint64_t size = random.chance(1, 2) ? random.between(2 * kSectorSize, kChunks * kSectorSize)
                                                       : to_bytes(kGeometry.chunk().start(kGeometry.area(random.between(1, 4)))) + random.between(0, 520);
        damaged.truncate(size);
        std::map<std::uint64_t, std::uint64_t> kept;
        std::vector<std::uint64_t> lost;
        std::uint64_t seen = 0;
        for (; seen < count; ++seen) {
            if (to_bytes(kGeometry.chunk().start(kGeometry.area(seen / 32))) + (seen % 32 + 1) * sizeof(DiskException) > size) break;
            if ((cow[seen] + 1) * kSectorSize <= size) {
                kept.emplace(1000 + seen, cow[seen]);
            } else {
                lost.push_back(1000 + seen);
            }
        }
        const RepairPlan plan = planned(damaged);
        ASSERT_EQ(plan.lost(), lost) << "round " << round;
        if (seen < count) {
            ASSERT_NE(plan.lost_beyond(), RepairPlan::Beyond::none) << "round " << round;
        }
        grown += plan.grows_to() != 0;
        moved += plan.grows_to() != 0 && !lost.empty();    // the good ones take the places of the lost ones
        for (std::uint64_t writes = 0;; ++writes) {
            Store store = damaged;
            store.writes_left = writes;
            const bool done = plan.carry_out(store).has_value();
            store.cut(random);
            store.writes_left = ~std::uint64_t{0};
            if (!done) {
                ++cuts;
                ASSERT_TRUE(planned(store).carry_out(store));
            }
            ASSERT_EQ(checked(store).words, Words{}) << "round " << round << ", cut after " << writes;
            ASSERT_EQ(mapping(store), kept) << "round " << round << ", cut after " << writes;
            if (done) break;
        }
    }
    EXPECT_GT(grown, 20u);
    EXPECT_GT(moved, 5u);
    EXPECT_GT(cuts, 300u);
}

TEST(Repair, RefusesAChunkSizeThatIsNotTheHeaders) {
    Store store{100};
    store.entries({{1, 2}, {2, 3}});
    const auto why = [&](std::uint32_t sectors) {
        auto plan = RepairPlan::make(store, {.chunk_sectors = sectors});
        return plan ? std::string{"nothing"} : plan.error().message;
    };
    EXPECT_EQ(why(2), "its header is whole and says chunks of 512, not 1K; without --chunk they are believed");
    EXPECT_EQ(why(1), "nothing");
    store.header(snapshot::kMagic, 0, 1, kChunk);
    EXPECT_EQ(why(2), "its header is whole and says chunks of 512, not 1K; without --chunk they are believed");
    store.header(0, 0, 0, 0);
    EXPECT_EQ(why(1), "nothing");
    EXPECT_EQ(why(2), "with chunks of 1K its list would be empty, and a new header would only make it look whole; chunks of 512 fit what stands there");
    for (std::uint64_t i = 0; i < 128; ++i) store.put(1024 + i * 8, ~i);
    EXPECT_EQ(why(2), "with chunks of 1K its first area is no list of exceptions: of 64 entries 0 can be right; chunks of 512 fit what stands there");
    Memory other{100 * kSectorSize};
    for (std::uint64_t i = 0; i < 512; ++i) other.put(1024 + i * 8, i << 33);
    EXPECT_EQ(RepairPlan::make(other, {}).error().message,
              "it has no snapshot store's header, and what stands there is no list of exceptions, whatever the chunk size");
    EXPECT_EQ(checked(other).report.kind, Report::Kind::unknown);
    EXPECT_EQ(checked(other).words, Words{"no snapshot store: the header is zero, and what stands behind it is no list of exceptions. Whoever loads "
                                          "this as a COW device makes a new, empty store of it"});
}

TEST(Guess, FindsTheChunkSizeByTheFirstArea) {
    for (const std::uint32_t sectors : {1u, 2u, 8u, 32u, 128u, 256u, 1024u}) {
        const Geometry geometry{ChunkSize::of_sectors(sectors)};
        Memory store{20 * geometry.chunk().bytes()};
        EXPECT_TRUE(fitting_chunk_sizes(store)->empty());
        EXPECT_EQ(checked(store).report.kind, Report::Kind::blank);
        EXPECT_EQ(checked(store, {.chunk_sectors = sectors}).report.kind, Report::Kind::blank);
        Prng random{sectors};
        for (std::uint64_t i = 0; i < 10; ++i) {
            DiskException entry;
            entry.old_chunk = 100 + 3 * i;
            entry.new_chunk = 2 + i;
            store.put(geometry.chunk().bytes() + i * sizeof entry, entry);
            for (std::uint64_t at = 0; at < geometry.chunk().bytes(); at += 8) {
                store.put((2 + i) * geometry.chunk().bytes() + at, i == 0 ? 0 : random.next());
            }
        }
        EXPECT_EQ(*fitting_chunk_sizes(store), std::vector<std::uint32_t>{sectors});
        EXPECT_EQ(checked(store).report.fitting, std::vector<std::uint32_t>{sectors});
        EXPECT_EQ(checked(store).words, Words{"the header is zero, but something stands behind it: whoever loads this makes a new, empty store of it"});
        EXPECT_EQ(checked(store, {.chunk_sectors = sectors}).report.exceptions, 10u);
        DiskException again;
        again.old_chunk = 1;
        again.new_chunk = 5;
        store.put(geometry.chunk().bytes() + 10 * sizeof again, again);    // COW chunk 5 twice
        EXPECT_TRUE(fitting_chunk_sizes(store)->empty());
        EXPECT_TRUE(look_at_first_area(store, sectors)->bears_a_list());
    }
    EXPECT_EQ(chunk_size_words({1, 8, 2048, 1u << 21}), "512, 4K, 1M, 1G");
}

TEST(Repair, MakesAHeaderOfAChunkSize) {
    Store store{100};
    store.entries({{1, 2}, {2, 100}});
    for (const std::uint32_t magic : {0u, 0x12345678u}) {
        store.header(magic, 1, 1, kChunk);
        EXPECT_FALSE(RepairPlan::make(store, {}));
        const CheckOptions options{.chunk_sectors = kChunk};
        ASSERT_TRUE(planned(store, options).carry_out(store));
        EXPECT_EQ(checked(store).words, Words{});
        EXPECT_EQ(mapping(store), (std::map<std::uint64_t, std::uint64_t>{{1, 2}}));
    }
}

TEST(Repair, RefusesWhatNothingCanBeDoneAbout) {
    const auto why = [](Store& store) {
        auto plan = RepairPlan::make(store, {});
        return plan ? std::string{"nothing"} : plan.error().message;
    };
    Store store{100};
    store.header(snapshot::kMagic, 0, 1, kChunk);
    EXPECT_EQ(why(store), "the store is marked invalid: the snapshot missed changes of its origin, and nothing brings them back");
    store.header(snapshot::kMagic, 9, 1, kChunk);
    EXPECT_EQ(why(store), "the header does not say whether the snapshot was whole, and nothing else does");
    store.header(snapshot::kMagic, 1, 1, 5);
    EXPECT_EQ(why(store), "the header cannot be trusted, and nothing else says how large its chunks are");
    Store whole{100};
    EXPECT_EQ(why(whole), "nothing");
    EXPECT_FALSE(planned(whole).needed());
}

// Damage at random, the repair cut off after each of its writes with any part of what was not synced lost, and done again:
// nothing that was good is lost, and it ends as it would have ended.
TEST(Repair, MayBeCutOffAnywhere) {
    Prng random{11};
    std::uint64_t cuts = 0;
    for (int round = 0; round < 150; ++round) {
        Store damaged{300};
        const std::uint64_t count = random.between(1, 120);
        for (std::uint64_t i = 0; i < count; ++i) {
            const bool bad = random.chance(1, 4);
            const std::uint64_t chunk = bad ? random.between(1, 330) : 2 + i + i / 32;
            damaged.entry(i, bad && random.chance(1, 2) ? random.between(1000, 1000 + count) : 1000 + i, chunk);
        }
        if (random.chance(1, 3)) damaged.entry(count + random.between(1, 3), 5, 5);
        Store whole = damaged;
        const RepairPlan plan = planned(damaged);
        ASSERT_TRUE(plan.carry_out(whole));
        ASSERT_EQ(checked(whole).words, Words{});
        const auto expected = mapping(whole);
        ASSERT_EQ(expected.size(), plan.kept());
        for (std::uint64_t writes = 0;; ++writes) {
            Store store = damaged;
            store.writes_left = writes;
            const bool done = plan.carry_out(store).has_value();
            if (done) break;
            ++cuts;
            store.cut(random);
            store.writes_left = ~std::uint64_t{0};
            const RepairPlan again = planned(store);
            ASSERT_TRUE(again.carry_out(store));
            ASSERT_EQ(checked(store).words, Words{}) << "round " << round << ", cut after " << writes;
            ASSERT_EQ(mapping(store), expected) << "round " << round << ", cut after " << writes;
            for (const std::uint64_t chunk : again.lost()) ASSERT_FALSE(expected.contains(chunk));
        }
    }
    EXPECT_GT(cuts, 1000u);
}

}  // namespace
}  // namespace udm::inspect
