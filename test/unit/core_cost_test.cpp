// What a request that fits one target costs: no allocation, one map(), one submit. The whole program counts its
// allocations.
#include <gtest/gtest.h>

#include "test/support/counting_new.hpp"
#include "test/support/mapped_world.hpp"

namespace udm {
namespace {

// Ends requests in the same turn.
class NullDisk final : public Disk {
  public:
    explicit NullDisk(Reactor& reactor) : reactor_{reactor} {
        limits_.size = {1U << 20};
        limits_.discard = true;
    }
    void submit(Io& io) noexcept override {
        ++submits;
        frames_most = std::max(frames_most, io.depth());
        reactor_.complete_later(io, IoStatus::ok);
    }
    const Limits& limits() const noexcept override { return limits_; }
    std::uint64_t submits = 0;
    unsigned frames_most = 0;

  private:
    Reactor& reactor_;
    Limits limits_;
};

class Asker final : public Layer {
  public:
    std::uint64_t done = 0;
    void on_complete(Io& io, Frame&) noexcept override {
        done += io.status == IoStatus::ok;
        Reactor::current()->give_io(io);
    }
};

struct Cost : testing::Test {
    MappedWorld w;
    NullDisk disk{w.reactor};
    Asker asker;
    Memory memory{64};
    Cost() { w.opener.add("null", disk); }

    void ask(Disk& of, Op op, Extent extent) {
        Io& io = w.reactor.take_io();
        io.op = op;
        io.extent = extent;
        io.set_memory(memory.at(), to_bytes(extent.length));
        io.push(asker);
        of.submit(io);
    }
    // Allocations of `rounds` times 32 requests.
    std::uint64_t allocations_of(Disk& of, Op op, Extent extent, unsigned rounds = 100) {
        const auto round = [&] {
            for (unsigned i = 0; i < 32; ++i) ask(of, op, extent);
            w.reactor.run_until_idle();
        };
        round();    // pools grow
        asker.done = disk.submits = 0;
        const std::uint64_t before = test::news;
        for (unsigned i = 0; i < rounds; ++i) round();
        const std::uint64_t made = test::news - before;
        EXPECT_EQ(asker.done, 32u * rounds);
        return made;
    }
};

TEST_F(Cost, OfARequestThatFitsIsOneSubmitAndOneFrameAndNoAllocation) {
    Device& device = w.start("d", "0 1000 linear null 0\n1000 1000 linear null 5000");
    for (const Op op : {Op::read, Op::write, Op::discard, Op::write_zeroes, Op::extent_status}) {
        disk.frames_most = 0;
        EXPECT_EQ(allocations_of(device, op, {{1100}, {8}}), 0u) << to_string(op);
        EXPECT_EQ(disk.submits, 3200u);
        EXPECT_EQ(disk.frames_most, 2u);    // the asker's and the device's
    }
}

TEST_F(Cost, OfARequestThatIsCutIsNoAllocationEither) {
    Device& device = w.start("d", "0 1000 striped 2 4 null 0 null 1000\n1000 1000 linear null 5000");
    EXPECT_EQ(allocations_of(device, Op::write, {{990}, {32}}), 0u);
    EXPECT_EQ(disk.submits, 3200u * 4);
    EXPECT_EQ(allocations_of(device, Op::flush, {}), 0u);
    EXPECT_EQ(disk.submits, 3200u * 2);    // one disk: once for the stripes, which want to see theirs, once for the rest
    EXPECT_EQ(allocations_of(device, Op::discard, {{0}, {2000}}), 0u);
}

TEST_F(Cost, OfADeepStackIsNoAllocationEither) {
    std::string below = "null";
    Device* top = nullptr;
    for (unsigned level = 0; level < 20; ++level) {
        const std::string name = "s" + std::to_string(level);
        top = &w.start(name, "0 1000 linear " + below + " 0");
        below = name;
    }
    EXPECT_EQ(allocations_of(*top, Op::write, {{0}, {8}}), 0u);
    EXPECT_EQ(disk.submits, 3200u);
}

}  // namespace
}  // namespace udm
