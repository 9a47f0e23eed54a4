// Bounds on copies (src/targets/snapshot/copies.hpp); N numbers as in docs/targets/snapshot.md.
#include <algorithm>

#include "test/unit/snapshot_fixture.hpp"

namespace udm::test {
namespace {

class Limits : public SnapshotTest {
  public:
    static constexpr std::uint64_t kSize = 4096;
    void origin(const std::string& n = "") {
        disk("origin" + n, kSize).fill_now({{0}, {kSize}}, 1);
        make("o" + n, kSize, "snapshot-origin", "origin" + n);
    }
    void snapshot(const std::string& n, unsigned chunk, const std::string& of = "") {
        disk("cow" + n, 16384);
        make("s" + n, kSize, "snapshot", "origin" + of + " cow" + n + " P " + std::to_string(chunk));
    }
    bool all_done() const {
        return std::all_of(requests.begin(), requests.end(), [](const auto& r) { return r->done(); });
    }
    // The most that buffers took until all requests were done.
    std::size_t finish() {
        std::size_t most = 0;
        while (!all_done()) {
            EXPECT_TRUE(reactor.step()) << "nothing happens any more";
            if (HasFailure()) break;
            most = std::max(most, reactor.buffers().bytes_out());
        }
        for (const auto& request : requests) EXPECT_EQ(request->status(), IoStatus::ok);
        return most;
    }
};

TEST_F(Limits, N2_TheThresholdIsReadOnEveryUse) {
    origin();
    snapshot("", 8);
    disks["cow"]->stall(op_bit(Op::write));
    set_parameter("snapshot_cow_threshold", 0);    // one at a time, as in Linux
    for (std::uint64_t i = 0; i < 8; ++i) start(Op::write, "o", i * 64, 8, 7);
    reactor.run_for(kSecond);
    EXPECT_EQ(disks["origin"]->count(Op::read).requests, 1u);
    set_parameter("snapshot_cow_threshold", 4);
    reactor.run_for(kSecond);
    EXPECT_EQ(disks["origin"]->count(Op::read).requests, 4u);
    // A first write that needs no copy counts, too.
    Request& whole = start(Op::write, "s", 1024, 8, 9);
    set_parameter("snapshot_cow_threshold", 2);
    disks["cow"]->clear_faults();
    disks["cow"]->release();
    finish();
    EXPECT_TRUE(whole.done());
    EXPECT_EQ(read("s", 0, 512), all(512, 1));
}

TEST_F(Limits, N3_WithTheBoundAtOneChunkAndEightSlowStoresEverythingFinishes) {
    set_parameter("snapshot_copy_memory", 4096);
    set_parameter("snapshot_cow_threshold", 0);
    origin();
    for (int i = 0; i < 8; ++i) {
        snapshot(std::to_string(i), i % 2 ? 8 : 16);
        disks["cow" + std::to_string(i)]->set_latency(kMillisecond, 20 * kMillisecond);
    }
    for (std::uint64_t i = 0; i < 64; ++i) {
        start(Op::write, "o", i * 40 % kSize, 24, 7);
        start(Op::write, "s" + std::to_string(i % 8), 3000 + i * 8, i % 3 ? 8 : 3, 9);
    }
    const std::size_t most = finish();
    EXPECT_LE(most, 4096u + 8 * 4096u);    // the one, and a piece of metadata a store
    for (int i = 0; i < 8; ++i) EXPECT_EQ(read("s" + std::to_string(i), 0, 2560), all(2560, 1)) << i;
}

TEST_F(Limits, N3_AStoreThatHangsLeavesHalfToOthers) {
    set_parameter("snapshot_copy_memory", 16 * 4096);
    origin("1");
    snapshot("1", 8, "1");
    origin("2");
    snapshot("2", 8, "2");
    disks["cow1"]->stall();
    for (std::uint64_t i = 0; i < 64; ++i) start(Op::write, "o1", i * 16, 8, 7);
    std::vector<Request*> strangers;
    for (std::uint64_t i = 0; i < 64; ++i) strangers.push_back(&start(Op::write, "o2", i * 16, 8, 7));
    reactor.run_for(kSecond);
    EXPECT_TRUE(std::all_of(strangers.begin(), strangers.end(), [](const Request* r) { return r->done(); }));
    EXPECT_EQ(disks["origin1"]->count(Op::read).requests, 8u);
    disks["cow1"]->clear_faults();
    disks["cow1"]->release();
    finish();
    EXPECT_EQ(read("s1", 0, kSize), all(kSize, 1));
}

TEST_F(Limits, N4_MemoryIsBoundedWhateverTheNumberOfSnapshotsAndTheSpeedOfTheirStores) {
    constexpr std::uint64_t kBound = std::uint64_t{1} << 20;
    set_parameter("snapshot_copy_memory", kBound);
    origin("1");
    origin("2");
    for (int i = 0; i < 64; ++i) {
        snapshot(std::to_string(i), 32, i % 2 ? "1" : "2");
        disks["cow" + std::to_string(i)]->set_latency(kMillisecond, (1 + i) * 10 * kMillisecond);
    }
    for (std::uint64_t i = 0; i < 128; ++i) start(Op::write, i % 2 ? "o1" : "o2", i / 2 * 64, 33, 7);
    const std::size_t most = finish();
    EXPECT_LE(most, kBound + 64 * 4096);    // and what commits metadata
    EXPECT_GE(most, kBound / 2);
    for (int i = 0; i < 64; ++i) EXPECT_EQ(read("s" + std::to_string(i), 0, kSize), all(kSize, 1)) << i;
}

TEST_F(Limits, AThrottleKeepsCopiesToTheirPartOfTheTime) {
    origin();
    const auto time_of_copies = [&](std::uint64_t percent) {
        set_parameter("snapshot_copy_throttle", percent);
        const std::string n = std::to_string(percent);
        snapshot(n, 8);
        disks["cow" + n]->set_latency(10 * kMillisecond, 10 * kMillisecond);
        const std::vector<int> before = read("o", 0, 64);
        const Nanoseconds begin = reactor.now();
        for (std::uint64_t i = 0; i < 64; ++i) EXPECT_EQ(write("o", i * 64, 8, 7), IoStatus::ok);
        const Nanoseconds took = reactor.now() - begin;
        EXPECT_EQ(read("s" + n, 0, 64), before);
        remove("s" + n);
        return took;
    };
    EXPECT_LT(time_of_copies(100), 8 * kSecond);
    const Nanoseconds throttled = time_of_copies(5);    // 64 copies of 10 ms and a bit in a twentieth of the time
    EXPECT_GT(throttled, 10 * kSecond);
    EXPECT_LT(throttled, 20 * kSecond);
}

TEST_F(Limits, CopiesThatWaitForAStoreThatIsLostMeanwhileWaitNoLonger) {
    set_parameter("snapshot_cow_threshold", 1);
    origin();
    snapshot("", 8);
    disks["cow"]->add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::write), .extent = {{16}, {8}}});    // the first copy
    Request& first = start(Op::write, "o", 0, 8, 7);
    Request& in_line = start(Op::write, "o", 64, 8, 7);
    Request& to_the_snapshot = start(Op::write, "s", 128, 8, 7);
    reactor.run_for(kSecond);
    disks["origin"]->fail_range({{160}, {8}}, op_bit(Op::read));
    EXPECT_FALSE(in_line.done());
    set_parameter("snapshot_cow_threshold", 3);
    start(Op::write, "o", 160, 8, 7);    // … is the third in line
    set_parameter("snapshot_cow_threshold", 4);
    reactor.run_for(kSecond);
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_TRUE(in_line.done());
    EXPECT_TRUE(to_the_snapshot.done());
    EXPECT_FALSE(first.done());
    disks["cow"]->clear_faults();
    disks["cow"]->release();
    reactor.run_until_idle();
    EXPECT_EQ(first.status(), IoStatus::ok);
    EXPECT_EQ(in_line.status(), IoStatus::ok);
}

}  // namespace
}  // namespace udm::test
