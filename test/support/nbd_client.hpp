// The client's side of NBD for load generators and tests: URI, handshake, and the structures on the wire.
// It shares no code with the server under test. Source of the facts: the NBD project's doc/proto.md and
// doc/uri.md.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/endian.hpp"

namespace nbd {

inline constexpr std::uint64_t kMagic = 0x4e42444d41474943;        // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x3e889045565a9;
inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;

inline constexpr std::uint16_t kHandshakeFixedNewstyle = 1, kHandshakeNoZeroes = 2;
inline constexpr std::uint32_t kOptGo = 7;
inline constexpr std::uint32_t kReplyAck = 1, kReplyInfo = 3, kReplyErrorBit = 0x80000000;
inline constexpr std::uint16_t kInfoExport = 0, kInfoBlockSize = 3;

enum Command : std::uint16_t {
    kRead = 0,
    kWrite = 1,
    kDisconnect = 2,
    kFlush = 3,
    kTrim = 4,
    kWriteZeroes = 6
};
inline constexpr std::uint16_t kCommandFua = 1;

inline constexpr std::uint16_t kHasFlags = 1, kReadOnly = 2, kSendFlush = 4, kSendFua = 8, kSendTrim = 32,
                               kSendWriteZeroes = 64, kCanMultiConn = 256;

struct Request {
    udm::be32 magic{kRequestMagic};
    udm::be16 flags{0}, type{0};
    udm::be64 handle{0}, offset{0};
    udm::be32 length{0};
};
static_assert(sizeof(Request) == 28);

struct SimpleReply {
    udm::be32 magic{kSimpleReplyMagic};
    udm::be32 error{0};
    udm::be64 handle{0};
};
static_assert(sizeof(SimpleReply) == 16);

// Where an export is. nbd://HOST[:PORT]/NAME or nbd+unix:///NAME?socket=PATH; NAME is percent-encoded.
struct Uri {
    std::string host, port, socket_path, export_name;
    bool is_unix = false;

    static Uri parse(std::string_view text);  // throws std::invalid_argument, which names what is wrong
};

// The server or the network failed; errno is kept where there is one (0: the peer broke the protocol).
struct ConnectError : std::runtime_error {
    ConnectError(int number, const std::string& what) : std::runtime_error(what), error{number} {}
    int error;
};

// One connection in the transmission phase, simple replies only.
struct Connection {
    int fd = -1;
    std::uint64_t size = 0;
    std::uint16_t flags = 0;  // transmission flags
    std::uint32_t block_min = 1, block_max = 32 << 20;

    Connection() = default;
    Connection(Connection&& o) noexcept { swap(o); }
    Connection& operator=(Connection&& o) noexcept {
        swap(o);
        return *this;
    }
    ~Connection();
    void close() noexcept;  // orderly if the server still listens: sends NBD_CMD_DISC

    // Connects and does GO. `timeout_ms` bounds each wait for the server. Throws ConnectError.
    static Connection open(const Uri& uri, int timeout_ms = 10'000);

  private:
    void swap(Connection& o) noexcept;
};

std::string error_name(std::uint32_t error);  // NBD's error numbers are Linux's

}  // namespace nbd
