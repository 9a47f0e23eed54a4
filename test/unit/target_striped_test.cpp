// striped: its arithmetic against a model that counts sector by sector, then the target on disks.
#include <gtest/gtest.h>

#include <cstring>

#include "targets/striped/layout.hpp"
#include "test/support/mapped_world.hpp"

namespace udm {
namespace {

struct Model {    // where each sector is, by counting
    std::vector<std::uint32_t> stripe;
    std::vector<std::uint64_t> offset;
    Model(std::uint32_t stripes, std::uint32_t chunk, std::uint64_t length) {
        std::vector<std::uint64_t> used(stripes, 0);
        for (std::uint64_t at = 0, turn = 0; at < length; turn = (turn + 1) % stripes) {
            for (std::uint32_t i = 0; i < chunk && at < length; ++i, ++at) {
                stripe.push_back(static_cast<std::uint32_t>(turn));
                offset.push_back(used[turn]++);
            }
        }
    }
};

TEST(StripedLayout, PutsEachSectorWhereCountingPutsIt) {
    Prng random{5};
    for (int round = 0; round < 300; ++round) {
        const auto stripes = static_cast<std::uint32_t>(random.between(1, 7));
        const auto chunk = static_cast<std::uint32_t>(random.chance(1, 2) ? 1U << random.below(5) : random.between(1, 20));
        const std::uint64_t length = std::uint64_t{stripes} * chunk * random.between(1, 10);
        const StripedLayout layout{stripes, chunk};
        const Model model{stripes, chunk, length};
        for (std::uint64_t at = 0; at < length; ++at) {
            const auto place = layout.place({at});
            ASSERT_EQ(place.stripe, model.stripe[at]) << stripes << " stripes of " << chunk << " at " << at;
            ASSERT_EQ(place.offset.v, model.offset[at]);
            std::uint64_t run = 1;
            while (at + run < length && model.stripe[at + run] == model.stripe[at] && model.offset[at + run] == model.offset[at] + run &&
                   (at + run) % chunk != 0) {
                ++run;
            }
            ASSERT_EQ(layout.run({at}).v, run);
        }
    }
}

TEST(StripedLayout, SaysWhatOfARangeIsOnAStripe) {
    Prng random{6};
    for (int round = 0; round < 2000; ++round) {
        const auto stripes = static_cast<std::uint32_t>(random.between(1, 6));
        const auto chunk = static_cast<std::uint32_t>(random.between(1, 12));
        const std::uint64_t length = std::uint64_t{stripes} * chunk * random.between(1, 6);
        const StripedLayout layout{stripes, chunk};
        const Model model{stripes, chunk, length};
        const std::uint64_t first = random.below(length);
        const std::uint64_t end = random.between(first + 1, length);
        for (std::uint32_t stripe = 0; stripe < stripes; ++stripe) {
            std::vector<std::uint64_t> there;
            for (std::uint64_t at = first; at < end; ++at) {
                if (model.stripe[at] == stripe) there.push_back(model.offset[at]);
            }
            const Sectors from = layout.on(stripe, {first});
            const Sectors to = layout.on(stripe, {end});
            ASSERT_EQ((to - from).v, there.size());
            if (!there.empty()) {
                ASSERT_EQ(from.v, there.front());
                ASSERT_EQ(to.v, there.back() + 1);
            }
        }
    }
}

TEST(StripedLayout, CountsFarBeyond32Bits) {
    const StripedLayout layout{3, 100};
    const auto place = layout.place({(std::uint64_t{1} << 50) + 7});
    const std::uint64_t chunk = ((std::uint64_t{1} << 50) + 7) / 100;
    EXPECT_EQ(place.stripe, chunk % 3);
    EXPECT_EQ(place.offset.v, chunk / 3 * 100 + ((std::uint64_t{1} << 50) + 7) % 100);
}

struct Striped : testing::Test {
    MappedWorld w;
};

TEST_F(Striped, ShowsItsLinesAsLinuxDoes) {
    w.disk("a");
    w.disk("b");
    Device& device = w.start("d", "0 8192 striped 2 16 a 0 b 8");
    EXPECT_EQ(w.table_text(device), "0 8192 striped 2 16 a 0 b 8\n");
    EXPECT_EQ(w.status_text(device), "0 8192 striped 2 a b 1 AA\n");
    EXPECT_EQ(device.limits().optimal_io, 16u * 1024);
}

TEST_F(Striped, SpreadsItsSectorsOverChunksOfAnySize) {
    SimDisk& a = w.disk("a");
    SimDisk& b = w.disk("b");
    Device& device = w.start("d", "0 7 zero\n7 60 striped 2 5 a 100 b 3");
    for (std::uint64_t at = 0; at < 60; ++at) EXPECT_EQ(w.write(device, 7 + at, 1, static_cast<std::uint8_t>(at + 1)), IoStatus::ok);
    for (std::uint64_t at = 0; at < 60; ++at) {
        const std::uint64_t chunk = at / 5;
        SimDisk& disk = chunk % 2 == 0 ? a : b;
        const std::uint64_t start = chunk % 2 == 0 ? 100 : 3;
        EXPECT_EQ(w.read(disk, start + chunk / 2 * 5 + at % 5, 1), static_cast<int>(at + 1));
    }
    Memory all{60};
    ASSERT_EQ(w.io(device, Op::read, 7, 60, all.at()), IoStatus::ok);
    for (std::uint64_t at = 0; at < 60; ++at) EXPECT_EQ(all.sector(at), at + 1);
}

TEST_F(Striped, SendsADiscardToEachStripeOnce) {
    SimDisk& a = w.disk("a");
    SimDisk& b = w.disk("b");
    SimDisk& c = w.disk("c");
    Device& device = w.start("d", "0 3000 striped 3 10 a 0 b 0 c 0");
    ASSERT_EQ(w.write(device, 0, 3000, 1), IoStatus::ok);
    for (SimDisk* disk : {&a, &b, &c}) disk->keep_log(true);
    EXPECT_EQ(w.io(device, Op::discard, 15, 1000), IoStatus::ok);
    EXPECT_EQ(a.count(Op::discard).requests + b.count(Op::discard).requests + c.count(Op::discard).requests, 3u);
    EXPECT_EQ(w.read(device, 0, 15), 1);
    EXPECT_EQ(w.read(device, 15, 1000), 0);
    EXPECT_EQ(w.read(device, 1015, 1985), 1);
    EXPECT_EQ(w.io(device, Op::discard, 2, 3), IoStatus::ok);    // of one stripe: nothing for the others
    EXPECT_EQ(a.count(Op::discard).requests, 2u);
    EXPECT_EQ(b.count(Op::discard).requests, 1u);
    EXPECT_EQ(w.read(device, 2, 3), 0);
}

TEST_F(Striped, FlushesEachDeviceOnce) {
    SimDisk& a = w.disk("a");
    SimDisk& b = w.disk("b");
    Device& device = w.start("d", "0 80 striped 4 10 a 0 b 0 a 100 b 100");
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    EXPECT_EQ(a.count(Op::flush).requests, 1u);
    EXPECT_EQ(b.count(Op::flush).requests, 1u);
    b.fail_always(op_bit(Op::flush));
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::io_error);
}

TEST_F(Striped, MarksADeviceThatFailsAndRaisesEvents) {
    w.disk("a");
    SimDisk& b = w.disk("b");
    Device& device = w.start("d", "0 80 striped 2 10 a 0 b 0");
    b.fail_always(op_bit(Op::write_zeroes), IoStatus::unsupported);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 0, 80), IoStatus::ok);
    EXPECT_EQ(w.status_text(device), "0 80 striped 2 a b 1 AA\n");
    b.fail_always(op_bit(Op::read));
    EXPECT_EQ(w.read(device, 0, 10), 0);
    EXPECT_EQ(w.read(device, 0, 20), -2);
    EXPECT_EQ(w.status_text(device), "0 80 striped 2 a b 1 AD\n");
    EXPECT_EQ(device.event_number(), 1u);
    EXPECT_EQ(w.events[0].what, "stripe 1 (b): I/O error");
    for (int i = 0; i < 40; ++i) w.read(device, 10, 1);
    EXPECT_EQ(device.event_number(), 15u);
}

TEST_F(Striped, RefusesChunksThatCutTheBlocksOfADisk) {
    w.disk("a");
    w.disk("b", Limits{.size = {16384}, .logical_block = 4096});
    for (const char* chunk : {"1", "4", "12"}) {
        const std::string why = w.refusal(std::string{"0 96 striped 2 "} + chunk + " a 0 b 0");
        EXPECT_NE(why.find(std::string{"striped: Invalid chunk size: "} + chunk +
                           " sectors are no multiple of the logical block of b, 4096 bytes; a multiple of 8 would do"),
                  std::string::npos) << why;
    }
    EXPECT_EQ(w.refusal("0 96 striped 2 24 a 0 b 0"), "");
    EXPECT_EQ(w.refusal("0 96 striped 1 12 b 0"), "");    // one stripe is never cut
    EXPECT_EQ(w.refusal("0 96 striped 2 4 a 0 a 1000"), "");
}

TEST_F(Striped, AnswersExtentsFromEachStripe) {
    w.disk("a");
    w.disk("b");
    Device& device = w.start("d", "0 80 striped 2 10 a 0 b 0");
    ASSERT_EQ(w.write(device, 10, 1, 1), IoStatus::ok);
    ExtentAnswer answer;
    ASSERT_EQ(w.reactor.io(device, Op::extent_status, {{3}, {70}}, nullptr, {}, &answer), IoStatus::ok);
    EXPECT_EQ(answer.length.v, 7u);
    EXPECT_TRUE(answer.zero);
    ASSERT_EQ(w.reactor.io(device, Op::extent_status, {{10}, {70}}, nullptr, {}, &answer), IoStatus::ok);
    EXPECT_LE(answer.length.v, 10u);
    EXPECT_FALSE(answer.zero);
}

}  // namespace
}  // namespace udm
