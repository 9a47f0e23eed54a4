#include "test/support/nbd_client.hpp"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>
#include <vector>

namespace nbd {
namespace {

using udm::be16, udm::be32, udm::be64;

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    throw std::invalid_argument(std::string("not a hexadecimal digit after %: ") + c);
}

std::string percent_decoded(std::string_view text) {
    std::string out;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            out += text[i];
            continue;
        }
        if (i + 2 >= text.size()) throw std::invalid_argument("URI ends within a %XX");
        out += static_cast<char>(hex_digit(text[i + 1]) * 16 + hex_digit(text[i + 2]));
        i += 2;
    }
    return out;
}

[[noreturn]] void fail_errno(const std::string& what) {
    const int e = errno;
    throw ConnectError(e, what + ": " + std::strerror(e));
}
[[noreturn]] void fail_protocol(const std::string& what) { throw ConnectError(0, "server: " + what); }

void wait_for(int fd, short events, int timeout_ms) {
    pollfd p{fd, events, 0};
    int n;
    do n = ::poll(&p, 1, timeout_ms);
    while (n < 0 && errno == EINTR);
    if (n < 0) fail_errno("poll");
    if (n == 0) throw ConnectError(ETIMEDOUT, "server does not answer");
}

void read_all(int fd, void* to, std::size_t size, int timeout_ms) {
    auto* p = static_cast<char*>(to);
    while (size > 0) {
        wait_for(fd, POLLIN, timeout_ms);
        const ssize_t n = ::recv(fd, p, size, 0);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail_errno("recv");
        if (n == 0) throw ConnectError(ECONNRESET, "server closed the connection in the handshake");
        p += n;
        size -= static_cast<std::size_t>(n);
    }
}

void write_all(int fd, const void* from, std::size_t size) {
    auto* p = static_cast<const char*>(from);
    while (size > 0) {
        const ssize_t n = ::send(fd, p, size, MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) fail_errno("send");
        p += n;
        size -= static_cast<std::size_t>(n);
    }
}

int connect_unix(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        throw ConnectError(ENAMETOOLONG, "socket path too long: " + path);
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0) fail_errno("socket");
    if (::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) < 0) {
        const int e = errno;
        ::close(fd);
        errno = e;
        fail_errno("connect to " + path);
    }
    return fd;
}

int connect_tcp(const std::string& host, const std::string& port) {
    addrinfo hints{}, *list = nullptr;
    hints.ai_socktype = SOCK_STREAM;
    const int rc = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &list);
    if (rc != 0) throw ConnectError(EHOSTUNREACH, host + ":" + port + ": " + ::gai_strerror(rc));
    int fd = -1, error = ECONNREFUSED;
    for (auto* a = list; a != nullptr && fd < 0; a = a->ai_next) {
        fd = ::socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (fd < 0 || ::connect(fd, a->ai_addr, a->ai_addrlen) == 0) continue;
        error = errno;
        ::close(fd);
        fd = -1;
    }
    ::freeaddrinfo(list);
    if (fd < 0) {
        errno = error;
        fail_errno("connect to " + host + ":" + port);
    }
    const int on = 1;
    ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    return fd;
}

struct Greeting {
    be64 magic, option_magic;
    be16 flags;
};
struct OptionReply {
    be64 magic;
    be32 option, type, length;
};
static_assert(sizeof(Greeting) == 18 && sizeof(OptionReply) == 20);

void negotiate(Connection& c, const std::string& name, int timeout_ms) {
    Greeting greeting;
    read_all(c.fd, &greeting, sizeof greeting, timeout_ms);
    if (greeting.magic != kMagic || greeting.option_magic != kOptionMagic)
        fail_protocol("no fixed newstyle greeting");
    if ((greeting.flags & kHandshakeFixedNewstyle) == 0) fail_protocol("not fixed newstyle");
    struct {
        be32 client_flags{kHandshakeFixedNewstyle};
        be64 magic{kOptionMagic};
        be32 option{kOptGo};
        be32 length, name_length;
    } go;
    static_assert(sizeof go == 24);
    go.client_flags = kHandshakeFixedNewstyle | (greeting.flags & kHandshakeNoZeroes);
    const auto name_length = static_cast<std::uint32_t>(name.size());
    go.length = 4 + name_length + 4;
    go.name_length = name_length;
    const struct { be16 count{1}, block_size{kInfoBlockSize}; } ask;
    std::string message(reinterpret_cast<const char*>(&go), sizeof go);
    message += name;
    message.append(reinterpret_cast<const char*>(&ask), sizeof ask);
    write_all(c.fd, message.data(), message.size());

    bool has_export = false;
    for (;;) {
        OptionReply reply;
        read_all(c.fd, &reply, sizeof reply, timeout_ms);
        if (reply.magic != kOptionReplyMagic || reply.option != kOptGo) fail_protocol("not a reply to GO");
        if (reply.length > 65536) fail_protocol("option reply too long");
        std::vector<unsigned char> body(reply.length);
        read_all(c.fd, body.data(), body.size(), timeout_ms);
        const std::uint32_t type = reply.type;
        if (type & kReplyErrorBit)
            throw ConnectError(
                ENOENT, "server refuses export '" + name + "': " + std::string(body.begin(), body.end()));
        if (type == kReplyAck) break;
        if (type != kReplyInfo || body.size() < 2) fail_protocol("unexpected option reply");
        be16 info;
        std::memcpy(&info, body.data(), 2);
        if (info == kInfoExport && body.size() == 12) {
            be64 size;
            be16 flags;
            std::memcpy(&size, &body[2], 8);
            std::memcpy(&flags, &body[10], 2);
            c.size = size;
            c.flags = flags;
            has_export = true;
        } else if (info == kInfoBlockSize && body.size() == 14) {
            be32 least, most;
            std::memcpy(&least, &body[2], 4);
            std::memcpy(&most, &body[10], 4);
            c.block_min = least;
            c.block_max = most;
        }
    }
    if (!has_export) fail_protocol("no NBD_INFO_EXPORT before the end of GO");
}

}  // namespace

Uri Uri::parse(std::string_view text) {
    Uri uri;
    std::string_view rest;
    if (text.starts_with("nbd+unix://")) {
        uri.is_unix = true;
        rest = text.substr(11);
    } else if (text.starts_with("nbd://")) {
        rest = text.substr(6);
    } else {
        throw std::invalid_argument("URI must start with nbd:// or nbd+unix://, not: " + std::string(text));
    }
    std::string_view query;
    if (const auto q = rest.find('?'); q != rest.npos) {
        query = rest.substr(q + 1);
        rest = rest.substr(0, q);
    }
    const auto slash = rest.find('/');
    std::string_view authority = rest.substr(0, slash);
    if (slash != rest.npos) uri.export_name = percent_decoded(rest.substr(slash + 1));
    if (uri.is_unix) {
        if (!query.starts_with("socket=")) throw std::invalid_argument("nbd+unix:// needs ?socket=PATH");
        uri.socket_path = percent_decoded(query.substr(7));
        return uri;
    }
    uri.port = "10809";
    const auto bracket = authority.find(']');
    const auto colon = authority.rfind(':');
    if (colon != authority.npos && (bracket == authority.npos || colon > bracket)) {
        uri.port = std::string(authority.substr(colon + 1));
        authority = authority.substr(0, colon);
    }
    if (bracket != authority.npos && authority.starts_with("[")) authority = authority.substr(1, bracket - 1);
    uri.host = authority.empty() ? "localhost" : percent_decoded(authority);
    return uri;
}

Connection Connection::open(const Uri& uri, int timeout_ms) {
    Connection c;
    c.fd = uri.is_unix ? connect_unix(uri.socket_path) : connect_tcp(uri.host, uri.port);
    negotiate(c, uri.export_name, timeout_ms);
    return c;
}

void Connection::close() noexcept {
    if (fd < 0) return;
    Request bye;
    bye.type = kDisconnect;
    (void)!::send(fd, &bye, sizeof bye, MSG_NOSIGNAL | MSG_DONTWAIT);
    ::close(fd);
    fd = -1;
}

Connection::~Connection() { close(); }

void Connection::swap(Connection& o) noexcept {
    std::swap(fd, o.fd);
    std::swap(size, o.size);
    std::swap(flags, o.flags);
    std::swap(block_min, o.block_min);
    std::swap(block_max, o.block_max);
}

std::string error_name(std::uint32_t error) {
    const char* name = ::strerrorname_np(static_cast<int>(error));
    return name != nullptr ? name : "error " + std::to_string(error);
}

}  // namespace nbd
