// The contract of Disk (port/disk.hpp), for what the engine opens: each kind of engine with each kind of
// device.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "test/contract/engine_fixture.hpp"
#include "test/contract/nbd_server.hpp"

namespace udm::test {
namespace {

enum class Where { disk_file, tmpfs_file, memory, nbd };

constexpr std::uint64_t kSize = 16u << 20;

class DiskContract : public EngineTest, public ::testing::WithParamInterface<std::tuple<Variant, Where>> {
  protected:
    void SetUp() override {
        start(std::get<0>(GetParam()));
        if (IsSkipped()) return;
        where_ = std::get<1>(GetParam());
        if (where_ == Where::memory) {
            words_ = "ram:16M";
        } else if (where_ == Where::nbd) {
            if (!Nbdkit::is_here()) GTEST_SKIP() << "nbdkit is not installed";
            server_ = std::make_unique<Nbdkit>();
            server_->start({"memory", "16M"});
            words_ = server_->uri();
        } else {
            folder_ = std::make_unique<TempFolder>(where_ == Where::tmpfs_file ? "/dev/shm" : "/var/tmp");
            words_ = make_file(*folder_ / "image", kSize);
        }
        device_ = open(words_);
        ASSERT_TRUE(device_);
    }
    void TearDown() override {
        if (device_) close(device_);
        EngineTest::TearDown();
        server_.reset();
    }
    Disk& disk() { return device_->disk(); }

    Where where_{};
    std::unique_ptr<TempFolder> folder_;
    std::unique_ptr<Nbdkit> server_;
    std::string words_;
    std::unique_ptr<OpenDevice> device_;
};

std::string param_name(const ::testing::TestParamInfo<std::tuple<Variant, Where>>& info) {
    static const char* const kWhere[] = {"disk_file", "tmpfs_file", "memory", "nbd"};
    return name_of(std::get<0>(info.param)) + "_" + kWhere[static_cast<int>(std::get<1>(info.param))];
}

INSTANTIATE_TEST_SUITE_P(
    All, DiskContract,
    ::testing::Combine(::testing::Values(Variant::uring, Variant::plain_ring, Variant::threads),
                       ::testing::Values(Where::disk_file, Where::tmpfs_file, Where::memory, Where::nbd)),
    param_name);

TEST_P(DiskContract, TellsItsSizeAndWhatItIs) {
    EXPECT_EQ(disk().limits().size, whole_sectors(kSize));
    EXPECT_FALSE(disk().limits().read_only);
    EXPECT_EQ(device_->words(), words_);
    const DiskId::Kind kind = device_->id().kind;
    EXPECT_EQ(kind, where_ == Where::memory ? DiskId::Kind::memory : where_ == Where::nbd ? DiskId::Kind::remote : DiskId::Kind::file);
}

TEST_P(DiskContract, ReadsBackWhatWasWrittenInEverySize) {
    for (const std::size_t bytes : {512u, 4096u, 12288u, 65536u, 131072u, 262144u, 1u << 20, 5u << 20}) {
        auto data = pattern(bytes, static_cast<unsigned>(bytes));
        ASSERT_EQ(write(disk(), 8, data), IoStatus::ok) << bytes;
        std::vector<char> back(bytes);
        ASSERT_EQ(read(disk(), 8, back), IoStatus::ok) << bytes;
        EXPECT_EQ(data, back) << bytes;
    }
}

TEST_P(DiskContract, NeverWrittenReadsAsZeroes) {
    std::vector<char> back(65536, 'x');
    ASSERT_EQ(read(disk(), 100, back), IoStatus::ok);
    EXPECT_EQ(back, std::vector<char>(65536));
}

TEST_P(DiskContract, ReachesItsLastSector) {
    auto data = pattern(512, 3);
    const std::uint64_t last = disk().limits().size.v - 1;
    ASSERT_EQ(write(disk(), last, data), IoStatus::ok);
    std::vector<char> back(512);
    ASSERT_EQ(read(disk(), last, back), IoStatus::ok);
    EXPECT_EQ(data, back);
}

TEST_P(DiskContract, RefusesWhatLiesBeyondItsEnd) {
    std::vector<char> data(4096);
    const std::uint64_t size = disk().limits().size.v;
    for (const std::uint64_t first : {size - 7, size, size + 8, ~std::uint64_t{0} - 3}) {
        EXPECT_EQ(read(disk(), first, data), IoStatus::invalid) << first;
        EXPECT_EQ(write(disk(), first, data), IoStatus::invalid) << first;
        EXPECT_EQ(simple(disk(), Op::discard, first, 8), IoStatus::invalid) << first;
        EXPECT_EQ(simple(disk(), Op::write_zeroes, first, 8), IoStatus::invalid) << first;
        EXPECT_EQ(simple(disk(), Op::extent_status, first, 8), IoStatus::invalid) << first;
    }
}

TEST_P(DiskContract, TakesMemoryThatIsNotAligned) {
    std::vector<char> memory(65536 + 64);
    for (const std::size_t shift : {1u, 3u, 13u, 64u}) {
        const auto data = pattern(65536, static_cast<unsigned>(shift));
        std::memcpy(memory.data() + shift, data.data(), data.size());
        ASSERT_EQ(
            run(disk(), {Op::write, {Sector{16}, Sectors{128}}, {{memory.data() + shift, 65536}}}).status,
            IoStatus::ok);
        std::memset(memory.data(), 0, memory.size());
        ASSERT_EQ(
            run(disk(), {Op::read, {Sector{16}, Sectors{128}}, {{memory.data() + shift, 65536}}}).status,
            IoStatus::ok);
        EXPECT_EQ(std::memcmp(memory.data() + shift, data.data(), data.size()), 0) << shift;
    }
}

// Pieces of every kind: aligned, odd lengths, a page each, and more of them than one system call takes.
TEST_P(DiskContract, GathersAndScattersPieces) {
    for (const std::size_t piece : {511u, 512u, 1000u, 4096u, 65536u}) {
        const std::size_t bytes = 2u << 20;
        const auto data = pattern(bytes, static_cast<unsigned>(piece));
        std::vector<char> copy = data;
        std::vector<char> back(bytes);
        std::vector<iovec> out, in;
        for (std::size_t at = 0; at < bytes; at += piece) {
            const std::size_t n = std::min(piece, bytes - at);
            out.push_back({copy.data() + at, n});
            in.push_back({back.data() + at, n});
        }
        const Extent extent{Sector{40}, whole_sectors(bytes)};
        ASSERT_EQ(run(disk(), {Op::write, extent, out}).status, IoStatus::ok) << piece;
        ASSERT_EQ(run(disk(), {Op::read, extent, in}).status, IoStatus::ok) << piece;
        EXPECT_EQ(data, back) << piece;
    }
}

TEST_P(DiskContract, ServesManyRequestsAtOnce) {
    constexpr std::size_t kCount = 2000;
    const auto data = pattern(kCount * 4096, 9);
    std::vector<char> copy = data;
    std::vector<char> back(data.size());
    std::vector<Request> writes, reads;
    for (std::size_t i = 0; i < kCount; ++i) {
        const Extent extent{Sector{i * 8}, Sectors{8}};
        writes.push_back({Op::write, extent, {{copy.data() + i * 4096, 4096}}});
        reads.push_back({Op::read, extent, {{back.data() + i * 4096, 4096}}});
    }
    Submission{reactor(), disk(), writes}.run_and_wait();
    for (const Request& request : writes) ASSERT_EQ(request.status, IoStatus::ok);
    Submission{reactor(), disk(), reads}.run_and_wait();
    for (const Request& request : reads) ASSERT_EQ(request.status, IoStatus::ok);
    EXPECT_EQ(data, back);
}

TEST_P(DiskContract, ServesMoreAtOnceThanAQueueHolds) {
    constexpr std::size_t kCount = 12000;
    auto data = pattern(64u << 10, 2);
    ASSERT_EQ(write(disk(), 0, data), IoStatus::ok);
    std::vector<char> back(kCount * 512);
    std::vector<Request> reads;
    for (std::size_t i = 0; i < kCount; ++i) {
        reads.push_back({Op::read, {Sector{i % 128}, Sectors{1}}, {{back.data() + i * 512, 512}}});
    }
    Submission{reactor(), disk(), reads}.run_and_wait();
    for (std::size_t i = 0; i < kCount; ++i) {
        ASSERT_EQ(reads[i].status, IoStatus::ok);
        ASSERT_EQ(std::memcmp(back.data() + i * 512, data.data() + i % 128 * 512, 512), 0);
    }
}

TEST_P(DiskContract, FlushesAndWritesThrough) {
    auto data = pattern(8192, 5);
    EXPECT_EQ(write(disk(), 0, data, {.fua = true}), IoStatus::ok);
    EXPECT_EQ(write(disk(), 16, data), IoStatus::ok);
    EXPECT_EQ(simple(disk(), Op::flush, 0, 0), IoStatus::ok);
    EXPECT_EQ(simple(disk(), Op::write_zeroes, 16, 8, {.fua = true}), IoStatus::ok);
    std::vector<char> back(4096, 'x');
    EXPECT_EQ(read(disk(), 16, back), IoStatus::ok);
    EXPECT_EQ(back, std::vector<char>(4096));
}

TEST_P(DiskContract, WritesZeroesInEveryWay) {
    for (const bool no_hole : {false, true}) {
        for (const std::uint64_t sectors : {1u, 7u, 8u, 256u, 8192u, 20000u}) {
            auto data = pattern(20480 * 512, 7);
            ASSERT_EQ(write(disk(), 0, data), IoStatus::ok);
            ASSERT_EQ(simple(disk(), Op::write_zeroes, 3, sectors, {.no_hole = no_hole}), IoStatus::ok)
                << sectors;
            std::vector<char> back(data.size());
            ASSERT_EQ(read(disk(), 0, back), IoStatus::ok);
            std::memset(data.data() + 3 * 512, 0, sectors * 512);
            EXPECT_EQ(data, back) << sectors << " no_hole " << no_hole;
        }
    }
}

TEST_P(DiskContract, DiscardsAndTellsItAsAHole) {
    auto data = pattern(1u << 20, 8);
    ASSERT_EQ(write(disk(), 0, data), IoStatus::ok);
    ASSERT_EQ(simple(disk(), Op::flush, 0, 0), IoStatus::ok);
    if (!disk().limits().discard) GTEST_SKIP() << "no discards here";
    ASSERT_EQ(simple(disk(), Op::discard, 256, 512), IoStatus::ok);
    std::vector<Extent> holes;
    for (std::uint64_t at = 0; at < 2048;) {
        const Request asked = run(disk(), {Op::extent_status, {Sector{at}, Sectors{2048 - at}}});
        ASSERT_EQ(asked.status, IoStatus::ok);
        ASSERT_GE(asked.answer.length.v, 1u);
        ASSERT_LE(asked.answer.length.v, 2048 - at);
        if (asked.answer.hole) holes.push_back({Sector{at}, asked.answer.length});
        EXPECT_EQ(asked.answer.hole, asked.answer.zero);
        at += asked.answer.length.v;
    }
    ASSERT_EQ(holes.size(), 1u);
    EXPECT_EQ(holes[0], (Extent{Sector{256}, Sectors{512}}));
}

TEST_P(DiskContract, CompletesEmptyRequests) {
    EXPECT_EQ(simple(disk(), Op::read, 0, 0), IoStatus::ok);
    EXPECT_EQ(simple(disk(), Op::write, disk().limits().size.v, 0), IoStatus::ok);
}

}  // namespace
}  // namespace udm::test
