// NBD exports below a disk: the server dies and comes back, several reactors share one export, and all ends while it is away.
#include <atomic>
#include <thread>

#include "test/contract/engine_fixture.hpp"
#include "test/contract/nbd_server.hpp"

namespace udm::test {
namespace {

constexpr std::uint64_t kSize = 8u << 20;

class NbdClients : public EngineTest, public ::testing::WithParamInterface<Variant> {
  protected:
    void SetUp() override {
        if (!Nbdkit::is_here()) GTEST_SKIP() << "nbdkit is not installed";
        image_ = make_file(folder_ / "image", kSize);
        server_.start({"file", image_});
        start(GetParam(), 2);
    }
    TempFolder folder_;
    std::string image_;
    Nbdkit server_;
};

INSTANTIATE_TEST_SUITE_P(All, NbdClients, ::testing::Values(Variant::uring, Variant::plain_ring, Variant::threads),
                         [](const auto& info) { return name_of(info.param); });

TEST_P(NbdClients, AnswerEverythingThoughTheServerIsKilledMeanwhile) {
    auto device = open(server_.uri());
    ASSERT_TRUE(device);
    std::atomic<bool> done{false}, over{false};
    // Lives as long as the servers that it started, which end with it.
    std::thread trouble{[&] {
        for (int i = 0; i < 5; ++i) {
            server_.kill();
            server_.start({"file", image_});
            ::poll(nullptr, 0, 50);
        }
        done = true;
        while (!over) ::poll(nullptr, 0, 1);
    }};
    struct Join {
        std::atomic<bool>& over;
        std::thread& thread;
        ~Join() {
            over = true;
            thread.join();
        }
    };
    constexpr std::size_t kCount = 500;
    std::vector<char> data, back(kCount * 4096);
    unsigned round = 0;
    const Join join{over, trouble};
    do {
        data = pattern(kCount * 4096, ++round);
        std::vector<Request> writes, reads;
        for (std::size_t i = 0; i < kCount; ++i) {
            const Extent extent{Sector{i * 8}, Sectors{8}};
            writes.push_back({Op::write, extent, {{data.data() + i * 4096, 4096}}});
            reads.push_back({Op::read, extent, {{back.data() + i * 4096, 4096}}});
        }
        Submission{reactor(), device->disk(), writes}.run_and_wait();
        for (const Request& request : writes) ASSERT_EQ(request.status, IoStatus::ok);
        Submission{reactor(), device->disk(), reads}.run_and_wait();
        for (const Request& request : reads) ASSERT_EQ(request.status, IoStatus::ok);
        ASSERT_EQ(data, back) << "round " << round;
    } while (!done);
    close(device);
}

TEST_P(NbdClients, ShareAnExportOverReactors) {
    for (const bool first_goes_first : {true, false}) {
        auto here = open(server_.uri(), OpenMode::write, 0);
        auto there = open(server_.uri(), OpenMode::write, 1);
        ASSERT_TRUE(here && there);
        EXPECT_EQ(here->id(), there->id());
        EXPECT_EQ(here->minor(), there->minor());
        auto data = pattern(64u << 10, 3);
        std::vector<char> back(data.size());
        std::vector<Request> write{{Op::write, {Sector{0}, Sectors{128}}, {{data.data(), data.size()}}}};
        Submission{reactor(1), there->disk(), write}.run_and_wait();
        ASSERT_EQ(write[0].status, IoStatus::ok);
        ASSERT_EQ(read(here->disk(), 0, back), IoStatus::ok);
        EXPECT_EQ(data, back);
        if (first_goes_first) close(here, 0);
        close(there, 1);
        if (!first_goes_first) close(here, 0);
    }
}

TEST_P(NbdClients, EndWhileTheirServerIsAway) {
    auto device = open(server_.uri());
    ASSERT_TRUE(device);
    auto data = pattern(4096, 1);
    ASSERT_EQ(write(device->disk(), 0, data), IoStatus::ok);
    server_.kill();
    close(device);
    engine().stop();
}

TEST_P(NbdClients, LetRequestsGoWhenTheEngineIsToStop) {
    auto device = open(server_.uri());
    ASSERT_TRUE(device);
    engine().nbd_settings().timeout_s = 0;
    server_.signal(SIGSTOP);
    engine().stop_connecting();
    auto data = pattern(4096, 1);
    EXPECT_EQ(write(device->disk(), 0, data), IoStatus::io_error);
    server_.signal(SIGCONT);
    close(device);
}

}  // namespace
}  // namespace udm::test
