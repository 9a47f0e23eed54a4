// The ring has no room, and the system takes nothing from it for a while: nothing that was asked for is forgotten.
#include <dlfcn.h>
#include <liburing.h>
#include <sys/socket.h>
#include <unistd.h>

#include <atomic>

#include "engine/loop.hpp"
#include "test/contract/engine_fixture.hpp"

namespace {
std::atomic<bool> refusing = false;

template <class Function>
Function real(const char* name) {
    return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}
}  // namespace

// In place of the library's, for all of this program.
extern "C" int io_uring_submit(io_uring* ring) {
    static const auto submit = real<int (*)(io_uring*)>("io_uring_submit");
    return refusing ? -EBUSY : submit(ring);
}
extern "C" int io_uring_submit_and_get_events(io_uring* ring) {
    static const auto submit = real<int (*)(io_uring*)>("io_uring_submit_and_get_events");
    return refusing ? -EBUSY : submit(ring);
}

namespace udm::test {
namespace {

class FullRing : public EngineTest, public ::testing::WithParamInterface<Variant> {
  protected:
    void SetUp() override { start(GetParam()); }
    Loop& loop() { return static_cast<Loop&>(reactor()); }
};

struct Waited : Operation {
    void done(int n) noexcept override { ended.set_value(n); }
    std::promise<int> ended;
    char byte = 0;
    iovec piece{&byte, 1};
};

TEST_P(FullRing, AReceiveIsCancelledWhenThereIsRoomAgain) {
    constexpr unsigned kMany = 2000;    // more than any queue has room for
    int pair[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
    const int zeroes = ::open("/dev/zero", O_RDONLY | O_CLOEXEC);
    const File socket{pair[0]}, device{zeroes};
    const auto prepare = [](Waited& op, Operation::Kind kind, const File& file) {
        op.kind = kind;
        op.file = &file;
        op.vec = &op.piece;
        op.count = 1;
    };
    Waited receive;
    prepare(receive, Operation::Kind::receive, socket);
    on(reactor(), [&] { loop().start(receive); });
    on(reactor(), [] {});    // by now the system has it
    std::vector<Waited> reads(kMany);
    on(reactor(), [&] {
        refusing = true;
        for (Waited& read : reads) {
            prepare(read, Operation::Kind::read, device);
            loop().start(read);
        }
        loop().cancel(receive);
        refusing = false;
    });
    auto cancelled = receive.ended.get_future();
    const bool in_time = cancelled.wait_for(std::chrono::seconds{10}) == std::future_status::ready;
    EXPECT_TRUE(in_time) << "nobody has cancelled it";
    if (!in_time) ::shutdown(pair[1], SHUT_RDWR);
    EXPECT_EQ(cancelled.get(), -ECANCELED);
    for (Waited& read : reads) EXPECT_EQ(read.ended.get_future().get(), 1);
    for (const int fd : {pair[0], pair[1], zeroes}) ::close(fd);
}

INSTANTIATE_TEST_SUITE_P(Rings, FullRing, ::testing::Values(Variant::uring, Variant::plain_ring),
                         [](const auto& variant) { return name_of(variant.param); });

}  // namespace
}  // namespace udm::test
