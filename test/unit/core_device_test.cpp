// A device's requests: what is refused, cut, copied, emulated and counted. Targets are probes that write down what
// they were asked.
#include <gtest/gtest.h>

#include "test/support/mapped_world.hpp"
#include "test/support/probe_target.hpp"

namespace udm {
namespace {

struct DeviceRequest : testing::Test {
    MappedWorld w;
    ProbeType& probes = add_probe_type(w.types);
    Memory memory{400};
};

TEST_F(DeviceRequest, OutsideTheDeviceIsInvalid) {
    w.disk("a");
    Device& device = w.start("d", "0 100 linear a 0");
    EXPECT_EQ(w.io(device, Op::read, 0, 100, memory.at()), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::read, 0, 101, memory.at()), IoStatus::invalid);
    EXPECT_EQ(w.io(device, Op::read, 100, 1, memory.at()), IoStatus::invalid);
    EXPECT_EQ(w.io(device, Op::read, 0, 0, memory.at()), IoStatus::invalid);
    EXPECT_EQ(w.io(device, Op::discard, ~std::uint64_t{0}, 2), IoStatus::invalid);
    EXPECT_EQ(w.io(device, Op::discard, 2, ~std::uint64_t{0}), IoStatus::invalid);
    EXPECT_EQ(device.counters().by_op[static_cast<int>(Op::read)].errors, 3u);
    EXPECT_EQ(device.counters().in_flight, 0u);
}

TEST_F(DeviceRequest, NotOnLogicalBlocksIsInvalid) {
    Limits limits;
    limits.size = {4096};
    limits.logical_block = 4096;
    w.disk("a", limits);
    Device& device = w.start("d", "0 800 linear a 80");
    EXPECT_EQ(device.limits().logical_block, 4096u);
    EXPECT_EQ(w.io(device, Op::read, 8, 16, memory.at()), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::read, 4, 8, memory.at()), IoStatus::invalid);
    EXPECT_EQ(w.io(device, Op::write, 8, 4, memory.at()), IoStatus::invalid);
}

TEST_F(DeviceRequest, ThatWritesToAReadOnlyTableFails) {
    SimDisk& disk = w.disk("a");
    Device& device = w.start("d", "0 100 linear a 0", TableMode::read_only);
    EXPECT_TRUE(device.limits().read_only);
    EXPECT_EQ(w.write(device, 0, 1, 7), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::discard, 0, 1), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 0, 1), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    EXPECT_EQ(w.read(device, 0, 1), 0);
    EXPECT_EQ(disk.count(Op::write).requests, 0u);
}

TEST_F(DeviceRequest, ThatFitsGoesDownAsItIs) {
    SimDisk& disk = w.disk("a");
    Device& device = w.start("d", "0 8 zero\n8 100 linear a 50");
    disk.keep_log(true);
    EXPECT_EQ(w.write(device, 20, 10, 7, {.fua = true, .sequential = true}), IoStatus::ok);
    ASSERT_EQ(disk.log().size(), 1u);
    EXPECT_EQ(disk.log()[0].extent, (Extent{{62}, {10}}));
    EXPECT_TRUE(disk.log()[0].flags.fua);
    EXPECT_TRUE(disk.log()[0].flags.sequential);
    EXPECT_EQ(w.reactor.ios_out(), 0u);
}

TEST_F(DeviceRequest, IsCutAtLinesAndWhereTheTargetSays) {
    w.disk("a");
    probes["p"].chunk = {10};
    probes["q"].traits.takes_whole = true;
    Device& device = w.start("d", "0 35 probe p a 0\n35 100 probe q a 100");
    EXPECT_EQ(w.write(device, 5, 40, 7, {.fua = true}), IoStatus::ok);
    const auto& calls = probes["p"].calls;
    ASSERT_EQ(calls.size(), 4u);
    EXPECT_EQ(calls[0].extent, (Extent{{5}, {5}}));
    EXPECT_EQ(calls[1].extent, (Extent{{10}, {10}}));
    EXPECT_EQ(calls[2].extent, (Extent{{20}, {10}}));
    EXPECT_EQ(calls[3].extent, (Extent{{30}, {5}}));
    for (const auto& call : calls) EXPECT_TRUE(call.flags.fua);
    ASSERT_EQ(probes["q"].calls.size(), 1u);
    EXPECT_EQ(probes["q"].calls[0].extent, (Extent{{35}, {10}}));
    EXPECT_EQ(w.read(device, 5, 40), 7);
    EXPECT_EQ(w.read(*w.disks["a"], 0, 5), 0);
}

TEST_F(DeviceRequest, IsCutAtTheLongestTransferOfTheDisksBelow) {
    Limits limits;
    limits.size = {4096};
    limits.max_transfer = {16};
    SimDisk& disk = w.disk("a", limits);
    Device& device = w.start("d", "0 4000 linear a 0");
    EXPECT_EQ(w.write(device, 3, 100, 9), IoStatus::ok);
    EXPECT_EQ(disk.count(Op::write).requests, 7u);
    EXPECT_EQ(w.read(device, 3, 100), 9);
    EXPECT_EQ(w.io(device, Op::discard, 0, 4000), IoStatus::unsupported);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 0, 4000), IoStatus::ok);
    EXPECT_EQ(disk.count(Op::write_zeroes).requests, 1u);
}

TEST_F(DeviceRequest, HasAtMost32ChildrenUnderWay) {
    Probe& probe = probes["p"];
    probe.chunk = {1};
    probe.holds = true;
    Device& device = w.start("d", "0 1000 probe p");
    const auto request = w.submit(device, Op::write, 0, 200, memory.at());
    w.reactor.run_until_idle();
    EXPECT_EQ(probe.held_count, 32u);
    probe.release(IoStatus::ok, 5);
    w.reactor.run_until_idle();
    EXPECT_EQ(probe.held_count, 32u);
    EXPECT_EQ(probe.calls.size(), 37u);
    EXPECT_EQ(device.counters().in_flight, 1u);
    while (!request->done()) {
        probe.release();
        w.reactor.run_until_idle();
    }
    EXPECT_EQ(request->status(), IoStatus::ok);
    EXPECT_EQ(probe.calls.size(), 200u);
    EXPECT_EQ(probe.held_most, 32u);
    EXPECT_EQ(w.reactor.ios_out(), 0u);
}

TEST_F(DeviceRequest, EndsWithTheFirstErrorOnceAllChildrenEnded) {
    Probe& probe = probes["p"];
    probe.chunk = {1};
    probe.holds = true;
    Device& device = w.start("d", "0 1000 probe p");
    const auto request = w.submit(device, Op::write, 0, 100, memory.at());
    probe.release(IoStatus::no_space, 1);
    w.reactor.run_until_idle();
    EXPECT_FALSE(request->done());
    probe.release(IoStatus::io_error, 1);
    w.reactor.run_until_idle();
    EXPECT_FALSE(request->done());
    EXPECT_EQ(probe.calls.size(), 32u);    // no more after the error
    probe.release();
    w.reactor.run_until_idle();
    ASSERT_TRUE(request->done());
    EXPECT_EQ(request->status(), IoStatus::no_space);
    EXPECT_EQ(device.counters().by_op[static_cast<int>(Op::write)].errors, 1u);
}

TEST_F(DeviceRequest, FlushGoesToEveryTargetInNumberedCopies) {
    probes["p"].traits.flush_copies = 3;
    probes["q"].traits.flush_copies = 0;
    Device& device = w.start("d", "0 10 probe p\n10 10 probe q\n20 10 probe r");
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    ASSERT_EQ(probes["p"].calls.size(), 3u);
    for (unsigned i = 0; i < 3; ++i) EXPECT_EQ(probes["p"].calls[i].copy, i);
    EXPECT_EQ(probes["q"].calls.size(), 0u);
    EXPECT_EQ(probes["r"].calls.size(), 1u);
}

TEST_F(DeviceRequest, FlushOfATableThatNeedsNoneIsDone) {
    Device& device = w.start("d", "0 10 zero\n10 10 zero");
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    Device& one = w.start("e", "0 10 zero");
    EXPECT_EQ(w.io(one, Op::flush), IoStatus::ok);
}

TEST_F(DeviceRequest, FlushGoesOnToOthersAfterAnErrorAndEndsWithIt) {
    SimDisk& good = w.disk("a");
    SimDisk& bad = w.disk("b");
    Device& device = w.start("d", "0 10 linear b 0\n10 10 linear a 0");
    bad.fail_always(op_bit(Op::flush), IoStatus::timed_out);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::timed_out);
    EXPECT_EQ(good.count(Op::flush).requests, 1u);
}

TEST_F(DeviceRequest, FlushReachesADiskOnceHoweverManyLinesAreOnIt) {
    SimDisk& a = w.disk("a");
    SimDisk& b = w.disk("b");
    Device& device = w.start("d", "0 10 linear a 0\n10 10 linear b 0\n20 10 linear a 10\n30 10 linear b 10\n40 10 linear a 20");
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    EXPECT_EQ(a.count(Op::flush).requests, 1u);
    EXPECT_EQ(b.count(Op::flush).requests, 1u);
    EXPECT_EQ(w.reactor.ios_out(), 0u);
}

TEST_F(DeviceRequest, DiscardComesInNumberedCopiesOfEachPiece) {
    Probe& probe = probes["p"];
    probe.traits.discard_copies = 2;
    probe.chunk = {10};
    Device& device = w.start("d", "0 100 probe p");
    EXPECT_EQ(w.io(device, Op::discard, 5, 10), IoStatus::ok);
    ASSERT_EQ(probe.calls.size(), 4u);
    const Extent extents[] = {{{5}, {5}}, {{5}, {5}}, {{10}, {5}}, {{10}, {5}}};
    for (unsigned i = 0; i < 4; ++i) {
        EXPECT_EQ(probe.calls[i].copy, i % 2);
        EXPECT_EQ(probe.calls[i].extent, extents[i]);
    }
}

TEST_F(DeviceRequest, DiscardIsRefusedWhereATargetTakesNone) {
    probes["p"].traits.discard_copies = 0;
    Device& device = w.start("d", "0 100 probe p");
    EXPECT_EQ(w.io(device, Op::discard, 0, 10), IoStatus::unsupported);
    EXPECT_TRUE(probes["p"].calls.empty());
    EXPECT_FALSE(device.limits().discard);
}

TEST_F(DeviceRequest, ZeroesAreWrittenByHandWhereTheTargetCannot) {
    SimDisk& disk = w.disk("a");
    probes["p"].traits.zeroes_natively = false;
    Device& device = w.start("d", "0 10000 probe p a 0");
    EXPECT_EQ(w.write(device, 0, 10000, 5), IoStatus::ok);
    const auto writes = disk.count(Op::write).requests;
    EXPECT_EQ(w.io(device, Op::write_zeroes, 7, 9000, nullptr, {.fua = true, .no_hole = true}), IoStatus::ok);
    EXPECT_EQ(disk.count(Op::write_zeroes).requests, 0u);
    EXPECT_EQ(disk.count(Op::write).requests - writes, 5u);    // of a MiB at most
    EXPECT_TRUE(probes["p"].calls.back().flags.fua);
    EXPECT_EQ(w.read(device, 0, 7), 5);
    EXPECT_EQ(w.read(device, 7, 9000), 0);
    EXPECT_EQ(w.read(device, 9007, 993), 5);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 7, 9000, nullptr, {.fast_only = true}), IoStatus::unsupported);
    EXPECT_TRUE(device.limits().write_zeroes);
    EXPECT_FALSE(device.limits().fast_zeroes);
}

TEST_F(DeviceRequest, ZeroesAreWrittenByHandWhenADiskAnswersUnsupported) {
    SimDisk& disk = w.disk("a");
    w.disk("b");
    Device& device = w.start("d", "0 100 linear a 0\n100 100 linear b 0");
    EXPECT_EQ(w.write(device, 0, 200, 5), IoStatus::ok);
    disk.fail_always(op_bit(Op::write_zeroes), IoStatus::unsupported);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 10, 20), IoStatus::ok);     // in one piece
    EXPECT_EQ(w.io(device, Op::write_zeroes, 50, 100), IoStatus::ok);    // in two
    EXPECT_EQ(w.read(device, 0, 10), 5);
    EXPECT_EQ(w.read(device, 10, 20), 0);
    EXPECT_EQ(w.read(device, 30, 20), 5);
    EXPECT_EQ(w.read(device, 50, 100), 0);
    EXPECT_EQ(w.read(device, 150, 50), 5);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 10, 20, nullptr, {.fast_only = true}), IoStatus::unsupported);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 50, 100, nullptr, {.fast_only = true}), IoStatus::unsupported);
    disk.fail_always(op_bit(Op::write), IoStatus::unsupported);    // nonsense ends too
    EXPECT_EQ(w.io(device, Op::write_zeroes, 10, 20), IoStatus::unsupported);
    EXPECT_EQ(w.io(device, Op::write_zeroes, 50, 100), IoStatus::unsupported);
    EXPECT_EQ(w.reactor.ios_out(), 0u);
}

TEST_F(DeviceRequest, ExtentStatusIsAnsweredForTheFirstPieceOnly) {
    w.disk("a");
    probes["p"].chunk = {16};
    Device& device = w.start("d", "0 100 zero\n100 100 linear a 0\n200 100 probe p a 200");
    const auto ask = [&](std::uint64_t first, std::uint64_t length) {
        ExtentAnswer answer;
        EXPECT_EQ(w.reactor.io(device, Op::extent_status, {{first}, {length}}, nullptr, {}, &answer), IoStatus::ok);
        return answer;
    };
    ExtentAnswer answer = ask(10, 290);
    EXPECT_EQ(answer.length.v, 90u);
    EXPECT_TRUE(answer.zero && answer.hole);
    answer = ask(100, 200);
    EXPECT_EQ(answer.length.v, 100u);
    answer = ask(205, 95);
    EXPECT_EQ(answer.length.v, 11u);    // up to the target's cut
    EXPECT_EQ(w.write(device, 100, 100, 3), IoStatus::ok);
    EXPECT_FALSE(ask(110, 5).zero);
    EXPECT_EQ(ask(110, 5).length.v, 5u);
}

TEST_F(DeviceRequest, ExtentStatusThatNobodyKnowsIsData) {
    probes["p"].ends_with = IoStatus::unsupported;
    Device& device = w.start("d", "0 100 probe p");
    ExtentAnswer answer;
    EXPECT_EQ(w.reactor.io(device, Op::extent_status, {{10}, {20}}, nullptr, {}, &answer), IoStatus::ok);
    EXPECT_EQ(answer.length.v, 20u);
    EXPECT_FALSE(answer.hole || answer.zero);
}

TEST_F(DeviceRequest, IsCountedByKindWithItsSectors) {
    w.disk("a");
    Device& device = w.start("d", "0 50 linear a 0\n50 50 error");
    EXPECT_EQ(w.io(device, Op::write, 40, 20, memory.at()), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::write, 10, 20, memory.at()), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::read, 0, 5, memory.at()), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::io_error);
    const auto& counters = device.counters();
    EXPECT_EQ(counters.by_op[static_cast<int>(Op::write)].requests, 2u);
    EXPECT_EQ(counters.by_op[static_cast<int>(Op::write)].sectors, 40u);
    EXPECT_EQ(counters.by_op[static_cast<int>(Op::write)].errors, 1u);
    EXPECT_EQ(counters.by_op[static_cast<int>(Op::read)].requests, 1u);
    EXPECT_EQ(counters.by_op[static_cast<int>(Op::flush)].requests, 1u);
    EXPECT_EQ(counters.by_op[static_cast<int>(Op::flush)].errors, 1u);    // the error target
    EXPECT_EQ(counters.in_flight, 0u);
}

// Whichever of the requests below fails, the one from above fails, once, and nothing is left behind.
TEST_F(DeviceRequest, FailsWithAnyOfItsChildren) {
    for (const Op op : {Op::read, Op::write, Op::discard, Op::write_zeroes, Op::flush}) {
        std::uint64_t failures = 0;
        for (std::uint64_t n = 1;; ++n) {
            MappedWorld world;
            Limits poor;
            poor.size = {4096};
            poor.discard = true;
            poor.write_zeroes = false;
            poor.max_transfer = {7};
            SimDisk& a = world.disk("a", poor);
            SimDisk& b = world.disk("b");
            world.start("low", "0 500 linear a 0\n500 500 linear b 0");
            Device& device = world.start("d", "0 300 striped 3 10 low 100 b 600 low 500\n300 50 linear low 0");
            a.fail_nth(n, op_bit(op) | op_bit(Op::write), IoStatus::no_space);
            b.fail_nth(n, op_bit(op) | op_bit(Op::write), IoStatus::no_space);
            const Extent extent = op == Op::flush ? Extent{} : Extent{{5}, {340}};
            const IoStatus status = world.reactor.io(device, op, extent, memory.at());
            const bool hit = a.counters().faults + b.counters().faults != 0;
            ASSERT_EQ(status, hit ? IoStatus::no_space : IoStatus::ok) << to_string(op) << " " << n;
            ASSERT_EQ(device.counters().by_op[static_cast<std::size_t>(op)].errors, hit ? 1U : 0U);
            ASSERT_EQ(device.counters().in_flight, 0U);
            ASSERT_EQ(world.reactor.ios_out(), 0U);
            if (!hit) break;
            ++failures;
        }
        EXPECT_GE(failures, op == Op::flush ? 1U : 2U) << to_string(op);
    }
}

// A request has frames for two devices; deeper stacks go on with requests of their own.
TEST_F(DeviceRequest, GoesThroughAStackOf20DevicesWithTargetsThatPushFrames) {
    SimDisk& disk = w.disk("a");
    std::string below = "a";
    Device* top = nullptr;
    for (int level = 0; level < 20; ++level) {
        const std::string name = "s" + std::to_string(level);
        top = &w.start(name, "0 " + std::to_string(4096 - 8 * level) + " striped 1 8 " + below + " 8");
        below = name;
    }
    EXPECT_EQ(top->levels(), 20u);
    EXPECT_EQ(w.write(*top, 100, 200, 0x42, {.fua = true}), IoStatus::ok);
    EXPECT_EQ(w.read(*top, 100, 200), 0x42);
    EXPECT_EQ(w.read(disk, 260, 200), 0x42);
    EXPECT_EQ(w.read(disk, 259, 1), 0);
    EXPECT_EQ(w.io(*top, Op::flush), IoStatus::ok);
    EXPECT_EQ(disk.count(Op::flush).requests, 1u);
    EXPECT_EQ(w.io(*top, Op::write_zeroes, 100, 100), IoStatus::ok);
    EXPECT_EQ(w.io(*top, Op::discard, 200, 50), IoStatus::ok);
    EXPECT_EQ(w.read(*top, 100, 150), 0);
    EXPECT_EQ(w.read(*top, 250, 50), 0x42);
    ExtentAnswer answer;
    EXPECT_EQ(w.reactor.io(*top, Op::extent_status, {{3000}, {100}}, nullptr, {}, &answer), IoStatus::ok);
    EXPECT_TRUE(answer.zero);
    disk.fail_always(op_bit(Op::read), IoStatus::corrupt);
    EXPECT_EQ(w.io(*top, Op::read, 0, 8, Memory{8}.at()), IoStatus::corrupt);
    disk.fail_always(op_bit(Op::write_zeroes), IoStatus::unsupported);
    disk.clear_faults();
    EXPECT_EQ(w.reactor.ios_out(), 0u);
}

TEST_F(DeviceRequest, CopyNumbersAreEachDevicesOwn) {
    probes["p"].traits.flush_copies = 2;
    probes["p"].traits.discard_copies = 2;
    w.disk("a");
    w.start("low", "0 100 probe low a 0");
    Device& device = w.start("d", "0 100 probe p low 0");
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    EXPECT_EQ(w.io(device, Op::discard, 0, 10), IoStatus::ok);
    ASSERT_EQ(probes["low"].calls.size(), 3u);    // the flushes' copies are told apart by the target, not by the disk
    for (const auto& call : probes["low"].calls) EXPECT_EQ(call.copy, 0u);
}

}  // namespace
}  // namespace udm
