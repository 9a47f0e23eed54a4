// The control client against a server of a few lines, which answers what the test tells it to.
#include "ctl/client.hpp"

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <functional>
#include <string>
#include <thread>

namespace udm::ctl {
namespace {

// Accepts one client in a thread; `talk` gets each line and says what to send back (nothing: hang up).
class Server {
  public:
    explicit Server(std::function<std::string(const Json&)> talk) : talk_{std::move(talk)} {
        char folder[] = "/tmp/udm-client-XXXXXX";
        folder_ = ::mkdtemp(folder);
        path_ = folder_ + "/sock";
        listener_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        path_.copy(address.sun_path, sizeof address.sun_path - 1);
        EXPECT_EQ(::bind(listener_, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
        EXPECT_EQ(::listen(listener_, 1), 0);
        thread_ = std::thread{[this] { serve(); }};
    }
    ~Server() {
        ::shutdown(listener_, SHUT_RDWR);
        thread_.join();
        ::close(listener_);
        ::unlink(path_.c_str());
        ::rmdir(folder_.c_str());
    }
    const std::string& path() const { return path_; }

  private:
    void serve() {
        const int fd = ::accept(listener_, nullptr, nullptr);
        if (fd < 0) return;
        std::string unread;
        char byte;
        while (::read(fd, &byte, 1) == 1) {
            if (byte != '\n') {
                unread += byte;
                continue;
            }
            const std::string answer = talk_(Json::parse(unread));
            unread.clear();
            if (answer.empty()) break;
            EXPECT_EQ(::write(fd, answer.data(), answer.size()), static_cast<ssize_t>(answer.size()));
        }
        ::close(fd);
    }

    std::function<std::string(const Json&)> talk_;
    std::string folder_, path_;
    int listener_ = -1;
    std::thread thread_;
};

std::string result_line(const Json& request, Json result) {
    return Json{{"jsonrpc", "2.0"}, {"id", request["id"]}, {"result", std::move(result)}}.dump() + "\n";
}

TEST(ControlClient, HandsBackTheResultOfTheCall) {
    Server server{[](const Json& request) {
        return result_line(request, {{"method", request["method"]}, {"params", request["params"]}});
    }};
    Client client{server.path()};
    const Json result = client.call("device.info", {{"device", "a b"}});
    EXPECT_EQ(result["method"], "device.info");
    EXPECT_EQ(result["params"]["device"], "a b");
    EXPECT_TRUE(client.call("version")["params"].is_object());
}

TEST(ControlClient, ThrowsTheDaemonsErrorWithItsErrno) {
    Server server{[](const Json& request) {
        const Json error{{"code", -32000},
                         {"message", "table: 253:0: linear: Device lookup failed: /dev/none does not exist"},
                         {"data", {{"errno", ENODEV}, {"name", "ENODEV"}, {"device", "bad"}}}};
        return Json{{"jsonrpc", "2.0"}, {"id", request["id"]}, {"error", error}}.dump() + "\n";
    }};
    Client client{server.path()};
    try {
        client.call("table.load");
        FAIL() << "no error";
    } catch (const CallError& error) {
        EXPECT_STREQ(error.what(), "table: 253:0: linear: Device lookup failed: /dev/none does not exist");
        EXPECT_EQ(error.code(), -32000);
        EXPECT_EQ(error.error_number(), ENODEV);
        EXPECT_EQ(error.device(), "bad");
    }
}

TEST(ControlClient, AnErrorOfTheLineItselfIsNotWaitedForInVain) {
    Server server{[](const Json&) {
        return std::string{
            R"({"jsonrpc":"2.0","id":null,"error":{"code":-32600,"message":"a line of more than 1 MiB"}})"
            "\n"};
    }};
    Client client{server.path()};
    EXPECT_THROW(client.call("table.load"), CallError);
}

TEST(ControlClient, KeepsNotificationsThatComeBeforeTheAnswer) {
    Server server{[](const Json& request) {
        const auto event = [](int number) {
            return Json{{"jsonrpc", "2.0"},
                        {"method", "event"},
                        {"params", {{"device", "v"}, {"event_number", number}}}}
                       .dump() +
                   "\n";
        };
        return event(1) + result_line(request, Json::object()) + event(2);
    }};
    Client client{server.path()};
    client.call("events.subscribe");
    EXPECT_EQ(client.next_event(std::nullopt)->at("event_number"), 1);
    EXPECT_EQ(client.next_event(std::nullopt)->at("event_number"), 2);
    EXPECT_FALSE(client.next_event(std::chrono::milliseconds{1}));
}

TEST(ControlClient, SaysHowToStartADaemonWhereNoneAnswers) {
    try {
        Client client{"/tmp/udm-no-such-folder/udmd.sock"};
        FAIL() << "connected";
    } catch (const NoDaemon& error) {
        EXPECT_STREQ(error.what(),
                     "no udm daemon answers on /tmp/udm-no-such-folder/udmd.sock (No such file or directory); "
                     "start one with: udmd --socket /tmp/udm-no-such-folder/udmd.sock");
    }
}

TEST(ControlClient, SaysThatTheDaemonHungUp) {
    Server server{[](const Json&) { return std::string{}; }};
    Client client{server.path()};
    EXPECT_THROW(client.call("version"), NoDaemon);
}

TEST(ControlClient, TakesAnswersOfSeveralMegabytes) {
    const std::string text(std::size_t{3} << 20, 'x');
    Server server{[&](const Json& request) { return result_line(request, text); }};
    Client client{server.path()};
    EXPECT_EQ(client.call("device.list"), text);
}

TEST(ControlClient, AsksForLongListsInParts) {
    struct Names final : Endpoint {
        Json call(std::string_view, Json params) override {
            ++calls;
            const unsigned from = params.contains("after") ? params["after"].get<unsigned>() + 1 : 0;
            Json part = Json::array();
            for (unsigned n = from; n < 2500 && part.size() < params["limit"].get<std::size_t>(); ++n) {
                part.push_back({{"name", n}});
            }
            return part;
        }
        int calls = 0;
    } names;
    const Json all = call_for_all(names, "device.list", "name");
    ASSERT_EQ(all.size(), 2500u);
    EXPECT_EQ(all[2499]["name"], 2499);
    EXPECT_EQ(names.calls, 3);
}

TEST(ControlSocketPath, IsTheOptionElseTheVariableElseTheUsersFolder) {
    ::setenv("UDM_SOCKET", "/tmp/variable", 1);
    EXPECT_EQ(control_socket_path("/tmp/option"), "/tmp/option");
    EXPECT_EQ(control_socket_path(), "/tmp/variable");
    ::unsetenv("UDM_SOCKET");
    if (::geteuid() == 0) {
        EXPECT_EQ(control_socket_path(), "/run/udm/udmd.sock");
    } else {
        ::setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
        EXPECT_EQ(control_socket_path(), "/run/user/7/udm/udmd.sock");
        ::unsetenv("XDG_RUNTIME_DIR");
        EXPECT_THROW(control_socket_path(), NoDaemon);
    }
}

}  // namespace
}  // namespace udm::ctl
