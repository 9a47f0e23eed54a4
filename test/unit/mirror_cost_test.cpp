// A mirror's requests allocate nothing once its pools have what they need.
#include "test/support/counting_new.hpp"
#include "test/unit/mirror_fixture.hpp"

namespace udm::test {
namespace {

using MirrorCost = MirrorTest;

class Requests final : Layer {
  public:
    Requests(SimReactor& reactor, Disk& disk) : reactor_{reactor}, disk_{disk} {}
    // So many requests of 4 KiB all over the device, two of three writes, `depth` at a time.
    void run(unsigned count, unsigned depth) {
        left_ = count;
        for (unsigned i = 0; i < depth; ++i) submit();
        reactor_.run_until([this] { return under_way_ == 0; });
    }

  private:
    void submit() {
        if (left_ == 0) return;
        const unsigned number = left_--;
        ++under_way_;
        Io& io = reactor_.take_io();
        io.op = number % 3 == 0 ? Op::read : Op::write;
        io.flags = {};
        io.extent = {{number * 7919 % 2047 * 8}, {8}};
        io.set_memory(memory_, sizeof memory_);
        io.push(*this);
        disk_.submit(io);
    }
    void on_complete(Io& io, Frame&) noexcept override {
        EXPECT_EQ(io.status, IoStatus::ok);
        reactor_.give_io(io);
        --under_way_;
        submit();
    }
    SimReactor& reactor_;
    Disk& disk_;
    unsigned left_ = 0, under_way_ = 0;
    alignas(512) std::byte memory_[4096]{};
};

TEST_F(MirrorCost, OfRequestsIsNoAllocation) {
    Device& m = make_in_sync(3);
    Requests requests{w.reactor, m};
    requests.run(5000, 64);
    const auto before = news;
    requests.run(5000, 64);
    EXPECT_EQ(news - before, 0u);
}

TEST_F(MirrorCost, OfAWorkingSetIsAtMostOneLogWriteInAHundred) {
    w.disk("log", 64);
    for (unsigned i = 0; i < 2; ++i) w.disk("leg" + std::to_string(i), 16384);
    Device& m = make("disk 3 log 16 nosync 2 leg0 0 leg1 0");    // 1024 regions
    Requests requests{w.reactor, m};
    requests.run(5000, 32);
    log().reset_counters();
    leg(0).reset_counters();
    requests.run(60000, 32);
    EXPECT_GT(leg(0).count(Op::write).requests, 30000u);
    EXPECT_LE(log().count(Op::write).requests * 10000, leg(0).count(Op::write).requests * 105);
}

}  // namespace
}  // namespace udm::test
