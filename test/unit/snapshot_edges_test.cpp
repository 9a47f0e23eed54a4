// Snapshots where sizes, modes and moments are unusual.
#include <array>

#include "test/unit/snapshot_fixture.hpp"

namespace udm::test {
namespace {

class Edges : public SnapshotTest {
  public:
    static constexpr std::uint64_t kSize = 4096;
    void origin(SimDisk::Options options = {}, std::uint64_t size = kSize) {
        disk("origin", size, options).fill_now({{0}, {size}}, 1);
        make("o", size, "snapshot-origin", "origin");
    }
    void snapshot(const std::string& n, const std::string& kind, unsigned chunk, SimDisk::Options options = {}) {
        disk("cow" + n, 16384, options);
        make("s" + n, kSize, "snapshot", "origin cow" + n + " " + kind + " " + std::to_string(chunk));
    }
};

TEST_F(Edges, AnOriginThatHasShrunkFailsRequestsBeyondItsEndAndNothingElse) {
    disk("disk", kSize).fill_now({{0}, {kSize}}, 1);
    add("base");
    opener.add("base-lower", *disks["disk"]);
    ASSERT_TRUE(load("base", kSize, "snapshot-origin", "base-lower"));
    ASSERT_TRUE(reactor.run((*this)["base"].resume()));
    disk("cow", 16384);
    make("o", kSize, "snapshot-origin", "udm:base");
    make("s", kSize, "snapshot", "udm:base cow P 8");
    ASSERT_TRUE(load("base", 1024, "snapshot-origin", "base-lower"));
    ASSERT_TRUE(reactor.run((*this)["base"].resume()));
    EXPECT_NE(write("s", 2000, 1, 7), IoStatus::ok);
    EXPECT_NE(write("o", 3000, 8, 7), IoStatus::ok);
    EXPECT_EQ(read("o", 0, 8), all(8, 1));
}

TEST_F(Edges, AStoreWithLargerBlocksThanTheOriginIsWrittenInItsBlocksAtTheOriginsEnd) {
    disk("origin", kSize + 9).fill_now({{0}, {kSize + 9}}, 1);
    make("o", kSize + 9, "snapshot-origin", "origin");
    SimDisk::Options blocks;
    blocks.limits.logical_block = 4096;
    disk("cow", 16384, blocks);
    make("s", kSize + 8, "snapshot", "origin cow P 16");
    EXPECT_EQ(write("o", kSize, 9, 7), IoStatus::ok);
    EXPECT_NE(status("s"), "Invalid");
    EXPECT_EQ(read("s", kSize, 8), all(8, 1));
    EXPECT_EQ(read("o", kSize, 9), all(9, 7));
}

TEST_F(Edges, AnOriginOfMoreChunksThanCanBeCountedIsRefused) {
    constexpr std::uint64_t kHuge = std::uint64_t{1} << 44;
    disk("origin", kHuge);
    disk("cow", 16384);
    const std::string error = error_of(kHuge, "snapshot", "origin cow N 8");
    EXPECT_NE(error.find("chunks"), std::string::npos) << error;
    EXPECT_EQ(error_of(kHuge, "snapshot", "origin cow N 16"), "no error");
}

TEST_F(Edges, AStoreOnAHugeSparseDeviceIsReadWithTheMemoryOfItsExceptions) {
    disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
    constexpr std::uint64_t kHuge = std::uint64_t{1} << 54;
    disk("cow", kHuge);
    make("o", kSize, "snapshot-origin", "origin");
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(write("o", 0, 64, 7), IoStatus::ok);
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(read("s", 0, 64), all(64, 1));
}

TEST_F(Edges, AnEntryBeyondTheChunksThatCanBeCountedIsRefused) {
    disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
    constexpr std::uint64_t kHuge = std::uint64_t{1} << 54;
    disk("cow", kHuge);
    make("s", kSize, "snapshot", "origin cow P 8");
    remove("s");
    std::byte bytes[kSectorSize]{};
    const snapshot::DiskException entry{3, std::uint64_t{1} << 41};
    std::memcpy(bytes, &entry, sizeof entry);
    disks["cow"]->write_now({{8}, {1}}, bytes);
    const std::string error = error_of(kSize, "snapshot", "origin cow P 8");
    EXPECT_NE(error.find("area 0, entry 0"), std::string::npos) << error;
}

// Else "these sectors are a hole" may be said of what the origin has now.
TEST_F(Edges, AQuestionAboutExtentsIsAnsweredBeforeTheOriginChanges) {
    origin();
    snapshot("", "P", 8);
    disks["origin"]->stall(op_bit(Op::extent_status));
    Request& question = start(Op::extent_status, "s", 0, 8);
    Request& zeroing = start(Op::write_zeroes, "o", 0, 8);
    reactor.run_for(kSecond);
    EXPECT_FALSE(zeroing.done());
    EXPECT_EQ(disks["origin"]->count(Op::write_zeroes).requests, 0U);
    disks["origin"]->release();
    reactor.run_until_idle();
    EXPECT_TRUE(question.done());
    EXPECT_EQ(zeroing.status(), IoStatus::ok);
}

TEST_F(Edges, ADiscardZeroesTheWholeChunksItCoversWhereverItStarts) {
    origin();
    SimDisk::Options lazy;
    lazy.lazy_discard = true;
    disk("cow", 16384, lazy);
    make("s", kSize, "snapshot", "origin cow P 8 1 discard_zeroes_cow");
    EXPECT_EQ(write("s", 0, 64, 7), IoStatus::ok);
    EXPECT_EQ(run(Op::discard, "s", 4, 56), IoStatus::ok);
    EXPECT_EQ(read("s", 8, 48), all(48, 0));
    EXPECT_EQ(read("s", 0, 4), all(4, 7));
    EXPECT_EQ(read("s", 60, 4), all(4, 7));
}

// Linux would bring them to life; their chunks may belong to others by then.
TEST_F(Edges, EntriesThatACrashLeftBehindTheListsEndAreClearedAtLoad) {
    origin();
    snapshot("", "P", 8);
    EXPECT_EQ(write("o", 0, 16, 7), IoStatus::ok);
    remove("s");
    std::array<snapshot::DiskException, 32> stale{};    // of a commit of which the second sector was written
    stale[0] = {{40}, {60}};
    disks["cow"]->write_now({{8 + 1}, {1}}, stale.data());
    make("s", kSize, "snapshot", "origin cow P 8");
    std::array<snapshot::DiskException, 256> area{};
    disks["cow"]->read_now({{8}, {8}}, area.data());
    EXPECT_NE(area[1].new_chunk, 0u);
    for (std::size_t i = 2; i < area.size(); ++i) EXPECT_EQ(area[i].new_chunk, 0u) << i;
    EXPECT_EQ(read("s", 0, 32), all(32, 1));
}

TEST_F(Edges, EntriesThatACrashLeftFarBehindTheListsEndAreClearedByAMerge) {
    origin();
    snapshot("", "P", 512);    // an area of 256 KiB
    EXPECT_EQ(write("o", 0, 1024, 7), IoStatus::ok);
    remove("s");
    std::array<snapshot::DiskException, 32> stale{};
    stale[3] = {{5}, {20}};
    const Extent behind{{512 + 400}, {1}};
    disks["cow"]->write_now(behind, stale.data());
    remove("o");
    make("m", kSize, "snapshot-merge", "origin cow P 512");
    reactor.run_until_idle();
    EXPECT_EQ(read("m", 0, 1024), all(1024, 1));
    disks["cow"]->read_now(behind, stale.data());
    EXPECT_EQ(stale[3].new_chunk, 0u);
}

TEST_F(Edges, WordsWithSpacesAreQuotedInTheTableLine) {
    disk("my origin", kSize);
    disk("my cow", 16384);
    make("o", kSize, "snapshot-origin", "my\\ origin");
    make("s", kSize, "snapshot", "my\\ origin my\\ cow P 8");
    EXPECT_EQ(table_of("o"), "my\\ origin");
    EXPECT_EQ(table_of("s"), "my\\ origin my\\ cow P 8");
}

// A device that may not be written to is one thing, what its origin does is another.
TEST_F(Edges, AStoreIsOpenedForWritingThoughTheSnapshotIsReadOnly) {
    origin();
    disk("cow", 16384);
    add("s");
    std::vector<OpenMode> modes;
    struct Watch final : DeviceOpener {
        DeviceOpener& lower;
        std::vector<std::pair<std::string, OpenMode>> opened;
        explicit Watch(DeviceOpener& l) : lower{l} {}
        Result<std::unique_ptr<OpenDevice>> open(std::string_view words, OpenMode mode) override {
            opened.emplace_back(words, mode);
            return lower.open(words, mode);
        }
    } watch{opener};
    std::vector<TableLine> lines{{{0}, {kSize}, "snapshot", "origin cow P 8"}};
    Device& device = (*this)["s"];
    {
        auto built = Table::build(lines, TableMode::read_only, {env, *types, watch, device, &lost, device.name(), device.id(), 253, 0});
        ASSERT_TRUE(built);
        EXPECT_EQ(watch.opened.back(), (std::pair<std::string, OpenMode>{"cow", OpenMode::write}));
    }
    disks["cow"]->limits_to_set().read_only = true;
    auto built = Table::build(lines, TableMode::read_only, {env, *types, watch, device, &lost, device.name(), device.id(), 253, 0});
    EXPECT_TRUE(built);
    EXPECT_FALSE(Table::build(lines, TableMode::read_write, {env, *types, watch, device, &lost, device.name(), device.id(), 253, 0}));
}

// Discards of whole disks are common when volumes are made.
TEST_F(Edges, AHugeDiscardThatMeetsANewSnapshotIsCutIntoPieces) {
    origin();
    disks["origin"]->stall(op_bit(Op::write));
    Request& before = start(Op::write, "o", 0, 8, 7);
    add("s");
    disk("cow", 16384);
    ASSERT_TRUE(load("s", kSize, "snapshot", "origin cow P 8"));
    bool resumed = false;
    struct Resume {
        static Job<void> run(Device* device, bool* done) {
            auto resuming = device->resume();
            auto result = co_await resuming;
            *done = result.has_value();
        }
    };
    reactor.jobs().spawn(Resume::run(&(*this)["s"], &resumed));
    reactor.run_for(kMillisecond);
    EXPECT_FALSE(resumed);
    Request& discard = start(Op::discard, "o", 0, kSize);
    disks["origin"]->keep_log(true);
    disks["origin"]->release();
    reactor.run_until_idle();
    EXPECT_TRUE(resumed && before.done() && discard.done());
    for (const auto& one : disks["origin"]->log()) EXPECT_LE(one.extent.length.v, 1024U);
    EXPECT_EQ(read("s", 0, 8), all(8, 7));
    EXPECT_EQ(read("s", 8, 512), all(512, 1));
}

TEST_F(Edges, ASuspendWithoutFlushDoesNotWaitForAStoreThatHangs) {
    origin();
    snapshot("", "P", 8);
    EXPECT_EQ(write("s", 0, 8, 7), IoStatus::ok);
    disks["cow"]->stall();
    bool suspended = false;
    struct Suspend {
        static Job<void> run(Device* device, bool* done) {
            auto suspending = device->suspend({.noflush = true});
            auto result = co_await suspending;
            *done = result.has_value();
        }
    };
    reactor.jobs().spawn(Suspend::run(&(*this)["s"], &suspended));
    reactor.run_for(kSecond);
    EXPECT_TRUE(suspended);
    disks["cow"]->release();
    reactor.run_until_idle();
}

TEST_F(Edges, ARemovalAfterASuspendWithoutFlushLosesNothing) {
    origin();
    snapshot("", "P", 8);
    EXPECT_EQ(write("s", 0, 8, 7), IoStatus::ok);
    ASSERT_TRUE(reactor.run((*this)["s"].suspend({.noflush = true})));
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(read("s", 0, 8), all(8, 7));
}

TEST_F(Edges, AReadErrorLosesNoSnapshotThatNeededOnlyTheNextChunk) {
    origin();
    snapshot("1", "P", 8);
    snapshot("2", "P", 8);
    EXPECT_EQ(write("s1", 88, 8, 5), IoStatus::ok);    // needs only chunk 10
    EXPECT_EQ(write("s2", 80, 8, 5), IoStatus::ok);    // needs only chunk 11
    disks["origin"]->fail_range({{80}, {8}}, op_bit(Op::read));
    EXPECT_EQ(write("o", 80, 16, 8), IoStatus::ok);
    EXPECT_EQ(status("s1"), "Invalid");
    EXPECT_NE(status("s2"), "Invalid");
    disks["origin"]->clear_faults();
    EXPECT_EQ(read("s2", 88, 8), all(8, 1));
}

TEST_F(Edges, ATransientSnapshotThatIsLostDuringTheFlushOfItsRemovalGoesInPeace) {
    origin();
    snapshot("", "N", 8);
    EXPECT_EQ(write("s", 0, 8, 7), IoStatus::ok);
    disks["cow"]->stall(op_bit(Op::flush));
    struct Detach {
        static Job<void> run(Device* device, bool* done) {
            auto detaching = device->detach();
            co_await detaching;
            *done = true;
        }
    };
    bool gone = false;
    reactor.jobs().spawn(Detach::run(&(*this)["s"], &gone));
    reactor.run_for(kMillisecond);
    disks["origin"]->fail_range({{80}, {8}}, op_bit(Op::read));
    EXPECT_EQ(write("o", 80, 8, 8), IoStatus::ok);    // the snapshot is lost
    disks["cow"]->release();
    reactor.run_until_idle();
    EXPECT_TRUE(gone);
}

TEST_F(Edges, AllCopiesThatThereIsRoomForGoOnWhenALargeOneEnds) {
    constexpr std::uint64_t kLarge = std::uint64_t{1} << 18;
    disk("origin", kLarge);
    make("o", kLarge, "snapshot-origin", "origin");
    disk("cow", 2 * kLarge);
    make("s", kLarge, "snapshot", "origin cow P 8");
    disks["origin"]->stall(op_bit(Op::read));
    for (std::uint64_t i = 0; i < 64; ++i) start(Op::write, "o", i * 1024, 1024, 7);    // 512 KiB each
    for (std::uint64_t i = 0; i < 256; ++i) start(Op::write, "o", 65536 + i * 64, 8, 7);
    EXPECT_EQ(disks["origin"]->count(Op::read).requests, 32U);    // half of the memory: another store may need the rest
    disks["origin"]->release();
    reactor.run_until_idle();
    EXPECT_GE(disks["origin"]->counters().in_flight_most, 256U);
    for (const auto& request : requests) EXPECT_EQ(request->status(), IoStatus::ok);
}

// Constructors run beside the reactor, on which a mapped device may change its table meanwhile.
TEST_F(Edges, AConstructorAsksNoDeviceForItsLimits) {
    struct Watched final : Disk {
        Limits of;
        mutable int asked = 0;
        void submit(Io&) noexcept override { FAIL(); }
        const Limits& limits() const noexcept override {
            ++asked;
            return of;
        }
    } origin_disk, cow_disk;
    origin_disk.of.size = cow_disk.of.size = {kSize};
    cow_disk.of.logical_block = 4096;
    opener.add("origin", origin_disk);
    opener.add("cow", cow_disk);
    add("s");
    const auto in_opener = [&] {    // the simulated opener looks whether it may be written
        const int before = cow_disk.asked;
        EXPECT_TRUE(opener.open("cow", OpenMode::write));
        return cow_disk.asked - before;
    }();
    cow_disk.asked = origin_disk.asked = 0;
    auto built = table("s", kSize, "snapshot", "origin cow P 1");
    ASSERT_TRUE(built);
    EXPECT_LE(cow_disk.asked, in_opener);
    EXPECT_EQ(origin_disk.asked, 0);
    auto loaded = reactor.run((*built)->load());
    ASSERT_FALSE(loaded);
    EXPECT_NE(loaded.error().message.find("snapshot: Couldn't create exception store: chunk size 1 is no multiple of the logical block of cow"),
              std::string::npos) << loaded.error().message;
}

TEST_F(Edges, WritesThatFailForTheOriginsSakeDoNotFillTheStore) {
    origin();
    for (const char* kind : {"PO", "N"}) {
        disk("cow", 64);
        make("s", kSize, "snapshot", std::string{"origin cow "} + kind + " 8");
        const std::string before = status("s");
        disks["origin"]->fail_range({{80}, {8}}, op_bit(Op::read));
        for (int i = 0; i < 20; ++i) EXPECT_EQ(write("s", 80, 1, 8), IoStatus::io_error);
        EXPECT_EQ(status("s"), before);
        disks["origin"]->clear_faults();
        EXPECT_EQ(write("s", 80, 1, 8), IoStatus::ok);
        EXPECT_EQ(read("s", 80, 2), (std::vector<int>{8, 1}));
        remove("s");
        opener.remove("cow");
    }
}

TEST_F(Edges, WhatWasToBeDurableFailsWhenTheSnapshotTurnsInvalidMeanwhile) {
    for (const char* kind : {"P", "N"}) {
        if (devices.empty()) origin();
        snapshot("", kind, 8);
        EXPECT_EQ(write("s", 0, 8, 5), IoStatus::ok);
        disks["cow"]->stall();
        Request in_place{reactor, (*this)["s"], Op::write, {{0}, {8}}, 6, {.fua = true}};    // the exception is there
        Request first{reactor, (*this)["s"], Op::write, {{160}, {8}}, 6, {.fua = true}};
        Request flushing{reactor, (*this)["s"], Op::flush, {}};
        disks["origin"]->fail_range({{80}, {8}}, op_bit(Op::read));
        start(Op::write, "o", 80, 8, 7);
        reactor.run_for(kSecond);
        EXPECT_EQ(status("s"), "Invalid");
        disks["cow"]->clear_faults();
        disks["cow"]->release();
        reactor.run_until_idle();
        EXPECT_EQ(in_place.status(), IoStatus::io_error) << kind;
        EXPECT_EQ(first.status(), IoStatus::io_error) << kind;
        EXPECT_EQ(flushing.status(), IoStatus::io_error) << kind;
        EXPECT_EQ(requests.back()->status(), IoStatus::ok);
        disks["origin"]->clear_faults();
        remove("s");
        opener.remove("cow");
    }
}

TEST_F(Edges, AStoreOnADeviceThatCannotTakeAPieceOfMetadataIsRefused) {
    origin();
    SimDisk::Options tiny;
    tiny.limits.max_transfer = {4};
    disk("cow", 16384, tiny);
    const std::string error = error_of(kSize, "snapshot", "origin cow P 8");
    EXPECT_NE(error.find("COW cow: the device takes at most 2048 bytes at a time; a store's metadata go in pieces of 4096"),
              std::string::npos) << error;
    EXPECT_EQ(error_of(kSize, "snapshot", "origin cow N 8"), "no error");    // has no metadata
    disks["cow"]->limits_to_set().max_transfer = {12};
    make("s", kSize, "snapshot", "origin cow P 16");
    for (std::uint64_t i = 0; i < kSize; i += 16) EXPECT_EQ(write("o", i, 1, 7), IoStatus::ok);
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 16");
    EXPECT_EQ(read("s", 0, kSize), all(kSize, 1));
    EXPECT_EQ(disks["cow"]->counters().invalid, 0u);
}

TEST_F(Edges, CopiesKeepToTheLongestTransferOfTheStore) {
    origin();
    SimDisk::Options small;
    small.limits.max_transfer = {64};
    snapshot("", "P", 128, small);
    EXPECT_EQ(write("o", 0, 8, 7), IoStatus::ok);
    EXPECT_EQ(read("s", 0, 128), all(128, 1));
}

}  // namespace
}  // namespace udm::test
