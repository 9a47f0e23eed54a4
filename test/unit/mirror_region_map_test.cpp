// What a mirror says of its regions, for pictures.
#include <chrono>
#include <cstdio>

#include "base/prng.hpp"
#include "services/dirty_log/bitmap.hpp"
#include "test/unit/mirror_fixture.hpp"

namespace udm::test {
namespace {

using MirrorRegionMap = MirrorTest;
using CellCounts = std::vector<std::uint64_t>;

RegionMap map_of(Device& device, std::size_t cells) { return *MirrorTest::target(device).region_map(cells); }

RegionMap::Counts counts_of(const RegionMap& map) {
    RegionMap::Counts all;
    for (const RegionMap::Counts& cell : map.cells) {
        all.clean += cell.clean;
        all.dirty += cell.dirty;
        all.recovering += cell.recovering;
        all.nosync += cell.nosync;
    }
    return all;
}

TEST(CountOfBits, IsWhatOneByOneFinds) {
    Prng prng{7};
    dirty_log::Bitmap bits{300};
    for (std::uint64_t i = 0; i < 300; ++i) {
        if (prng.chance(1, 3)) bits.set(i);
    }
    for (std::uint64_t first = 0; first <= 300; ++first) {
        std::uint64_t expected = 0;
        for (std::uint64_t end = first; end <= 300; ++end) {
            ASSERT_EQ(bits.count(first, end), expected) << first << " .. " << end;
            if (end < 300) expected += bits.test(end) ? 1 : 0;
        }
    }
}

TEST_F(MirrorRegionMap, TellsCleanRegionsFromThoseWrittenOfLate) {
    Device& m = make_in_sync();
    EXPECT_EQ(counts_of(map_of(m, 16)).clean, 16u);
    EXPECT_EQ(w.write(m, 3 * kRegion, 8, 1), IoStatus::ok);
    const RegionMap map = map_of(m, 16);
    EXPECT_EQ(map.region_size.v, kRegion);
    EXPECT_EQ(map.regions, 16u);
    ASSERT_EQ(map.cells.size(), 16u);
    EXPECT_EQ(map.cells[3].dirty, 1u);
    EXPECT_EQ(counts_of(map).dirty, 1u);
    EXPECT_EQ(counts_of(map).clean, 15u);
    EXPECT_EQ(map.log_kind, "disk");
    EXPECT_EQ(map.log_device, "log");
    EXPECT_EQ(map.log_health, 'A');
    w.reactor.run_for(30 * kSecond);
    EXPECT_EQ(counts_of(map_of(m, 16)).clean, 16u);
}

TEST_F(MirrorRegionMap, SaysOfEachLegWhatItLacks) {
    Device& m = make_in_sync(3, "2 handle_errors keep_log");
    leg(1).add_fault(broken());
    for (const std::uint64_t region : {2, 3, 9}) EXPECT_EQ(w.write(m, region * kRegion, 8, 1), IoStatus::ok);
    const RegionMap map = map_of(m, 8);    // two regions in each
    ASSERT_EQ(map.legs.size(), 3u);
    EXPECT_EQ(map.legs[1].health, 'D');
    EXPECT_TRUE(map.legs[1].away);
    EXPECT_TRUE(map.legs[0].source);
    EXPECT_FALSE(map.legs[2].source);
    EXPECT_EQ(map.legs[1].in_cells, (CellCounts{0, 2, 0, 0, 1, 0, 0, 0}));
    EXPECT_EQ(map.legs[1].lacks, 3u);
    EXPECT_EQ(map.legs[0].lacks, 0u);
    EXPECT_EQ(map.legs[2].lacks, 0u);    // it was there
    EXPECT_EQ(map.cells[1].nosync, 2u);
    EXPECT_EQ(map.cells[4].nosync, 1u);
    EXPECT_EQ(map.cells[4].clean, 1u);
    leg(1).clear_faults();
    EXPECT_TRUE(comes_in_sync(m));
    EXPECT_EQ(map_of(m, 8).legs[1].lacks, 0u);
    EXPECT_FALSE(map_of(m, 8).legs[1].away);
    EXPECT_EQ(detail(m, "resync_copied_bytes"), 3 * kRegion * kSectorSize);    // and no other region
}

TEST_F(MirrorRegionMap, ShowsWhatIsBeingCopied) {
    disks();
    leg(1).add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::write), .times = 1});
    Device& m = make(params());
    w.reactor.run_for(kSecond);
    const RegionMap map = map_of(m, 16);
    EXPECT_GE(counts_of(map).recovering, 1u);
    EXPECT_EQ(counts_of(map).recovering + counts_of(map).nosync, map.legs[1].lacks);
    EXPECT_EQ(counts_of(map).recovering + counts_of(map).nosync + counts_of(map).dirty + counts_of(map).clean, 16u);
    leg(1).release();
    EXPECT_TRUE(comes_in_sync(m));
    EXPECT_EQ(counts_of(map_of(m, 16)).recovering, 0u);
}

TEST_F(MirrorRegionMap, HasAnyNumberOfCellsAndEachRegionInOne) {
    Device& m = make_in_sync();
    leg(1).add_fault(broken());
    for (std::uint64_t region = 0; region < kRegions; region += 3) EXPECT_EQ(w.write(m, region * kRegion, 8, 1), IoStatus::ok);
    for (std::size_t cells = 1; cells < 40; ++cells) {
        const RegionMap map = map_of(m, cells);
        EXPECT_EQ(map.cells.size(), std::min<std::size_t>(cells, 16));
        EXPECT_EQ(counts_of(map).nosync, 6u);
        EXPECT_EQ(counts_of(map).clean, 10u);
        EXPECT_EQ(map.legs[1].lacks, 6u);
        for (std::uint64_t region = 0; region < map.regions; ++region) {
            const std::size_t cell = map.cell_of(region);
            EXPECT_TRUE(map.start_of(cell) <= region && region < map.start_of(cell + 1)) << region << " in " << cell << " of " << cells;
        }
    }
}

TEST_F(MirrorRegionMap, OfFourMillionRegionsIsCountedByWords) {
    const std::uint64_t regions = std::uint64_t{1} << 22;
    w.disk("leg0", regions * 8);
    w.disk("leg1", regions * 8);
    Device& m = w.start("m", line("core 2 8 nosync 2 leg0 0 leg1 0", regions * 8));
    running.push_back(&m);
    leg(1).add_fault(broken());
    for (std::uint64_t at = 0; at < 1000; ++at) EXPECT_EQ(w.write(m, at * 4000 * 8, 8, 1), IoStatus::ok);
    const auto began = std::chrono::steady_clock::now();
    const RegionMap map = map_of(m, RegionMap::kCellsMax);
    const double us = std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - began).count();
    std::printf("4 Mi regions in 4096 cells: %.0f us\n", us);
    EXPECT_EQ(map.legs[1].lacks, 1000u);
    EXPECT_EQ(counts_of(map).nosync, 1000u);
    EXPECT_EQ(counts_of(map).clean, regions - 1000);
}

}  // namespace
}  // namespace udm::test
