#include "engine/network.hpp"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include "engine/listen_socket.hpp"
#include "engine/listener.hpp"
#include "engine/stream.hpp"

namespace udm {

std::unique_ptr<Stream> LoopNetwork::adopt(int fd, StreamHandler& handler) {
    ASSERT(loop_.is_current());
    // The ring waits by itself where a non-blocking socket would answer EAGAIN; the other loop says
    // MSG_DONTWAIT.
    const int flags = ::fcntl(fd, F_GETFL);
    if ((flags & O_NONBLOCK) != 0) ::fcntl(fd, F_SETFL, flags & ~O_NONBLOCK);
    int family = 0;
    socklen_t size = sizeof family;
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) == 0 &&
        (family == AF_INET || family == AF_INET6)) {
        const int on = 1;
        ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
        // A client that vanished without a word is noticed within three minutes.
        const int idle_s = 60, interval_s = 20, probes = 6;
        ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
        ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
        ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
        ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    }
    return std::make_unique<SocketStream>(loop_, fd, handler);
}

Result<std::unique_ptr<Listener>> LoopNetwork::listen(const Address& address, Listener::Handler& handler) {
    TRY(ListenSocket socket, open_listen_socket(address));
    return std::unique_ptr<Listener>{std::make_unique<SocketListener>(loop_, std::move(socket), handler)};
}

}  // namespace udm
