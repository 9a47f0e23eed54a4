// What every command of udm has: the daemon, how to print, and how it ends.
#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>

#include "ctl/client.hpp"

namespace udm::app {

using ctl::Json;

// Exit codes, as the manual has them.
inline constexpr int kOk = 0;
inline constexpr int kFailed = 1;
inline constexpr int kUsage = 2;

// Why something cannot be, and what to do about it (may be empty).
class Refusal : public std::runtime_error {
  public:
    explicit Refusal(const std::string& why, std::string advice = {}, int code = kFailed)
        : std::runtime_error{why}, advice_{std::move(advice)}, code_{code} {}
    const std::string& advice() const noexcept { return advice_; }
    int code() const noexcept { return code_; }
    Json object() const;  // what --json prints
    Json details = Json::object();

  private:
    std::string advice_;
    int code_;
};

// The words of the command are wrong: exit code 2.
class WrongWords final : public Refusal {
  public:
    explicit WrongWords(const std::string& why, std::string advice = {})
        : Refusal{why, std::move(advice), kUsage} {}
};

class Context {
  public:
    std::string socket;  // --socket
    bool json = false;   // --json
    int exit_code = kOk; // of a command that has said all there is to say

    // Connects at the first call. Throws ctl::NoDaemon.
    ctl::Client& daemon();
    // Throws Refusal with the daemon's words and advice. `doing` is said on the terminal when it takes time.
    Json call(const char* method, Json params = Json::object(), const std::string& doing = {});
    // Ends the exports of a device, if it has any (--unexport).
    void end_exports(const std::string& device);
    // Whether the daemon has a device of this name.
    bool has(const std::string& device);
    // The whole of a list (ctl::call_for_all).
    Json list(const char* method, const char* key, Json params = Json::object());
    // Works against another daemon from here on (udm serve).
    void use(std::string path);

    // With --json the object, else the text.
    void print(const Json& object, const std::string& text) const;
    // Without --json: something to know, on standard error.
    void note(const std::string& text) const;

  private:
    std::unique_ptr<ctl::Client> client_;
};

// "10G" to bytes; WrongWords naming `what` otherwise.
std::uint64_t size_argument(const std::string& word, const char* what);
// Bytes of a file or block device; nothing there: 0. Refusal when it cannot be read.
std::uint64_t size_of(const std::string& path);
// An NBD URI whose socket is a relative path is the caller's, not the daemon's: made absolute.
std::string with_absolute_socket(const std::string& uri);

}  // namespace udm::app
