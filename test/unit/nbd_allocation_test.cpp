// At a steady state no request allocates.
#include "test/support/counting_new.hpp"
#include "test/unit/nbd_fixture.hpp"

namespace udm::test {
namespace {

// Answers everything at once, and allocates nothing itself.
class InstantDisk final : public Disk {
  public:
    explicit InstantDisk(Reactor& reactor) : reactor_{reactor} {
        limits_.size = {1 << 16};
        limits_.discard = true;
    }
    const Limits& limits() const noexcept override { return limits_; }
    void submit(Io& io) noexcept override {
        if (io.op == Op::read) io.buffers.fill_zero(to_bytes(io.extent.length));
        if (io.op == Op::extent_status) io.answer = {{1}, (io.extent.first.v & 1) != 0, false};
        reactor_.complete_later(io, IoStatus::ok);
    }

  private:
    Reactor& reactor_;
    Limits limits_;
};

class NbdAllocation : public NbdWorld {
  protected:
    // News of the same requests again and again, once they have been served a few times.
    std::uint64_t news_of(const std::string& bytes, bool chunks) {
        InstantDisk disk{reactor(0)};
        serve("vol", disk);
        Wire& wire = connect(
            "vol", chunks, chunks ? std::vector<std::string>{"base:allocation"} : std::vector<std::string>{});
        wire.discards = true;
        std::uint64_t before = 0;
        for (int i = 0; i < 40; ++i) {
            if (i == 20) before = news;
            wire.write(bytes);
            reactor(0).run_for(kMillisecond);
        }
        const std::uint64_t during = news - before;
        EXPECT_GT(wire.received_bytes, 0u);
        EXPECT_FALSE(wire.closed());
        finish();
        return during;
    }
};

TEST_F(NbdAllocation, NoSmallRequestAllocates) {
    std::string bytes;
    for (std::uint64_t i = 0; i < 32; ++i) {
        bytes += request(kRead, i, i * 4096, 4096) + write(100 + i, i * 4096, std::string(4096, 'x'));
    }
    bytes += request(kFlush, 1, 0, 0) + request(kTrim, 2, 0, 4096) + request(kWriteZeroes, 3, 0, 4096) +
             request(kCache, 4, 0, 4096);
    EXPECT_EQ(news_of(bytes, false), 0u);
    EXPECT_GT(news, 0u);  // it does count
}

TEST_F(NbdAllocation, NoStructuredReplyAllocates) {
    std::string bytes;
    for (std::uint64_t i = 0; i < 32; ++i) bytes += request(kRead, i, i * 4096, 4096);
    bytes += request(kBlockStatus, 100, 0, 1 << 20) + request(kRead, 101, 1, 1);  // and an error
    EXPECT_EQ(news_of(bytes, true), 0u);
}

TEST_F(NbdAllocation, NoLargeRequestAllocates) {
    EXPECT_EQ(news_of(write(1, 0, std::string(1 << 20, 'x')) +
                          write(2, 0, std::string(300000 / 512 * 512, 'x')) + request(kRead, 3, 0, 4 << 20),
                      false),
              0u);
}

}  // namespace
}  // namespace udm::test
