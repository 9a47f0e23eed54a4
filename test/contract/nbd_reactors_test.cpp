// The NBD server on real reactors and sockets: sessions that move between threads while exports come and go.
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "exports/nbd/server.hpp"
#include "test/contract/engine_fixture.hpp"
#include "test/support/nbd_bytes.hpp"

namespace udm::test {
namespace {

constexpr std::uint64_t kVolumeSize = 8 << 20;

struct Broken : std::runtime_error {
    using runtime_error::runtime_error;
};

// A client that waits for each answer.
class Client {
  public:
    explicit Client(const std::string& path) : fd_{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)} {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path.copy(address.sun_path, sizeof address.sun_path - 1);
        if (::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
            throw Broken{"connect"};
        }
        const timeval patience{.tv_sec = 20, .tv_usec = 0};
        ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        take(18);
        send(client_flags());
    }
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;
    ~Client() { ::close(fd_); }

    void send(std::string_view bytes) {
        while (!bytes.empty()) {
            const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
            if (n <= 0) throw Broken{"send"};
            bytes.remove_prefix(static_cast<std::size_t>(n));
        }
    }
    std::string take(std::size_t bytes) {
        std::string text(bytes, '\0');
        std::size_t there = 0;
        while (there < bytes) {
            const ssize_t n = ::recv(fd_, text.data() + there, bytes - there, 0);
            // A socket with a time-out is not gone on with by itself, and the engines in this process do interrupt.
            if (n < 0 && errno == EINTR) continue;
            if (n < 0 && errno == EAGAIN) timed_out = true;
            if (n <= 0) throw Broken{"recv"};
            there += static_cast<std::size_t>(n);
        }
        return text;
    }
    // The type of the final reply.
    std::uint32_t option_type(const std::string& bytes) {
        send(bytes);
        for (;;) {
            WireReader header{take(20)};
            header.u64();
            header.u32();
            const std::uint32_t type = header.u32();
            take(header.u32());
            if (type == 1 || (type & 0x80000000) != 0) return type;
        }
    }
    std::uint32_t error_of(const std::string& bytes) {
        send(bytes);
        WireReader reply{take(16)};
        reply.u32();
        return reply.u32();
    }
    std::string read(std::uint64_t offset, std::uint32_t length) {
        if (error_of(request(kRead, 1, offset, length)) != 0) throw Broken{"read"};
        return take(length);
    }
    bool timed_out = false;

  private:
    int fd_;
};

struct Waiting final : nbd::Done {
    void done() noexcept override {
        std::promise<void> mine{std::move(promise)};
        mine.set_value();
    }
    std::promise<void> promise;
    std::future<void> future = promise.get_future();
};

class NbdReactors : public EngineTest, public ::testing::WithParamInterface<Variant> {
  protected:
    static constexpr unsigned kReactors = 3;

    void SetUp() override {
        start(GetParam(), kReactors);
        if (!engine_) return;
        on(reactor(0), [&] { server_ = std::make_unique<nbd::Server>(reactor(0), engine().network(0)); });
        Address address;
        address.path = folder_ / "nbd.sock";
        ASSERT_TRUE(server_->listen(address));
        for (unsigned i = 0; i < kReactors; ++i) {
            disks_.push_back(open("ram:" + std::to_string(kVolumeSize), OpenMode::write, i));
            add(i);
        }
    }
    void TearDown() override {
        if (!engine_) return;
        Waiting stopped;
        on(reactor(0), [&] { server_->stop(stopped); });
        EXPECT_EQ(stopped.future.wait_for(std::chrono::seconds(20)), std::future_status::ready);
        on(reactor(0), [&] { server_.reset(); });
        for (unsigned i = 0; i < kReactors; ++i) {
            EXPECT_EQ(on(reactor(i), [&] { return reactor(i).ios_out() + reactor(i).buffers().bytes_out(); }),
                      0u);
            close(disks_[i], i);
        }
        EngineTest::TearDown();
    }
    static std::string name(unsigned i) { return "on" + std::to_string(i); }
    void add(unsigned i) {
        nbd::Export what{.name = name(i),
                         .disk = &disks_[i]->disk(),
                         .home = &reactor(i),
                         .network = &engine().network(i)};
        ASSERT_TRUE(on(reactor(0), [&] { return server_->add(std::move(what)); }));
    }
    void remove(unsigned i) {
        Waiting removed;
        ASSERT_TRUE(on(reactor(0), [&] { return server_->remove(name(i), removed); }));
        ASSERT_EQ(removed.future.wait_for(std::chrono::seconds(20)), std::future_status::ready);
    }

    TempFolder folder_;
    std::unique_ptr<nbd::Server> server_;
    std::vector<std::unique_ptr<OpenDevice>> disks_;
};

INSTANTIATE_TEST_SUITE_P(Engines, NbdReactors, ::testing::Values(Variant::uring, Variant::threads),
                         [](const auto& variant) { return name_of(variant.param); });

TEST_P(NbdReactors, EachSessionIsServedAtTheHomeOfItsExport) {
    std::vector<std::unique_ptr<Client>> clients;
    for (unsigned i = 0; i < kReactors; ++i) {
        clients.push_back(std::make_unique<Client>(folder_ / "nbd.sock"));
        EXPECT_EQ(clients.back()->option_type(go(name(i))), 1u);
        EXPECT_EQ(
            clients.back()->error_of(test::write(1, 4096, std::string(4096, static_cast<char>('a' + i)))),
            0u);
    }
    for (unsigned i = 0; i < kReactors; ++i) {
        EXPECT_EQ(clients[i]->read(4096, 4096), std::string(4096, static_cast<char>('a' + i)));
        EXPECT_EQ(on(reactor(0), [&] { return server_->connections(name(i)); }), 1u);
    }
}

TEST_P(NbdReactors, ClientsComeAndGoWhileExportsDo) {
    std::atomic<bool> enough{false};
    std::atomic<unsigned> served{0}, refused{0}, timeouts{0}, wrong{0};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 4; ++t) {
        threads.emplace_back([&, t] {
            Prng random{t + 1};
            // Each client has a part of every disk to itself.
            const std::uint64_t base = t * (kVolumeSize / 4);
            while (!enough.load()) {
                std::unique_ptr<Client> client;
                try {
                    client = std::make_unique<Client>(folder_ / "nbd.sock");
                    if (random.chance(1, 4)) client->option_type(option(3));
                    if (random.chance(1, 3))
                        client->option_type(
                            option(6, info_data(name(static_cast<unsigned>(random.below(3))))));
                    if (random.chance(1, 10)) continue;  // gone again
                    if (client->option_type(go(name(static_cast<unsigned>(random.below(3))))) != 1) {
                        ++refused;
                        continue;
                    }
                    for (std::uint64_t i = random.below(20); i-- > 0;) {
                        const std::uint64_t offset = base + random.below(200) * 4096;
                        const auto length = static_cast<std::uint32_t>(random.between(1, 200) * 512);
                        const std::string data(length, static_cast<char>(random.below(256)));
                        if (client->error_of(test::write(1, offset, data)) != 0) break;
                        if (client->read(offset, length) != data) ++wrong;
                        ++served;
                    }
                    if (random.chance(1, 2)) client->send(request(kDisc, 1, 0, 0));
                } catch (const Broken&) {
                    if (client && client->timed_out) ++timeouts;  // else: the export went, as it may
                }
            }
        });
    }
    for (unsigned round = 0; round < 30; ++round) {
        const unsigned i = round % kReactors;
        remove(i);
        const unsigned before = served.load();
        add(i);
        // Some requests more before the next one goes.
        const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (served.load() < before + 20 && std::chrono::steady_clock::now() < patience)
            std::this_thread::yield();
    }
    enough.store(true);
    for (std::thread& thread : threads) thread.join();
    EXPECT_GE(served.load(), 600u);
    EXPECT_EQ(wrong.load(), 0u);
    EXPECT_EQ(timeouts.load(), 0u);
}

TEST_P(NbdReactors, StopsUnderLoad) {
    std::atomic<bool> enough{false};
    std::vector<std::thread> threads;
    for (unsigned t = 0; t < 3; ++t) {
        threads.emplace_back([&, t] {
            while (!enough.load()) {
                try {
                    Client client{folder_ / "nbd.sock"};
                    if (client.option_type(go(name(t))) != 1) continue;
                    while (!enough.load()) client.read(0, 65536);
                } catch (const Broken&) {
                    std::this_thread::yield();
                }
            }
        });
    }
    const auto everywhere = [&] {
        return on(reactor(0), [&] {
            return server_->connections(name(0)) && server_->connections(name(1)) &&
                   server_->connections(name(2));
        });
    };
    while (!everywhere()) std::this_thread::yield();
    Waiting stopped;
    on(reactor(0), [&] { server_->stop(stopped); });
    EXPECT_EQ(stopped.future.wait_for(std::chrono::seconds(20)), std::future_status::ready);
    EXPECT_EQ(on(reactor(0), [&] { return server_->connections(); }), 0u);
    enough.store(true);
    for (std::thread& thread : threads) thread.join();
    on(reactor(0), [&] { server_ = std::make_unique<nbd::Server>(reactor(0), engine().network(0)); });
}

}  // namespace
}  // namespace udm::test
