// The control socket with real clients.
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <atomic>
#include <cstring>
#include <fstream>

#include "ctl/rpc_server.hpp"
#include "test/support/temp_folder.hpp"

namespace udm::ctl {
namespace {

class TestService final : public Service {
  public:
    Answer call(std::string_view method, const Json&, Caller& caller) override {
        if (method == "subscribe") caller.subscribe(0);
        if (method == "subscribe.7") caller.subscribe(7);
        if (method == "big") return {std::string(900'000, 'x'), nullptr};
        if (method == "wait") {
            auto pending = std::make_unique<Pending>();
            pending->check = [this]() -> std::optional<Json> {
                return number != 0 ? std::optional<Json>{number.load()} : std::nullopt;
            };
            return {nullptr, std::move(pending)};
        }
        return {method, nullptr};
    }
    std::atomic<int> number = 0;
};

class TestClient {
  public:
    explicit TestClient(const std::string& path) : fd_{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0)} {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        std::memcpy(address.sun_path, path.data(), path.size());
        connected_ = ::connect(fd_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0;
    }
    bool connected() const { return connected_; }
    void send(std::string_view text) {
        while (!text.empty()) {
            const ssize_t n = ::send(fd_.get(), text.data(), text.size(), MSG_NOSIGNAL);
            if (n <= 0) return;    // refused meanwhile
            text.remove_prefix(static_cast<std::size_t>(n));
        }
    }
    void call(const std::string& method, int id) {
        send(to_line({{"jsonrpc", "2.0"}, {"id", id}, {"method", method}}) + "\n");
    }
    // The next line; empty at the end of the stream.
    std::string line() {
        for (;;) {
            if (const auto end = in_.find('\n'); end != std::string::npos) {
                std::string line = in_.substr(0, end);
                in_.erase(0, end + 1);
                return line;
            }
            char buffer[65536];
            const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, 0);
            if (n <= 0) return {};
            in_.append(buffer, static_cast<std::size_t>(n));
        }
    }
    Json answer() { return Json::parse(line(), nullptr, false); }
    void end_input() { ::shutdown(fd_.get(), SHUT_WR); }
    bool quiet() const {
        pollfd polled{fd_.get(), POLLIN, 0};
        return in_.empty() && ::poll(&polled, 1, 0) == 0;
    }

  private:
    Fd fd_;
    bool connected_ = false;
    std::string in_;
};

class ControlSocket : public testing::Test {
  protected:
    void start(unsigned clients = 64) {
        server = std::make_unique<RpcServer>(RpcServer::Config{.path = path, .group = {}, .clients_max = clients}, service, hub);
        const auto listening = server->listen();
        ASSERT_TRUE(listening) << listening.error().message;
        server->serve();
    }
    void publish(std::uint64_t serial) {
        hub.publish({.kind = "target", .device = "vol", .serial = serial, .event_number = 3, .what = "something"});
    }
    test::TempFolder folder;
    std::string path = folder / "s";
    TestService service;
    EventHub hub;
    std::unique_ptr<RpcServer> server;
};

TEST_F(ControlSocket, AnswersManyRequestsInOrder) {
    start();
    TestClient client{path};
    std::string text;
    for (int i = 0; i < 500; ++i) text += to_line({{"jsonrpc", "2.0"}, {"id", i}, {"method", "x"}}) + "\n";
    client.send(text);
    for (int i = 0; i < 500; ++i) ASSERT_EQ(client.answer()["id"], i);
}

TEST_F(ControlSocket, AnswersRequestsThatComeByteByByte) {
    start();
    TestClient client{path};
    for (const char c : to_line({{"jsonrpc", "2.0"}, {"id", 5}, {"method", "x"}}) + "\n") client.send({&c, 1});
    EXPECT_EQ(client.answer()["id"], 5);
}

TEST_F(ControlSocket, IsOnlyItsOwnersToOpen) {
    start();
    struct stat about{};
    ASSERT_EQ(::stat(path.c_str(), &about), 0);
    EXPECT_EQ(about.st_mode & 0777, 0600u);
}

TEST_F(ControlSocket, EndsAClientThatSendsMoreThanALine) {
    start();
    TestClient client{path}, other{path};
    client.send(std::string(kLineMax + 100'000, 'a'));
    EXPECT_EQ(client.answer()["error"]["code"], -32600);
    EXPECT_EQ(client.line(), "");
    other.call("x", 1);
    EXPECT_EQ(other.answer()["id"], 1);
}

TEST_F(ControlSocket, RefusesClientsBeyondItsLimitWithAReason) {
    start(2);
    TestClient first{path}, second{path};
    first.call("x", 1);
    second.call("x", 1);
    EXPECT_EQ(first.answer()["id"], 1);
    EXPECT_EQ(second.answer()["id"], 1);
    TestClient third{path};
    EXPECT_EQ(third.answer()["error"]["data"]["name"], "EBUSY");
    EXPECT_EQ(third.line(), "");
}

TEST_F(ControlSocket, TakesANewClientWhenOneHasGone) {
    start(1);
    {
        TestClient first{path};
        first.call("x", 1);
        EXPECT_EQ(first.answer()["id"], 1);
    }
    for (;;) {    // its place is free as soon as the server has noticed
        TestClient second{path};
        second.call("x", 2);
        if (const Json answer = second.answer(); answer["id"] == 2) break;
    }
}

TEST_F(ControlSocket, SendsEventsToWhoSubscribed) {
    start();
    TestClient all{path}, seventh{path}, none{path};
    all.call("subscribe", 1);
    seventh.call("subscribe.7", 1);
    none.call("x", 1);
    for (TestClient* client : {&all, &seventh, &none}) EXPECT_EQ(client->answer()["id"], 1);
    publish(6);
    publish(7);
    EXPECT_EQ(all.answer()["method"], "event");
    const Json event = all.answer();
    EXPECT_EQ(event["params"]["device"], "vol");
    EXPECT_EQ(event["params"]["event_number"], 3);
    EXPECT_EQ(event["params"]["kind"], "target");
    EXPECT_EQ(seventh.answer()["params"]["what"], "something");
    none.call("x", 2);
    EXPECT_EQ(none.answer()["id"], 2);
    EXPECT_TRUE(seventh.quiet());
}

TEST_F(ControlSocket, CutsASubscriberThatDoesNotReadAndNobodyElse) {
    start();
    TestClient lazy{path}, other{path};
    lazy.call("subscribe", 1);
    EXPECT_EQ(lazy.answer()["id"], 1);
    for (int i = 0; i < 40'000; ++i) publish(1);    // some 6 MiB
    while (!lazy.line().empty()) {
    }
    other.call("x", 1);
    EXPECT_EQ(other.answer()["id"], 1);
}

TEST_F(ControlSocket, AClientThatDoesNotReadAnswersIsNotReadEither) {
    start();
    TestClient client{path};
    for (int i = 0; i < 20; ++i) client.call("big", i);    // 18 MB of answers: far more than the socket takes
    for (int i = 0; i < 20; ++i) EXPECT_EQ(client.answer()["id"], i);
}

TEST_F(ControlSocket, AnswersAWaitWhenAnEventComes) {
    start();
    TestClient client{path};
    client.call("wait", 1);
    client.call("x", 2);
    EXPECT_EQ(client.answer()["id"], 2);
    service.number = 4;
    publish(9);
    const Json answer = client.answer();
    EXPECT_EQ(answer["id"], 1);
    EXPECT_EQ(answer["result"], 4);
}

TEST_F(ControlSocket, AnswersAClientThatHasEndedItsOwnSide) {
    start();
    TestClient client{path};
    client.call("wait", 1);
    client.call("x", 2);
    client.end_input();
    EXPECT_EQ(client.answer()["id"], 2);
    service.number = 4;
    publish(9);
    EXPECT_EQ(client.answer()["id"], 1);
    EXPECT_EQ(client.line(), "");
}

TEST_F(ControlSocket, StopsWithClientsThatWaitAndWithIdleOnes) {
    start();
    TestClient waiting{path}, idle{path};
    waiting.call("wait", 1);
    waiting.call("x", 2);
    EXPECT_EQ(waiting.answer()["id"], 2);
    server->stop();
    EXPECT_EQ(waiting.line(), "");
    EXPECT_EQ(idle.line(), "");
    EXPECT_NE(::access(path.c_str(), F_OK), 0);
    EXPECT_FALSE(TestClient{path}.connected());
}

TEST_F(ControlSocket, ReplacesASocketNobodyAnswersOn) {
    start();
    const std::string other = folder / "stale";
    const Fd fd{::socket(AF_UNIX, SOCK_STREAM, 0)};
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, other.data(), other.size());
    ASSERT_EQ(::bind(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), 0);
    RpcServer second{{.path = other}, service, hub};
    EXPECT_TRUE(second.listen());
}

TEST_F(ControlSocket, LeavesASocketAloneThatSomebodyAnswersOn) {
    start();
    RpcServer second{{.path = path}, service, hub};
    const auto listening = second.listen();
    ASSERT_FALSE(listening);
    EXPECT_EQ(listening.error().code, Errc::busy);
    second.stop();
    EXPECT_TRUE(TestClient{path}.connected());
}

TEST_F(ControlSocket, LeavesAFileAloneThatIsNoSocket) {
    std::ofstream{path} << "precious";
    RpcServer refused{{.path = path}, service, hub};
    EXPECT_EQ(refused.listen().error().code, Errc::exists);
    RpcServer nowhere{{.path = folder / "none/s"}, service, hub};
    EXPECT_EQ(nowhere.listen().error().code, Errc::no_file);
    RpcServer lengthy{{.path = std::string(200, 'x')}, service, hub};
    EXPECT_EQ(lengthy.listen().error().code, Errc::bad_argument);
}

}  // namespace
}  // namespace udm::ctl
