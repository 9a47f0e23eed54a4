// The contract of Stream, Listener and Network (port/net.hpp).
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <functional>
#include <future>
#include <thread>

#include "engine/listen_socket.hpp"
#include "test/contract/engine_fixture.hpp"

namespace udm::test {
namespace {

// Counts what a stream says and lets a test wait for it.
class Witness final : public StreamHandler {
  public:
    explicit Witness(Reactor& reactor) : reactor_{reactor} {}
    void received(ssize_t n) noexcept override { note(received_, n); }
    void sent(int status) noexcept override {
        if (when_sent) when_sent();
        note(sent_, status);
    }
    void closed() noexcept override { note(closed_, 0); }

    ssize_t wait_received() { return wait(received_); }
    int wait_sent() { return static_cast<int>(wait(sent_)); }
    void wait_closed() { wait(closed_); }
    std::size_t heard() {
        const std::lock_guard lock{mutex_};
        return received_.size() + sent_.size() + closed_.size();
    }

    std::unique_ptr<Stream> stream;
    std::function<void()> when_sent;
    bool calling = false;  // of recv, send or close: nothing may come back inside

  private:
    void note(std::deque<ssize_t>& where, ssize_t n) {
        EXPECT_FALSE(calling);
        EXPECT_TRUE(reactor_.is_current());
        const std::lock_guard lock{mutex_};
        where.push_back(n);
        heard_.notify_all();
    }
    ssize_t wait(std::deque<ssize_t>& where) {
        std::unique_lock lock{mutex_};
        EXPECT_TRUE(heard_.wait_for(lock, std::chrono::seconds(20), [&] { return !where.empty(); }));
        if (where.empty()) return -ETIME;
        const ssize_t n = where.front();
        where.pop_front();
        return n;
    }
    Reactor& reactor_;
    std::mutex mutex_;
    std::condition_variable heard_;
    std::deque<ssize_t> received_, sent_, closed_;
};

class StreamContract : public EngineTest, public ::testing::WithParamInterface<Variant> {
  protected:
    void SetUp() override {
        start(GetParam(), 2);
        if (IsSkipped()) return;
        witness_ = std::make_unique<Witness>(reactor());
        int pair[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        peer_ = pair[0];
        on(reactor(), [&] { witness_->stream = engine().network(0).adopt(pair[1], *witness_); });
    }
    void TearDown() override {
        if (witness_ && witness_->stream) end();
        if (peer_ >= 0) ::close(peer_);
        EngineTest::TearDown();
    }
    void recv(void* to, std::size_t max, bool all = false) {
        on(reactor(), [&] {
            witness_->calling = true;
            witness_->stream->recv(static_cast<std::byte*>(to), max, all);
            witness_->calling = false;
        });
    }
    void send(std::vector<iovec> pieces) {
        pieces_ = std::move(pieces);  // stay until sent()
        on(reactor(), [&] {
            witness_->calling = true;
            witness_->stream->send(pieces_.data(), static_cast<std::uint32_t>(pieces_.size()));
            witness_->calling = false;
        });
    }
    void close_stream() {
        on(reactor(), [&] {
            witness_->calling = true;
            witness_->stream->close();
            witness_->calling = false;
        });
    }
    void end() {
        close_stream();
        witness_->wait_closed();
        on(reactor(), [&] { witness_->stream.reset(); });
    }
    std::vector<char> read_peer(std::size_t bytes) const {
        std::vector<char> data(bytes);
        std::size_t got = 0;
        while (got < bytes) {
            const ssize_t n = ::recv(peer_, data.data() + got, bytes - got, 0);
            if (n <= 0) break;
            got += static_cast<std::size_t>(n);
        }
        data.resize(got);
        return data;
    }
    void write_peer(const void* data, std::size_t bytes) const {
        const char* at = static_cast<const char*>(data);
        while (bytes != 0) {
            const ssize_t n = ::send(peer_, at, bytes, MSG_NOSIGNAL);
            ASSERT_GT(n, 0);
            at += n;
            bytes -= static_cast<std::size_t>(n);
        }
    }

    int peer_ = -1;
    std::unique_ptr<Witness> witness_;
    std::vector<iovec> pieces_;
};

INSTANTIATE_TEST_SUITE_P(All, StreamContract,
                         ::testing::Values(Variant::uring, Variant::plain_ring, Variant::threads),
                         [](const auto& which) { return name_of(which.param); });

TEST_P(StreamContract, ReceivesWhatIsThere) {
    char buffer[100];
    recv(buffer, sizeof buffer);
    write_peer("hello", 5);
    ASSERT_EQ(witness_->wait_received(), 5);
    EXPECT_EQ(std::memcmp(buffer, "hello", 5), 0);
    write_peer("and more", 8);  // before it is asked for
    recv(buffer, 3);
    ASSERT_EQ(witness_->wait_received(), 3);
    recv(buffer, sizeof buffer);
    ASSERT_EQ(witness_->wait_received(), 5);
    EXPECT_EQ(std::memcmp(buffer, " more", 5), 0);
}

TEST_P(StreamContract, ReceivesAllWhereAllIsAskedFor) {
    auto data = pattern(3u << 20, 1);
    std::vector<char> back(data.size());
    recv(back.data(), back.size(), true);
    for (std::size_t at = 0; at < data.size();) {  // in odd pieces
        const std::size_t n = std::min<std::size_t>(77777, data.size() - at);
        write_peer(data.data() + at, n);
        at += n;
    }
    ASSERT_EQ(witness_->wait_received(), static_cast<ssize_t>(data.size()));
    EXPECT_EQ(back, data);
}

TEST_P(StreamContract, TellsTheEndOfTheStream) {
    char buffer[100];
    recv(buffer, sizeof buffer, true);
    write_peer("last", 4);
    ::close(std::exchange(peer_, -1));
    ASSERT_EQ(witness_->wait_received(), 4);
    recv(buffer, sizeof buffer, true);
    ASSERT_EQ(witness_->wait_received(), 0);
    recv(buffer, sizeof buffer);
    ASSERT_EQ(witness_->wait_received(), 0);
}

// Many pieces of many lengths, against a receiver that is slower than the sender: it goes out in parts.
TEST_P(StreamContract, SendsEverythingInOrder) {
    for (const std::size_t piece :
         {std::size_t{1}, std::size_t{1000}, std::size_t{5000}, std::size_t{1} << 20}) {
        const std::size_t count = piece == std::size_t{1} << 20 ? 5 : 1024;
        auto data = pattern(piece * count, static_cast<unsigned>(piece));
        std::vector<iovec> pieces;
        for (std::size_t i = 0; i < count; ++i) pieces.push_back({data.data() + i * piece, piece});
        send(pieces);
        EXPECT_EQ(read_peer(data.size()), data);
        EXPECT_EQ(witness_->wait_sent(), 0);
    }
}

TEST_P(StreamContract, SendsPiecesOfLengthZero) {
    char a[] = "ab", b[] = "cd";
    send({{a, 0}, {a, 2}, {b, 0}, {b, 2}, {b, 0}});
    EXPECT_EQ(witness_->wait_sent(), 0);
    EXPECT_EQ(read_peer(4), (std::vector<char>{'a', 'b', 'c', 'd'}));
}

// Nothing else wakes the loop: what begins when a send ends must not wait for something else to end.
TEST_P(StreamContract, ATimerAndATaskThatASendsEndStartsAreNotForgotten) {
    struct Late final : Timer {
        void expired() noexcept override { done.set_value(); }
        std::promise<void> done;
    } timer;
    struct Next final : Task {
        void run() noexcept override { done.set_value(); }
        std::promise<void> done;
    } task;
    char a[] = "ab";
    witness_->when_sent = [&] { reactor().arm(timer, reactor().now() + 20 * kMillisecond); };
    send({{a, 2}});
    EXPECT_EQ(timer.done.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
    EXPECT_EQ(witness_->wait_sent(), 0);

    witness_->when_sent = [&] { reactor().post(task); };
    send({{a, 2}});
    EXPECT_EQ(task.done.get_future().wait_for(std::chrono::seconds(20)), std::future_status::ready);
    EXPECT_EQ(witness_->wait_sent(), 0);
}

TEST_P(StreamContract, SendsAndReceivesAtTheSameTime) {
    auto out = pattern(8u << 20, 1);
    auto in = pattern(8u << 20, 2);
    std::vector<char> back(in.size());
    const std::vector<iovec> pieces{{out.data(), out.size()}};
    recv(back.data(), back.size(), true);
    send(pieces);
    std::thread writer{[&] { write_peer(in.data(), in.size()); }};
    EXPECT_EQ(read_peer(out.size()), out);
    writer.join();
    EXPECT_EQ(witness_->wait_sent(), 0);
    EXPECT_EQ(witness_->wait_received(), static_cast<ssize_t>(in.size()));
    EXPECT_EQ(back, in);
}

TEST_P(StreamContract, SaysThatThePeerIsGone) {
    ::close(std::exchange(peer_, -1));
    auto data = pattern(1u << 20, 1);
    send({{data.data(), data.size()}});
    EXPECT_EQ(witness_->wait_sent(), -EPIPE);
}

TEST_P(StreamContract, CancelsWhatIsUnderWayWhenItCloses) {
    char buffer[100];
    auto data = pattern(32u << 20, 1);  // more than a socket takes
    const std::vector<iovec> pieces{{data.data(), data.size()}};
    recv(buffer, sizeof buffer);
    send(pieces);
    close_stream();
    EXPECT_EQ(witness_->wait_received(), -ECANCELED);
    EXPECT_EQ(witness_->wait_sent(), -ECANCELED);
    witness_->wait_closed();
    on(reactor(), [&] { witness_->stream.reset(); });
    EXPECT_EQ(witness_->heard(), 0u);
    // The peer sees the end after what had gone out.
    EXPECT_LT(read_peer(data.size()).size(), data.size());
}

TEST_P(StreamContract, ClosesWithNothingUnderWay) {
    close_stream();
    witness_->wait_closed();
    on(reactor(), [&] { witness_->stream.reset(); });
    EXPECT_EQ(read_peer(1).size(), 0u);
}

TEST_P(StreamContract, MovesToAnotherReactor) {
    char buffer[100];
    write_peer("one", 3);
    recv(buffer, sizeof buffer);
    ASSERT_EQ(witness_->wait_received(), 3);
    recv(buffer, sizeof buffer);  // waits once, so that whatever watches the socket does
    write_peer("two", 3);
    ASSERT_EQ(witness_->wait_received(), 3);
    const int fd = on(reactor(), [&] {
        const int released = witness_->stream->release();
        witness_->stream.reset();
        return released;
    });
    witness_ = std::make_unique<Witness>(reactor(1));
    on(reactor(1), [&] {
        witness_->stream = engine().network(1).adopt(fd, *witness_);
        witness_->stream->recv(reinterpret_cast<std::byte*>(buffer), sizeof buffer);
    });
    write_peer("three", 5);
    EXPECT_EQ(witness_->wait_received(), 5);
    on(reactor(1), [&] { witness_->stream->close(); });
    witness_->wait_closed();
    on(reactor(1), [&] { witness_->stream.reset(); });
}

// Nobody closed it: what is under way is never heard of, and nothing waits for it.
TEST_P(StreamContract, MayBeUnderWayWhenTheEngineStops) {
    if (GetParam() == Variant::plain_ring) GTEST_SKIP() << "old kernels cannot cancel everything at once";
    char buffer[100];
    recv(buffer, sizeof buffer);
    auto data = pattern(32u << 20, 1);
    send({{data.data(), data.size()}});
    engine().stop();
    witness_->stream.reset();
    EXPECT_EQ(witness_->heard(), 0u);
}

// Requests and answers from many sockets at once, through handlers that go on by themselves.
class Echo final : public StreamHandler {
  public:
    Echo(Network& network, int fd, std::atomic<int>& left) : left_{left}, stream_{network.adopt(fd, *this)} {
        next();
    }
    void received(ssize_t n) noexcept override {
        if (n <= 0) return stream_->close();
        piece_ = {buffer_, static_cast<std::size_t>(n)};
        stream_->send(&piece_, 1);
    }
    void sent(int status) noexcept override {
        if (status != 0) return stream_->close();
        next();
    }
    void closed() noexcept override {
        left_.fetch_sub(1);
        left_.notify_all();
        delete this;
    }

  private:
    void next() noexcept { stream_->recv(buffer_, sizeof buffer_); }
    std::atomic<int>& left_;
    std::byte buffer_[4096];
    iovec piece_{};
    std::unique_ptr<Stream> stream_;
};

TEST_P(StreamContract, ServesManyAtOnce) {
    constexpr int kStreams = 300;
    std::atomic<int> left{kStreams};
    std::vector<int> peers;
    for (int i = 0; i < kStreams; ++i) {
        int pair[2];
        ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        peers.push_back(pair[0]);
        const auto which = static_cast<unsigned>(i % 2);
        on(reactor(which), [&] { new Echo{engine().network(which), pair[1], left}; });
    }
    for (int round = 0; round < 20; ++round) {
        for (const int peer : peers)
            ASSERT_EQ(::send(peer, &round, sizeof round, 0), static_cast<ssize_t>(sizeof round));
        for (const int peer : peers) {
            int back = -1;
            ASSERT_EQ(::recv(peer, &back, sizeof back, MSG_WAITALL), static_cast<ssize_t>(sizeof back));
            ASSERT_EQ(back, round);
        }
    }
    for (const int peer : peers) ::close(peer);
    for (int n = left.load(); n != 0; n = left.load()) left.wait(n);
}

// --- listeners
// ---------------------------------------------------------------------------------------------------

class ListenerContract : public EngineTest,
                         public ::testing::WithParamInterface<Variant>,
                         protected Listener::Handler {
  protected:
    void SetUp() override { start(GetParam()); }
    void TearDown() override {
        listener_.reset();
        for (const int fd : accepted_) ::close(fd);
        EngineTest::TearDown();
    }
    void accepted(int fd) noexcept override {
        EXPECT_NE(::fcntl(fd, F_GETFL) & O_NONBLOCK, 0);
        EXPECT_NE(::fcntl(fd, F_GETFD) & FD_CLOEXEC, 0);
        const std::lock_guard lock{mutex_};
        accepted_.push_back(fd);
        changed_.notify_all();
    }
    void wait_for(std::size_t count) {
        std::unique_lock lock{mutex_};
        EXPECT_TRUE(
            changed_.wait_for(lock, std::chrono::seconds(20), [&] { return accepted_.size() >= count; }));
    }
    void listen(const Address& address) {
        auto listener = engine().network(0).listen(address, *this);
        ASSERT_TRUE(listener) << listener.error().message;
        listener_ = std::move(*listener);
    }
    std::string refusal(const Address& address, Errc code) {
        auto listener = engine().network(0).listen(address, *this);
        EXPECT_FALSE(listener);
        if (listener) return "";
        EXPECT_EQ(listener.error().code, code) << listener.error().message;
        return listener.error().message;
    }
    static int connect_unix(const std::string& path) {
        const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.c_str(), path.size());
        if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) == 0) return fd;
        ::close(fd);
        return -1;
    }

    TempFolder folder_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::vector<int> accepted_;
    std::unique_ptr<Listener> listener_;
};

INSTANTIATE_TEST_SUITE_P(All, ListenerContract,
                         ::testing::Values(Variant::uring, Variant::plain_ring, Variant::threads),
                         [](const auto& which) { return name_of(which.param); });

TEST_P(ListenerContract, AcceptsOnAUnixSocketUntilItIsGone) {
    const std::string path = folder_ / "socket";
    listen({.path = path});
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0600u);
    std::vector<int> clients;
    for (std::size_t i = 0; i < 50; ++i) clients.push_back(connect_unix(path));
    wait_for(50);
    listener_.reset();
    EXPECT_FALSE(std::filesystem::exists(path));
    EXPECT_LT(connect_unix(path), 0);
    for (const int fd : clients) {
        EXPECT_GE(fd, 0);
        ::close(fd);
    }
    listen({.path = path});  // at once again
    const int fd = connect_unix(path);
    wait_for(51);
    ::close(fd);
}

TEST_P(ListenerContract, AcceptsOnATcpPortOfItsChoice) {
    listen({.kind = Address::Kind::tcp});
    ASSERT_NE(listener_->port(), 0);
    const int fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_port = htons(listener_->port());
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    ASSERT_EQ(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    wait_for(1);
    Witness witness{reactor()};
    on(reactor(), [&] { witness.stream = engine().network(0).adopt(accepted_[0], witness); });
    int on_value = 0;
    socklen_t size = sizeof on_value;
    ::getsockopt(accepted_[0], IPPROTO_TCP, TCP_NODELAY, &on_value, &size);
    EXPECT_EQ(on_value, 1);
    ::getsockopt(accepted_[0], SOL_SOCKET, SO_KEEPALIVE, &on_value, &size);
    EXPECT_EQ(on_value, 1);
    accepted_.clear();  // the stream's now
    on(reactor(), [&] { witness.stream->close(); });
    witness.wait_closed();
    on(reactor(), [&] { witness.stream.reset(); });
    const std::uint16_t port = listener_->port();
    EXPECT_NE(
        refusal({.kind = Address::Kind::tcp, .port = port}, Errc{EADDRINUSE}).find(std::to_string(port)),
        std::string::npos);
    listener_.reset();
    listen({.kind = Address::Kind::tcp, .port = port});
    ::close(fd);
}

TEST_P(ListenerContract, ReplacesASocketOnlyIfNobodyAnswers) {
    const std::string path = folder_ / "socket";
    const int old = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size());
    ASSERT_EQ(::bind(old, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ASSERT_EQ(::listen(old, 5), 0);
    EXPECT_EQ(refusal({.path = path}, Errc::busy), path + ": another server answers there");
    EXPECT_TRUE(std::filesystem::exists(path));
    ::close(old);
    listen({.path = path});
    const int fd = connect_unix(path);
    wait_for(1);
    ::close(fd);
}

TEST_P(ListenerContract, RefusesWhatCannotBeListenedOn) {
    const std::string file = make_file(folder_ / "file", 10);
    EXPECT_EQ(refusal({.path = file}, Errc::exists), file + ": exists and is not a socket");
    EXPECT_EQ(std::filesystem::file_size(file), 10u);
    const std::string deep = folder_ / std::string(120, 'x');
    EXPECT_NE(refusal({.path = deep}, Errc::bad_argument).find("at most 107 bytes"), std::string::npos);
    EXPECT_EQ(refusal({.path = folder_ / "none/socket"}, Errc::no_file).find(folder_ / "none/socket"), 0u);
    EXPECT_NE(
        refusal({.path = folder_ / "s", .group = "no-such-group"}, Errc::bad_argument).find("no-such-group"),
        std::string::npos);
    EXPECT_FALSE(std::filesystem::exists(folder_ / "s"));
    EXPECT_NE(
        refusal({.kind = Address::Kind::tcp, .host = "256.1.1.1.1"}, Errc::bad_argument).find("256.1.1.1.1"),
        std::string::npos);
}

TEST_P(ListenerContract, GivesTheSocketAModeAndAGroup) {
    const std::string path = folder_ / "socket";
    listen({.path = path, .mode = 0660, .group = std::to_string(::getegid())});
    struct stat status {};
    ASSERT_EQ(::stat(path.c_str(), &status), 0);
    EXPECT_EQ(status.st_mode & 0777, 0660u);
    EXPECT_EQ(status.st_gid, ::getegid());
}

TEST_P(ListenerContract, MayBeEndedFromItsOwnReactorAndHandler) {
    const std::string path = folder_ / "socket";
    listen({.path = path});
    on(reactor(), [&] { listener_.reset(); });
    EXPECT_LT(connect_unix(path), 0);
    struct EndsIt final : Listener::Handler {
        void accepted(int fd) noexcept override {
            ::close(fd);
            listener.reset();
            over.set_value();
        }
        std::unique_ptr<Listener> listener;
        std::promise<void> over;
    } handler;
    auto listener = engine().network(0).listen({.path = path}, handler);
    ASSERT_TRUE(listener);
    on(reactor(), [&] { handler.listener = std::move(*listener); });
    const int fd = connect_unix(path);
    handler.over.get_future().get();
    EXPECT_LT(connect_unix(path), 0);
    ::close(fd);
}

TEST(ListenSockets, TakeNumbersAndAskNoNameService) {
    EXPECT_EQ(look_up_host("").value(), std::vector<std::string>{"127.0.0.1"});
    EXPECT_EQ(look_up_host("::1").value(), std::vector<std::string>{"::1"});
    auto numbers = look_up_host("localhost");
    ASSERT_TRUE(numbers) << numbers.error().message;
    EXPECT_FALSE(open_listen_socket({.kind = Address::Kind::tcp, .host = "localhost"}));
    auto socket = open_listen_socket({.kind = Address::Kind::tcp, .host = "localhost", .numbers = *numbers});
    ASSERT_TRUE(socket) << socket.error().message;
    EXPECT_NE(socket->port, 0);
    close_listen_socket(*socket);
    EXPECT_EQ(look_up_host("no such host").error().code, Errc::bad_argument);
}

}  // namespace
}  // namespace udm::test
