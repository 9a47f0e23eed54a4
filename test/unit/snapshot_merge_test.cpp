// A snapshot goes back into its origin.
#include <algorithm>
#include <array>

#include "test/unit/snapshot_fixture.hpp"

namespace udm::test {
namespace {

class Merging : public SnapshotTest {
  public:
    static constexpr std::uint64_t kSize = 8192;
    Merging() {
        disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
        disk("cow", 4 * kSize);
        content.assign(kSize, 1);
    }
    // A snapshot "s" with its own data in some chunks, which `content` follows.
    void snapshot(unsigned chunk, unsigned chunks = 40) {
        make("s", kSize, "snapshot", "origin cow P " + std::to_string(chunk));
        for (unsigned i = 0; i < chunks; ++i) {
            const std::uint64_t first = i * 7919 % (kSize / chunk) * chunk;
            put("s", first, chunk, static_cast<std::uint8_t>(10 + i % 200));
        }
    }
    void put(const std::string& name, std::uint64_t first, std::uint64_t count, std::uint8_t fill) {
        ASSERT_EQ(write(name, first, count, fill), IoStatus::ok);
        std::fill_n(content.begin() + static_cast<std::ptrdiff_t>(first), count, fill);
    }
    // The snapshot's device gets the merging table, as an origin's would.
    void merge(const std::string& params = "origin cow P 8") {
        ASSERT_TRUE(load("s", kSize, "snapshot-merge", params));
        const auto resumed = reactor.run(devices.at("s")->resume());
        ASSERT_TRUE(resumed) << resumed.error().message;
    }
    bool merged(const std::string& name = "s") {
        const std::string words = status(name);
        const auto slash = words.find('/'), space = words.find(' ');
        return slash != words.npos && space != words.npos && words.substr(0, slash) == words.substr(space + 1);
    }
    void finish() {
        ASSERT_TRUE(reactor.run_until([&] { return merged(); })) << status("s");
        reactor.run_until_idle();    // the last word
    }
    std::vector<int> disk_content(const std::string& name) {
        std::vector<std::byte> bytes(kSize * kSectorSize);
        disks[name]->read_now({{0}, {kSize}}, bytes.data());
        return bytes_of(bytes);
    }
    Result<std::string> message(std::vector<std::string> words) { return reactor.run(devices.at("s")->message({0}, &words)); }
    Result<void> resume(const std::string& name = "s") { return reactor.run(devices.at(name)->resume()); }
    Result<void> suspend(const std::string& name = "s") { return reactor.run(devices.at(name)->suspend({})); }
    std::vector<int> content;
};

TEST_F(Merging, BringsTheSnapshotsContentIntoTheOrigin) {
    for (const unsigned chunk : {1u, 8u, 16u, 128u}) {
        disks["cow"]->fill_now({{0}, {4 * kSize}}, 0);
        snapshot(chunk, 30);
        merge();
        EXPECT_EQ(read("s", 0, kSize), content);
        finish();
        EXPECT_TRUE(events.has("s: snapshot merge finished"));
        EXPECT_EQ(status("s"), std::to_string(2 * chunk) + "/32768 " + std::to_string(2 * chunk));
        EXPECT_EQ(read("s", 0, kSize), content);
        EXPECT_EQ(disk_content("origin"), content);
        EXPECT_EQ(table_of("s"), "origin cow P " + std::to_string(chunk));
        events.words.clear();
        remove("s");
    }
}

TEST_F(Merging, OfAStoreThatIsReadInGoesOnAfterARestart) {
    snapshot(8);
    remove("s");
    make("s", kSize, "snapshot-merge", "origin cow P 8");
    EXPECT_EQ(read("s", 0, kSize), content);
    finish();
    EXPECT_EQ(disk_content("origin"), content);
}

TEST_F(Merging, OfWhatTheOriginHasNoRoomForWritesNothingAndSaysWhy) {
    snapshot(8, 1);
    remove("s");
    std::array<std::byte, kSectorSize> list{};
    disks["cow"]->read_now({{8}, {1}}, list.data());
    list[1] = std::byte{kSize / 8 / 256};    // of the first exception's origin chunk, 0: it is the first beyond the end
    disks["cow"]->write_now({{8}, {1}}, list.data());
    make("s", kSize, "snapshot-merge", "origin cow P 8");
    reactor.run_until_idle();
    EXPECT_TRUE(events.has("s: snapshot merge failed: the store has origin chunk 1024, and the origin ends before it: `udm cow repair "
                           "--origin` drops what is beyond"));
    EXPECT_EQ(status("s"), "Merge failed");
    EXPECT_EQ(disk_content("origin"), std::vector<int>(kSize, 1));
}

TEST_F(Merging, SpansAreasAndLeavesAWholeStoreAtEachStep) {
    make("s", kSize, "snapshot", "origin cow P 1");    // an area has 32 exceptions
    for (unsigned i = 0; i < 150; ++i) put("s", i * 37 % kSize, 1, static_cast<std::uint8_t>(10 + i));
    chaos.sites = {"merge.smallest_batch"};
    merge();
    for (int i = 0; i < 40 && !merged(); ++i) {
        reactor.run_for(kMillisecond / 2);
        ASSERT_TRUE(suspend());
        remove("s");
        make("s", kSize, "snapshot", "origin cow P 1");
        ASSERT_EQ(read("s", 0, kSize), content);
        remove("s");
        make("s", kSize, "snapshot-merge", "origin cow P 1");
    }
    finish();
    EXPECT_EQ(disk_content("origin"), content);
}

TEST_F(Merging, WritesWaitOnlyForTheChunksThatAreBeingMerged) {
    snapshot(8, 4);
    disks["origin"]->stall(op_bit(Op::write));
    merge();
    reactor.run_for(kMillisecond);
    const std::uint64_t merging = 3 * 7919 % (kSize / 8) * 8;
    Request blocked{reactor, (*this)["s"], Op::write, {{merging}, {8}}, 99};
    Request reading{reactor, (*this)["s"], Op::read, {{0}, {kSize}}};
    reactor.run_for(kMillisecond);
    EXPECT_FALSE(blocked.done());
    EXPECT_TRUE(reading.done());
    EXPECT_EQ(bytes_of(reading.memory()), content);
    disks["origin"]->clear_faults();
    disks["origin"]->release();
    ASSERT_TRUE(reactor.run_until([&] { return blocked.done(); }));
    EXPECT_EQ(blocked.status(), IoStatus::ok);
    std::fill_n(content.begin() + static_cast<std::ptrdiff_t>(merging), 8, 99);
    finish();
    EXPECT_EQ(disk_content("origin"), content);
}

TEST_F(Merging, WaitsForAWriteToAChunkBeforeItCopiesIt) {
    snapshot(8, 2);
    chaos.sites = {"merge.smallest_batch"};
    disks["origin"]->stall(op_bit(Op::write));    // the second exception's chunk is under way
    merge();
    reactor.run_for(kMillisecond);
    disks["cow"]->stall(op_bit(Op::write));
    Request writing{reactor, (*this)["s"], Op::write, {{0}, {8}}, 99};
    reactor.run_for(kMillisecond);
    disks["cow"]->clear_faults();                 // later writes pass
    disks["origin"]->clear_faults();
    disks["origin"]->release();
    reactor.run_for(10 * kMillisecond);
    EXPECT_FALSE(writing.done());
    EXPECT_EQ(status("s"), "24/32768 16");        // one exception is left
    disks["cow"]->release();
    finish();
    EXPECT_TRUE(writing.done());
    std::fill_n(content.begin(), 8, 99);
    EXPECT_EQ(disk_content("origin"), content);
}

TEST_F(Merging, WritesOfManyKindsEndUpInTheOrigin) {
    snapshot(8, 60);
    ASSERT_TRUE(load("s", kSize, "snapshot-merge", "origin cow P 8"));
    ASSERT_TRUE(resume());
    for (unsigned i = 0; i < 200; ++i) {
        const std::uint64_t first = i * 131 % (kSize - 40), count = 1 + i % 40;
        const auto fill = static_cast<std::uint8_t>(i % 250);
        requests.push_back(std::make_unique<Request>(reactor, (*this)["s"], Op::write, Extent{{first}, {count}}, fill, IoFlags{.fua = i % 5 == 0}));
        if (i % 3 == 0) requests.push_back(std::make_unique<Request>(reactor, (*this)["s"], Op::discard, Extent{{first + 64}, {8}}));
        if (i % 7 == 0) requests.push_back(std::make_unique<Request>(reactor, (*this)["s"], Op::flush, Extent{}));
        ASSERT_TRUE(reactor.run_until([&] { return requests.back()->done(); }));
        std::fill_n(content.begin() + static_cast<std::ptrdiff_t>(first), count, fill);
    }
    for (const auto& request : requests) EXPECT_EQ(request->status(), IoStatus::ok);
    finish();
    EXPECT_EQ(read("s", 0, kSize), content);
    EXPECT_EQ(disk_content("origin"), content);
}

TEST_F(Merging, KeepsTheContentOfOtherSnapshotsOfAnyChunkSize) {
    disk("cow-a", 4 * kSize);
    disk("cow-b", 4 * kSize);
    make("a", kSize, "snapshot", "origin cow-a P 1");
    make("b", kSize, "snapshot", "origin cow-b P 64");
    snapshot(16);
    merge();
    for (unsigned i = 0; i < 20; ++i) put("s", i * 311 % (kSize - 16), 16, 77);
    finish();
    EXPECT_EQ(read("a", 0, kSize), all(kSize, 1));
    EXPECT_EQ(read("b", 0, kSize), all(kSize, 1));
    EXPECT_EQ(disk_content("origin"), content);
}

TEST_F(Merging, IsOnlyOnePerOrigin) {
    disk("cow-a", 4 * kSize);
    snapshot(8);
    merge();
    EXPECT_NE(error_of(kSize, "snapshot-merge", "origin cow-a P 8").find("A snapshot is already merging."), std::string::npos);
    remove("s");
    EXPECT_EQ(error_of(kSize, "snapshot-merge", "origin cow-a P 8"), "no error");
}

TEST_F(Merging, ThatFailsSaysSoEndsWaitingWritesAndGoesOnWhenItIsTriedAgain) {
    for (const bool by_message : {false, true}) {
        disks["cow"]->fill_now({{0}, {4 * kSize}}, 0);
        snapshot(8, 20);
        disks["origin"]->fail_always(op_bit(Op::write));
        merge();
        reactor.run_until_idle();
        EXPECT_EQ(status("s"), "Merge failed");
        EXPECT_TRUE(events.has("s: snapshot merge failed: the origin cannot be written"));
        EXPECT_EQ(read("s", 0, kSize), content);
        put("s", 0, 8, 99);    // an exception: it goes to the store
        disks["origin"]->clear_faults();
        if (by_message) {
            EXPECT_TRUE(message({"merge_retry"}));
        } else {
            ASSERT_TRUE(suspend());
            ASSERT_TRUE(resume());
        }
        finish();
        EXPECT_EQ(disk_content("origin"), content);
        remove("s");
        events.words.clear();
    }
}

TEST_F(Merging, WhoseClearingFailsLosesNoWriteOfAfterwards) {
    snapshot(8, 20);
    ASSERT_TRUE(load("s", kSize, "snapshot-merge", "origin cow P 8"));
    disks["origin"]->stall(op_bit(Op::write));
    ASSERT_TRUE(resume());
    reactor.run_for(kMillisecond);
    disks["cow"]->fail_always(op_bit(Op::flush));    // the entries may be gone from the disk, or not
    disks["origin"]->clear_faults();
    disks["origin"]->release();
    reactor.run_until_idle();
    ASSERT_EQ(status("s"), "Merge failed");
    disks["cow"]->clear_faults();
    put("s", 0, 8, 99);
    ASSERT_EQ(flush("s"), IoStatus::ok);
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(read("s", 0, kSize), content);
}

TEST_F(Merging, IsPausedGoesOnAndKeepsToARate) {
    snapshot(8, 100);    // 400 KiB
    ASSERT_TRUE(load("s", kSize, "snapshot-merge", "origin cow P 8"));
    disks["origin"]->stall(op_bit(Op::write));
    ASSERT_TRUE(resume());
    EXPECT_TRUE(message({"merge_pause"}));
    EXPECT_TRUE(message({"set", "merge_rate", "100K"}));
    disks["origin"]->clear_faults();
    disks["origin"]->release();
    reactor.run_for(kSecond);
    const std::string before = status("s");
    reactor.run_for(10 * kSecond);
    EXPECT_EQ(status("s"), before);
    ASSERT_TRUE(suspend());
    ASSERT_TRUE(resume());
    EXPECT_EQ(status("s"), before);
    // All was in the first batch, which is not interrupted: another snapshot's worth of chunks.
    EXPECT_TRUE(message({"merge_resume"}));
    finish();
    EXPECT_FALSE(message({"merge_rate", "x"}));
    EXPECT_FALSE(message({"set", "merge_rate", "fast"}));
}

TEST_F(Merging, OfMuchDataTakesAsLongAsTheRateSays) {
    snapshot(8, 100);
    remove("s");
    add("s");
    ASSERT_TRUE(load("s", kSize, "snapshot-merge", "origin cow P 8"));
    disks["cow"]->stall(op_bit(Op::read));
    ASSERT_TRUE(resume());
    EXPECT_TRUE(message({"set", "merge_rate", "100K"}));
    disks["cow"]->clear_faults();
    disks["cow"]->release();
    const Nanoseconds begin = reactor.now();
    finish();
    EXPECT_GE(reactor.now() - begin, 3 * kSecond);
    EXPECT_LE(reactor.now() - begin, 6 * kSecond);
    EXPECT_EQ(disk_content("origin"), content);
}

TEST_F(Merging, GoesBackToASnapshotInTheMiddleAndOnAgain) {
    snapshot(8, 60);
    chaos.sites = {"merge.smallest_batch"};
    for (int turn = 0; turn < 12 && !(turn != 0 && merged()); ++turn) {
        ASSERT_TRUE(load("s", kSize, turn % 2 == 0 ? "snapshot-merge" : "snapshot", "origin cow P 8"));
        ASSERT_TRUE(resume());
        reactor.run_for(kMillisecond);
        EXPECT_EQ(read("s", 0, kSize), content);
        put("s", static_cast<std::uint64_t>(turn) * 600, 24, static_cast<std::uint8_t>(100 + turn));
    }
    ASSERT_TRUE(suspend());
    remove("s");
    make("s", kSize, "snapshot-merge", "origin cow P 8");
    EXPECT_EQ(read("s", 0, kSize), content);
    finish();
    EXPECT_EQ(disk_content("origin"), content);
}

TEST_F(Merging, OfAnInvalidSnapshotLeavesTheOriginInUse) {
    disk("small", 40);
    make("o", kSize, "snapshot-origin", "origin");
    make("s", kSize, "snapshot", "origin small P 8");
    for (std::uint64_t at = 0; at < 64; at += 8) EXPECT_EQ(write("o", at, 8, 5), IoStatus::ok);
    ASSERT_EQ(status("s"), "Invalid");
    merge("origin small P 8");
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_EQ(read("s", 0, 64), all(64, 5));
    EXPECT_EQ(write("s", 64, 8, 6), IoStatus::ok);
    EXPECT_EQ(flush("s"), IoStatus::ok);
    EXPECT_EQ(disk_content("origin")[64], 6);
}

// --- defects of Linux, by their numbers in docs/targets/snapshot.md -----------------------------------------------------

class MergeDefects : public Merging {};

TEST_F(MergeDefects, N7_ExceptionsAreClearedWhenTheOriginIsDurable) {
    snapshot(8, 20);
    disks["origin"]->fail_always(op_bit(Op::flush));
    const std::uint64_t writes = disks["cow"]->count(Op::write).requests;
    merge();
    reactor.run_until_idle();
    EXPECT_EQ(status("s"), "Merge failed");
    EXPECT_TRUE(events.has("the origin cannot be flushed"));
    EXPECT_EQ(disks["cow"]->count(Op::write).requests, writes + 1);    // the commit before the merge began
    disks["origin"]->clear_faults();
    EXPECT_TRUE(message({"merge_retry"}));
    finish();
}

TEST_F(MergeDefects, N23_ManyRunsAreCopiedAtOnceAndClearedWithOneCommit) {
    snapshot(8, 200);
    remove("s");
    add("s");
    ASSERT_TRUE(load("s", kSize, "snapshot-merge", "origin cow P 8"));
    const auto cow_writes = disks["cow"]->count(Op::write).requests;
    const auto origin_flushes = disks["origin"]->count(Op::flush).requests;
    ASSERT_TRUE(resume());
    finish();
    EXPECT_LE(disks["cow"]->count(Op::write).requests - cow_writes, 2u);
    EXPECT_LE(disks["origin"]->count(Op::flush).requests - origin_flushes, 2u);
}

TEST_F(MergeDefects, N29_ASecondMergeOnOneOriginIsRefusedHoweverItComes) {
    disk("cow-a", 4 * kSize);
    add("one");
    add("two");
    ASSERT_TRUE(load("one", kSize, "snapshot-merge", "origin cow P 8"));
    const auto second = load("two", kSize, "snapshot-merge", "origin cow-a P 8");
    ASSERT_FALSE(second);
    EXPECT_NE(second.error().message.find("A snapshot is already merging."), std::string::npos);
}

}  // namespace
}  // namespace udm::test
