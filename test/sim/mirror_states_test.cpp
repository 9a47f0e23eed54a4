// A small mirror, exhaustively: 3 regions, 2 or 3 legs, 4 requests of clients, or 3 and one of a leg that fails.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>

#include "test/sim/mirror_explorer.hpp"

namespace udm::small_mirror {
namespace {

void explore(const char* name, const Scenario& scenario) {
    const auto begun = std::chrono::steady_clock::now();
    Explorer explorer{scenario, std::getenv("SM") ? std::strtoull(getenv("SM"), nullptr, 10) : 5'000'000};    // LOCAL
    explorer.run();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begun).count();
    std::printf("%s: %zu states, %lu choices, %zu contents left by power cuts, %lu states met again (%lu of them compared, %lu not the same) in %.1f s\n",
                name, explorer.states(), explorer.edges(), explorer.after_cuts(), explorer.met_again(), explorer.compared(), explorer.ambiguous(), seconds);
    EXPECT_EQ(explorer.violation(), "");
    EXPECT_TRUE(explorer.complete());
    // What differs are timers: a region rests a little longer.
    EXPECT_LE(explorer.ambiguous() * 10, explorer.compared());
    EXPECT_GT(explorer.states(), 100u);
}

constexpr Extent kA{{0}, {1}}, kB{{2}, {1}}, kC{{4}, {1}};

TEST(EveryStateOfAMirror, HoldsWithOverlappingWritesAndAFlush) {
    explore("2 legs", {.ios = {{Op::write, kA}, {Op::write, kA}, {Op::write, kB}, {Op::flush, {}}}});
}

TEST(EveryStateOfAMirror, HoldsWithThreeLegs) {
    explore("3 legs", {.legs = 3, .ios = {{Op::write, kA}, {Op::write, kA}, {Op::flush, {}}, {Op::read, kA}}});
}

TEST(EveryStateOfAMirror, HoldsWhileARegionIsOutOfSync) {
    explore("2 legs, a region out of sync",
            {.clean = {true, true, false}, .ios = {{Op::write, kC}, {Op::write, kA}, {Op::read, kC}, {Op::write, kC, true}}});
}

TEST(EveryStateOfAMirror, HoldsWhenARequestOfALegFails) {
    explore("2 legs, one failure", {.ios = {{Op::write, kA}, {Op::flush, {}}, {Op::read, kA}}, .faults = 1});
}

}  // namespace
}  // namespace udm::small_mirror
