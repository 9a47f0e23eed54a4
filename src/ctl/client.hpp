// The client's side of docs/protocol.md, for tools: connects to the daemon's control socket and calls its
// methods. One thread uses a Client. Throws; callers catch at their edge.
#pragma once

#include <chrono>
#include <deque>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>

namespace udm::ctl {

using Json = nlohmann::json;

// Nobody answers on the socket, or the daemon went away. what() says so, why, and what to do.
class NoDaemon final : public std::runtime_error {
  public:
    using runtime_error::runtime_error;
};

// Where the control socket is (decision 21): `given` (--socket) unless empty, else $UDM_SOCKET, else
// /run/udm/udmd.sock for root and $XDG_RUNTIME_DIR/udm/udmd.sock for others. Throws NoDaemon without that
// variable.
std::string control_socket_path(const std::string& given = {});

// The daemon's error. what() is its message: the kernel's words, a colon, our reason.
class CallError final : public std::runtime_error {
  public:
    explicit CallError(const Json& error);                // the "error" object of an answer
    int code() const noexcept { return code_; }           // -32000: refused by the device mapper
    int error_number() const noexcept { return errno_; }  // positive errno; 0 when it is the protocol's error
    const std::string& device() const noexcept { return device_; }
    const Json& object() const noexcept { return object_; }

  private:
    int code_ = 0;
    int errno_ = 0;
    std::string device_;
    Json object_;
};

// What tools call; tests put a stand-in here.
class Endpoint {
  public:
    virtual ~Endpoint() = default;
    // The method's result. Throws CallError, NoDaemon.
    virtual Json call(std::string_view method, Json params = Json::object()) = 0;
};

// The whole of a list that is answered in parts (docs/protocol.md: limit, after). `key` is the member of an
// item that says where the next part goes on.
Json call_for_all(Endpoint& endpoint, std::string_view method, const char* key, Json params = Json::object());

class Client final : public Endpoint {
  public:
    // Connects. Throws NoDaemon.
    explicit Client(std::string path);
    ~Client() override;
    Client(const Client&) = delete;
    Client& operator=(const Client&) = delete;

    // Notifications that come meanwhile are kept for next_event().
    Json call(std::string_view method, Json params = Json::object()) override;

    // The parameters of the next `event` notification; nothing after `timeout`, when a signal interrupts the wait, or
    // when `wake` (a descriptor, if not negative) can be read. Without a timeout it waits as long as it takes. Call
    // events.subscribe first.
    std::optional<Json> next_event(std::optional<std::chrono::milliseconds> timeout, int wake = -1);

    const std::string& path() const noexcept { return path_; }

  private:
    void send_line(const std::string& line);
    // The next line, or nothing at the deadline, when `wake` can be read or (with `interruptible`) after a signal.
    std::optional<std::string> read_line(std::optional<std::chrono::steady_clock::time_point> deadline,
                                         bool interruptible, int wake = -1);
    [[noreturn]] void gone(int error) const;

    std::string path_;
    int fd_ = -1;
    std::uint64_t last_id_ = 0;
    std::string unread_;        // received and not yet handed out
    std::size_t searched_ = 0;  // of unread_: without a newline
    std::deque<Json> events_;
};

}  // namespace udm::ctl
