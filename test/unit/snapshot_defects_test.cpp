// The defects of Linux's snapshots that ours must not have, by their numbers in docs/targets/snapshot.md.
#include <algorithm>

#include "test/unit/snapshot_fixture.hpp"

namespace udm::test {
namespace {

class Defects : public SnapshotTest {
  public:
    static constexpr std::uint64_t kSize = 4096;
    void origin() {
        disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
        make("o", kSize, "snapshot-origin", "origin");
    }
    void snapshot(const std::string& n, const std::string& kind, unsigned chunk, std::uint64_t cow_sectors = 16384) {
        disk("cow" + n, cow_sectors);
        make("s" + n, kSize, "snapshot", "origin cow" + n + " " + kind + " " + std::to_string(chunk));
    }
    void put_entry(const std::string& cow, std::uint64_t sector, std::size_t index, std::uint64_t old_chunk, std::uint64_t new_chunk) {
        std::byte bytes[kSectorSize];
        disks[cow]->read_now({{sector}, {1}}, bytes);
        const snapshot::DiskException entry{old_chunk, new_chunk};
        std::memcpy(bytes + index * sizeof entry, &entry, sizeof entry);
        disks[cow]->write_now({{sector}, {1}}, bytes);
    }
    void put_header(const std::string& cow, std::uint32_t magic, std::uint32_t valid, std::uint32_t version, std::uint32_t chunk) {
        std::byte bytes[kSectorSize]{};
        snapshot::DiskHeader header;
        header.magic = magic;
        header.valid = valid;
        header.version = version;
        header.chunk_size = chunk;
        std::memcpy(bytes, &header, sizeof header);
        disks[cow]->write_now({{0}, {1}}, bytes);
    }
    bool header_valid(const std::string& cow) {
        std::byte bytes[kSectorSize];
        disks[cow]->read_now({{0}, {1}}, bytes);
        snapshot::DiskHeader header;
        std::memcpy(&header, bytes, sizeof header);
        return header.valid == 1;
    }
};

TEST_F(Defects, N1_SnapshotsComeAndGoWhileManyCopiesArePending) {
    origin();
    snapshot("0", "P", 8);
    for (int round = 0; round < 20; ++round) {
        for (std::uint64_t i = 0; i < 16; ++i) start(Op::write, "o", (static_cast<std::uint64_t>(round) * 16 + i) * 8 % kSize, 8, 7);
        snapshot(std::to_string(1 + round), round % 2 ? "N" : "P", 16);
        if (round >= 2) remove("s" + std::to_string(round - 1));
    }
    reactor.run_until_idle();
    for (const auto& request : requests) {
        ASSERT_TRUE(request->done());
        EXPECT_EQ(request->status(), IoStatus::ok);
    }
    EXPECT_EQ(read("s0", 0, kSize), all(kSize, 1));
}

TEST_F(Defects, N3_OneSlowStoreHoldsUpOnlyTheWritesThatNeedIt) {
    origin();
    for (int i = 0; i < 8; ++i) snapshot(std::to_string(i), "P", 8);
    // Chunk 0 is everywhere already; then store 3 stops answering.
    EXPECT_EQ(write("o", 0, 8, 7), IoStatus::ok);
    disks["cow3"]->stall();
    Request& needs_it = start(Op::write, "o", 64, 8, 7);
    Request& does_not = start(Op::write, "o", 0, 8, 8);
    reactor.run_for(kSecond);
    EXPECT_TRUE(does_not.done());
    EXPECT_FALSE(needs_it.done());
    disks["cow3"]->clear_faults();
    disks["cow3"]->release();
    reactor.run_until_idle();
    EXPECT_TRUE(needs_it.done());
    EXPECT_EQ(needs_it.status(), IoStatus::ok);
}

TEST_F(Defects, N4_MemoryOfCopiesIsBoundedWhateverIsWrittenAtOnce) {
    disk("origin", 1 << 19);    // 256 MiB, of which nothing is stored
    make("o", 1 << 19, "snapshot-origin", "origin");
    disk("cow", 1 << 20);
    make("s", 1 << 19, "snapshot", "origin cow P 1024");
    for (std::uint64_t i = 0; i < 512; ++i) start(Op::write, "o", i * 1024, 1, 7);
    std::size_t most = 0;
    while (!requests.back()->done() || !std::all_of(requests.begin(), requests.end(), [](const auto& r) { return r->done(); })) {
        ASSERT_TRUE(reactor.step());
        most = std::max(most, reactor.buffers().bytes_out());
    }
    EXPECT_LE(most, std::size_t{34} << 20);
    EXPECT_GE(most, std::size_t{16} << 20);    // and it is used
    for (const auto& request : requests) EXPECT_EQ(request->status(), IoStatus::ok);
}

TEST_F(Defects, N5_ReadsAndWritesOfExistingExceptionsDoNotWaitForCopies) {
    origin();
    snapshot("", "P", 8);
    EXPECT_EQ(write("s", 0, 8, 5), IoStatus::ok);
    disks["origin"]->stall(op_bit(Op::read));
    Request& copying = start(Op::write, "o", 512, 8, 7);
    Request& reading = start(Op::read, "s", 0, 8);
    Request& writing = start(Op::write, "s", 0, 8, 6);
    reactor.run_for(kSecond);
    EXPECT_TRUE(reading.done());
    EXPECT_TRUE(writing.done());
    EXPECT_FALSE(copying.done());
    disks["origin"]->clear_faults();
    disks["origin"]->release();
    reactor.run_until_idle();
    EXPECT_TRUE(copying.done());
}

TEST_F(Defects, N6_ReadsThatKeepComingDoNotStarveAWriteToTheOrigin) {
    origin();
    snapshot("", "P", 8);
    Request* write = nullptr;
    int reads = 0;
    std::vector<std::unique_ptr<Request>> reading(2);
    // At every moment a read of the chunk is out.
    while (!write || !write->done()) {
        for (auto& read : reading) {
            if (read && !read->done()) continue;
            if (read) {
                EXPECT_EQ(bytes_of(read->memory()), all(8, 1));
            }
            read = std::make_unique<Request>(reactor, (*this)["s"], Op::read, Extent{{0}, {8}});
            ++reads;
            reactor.run_for(30'000);
        }
        if (reads == 4) write = &start(Op::write, "o", 0, 8, 7);
        ASSERT_LT(reads, 1000);
        reactor.step();
    }
    EXPECT_EQ(write->status(), IoStatus::ok);
    reactor.run_until_idle();
    EXPECT_EQ(read("s", 0, 8), all(8, 1));
}

TEST_F(Defects, N8_AnOriginWithoutSnapshotsIsWrittenAnywhere) {
    origin();
    EXPECT_EQ(write("o", 0, 1, 7), IoStatus::ok);
    EXPECT_EQ(write("o", 0, kSize, 8), IoStatus::ok);
    EXPECT_EQ(read("o", 0, kSize), all(kSize, 8));
}

TEST_F(Defects, N9_ATransientStoreWithoutChunkSizeIsRefused) {
    disk("origin", kSize);
    disk("cow", kSize);
    EXPECT_NE(error_of(kSize, "snapshot", "origin cow N 0").find("snapshot: Chunk size not set"), std::string::npos);
}

TEST_F(Defects, N10_AMergeOfATransientStoreIsRefused) {
    disk("origin", kSize);
    disk("cow", kSize);
    EXPECT_NE(error_of(kSize, "snapshot-merge", "origin cow N 8").find("Snapshot exception store does not support snapshot-merge."),
              std::string::npos);
}

TEST_F(Defects, N11_DiscardGranularityIsInBytes) {
    disk("origin", kSize);
    disk("cow", kSize);
    make("s", kSize, "snapshot", "origin cow P 16 1 discard_zeroes_cow");
    EXPECT_EQ((*this)["s"].limits().discard_granularity, 16u * kSectorSize);
}

TEST_F(Defects, N13_TheTableLineHasTheFeaturesAfterTheStore) {
    disk("origin", kSize);
    disk("cow", kSize);
    make("s", kSize, "snapshot", "origin cow po 16 2 DISCARD_ZEROES_COW discard_passdown_origin");
    EXPECT_EQ(table_of("s"), "origin cow PO 16 2 discard_zeroes_cow discard_passdown_origin");
}

TEST_F(Defects, N14_AnAliasOfTheOriginIsNoStore) {
    disk("origin", kSize);
    EXPECT_NE(error_of(kSize, "snapshot", "origin sim:origin P 8").find("COW device cannot be the same as origin device"), std::string::npos);
    EXPECT_NE(error_of(kSize, "snapshot", "origin 7:0 P 8").find("COW device cannot be the same as origin device"), std::string::npos);
}

TEST_F(Defects, N15_AnOriginReadErrorLosesOnlyTheSnapshotsThatNeededTheChunk) {
    origin();
    snapshot("1", "P", 8);
    EXPECT_EQ(write("o", 80, 8, 7), IoStatus::ok);    // snapshot 1 has this chunk
    snapshot("2", "P", 8);                            // snapshot 2 has not
    disks["origin"]->fail_range({{80}, {8}}, op_bit(Op::read));
    EXPECT_EQ(write("o", 80, 8, 8), IoStatus::ok);
    EXPECT_EQ(status("s2"), "Invalid");
    EXPECT_NE(status("s1"), "Invalid");
    EXPECT_TRUE(events.has("s2: snapshot invalid: the origin cannot be read"));
    EXPECT_FALSE(events.has("s1:"));
    disks["origin"]->clear_faults();
    EXPECT_EQ(read("s1", 80, 8), all(8, 1));
    EXPECT_EQ(read("o", 80, 8), all(8, 8));
}

TEST_F(Defects, N15_AnOriginReadErrorUnderAWriteToTheSnapshotFailsThatWriteOnly) {
    origin();
    snapshot("", "P", 8);
    disks["origin"]->fail_range({{80}, {8}}, op_bit(Op::read));
    EXPECT_EQ(write("s", 80, 1, 8), IoStatus::io_error);
    EXPECT_NE(status("s"), "Invalid");
    EXPECT_EQ(write("s", 80, 8, 8), IoStatus::ok);    // a whole chunk needs no read
    EXPECT_EQ(read("s", 80, 8), all(8, 8));
}

TEST_F(Defects, N16_AFullPOStoreIsLostWhenTheOriginIsWritten) {
    origin();
    snapshot("", "PO", 8, 32);    // two chunks of data
    EXPECT_EQ(write("o", 0, 16, 7), IoStatus::ok);
    EXPECT_EQ(write("s", 64, 8, 7), IoStatus::no_space);
    EXPECT_EQ(status("s"), "Overflow");
    EXPECT_EQ(read("s", 0, 16), all(16, 1));
    EXPECT_EQ(write("o", 64, 8, 7), IoStatus::ok);    // cannot be kept any more
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_TRUE(events.has("s: snapshot invalid: the COW device is full"));
}

TEST_F(Defects, N17_OverflowAndInvalidRaiseEvents) {
    origin();
    snapshot("1", "PO", 8, 32);
    const auto before = (*this)["s1"].event_number();
    EXPECT_EQ(write("s1", 0, 24, 7), IoStatus::no_space);
    EXPECT_TRUE(events.has("s1: snapshot full 80%"));
    EXPECT_TRUE(events.has("s1: snapshot full 95%"));
    EXPECT_TRUE(events.has("s1: snapshot overflow"));
    EXPECT_EQ((*this)["s1"].event_number(), before + 3);
}

TEST_F(Defects, N19_InvalidIsDurableBeforeTheOriginChanges) {
    SimDisk::Options cached;
    cached.tracks_cuts = true;
    origin();
    cached.limits.size = {32};
    disk("cow", 32, cached);
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(write("o", 0, 16, 7), IoStatus::ok);    // full now
    disks["cow"]->stall(op_bit(Op::flush));           // the mark is written, not yet flushed
    Request& breaking = start(Op::write, "o", 64, 8, 7);
    reactor.run_for(kSecond);
    EXPECT_FALSE(breaking.done());
    std::byte sector[kSectorSize];
    disks["origin"]->read_now({{64}, {1}}, sector);
    EXPECT_EQ(sector[0], std::byte{1});
    disks["cow"]->clear_faults();
    disks["cow"]->release();
    reactor.run_until_idle();
    EXPECT_TRUE(breaking.done());
    EXPECT_FALSE(header_valid("cow"));
}

TEST_F(Defects, N19_AStoreThatCannotBeToldIsRecordedAsLostAndNeverTrustedAgain) {
    origin();
    snapshot("", "P", 8);
    EXPECT_EQ(write("o", 0, 8, 7), IoStatus::ok);
    disks["cow"]->fail_always(op_bit(Op::write));
    EXPECT_EQ(write("o", 64, 8, 7), IoStatus::ok);
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_EQ(lost.lost.size(), 1u);
    EXPECT_TRUE(header_valid("cow"));    // its own header doesn't know
    remove("s");
    disks["cow"]->clear_faults();
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_FALSE(header_valid("cow"));    // now it does
    EXPECT_TRUE(lost.lost.empty());
}

TEST_F(Defects, N19_ALostStoreThatWasWipedIsANewOne) {
    origin();
    snapshot("", "P", 8);
    EXPECT_EQ(write("o", 0, 8, 7), IoStatus::ok);
    disks["cow"]->fail_always(op_bit(Op::write));
    EXPECT_EQ(write("o", 64, 8, 7), IoStatus::ok);
    ASSERT_EQ(lost.lost.size(), 1u);
    remove("s");
    disks["cow"]->clear_faults();
    disks["cow"]->fill_now({{0}, {8}}, 0);
    disks["cow"]->fail_nth(1, op_bit(Op::flush));    // not new before the old exceptions are gone for good
    EXPECT_NE(error_of(kSize, "snapshot", "origin cow P 8"), "no error");
    EXPECT_EQ(lost.lost.size(), 1u);
    disks["cow"]->clear_faults();
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(status("s"), "16/16384 16");
    EXPECT_TRUE(lost.lost.empty());
    EXPECT_EQ(write("o", 64, 8, 9), IoStatus::ok);
    EXPECT_EQ(read("s", 64, 8), all(8, 7));    // as it was when the new snapshot was taken
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_NE(status("s"), "Invalid");
}

TEST_F(Defects, N20_ANewStoreHasNoHeaderBeforeItsAreaIsEmpty) {
    SimDisk::Options cached;
    cached.tracks_cuts = true;
    disk("origin", kSize);
    disk("cow", 4096, cached).fill_now({{8}, {8}}, 0xaa);    // junk where area 0 will be
    disks["cow"]->fail_nth(1, op_bit(Op::flush));            // between the area and the header
    add("s");
    EXPECT_FALSE(load("s", kSize, "snapshot", "origin cow P 8"));
    EXPECT_FALSE(header_valid("cow"));
    disks["cow"]->clear_faults();
    ASSERT_TRUE(load("s", kSize, "snapshot", "origin cow P 8"));
    EXPECT_TRUE(reactor.run((*this)["s"].resume()));
    EXPECT_EQ(status("s"), "16/4096 16");
    EXPECT_TRUE(header_valid("cow"));
}

TEST_F(Defects, N21_AnAreaThatWouldFillWithNothingBehindItIsTakenForFull) {
    // Chunks of one sector: E = 32. Header, one area, 32 chunks of data, and not a sector more.
    disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
    disk("cow", 34);
    make("s", kSize, "snapshot", "origin cow PO 1");
    for (std::uint64_t i = 0; i < 31; ++i) EXPECT_EQ(write("s", i, 1, 5), IoStatus::ok) << i;
    EXPECT_EQ(write("s", 31, 1, 5), IoStatus::no_space);
    EXPECT_EQ(status("s"), "Overflow");    // not lost
    remove("s");
    make("s", kSize, "snapshot", "origin cow PO 1");
    EXPECT_EQ(read("s", 0, 32).at(30), 5);
    // A store that the kernel has filled so can be read.
    remove("s");
    put_entry("cow", 1, 31, 31, 33);
    make("s", kSize, "snapshot", "origin cow PO 1");
    EXPECT_EQ(status("s"), "34/34 3");
    EXPECT_EQ(write("s", 100, 1, 5), IoStatus::no_space);
}

class Crafted : public Defects {
  public:
    void SetUp() override {
        disk("origin", kSize).fill_now({{0}, {kSize}}, 1);
        disk("cow", 4096);
        put_header("cow", snapshot::kMagic, 1, 1, 8);
    }
    void expect_refused(const std::string& reason) {
        const std::string error = error_of(kSize, "snapshot", "origin cow P 8");
        EXPECT_NE(error.find("snapshot: Failed to read snapshot metadata: COW cow: "), std::string::npos) << error;
        EXPECT_NE(error.find(reason), std::string::npos) << error;
    }
};

TEST_F(Crafted, N22_AnEntryBeyondTheDeviceIsRefused) {
    put_entry("cow", 8, 0, 5, 512);    // the device has chunks 0 .. 511
    expect_refused("area 0, entry 0 (5 -> 512): the device has 512 chunks; is it smaller than it was?");
}
TEST_F(Crafted, N22_AnEntryThatPointsAtMetadataIsRefused) {
    put_entry("cow", 8, 0, 5, 258);
    expect_refused("area 0, entry 0 (5 -> 258): points at a chunk of metadata");
}
TEST_F(Crafted, N22_TwoEntriesForOneOriginChunkAreRefused) {
    put_entry("cow", 8, 0, 5, 2);
    put_entry("cow", 8, 1, 5, 3);
    expect_refused("area 0, entry 1 (5 -> 3): another entry has this origin chunk");
}
TEST_F(Crafted, N22_TwoEntriesForOneStoreChunkAreRefused) {
    put_entry("cow", 8, 0, 5, 2);
    put_entry("cow", 8, 1, 6, 2);
    expect_refused("area 0, entry 1 (6 -> 2): another entry has this COW chunk");
}
TEST_F(Crafted, N22_AnImpossibleOriginChunkIsRefused) {
    put_entry("cow", 8, 0, ~std::uint64_t{0}, 2);
    expect_refused("no origin has so many chunks");
}
TEST_F(Crafted, EntriesOutOfOrderAndHolesAreRead) {
    put_entry("cow", 8, 0, 9, 7);    // allocated later, committed first; chunks 3 to 6 belong to nobody
    put_entry("cow", 8, 1, 4, 2);
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(status("s"), "64/4096 16");    // next free: 8
    disks["cow"]->fill_now({{7 * 8}, {8}}, 0x55);
    EXPECT_EQ(read("s", 72, 8), all(8, 0x55));
}
TEST_F(Crafted, WhatFollowsATornCommitIsNeverReached) {
    // Chunks of 16 sectors have areas of two pieces. A commit of both was cut off: only the second piece came through.
    put_header("cow", snapshot::kMagic, 1, 1, 16);
    put_entry("cow", 16 + 8, 0, 77, 200);
    make("o", kSize, "snapshot-origin", "origin");
    make("s", kSize, "snapshot", "origin cow P 16");
    EXPECT_EQ(status("s"), "32/4096 32");
    for (std::uint64_t i = 0; i < 256 && i < kSize / 16; ++i) EXPECT_EQ(write("o", i * 16, 1, 7), IoStatus::ok);
    std::byte sector[kSectorSize];
    disks["cow"]->read_now({{16 + 8}, {1}}, sector);
    EXPECT_EQ(sector[8], std::byte{0}) << "the stale entry would be reached once the first piece is full";
}
TEST_F(Crafted, HeadersThatAreNoneAreRefusedByName) {
    put_header("cow", 0x12345678, 1, 1, 8);
    expect_refused("no snapshot store: the first bytes are 0x12345678");
    put_header("cow", snapshot::kMagic, 1, 2, 8);
    expect_refused("store version 2, known is 1");
    put_header("cow", snapshot::kMagic, 1, 1, 7);
    expect_refused("the header's chunk size 7 is not a power of two");
    put_header("cow", snapshot::kMagic, 1, 1, 0);
    expect_refused("the header's chunk size 0");
    put_header("cow", snapshot::kMagic, 1, 1, 1u << 31);
    expect_refused("the header's chunk size 2147483648");
    put_header("cow", snapshot::kMagic, 1, 1, 4096);
    expect_refused("smaller than two of its own chunks");
    put_header("cow", snapshot::kMagic, 9, 1, 8);
    expect_refused("the header's valid field is 9");
}

TEST_F(Defects, N24_AWriteIsNotHeldUpByASlowCopyOfAnother) {
    origin();
    snapshot("", "P", 8);
    // The read of one chunk hangs; another chunk's exception is committed and its write goes on.
    disks["origin"]->add_fault({.kind = DiskFault::Kind::stall, .ops = op_bit(Op::read), .extent = {{800}, {8}}});
    Request& slow = start(Op::write, "o", 800, 8, 7);
    Request& quick = start(Op::write, "o", 0, 8, 7);
    reactor.run_for(kSecond);
    EXPECT_TRUE(quick.done());
    EXPECT_EQ(quick.status(), IoStatus::ok);
    EXPECT_FALSE(slow.done());
    disks["origin"]->clear_faults();
    disks["origin"]->release();
    reactor.run_until_idle();
    EXPECT_TRUE(slow.done());
}

TEST_F(Defects, N24_AWriteToASnapshotDoesNotWaitForTheStoreOfAnother) {
    // Chunks of one piece, which are copied together, and of several.
    for (const unsigned chunk : {8u, 2048u}) {
        const std::string a = "a" + std::to_string(chunk), b = "b" + std::to_string(chunk);
        if (devices.empty()) origin();
        snapshot(a, "P", chunk);
        snapshot(b, "P", chunk);
        disks["cow" + b]->stall();
        Request& copied_for = start(Op::write, "o", 0, 8, 7);    // needs the chunk in both
        Request& same_chunk = start(Op::write, "s" + a, 0, 8, 8);
        reactor.run_for(kSecond);
        EXPECT_TRUE(same_chunk.done()) << chunk;
        EXPECT_FALSE(copied_for.done()) << chunk;
        disks["cow" + b]->clear_faults();
        disks["cow" + b]->release();
        reactor.run_until_idle();
        EXPECT_EQ(copied_for.status(), IoStatus::ok);
        EXPECT_EQ(same_chunk.status(), IoStatus::ok);
        EXPECT_EQ(read("s" + a, 0, 16).at(0), 8);
        EXPECT_EQ(read("s" + b, 8, 16), all(16, 1));
        remove("s" + a);
        remove("s" + b);
    }
}

TEST_F(Defects, N25_TheStoresOwnChunkSizeWinsAndIsShown) {
    origin();
    snapshot("", "P", 32);
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 8");
    EXPECT_EQ(table_of("s"), "origin cow P 32");
    remove("s");
    make("s", kSize, "snapshot", "origin cow P 0");
    EXPECT_EQ(table_of("s"), "origin cow P 32");
}

TEST_F(Defects, N26_AFullTransientStoreIsLostWithoutHarmToTheOrigin) {
    origin();
    snapshot("", "N", 8, 16);
    EXPECT_EQ(status("s"), "0/16 0");
    EXPECT_EQ(write("o", 0, 16, 7), IoStatus::ok);
    EXPECT_EQ(status("s"), "16/16 0");
    EXPECT_EQ(write("o", 64, 8, 7), IoStatus::ok);
    EXPECT_EQ(status("s"), "Invalid");
    EXPECT_EQ(read("o", 64, 8), all(8, 7));
}

TEST_F(Defects, N27_AStoreInUseUnderAnotherOriginIsRefused) {
    origin();
    snapshot("", "P", 8);
    disk("other", kSize);
    EXPECT_NE(error_of(kSize, "snapshot", "other cow P 8").find("Snapshot cow pairing for exception table handover failed"),
              std::string::npos);
    EXPECT_NE(status("s"), "Invalid");
}

TEST_F(Defects, N28_ASnapshotWithSmallerChunksThatComesLaterMissesNothing) {
    origin();
    snapshot("1", "P", 64);
    EXPECT_EQ(write("o", 0, 1, 2), IoStatus::ok);
    snapshot("2", "P", 8);
    EXPECT_EQ(write("o", 128, 64, 7), IoStatus::ok);    // 32 KiB: eight of its chunks
    std::vector<int> expected = all(256, 1);
    expected[0] = 2;
    EXPECT_EQ(read("s2", 0, 256), expected);
    EXPECT_EQ(read("s1", 0, 256), all(256, 1));
}

}  // namespace
}  // namespace udm::test
