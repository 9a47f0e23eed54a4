// The NBD protocol's structures as bytes: parsing and building, no I/O, no state. All integers are
// big-endian.
//   source   "The NBD protocol", doc/proto.md of the NetworkBlockDevice project
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "base/endian.hpp"
#include "base/status.hpp"

namespace udm::nbd {

using Bytes = std::vector<std::byte>;
using ByteView = std::span<const std::byte>;

// --- handshake
// --------------------------------------------------------------------------------------------------

inline constexpr std::uint64_t kInitMagic = 0x4e42444d41474943;    // "NBDMAGIC"
inline constexpr std::uint64_t kOptionMagic = 0x49484156454f5054;  // "IHAVEOPT"
inline constexpr std::uint64_t kOptionReplyMagic = 0x0003e889045565a9;

inline constexpr std::uint16_t kFlagFixedNewstyle =
    1 << 0;  // of the server's greeting and of the client's answer
inline constexpr std::uint16_t kFlagNoZeroes = 1 << 1;

enum class OptionType : std::uint32_t {
    export_name = 1,
    abort = 2,
    list = 3,
    starttls = 5,
    info = 6,
    go = 7,
    structured_reply = 8,
    list_meta_context = 9,
    set_meta_context = 10,
};

enum class ReplyType : std::uint32_t {
    ack = 1,
    server = 2,
    info = 3,
    meta_context = 4,
    err_unsup = 0x80000001,
    err_policy = 0x80000002,
    err_invalid = 0x80000003,
    err_platform = 0x80000004,
    err_tls_reqd = 0x80000005,
    err_unknown = 0x80000006,
    err_shutdown = 0x80000007,
    err_block_size_reqd = 0x80000008,
    err_too_big = 0x80000009,
};

enum class InfoType : std::uint16_t { export_ = 0, name = 1, description = 2, block_size = 3 };

inline constexpr std::size_t kStringMax = 4096;  // of any string of the protocol
inline constexpr std::size_t kOptionHeaderSize = 16;
inline constexpr std::size_t kClientFlagsSize = 4;

// Transmission flags.
inline constexpr std::uint16_t kHasFlags = 1 << 0;
inline constexpr std::uint16_t kReadOnly = 1 << 1;
inline constexpr std::uint16_t kSendFlush = 1 << 2;
inline constexpr std::uint16_t kSendFua = 1 << 3;
inline constexpr std::uint16_t kRotational = 1 << 4;
inline constexpr std::uint16_t kSendTrim = 1 << 5;
inline constexpr std::uint16_t kSendWriteZeroes = 1 << 6;
inline constexpr std::uint16_t kSendDf = 1 << 7;
inline constexpr std::uint16_t kCanMultiConn = 1 << 8;
inline constexpr std::uint16_t kSendCache = 1 << 10;
inline constexpr std::uint16_t kSendFastZero = 1 << 11;

struct OptionHeader {
    std::uint32_t type;
    std::uint32_t length;
};
// `from` has kOptionHeaderSize bytes. Nothing: the magic is wrong.
std::optional<OptionHeader> parse_option_header(ByteView from) noexcept;

// Data of NBD_OPT_INFO and NBD_OPT_GO.
struct InfoRequest {
    std::string_view name;
    bool wants_name = false, wants_description = false, wants_block_size = false;
};
std::optional<InfoRequest> parse_info_request(ByteView data) noexcept;

// Data of NBD_OPT_LIST_META_CONTEXT and NBD_OPT_SET_META_CONTEXT.
struct MetaRequest {
    std::string_view name;
    std::vector<std::string_view> queries;
};
std::optional<MetaRequest> parse_meta_request(ByteView data);

// A string as the protocol wants it: at most kStringMax bytes, no NUL.
bool is_valid_string(std::string_view text) noexcept;

// What follows appends to `out`.
void put_greeting(Bytes& out);
// The reply to NBD_OPT_EXPORT_NAME.
void put_export_name_reply(Bytes& out, std::uint64_t size, std::uint16_t flags, bool zeroes);
void put_option_reply(Bytes& out, std::uint32_t option, ReplyType type, ByteView data = {});
void put_option_error(Bytes& out, std::uint32_t option, ReplyType type, std::string_view text);
void put_server_reply(Bytes& out, std::uint32_t option, std::string_view name, std::string_view description);
void put_info_export(Bytes& out, std::uint32_t option, std::uint64_t size, std::uint16_t flags);
void put_info_text(Bytes& out, std::uint32_t option, InfoType type, std::string_view text);
void put_info_block_size(Bytes& out, std::uint32_t option, std::uint32_t min, std::uint32_t preferred,
                         std::uint32_t max);
void put_meta_context(Bytes& out, std::uint32_t option, std::uint32_t id, std::string_view name);

// --- transmission
// -----------------------------------------------------------------------------------------------

inline constexpr std::uint32_t kRequestMagic = 0x25609513;
inline constexpr std::uint32_t kSimpleReplyMagic = 0x67446698;
inline constexpr std::uint32_t kStructuredReplyMagic = 0x668e33ef;

enum class Command : std::uint16_t {
    read = 0,
    write = 1,
    disconnect = 2,
    flush = 3,
    trim = 4,
    cache = 5,
    write_zeroes = 6,
    block_status = 7,
};

inline constexpr std::uint16_t kCmdFua = 1 << 0;
inline constexpr std::uint16_t kCmdNoHole = 1 << 1;
inline constexpr std::uint16_t kCmdDf = 1 << 2;
inline constexpr std::uint16_t kCmdReqOne = 1 << 3;
inline constexpr std::uint16_t kCmdFastZero = 1 << 4;

enum class ChunkType : std::uint16_t {
    none = 0,
    offset_data = 1,
    offset_hole = 2,
    block_status = 5,
    error = 0x8001,
    error_offset = 0x8002,
};
inline constexpr std::uint16_t kReplyDone = 1 << 0;

// Flags of base:allocation.
inline constexpr std::uint32_t kStateHole = 1 << 0;
inline constexpr std::uint32_t kStateZero = 1 << 1;

enum class WireError : std::uint32_t {
    none = 0,
    perm = 1,
    io = 5,
    nomem = 12,
    inval = 22,
    nospc = 28,
    overflow = 75,
    notsup = 95,
    shutdown = 108,
};
// `fast_zero`: the request asked to fail rather than be slow, the only case in which ENOTSUP is an answer.
WireError to_wire(IoStatus status, bool fast_zero) noexcept;
// For people, in error chunks. A literal.
std::string_view describe(WireError error) noexcept;

struct Request {
    std::uint16_t flags;
    std::uint16_t command;  // not a Command before it was checked
    std::uint64_t cookie;
    std::uint64_t offset;
    std::uint32_t length;
};

namespace wire {

struct RequestBytes {
    be32 magic;
    be16 flags;
    be16 command;
    be64 cookie;
    be64 offset;
    be32 length;
};
static_assert(sizeof(RequestBytes) == 28);

struct SimpleReply {
    be32 magic;
    be32 error;
    be64 cookie;
};
static_assert(sizeof(SimpleReply) == 16);

struct ChunkHeader {
    be32 magic;
    be16 flags;
    be16 type;
    be64 cookie;
    be32 length;
};
static_assert(sizeof(ChunkHeader) == 20);

struct DataChunk {
    ChunkHeader header;
    be64 offset;
};
static_assert(sizeof(DataChunk) == 28);

struct ErrorChunk {
    ChunkHeader header;
    be32 error;
    be16 message_length;
};
static_assert(sizeof(ErrorChunk) == 26);

struct Descriptor {
    be32 length;
    be32 flags;
};
static_assert(sizeof(Descriptor) == 8);

struct StatusChunk {  // descriptors follow
    ChunkHeader header;
    be32 context;
};
static_assert(sizeof(StatusChunk) == 24);

}  // namespace wire

inline constexpr std::size_t kRequestSize = sizeof(wire::RequestBytes);
inline constexpr std::size_t kReplyHeaderMax = sizeof(wire::DataChunk);  // error texts not included

// `from` has kRequestSize bytes. False: the magic is wrong.
inline bool parse_request(const std::byte* from, Request& to) noexcept {
    wire::RequestBytes bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    if (bytes.magic != kRequestMagic) return false;
    to = {bytes.flags, bytes.command, bytes.cookie, bytes.offset, bytes.length};
    return true;
}

// Of such bytes, not looked at otherwise.
inline std::uint64_t request_offset(const std::byte* from) noexcept {
    be64 offset;
    std::memcpy(&offset, from + offsetof(wire::RequestBytes, offset), sizeof offset);
    return offset;
}

// What follows writes at `to` and returns how many bytes.
inline std::size_t put_simple_reply(std::byte* to, WireError error, std::uint64_t cookie) noexcept {
    const wire::SimpleReply reply{kSimpleReplyMagic, static_cast<std::uint32_t>(error), cookie};
    std::memcpy(to, &reply, sizeof reply);
    return sizeof reply;
}
inline std::size_t put_chunk(std::byte* to, ChunkType type, std::uint16_t flags, std::uint64_t cookie,
                             std::uint32_t length) noexcept {
    const wire::ChunkHeader chunk{kStructuredReplyMagic, flags, static_cast<std::uint16_t>(type), cookie,
                                  length};
    std::memcpy(to, &chunk, sizeof chunk);
    return sizeof chunk;
}
// The only chunk of a read's reply; `length` bytes of data follow (> 0).
inline std::size_t put_data_chunk(std::byte* to, std::uint64_t cookie, std::uint64_t offset,
                                  std::uint32_t length) noexcept {
    put_chunk(to, ChunkType::offset_data, kReplyDone, cookie, length + 8);
    const be64 at = offset;
    std::memcpy(to + sizeof(wire::ChunkHeader), &at, sizeof at);
    return sizeof(wire::DataChunk);
}
// `message_length` bytes of text follow.
inline std::size_t put_error_chunk(std::byte* to, WireError error, std::uint64_t cookie,
                                   std::uint16_t message_length) noexcept {
    put_chunk(to, ChunkType::error, kReplyDone, cookie, 6u + message_length);
    const be32 code = static_cast<std::uint32_t>(error);
    const be16 length = message_length;
    std::memcpy(to + sizeof(wire::ChunkHeader), &code, sizeof code);
    std::memcpy(to + sizeof(wire::ChunkHeader) + sizeof code, &length, sizeof length);
    return sizeof(wire::ErrorChunk);
}

}  // namespace udm::nbd
