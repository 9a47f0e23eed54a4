// delay: when requests arrive, where, and what the status counts.
#include <gtest/gtest.h>

#include "test/support/mapped_world.hpp"

namespace udm {
namespace {

struct Delay : testing::Test {
    MappedWorld w;
    Memory memory{8};
    Nanoseconds began = 0;
    SimDisk& disk(const std::string& name) {
        SimDisk& made = w.disk(name);
        made.set_latency(1000, 1000);
        made.keep_log(true);
        return made;
    }
    Nanoseconds waited_ms(const SimDisk& disk, std::size_t request = 0) const {
        return (disk.log().at(request).submitted - began) / kMillisecond;
    }
};

TEST_F(Delay, ShowsItsLinesAsLinuxDoes) {
    w.disk("a");
    w.disk("b");
    for (const std::string words : {"a 0 10", "a 0 10 b 8 20", "a 0 10 b 8 20 a 0 30"}) {
        Device& device = w.start("d" + words, "0 8184 delay " + words);
        EXPECT_EQ(w.table_text(device), "0 8184 delay " + words + "\n");
        EXPECT_EQ(w.status_text(device), "0 8184 delay 0 0 0\n");
    }
}

TEST_F(Delay, WithThreeWordsDelaysAllAlike) {
    SimDisk& a = disk("a");
    Device& device = w.start("d", "0 8 zero\n8 100 delay a 5 10");
    began = w.reactor.now();
    const auto write = w.submit(device, Op::write, 10, 2, memory.at());
    const auto read = w.submit(device, Op::read, 8, 2, memory.at());
    const auto flush = w.submit(device, Op::flush);
    const auto discard = w.submit(device, Op::discard, 20, 1);
    EXPECT_EQ(w.status_text(device), "0 8 zero \n8 100 delay 1 2 1\n");
    w.reactor.run_until_idle();
    EXPECT_EQ(w.status_text(device), "0 8 zero \n8 100 delay 0 0 0\n");
    ASSERT_EQ(a.log().size(), 4u);
    for (std::size_t i = 0; i < 4; ++i) EXPECT_EQ(waited_ms(a, i), 10u);
    EXPECT_EQ(read->status(), IoStatus::ok);
    for (const auto& logged : a.log()) {
        const Extent there{{logged.op == Op::write ? 7U : 5U}, {2}};
        const bool has_extent = logged.op == Op::write || logged.op == Op::read;
        EXPECT_TRUE(!has_extent || logged.extent == there);
    }
}

TEST_F(Delay, WithSixWordsDelaysWritesAndFlushesApartFromReads) {
    SimDisk& a = disk("a");
    SimDisk& b = disk("b");
    Device& device = w.start("d", "0 100 delay a 0 10 b 8 20");
    began = w.reactor.now();
    EXPECT_EQ(w.io(device, Op::read, 1, 1, memory.at()), IoStatus::ok);
    EXPECT_EQ(waited_ms(a), 10u);
    began = w.reactor.now();
    EXPECT_EQ(w.io(device, Op::write, 1, 1, memory.at()), IoStatus::ok);
    EXPECT_EQ(waited_ms(b), 20u);
    EXPECT_EQ(b.log()[0].extent.first.v, 9u);
    began = w.reactor.now();
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    EXPECT_EQ(waited_ms(b, 1), 20u);
    EXPECT_EQ(a.log().size(), 1u);
}

TEST_F(Delay, WithNineWordsSendsFlushesToTheirDeviceAndToTheWritesDevice) {
    SimDisk& a = disk("a");
    SimDisk& b = disk("b");
    SimDisk& c = disk("c");
    Device& device = w.start("d", "0 100 delay a 0 0 b 0 0 c 0 30");
    began = w.reactor.now();
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    EXPECT_EQ(a.log().size(), 0u);
    ASSERT_EQ(b.log().size(), 1u);
    ASSERT_EQ(c.log().size(), 1u);
    EXPECT_EQ(waited_ms(b), 30u);
    EXPECT_EQ(waited_ms(c), 30u);
    Device& same = w.start("e", "0 100 delay a 0 0 b 0 0 b 0 30");
    EXPECT_EQ(w.io(same, Op::flush), IoStatus::ok);
    EXPECT_EQ(b.log().size(), 2u);
}

TEST_F(Delay, OfNothingPassesRequestsOn) {
    SimDisk& a = disk("a");
    Device& device = w.start("d", "0 100 delay a 0 0 a 0 50");
    began = w.reactor.now();
    EXPECT_EQ(w.io(device, Op::read, 0, 1, memory.at()), IoStatus::ok);
    EXPECT_EQ(w.reactor.now() - began, 1000u);
    EXPECT_EQ(a.log().size(), 1u);
}

TEST_F(Delay, KeepsTheOrderOfEachKindAndItsTimes) {
    SimDisk& a = disk("a");
    Device& device = w.start("d", "0 100 delay a 0 10 a 0 3");
    std::vector<std::unique_ptr<SimRequest>> requests;
    began = w.reactor.now();
    for (std::uint64_t i = 0; i < 10; ++i) {
        requests.push_back(w.submit(device, Op::read, i, 1, memory.at()));
        requests.push_back(w.submit(device, Op::write, 50 + i, 1, memory.at()));
        w.reactor.run_for(kMillisecond);
    }
    w.reactor.run_until_idle();
    std::uint64_t reads = 0, writes = 0;
    for (const auto& logged : a.log()) {
        const bool is_read = logged.op == Op::read;
        std::uint64_t& count = is_read ? reads : writes;
        EXPECT_EQ(logged.extent.first.v, (is_read ? 0 : 50) + count);
        EXPECT_EQ((logged.submitted - began) / kMillisecond, count + (is_read ? 10 : 3));
        ++count;
    }
    EXPECT_EQ(reads, 10u);
    EXPECT_EQ(writes, 10u);
}

TEST_F(Delay, LetsAllGoAtASuspendAndDelaysAgainAfterwards) {
    disk("a");
    Device& device = w.start("d", "0 100 delay a 0 100000");
    const auto request = w.submit(device, Op::write, 0, 1, memory.at());
    const auto flush = w.submit(device, Op::flush);
    began = w.reactor.now();
    EXPECT_TRUE(w.suspend(device, {.noflush = true}).has_value());
    EXPECT_LT(w.reactor.now() - began, kMillisecond);
    EXPECT_EQ(request->status(), IoStatus::ok);
    EXPECT_EQ(flush->status(), IoStatus::ok);
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_EQ(w.io(device, Op::read, 0, 1, memory.at()), IoStatus::ok);
    EXPECT_GE(w.reactor.now() - began, 100000 * kMillisecond);
}

TEST_F(Delay, HandsErrorsOn) {
    SimDisk& a = disk("a");
    Device& device = w.start("d", "0 100 delay a 0 10");
    a.fail_always(DiskFault::kAll, IoStatus::no_space);
    EXPECT_EQ(w.io(device, Op::write, 0, 1, memory.at()), IoStatus::no_space);
}

}  // namespace
}  // namespace udm
