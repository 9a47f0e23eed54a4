// What every command of udm has: the daemon, how to print, and how it ends.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "ctl/client.hpp"

namespace udm::app {

using ctl::Json;

// Exit codes, as the manual has them.
inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;
inline constexpr int kUsage = 2;

// What the caller asked for cannot be; what() says why and, on a second line, what to do.
class Refusal final : public std::runtime_error {
  public:
    explicit Refusal(const std::string& why, const std::string& what_to_do = {})
        : std::runtime_error(what_to_do.empty() ? why : why + "\n  " + what_to_do) {}
};

class Context {
  public:
    std::string socket;     // --socket
    bool json = false;      // --json

    // Connects at the first call.
    ctl::Client& daemon();
    Json call(const char* method, Json params = Json::object()) { return daemon().call(method, std::move(params)); }
    // Lets commands work against a daemon of their own (udm serve).
    void use(std::string path) { socket = std::move(path); }

    // With --json the object, else the text.
    void print(const Json& object, const std::string& text) const;

  private:
    std::unique_ptr<ctl::Client> client_;
};

// Columns of text, each as wide as its widest word; columns whose head ends in '>' are set to the right.
class Columns {
  public:
    explicit Columns(std::vector<std::string> heads);
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    bool empty() const { return rows_.empty(); }
    std::string text() const;

  private:
    std::vector<std::string> heads_;
    std::vector<bool> right_;
    std::vector<std::vector<std::string>> rows_;
};

// From here on Ctrl-C (or SIGTERM, SIGHUP) is asked for with stop_requested(), and cuts waits short.
void catch_signals();
bool stop_requested() noexcept;

std::string human_size(std::uint64_t bytes);             // "32.0 MiB", "512 B"
std::string human_sectors(const Json& sectors);          // of 512 bytes
// "10G" to bytes; Refusal naming `what` otherwise.
std::uint64_t size_argument(const std::string& word, const char* what);
std::string absolute(const std::string& path);
// Bytes of a file or block device; 0 when there is none. Refusal when it cannot be read.
std::uint64_t size_of(const std::string& path);

}  // namespace udm::app
