// JSON-RPC 2.0 over lines of text (docs/protocol.md): from a line to calls of a Service, and from what it
// says to a line. No sockets here, so that it can be fuzzed; rpc_server.* has those.
#pragma once

#include <chrono>
#include <cstddef>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "ctl/failure.hpp"
#include "ctl/json.hpp"

namespace udm::ctl {

inline constexpr std::size_t kLineMax = std::size_t{1} << 20;  // decision 21, without the newline
inline constexpr unsigned kDepthMax = 32;                      // of nested arrays and objects
inline constexpr std::size_t kBatchMax = 1024;                 // requests in one array
inline constexpr std::size_t kWaitsMax = 256;                  // unfinished waits of one client

namespace rpc_code {
inline constexpr int kNoJson = -32700, kNoRequest = -32600, kNoMethod = -32601, kBadParams = -32602,
                     kInternal = -32603, kRefused = -32000;
}

// A protocol error, as opposed to a Failure of what was asked for.
class RpcError final : public std::exception {
  public:
    RpcError(int code, std::string message) : code_{code}, message_{std::move(message)} {}
    const char* what() const noexcept override { return message_.c_str(); }
    int code() const noexcept { return code_; }

  private:
    int code_;
    std::string message_;
};

// The error object of an answer.
Json error_object(const RpcError& error);
Json error_object(const Failure& failure);

// A call that is not answered yet. check() says whether it can be now: the result, nothing (not yet), or it
// throws Failure. It is called again after each event of its device, and at the deadline.
struct Pending {
    std::uint64_t serial = 0;  // of the device whose events matter; 0: any
    std::function<std::optional<Json>()> check;
    std::optional<std::chrono::steady_clock::time_point> deadline;
    std::function<Json()> at_deadline;  // the result then, or throws
};

// Who asks. One connection is one caller.
class Caller {
  public:
    virtual ~Caller() = default;
    // From now on events of the device with this serial number, or of all (0), are sent to it.
    virtual void subscribe(std::uint64_t device_serial) = 0;
};

class Service {
  public:
    struct Answer {
        Json result;
        std::unique_ptr<Pending> pending;  // when there is no result yet
    };
    virtual ~Service() = default;
    // `params` is an object (empty when none were given). Throws RpcError or Failure. Any client's thread.
    virtual Answer call(std::string_view method, const Json& params, Caller& caller) = 0;
};

// The calls of one connection: lines in, lines out. One thread.
class RpcSession {
  public:
    RpcSession(Service& service, Caller& caller) : service_{service}, caller_{caller} {}

    // Handles a line (without its newline); appends what is to be sent to `out`, newlines included.
    void handle_line(std::string_view line, std::string& out);
    // Looks whether something waited for has come.
    void check_pending(std::string& out);
    bool has_pending() const noexcept { return waits_ != 0; }
    // The devices whose events are waited for.
    std::set<std::uint64_t> awaited() const;
    std::optional<std::chrono::steady_clock::time_point> next_deadline() const noexcept;

  private:
    static constexpr std::size_t kErrorBytes = 512;  // of an error that stands for an answer, at most
    struct Call {
        Json id;
        bool wants_answer = true;
        Json answer;  // the whole response object; null until there is one
        std::unique_ptr<Pending> pending;
    };
    struct Line {  // of one line's calls; answered together
        std::vector<Call> calls;
        bool batch = false;
        std::size_t waiting = 0;
    };
    void run_batch(const Json& requests, Line& answers);
    void run(const Json& request, Call& call);
    void finish(Call& call, std::function<Json()> result);
    bool look(Call& call, std::chrono::steady_clock::time_point now);
    static void append_answer(Line& line, std::string& out);

    Service& service_;
    Caller& caller_;
    std::list<Line> lines_;  // those with waits
    std::size_t waits_ = 0;
};

}  // namespace udm::ctl
