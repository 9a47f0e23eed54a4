#include "engine/listen_socket.hpp"

#include <fmt/format.h>
#include <grp.h>
#include <netdb.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cstring>
#include <memory>
#include <optional>

#include "base/parse.hpp"

namespace udm {
namespace {

constexpr int kBacklog = 1024;

std::unexpected<Error> failed(const std::string& where, const char* what, int error) {
    return fail(static_cast<Errc>(error), fmt::format("{}: {}: {}", where, what, std::strerror(error)));
}

Result<gid_t> group_number(const std::string& name) {
    if (const auto number = parse_u32(name)) return static_cast<gid_t>(*number);
    group entry{};
    group* found = nullptr;
    std::string space(16384, '\0');
    ::getgrnam_r(name.c_str(), &entry, space.data(), space.size(), &found);
    if (!found) return fail(Errc::bad_argument, fmt::format("there is no group '{}'", name));
    return found->gr_gid;
}

sockaddr_un unix_address(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    std::memcpy(address.sun_path, path.c_str(), path.size());
    return address;
}

// Nobody answers at a socket whose server is gone.
Result<void> remove_stale(const std::string& path) {
    struct stat status;
    if (::lstat(path.c_str(), &status) != 0) {
        if (errno == ENOENT) return {};
        return failed(path, "looking for what is there", errno);
    }
    if (!S_ISSOCK(status.st_mode))
        return fail(Errc::exists, fmt::format("{}: exists and is not a socket", path));
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return failed(path, "socket", errno);
    const sockaddr_un address = unix_address(path);
    const int rc = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    const int error = rc == 0 ? 0 : errno;
    ::close(fd);
    // EAGAIN: a server that is too busy to accept.
    if (error == 0 || error == EAGAIN)
        return fail(Errc::busy, fmt::format("{}: another server answers there", path));
    if (error != ECONNREFUSED) return failed(path, "asking whether a server is there", error);
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) return failed(path, "removing the old socket", errno);
    return {};
}

Result<ListenSocket> listen_unix(const Address& wanted) {
    const std::string& path = wanted.path;
    if (path.empty()) return fail(Errc::bad_argument, "the path of a Unix socket is empty");
    if (path.size() >= sizeof(sockaddr_un::sun_path)) {
        return fail(Errc::bad_argument, fmt::format("{}: a Unix socket's path has at most {} bytes", path,
                                                    sizeof(sockaddr_un::sun_path) - 1));
    }
    std::optional<gid_t> gid;
    if (!wanted.group.empty()) {
        TRY(gid, group_number(wanted.group));
    }
    CHECK(remove_stale(path));
    ListenSocket socket;
    socket.fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (socket.fd < 0) return failed(path, "socket", errno);
    // Before it has a name: bind() gives its file this mode, so that it is never open to more than it should
    // be.
    ::fchmod(socket.fd, 0600);
    const sockaddr_un address = unix_address(path);
    if (::bind(socket.fd, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
        const int error = errno;
        ::close(socket.fd);
        return failed(path, "bind", error);
    }
    socket.path = path;
    struct stat status {};
    ::lstat(path.c_str(), &status);
    socket.device = status.st_dev;
    socket.inode = status.st_ino;
    const char* what = nullptr;
    if (gid && ::lchown(path.c_str(), static_cast<uid_t>(-1), *gid) != 0) what = "giving it to the group";
    if (!what && wanted.mode != 0600 && ::chmod(path.c_str(), wanted.mode & 07777) != 0)
        what = "setting its mode";
    if (!what && ::listen(socket.fd, kBacklog) != 0) what = "listen";
    if (what) {
        const int error = errno;
        close_listen_socket(socket);
        return failed(path, what, error);
    }
    return socket;
}

constexpr const char* kLoopback = "127.0.0.1";

using Addresses = std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)>;

Result<Addresses> addresses_of(const std::string& host, std::uint16_t port, int flags) {
    addrinfo hints{};
    hints.ai_socktype = SOCK_STREAM;
    hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV | flags;
    addrinfo* list = nullptr;
    if (const int rc = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &list); rc != 0)
        return fail(Errc::bad_argument, fmt::format("{}: {}", host, ::gai_strerror(rc)));
    return Addresses{list, &::freeaddrinfo};
}

int listen_at(const addrinfo& address, int& error) {
    const int fd = ::socket(address.ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0) return fd;
    const int on = 1;
    ::setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    if (::bind(fd, address.ai_addr, address.ai_addrlen) == 0 && ::listen(fd, kBacklog) == 0) return fd;
    error = errno;
    ::close(fd);
    return -1;
}

Result<ListenSocket> listen_tcp(const Address& wanted) {
    const std::string host = wanted.host.empty() ? kLoopback : wanted.host;
    const std::string where = fmt::format("{}:{}", host, wanted.port);
    ListenSocket socket;
    int error = EADDRNOTAVAIL;
    for (const std::string& number : wanted.numbers.empty() ? std::vector{host} : wanted.numbers) {
        TRY(const Addresses addresses, addresses_of(number, wanted.port, AI_NUMERICHOST));
        if (socket.fd = listen_at(*addresses, error); socket.fd >= 0) break;
    }
    if (socket.fd < 0) return failed(where, "listening", error);
    sockaddr_storage own{};
    socklen_t size = sizeof own;
    ::getsockname(socket.fd, reinterpret_cast<sockaddr*>(&own), &size);
    socket.port = ntohs(own.ss_family == AF_INET6 ? reinterpret_cast<const sockaddr_in6&>(own).sin6_port
                                                  : reinterpret_cast<const sockaddr_in&>(own).sin_port);
    return socket;
}

}  // namespace

Result<std::vector<std::string>> look_up_host(const std::string& host) {
    TRY(const Addresses addresses, addresses_of(host.empty() ? kLoopback : host, 0, 0));
    std::vector<std::string> numbers;
    for (const addrinfo* address = addresses.get(); address; address = address->ai_next) {
        char text[NI_MAXHOST];
        if (::getnameinfo(address->ai_addr, address->ai_addrlen, text, sizeof text, nullptr, 0, NI_NUMERICHOST) == 0)
            numbers.emplace_back(text);
    }
    return numbers;
}

Result<ListenSocket> open_listen_socket(const Address& address) {
    return address.kind == Address::Kind::unix_socket ? listen_unix(address) : listen_tcp(address);
}

void stop_listening(ListenSocket& socket) noexcept {
    struct stat status;
    if (!socket.path.empty() && ::lstat(socket.path.c_str(), &status) == 0 &&
        status.st_dev == socket.device && status.st_ino == socket.inode) {
        ::unlink(socket.path.c_str());
    }
    socket.path.clear();
    if (socket.fd >= 0) ::shutdown(socket.fd, SHUT_RDWR);
}

void close_listen_socket(ListenSocket& socket) noexcept {
    stop_listening(socket);
    if (socket.fd >= 0) ::close(std::exchange(socket.fd, -1));
}

}  // namespace udm
