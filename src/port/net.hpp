// Sockets as exports see them. Implemented by engine/; one stream belongs to one reactor at a time.
#pragma once

#include <sys/types.h>
#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace udm {

class StreamHandler {
  public:
    // Bytes received; 0 at the end of the stream; negative errno on failure (-ECANCELED after close()).
    virtual void received(ssize_t n) noexcept = 0;
    // All of the last send() went out (status 0), or a negative errno.
    virtual void sent(int status) noexcept = 0;
    // After close(), when nothing is under way any more; the stream may be destroyed from here on.
    virtual void closed() noexcept = 0;

  protected:
    ~StreamHandler() = default;
};

// A connected socket. At most one recv() and one send() are under way. Handlers are called from the reactor, never
// inside recv(), send() or close().
class Stream {
  public:
    virtual ~Stream() = default;    // only when closed() was called or release() was
    // Completes with what is there, at least one byte. `all`: with `max` bytes, unless the stream ends or fails.
    virtual void recv(std::byte* to, std::size_t max, bool all = false) noexcept = 0;
    // Sends everything; `vec` and the memory stay as they are until sent(). Up to 1024 pieces.
    virtual void send(const iovec* vec, std::uint32_t count) noexcept = 0;
    // No further requests. What is under way is cancelled; then closed().
    virtual void close() noexcept = 0;
    // Gives the socket away, to move to another reactor: only while nothing is under way.
    virtual int release() noexcept = 0;
};

// Where a server listens, or a client connects to.
struct Address {
    enum class Kind : std::uint8_t { unix_socket, tcp } kind = Kind::unix_socket;
    std::string path;                // unix_socket
    std::string host;                // tcp; empty: loopback
    std::vector<std::string> numbers;    // tcp: what a host that has a name is looked up to; none: `host` is a number
    std::uint16_t port = 0;          // tcp; 0: any free one
    unsigned mode = 0600;            // unix_socket
    std::string group;               // unix_socket; empty: unchanged
};

class Listener {
  public:
    class Handler {
      public:
        // A new connection, non-blocking and close-on-exec; the handler owns it.
        virtual void accepted(int fd) noexcept = 0;

      protected:
        ~Handler() = default;
    };
    virtual ~Listener() = default;    // stops accepting; removes the socket's file
    virtual std::uint16_t port() const noexcept = 0;    // tcp: the real one
};

class Network {
  public:
    virtual ~Network() = default;
    // Takes over a connected socket. Reactor of this network only.
    virtual std::unique_ptr<Stream> adopt(int fd, StreamHandler& handler) = 0;
    // Listens and accepts on this network's reactor. Control plane (may block shortly); a stale unix socket is
    // replaced if nobody answers on it (decision 21).
    virtual Result<std::unique_ptr<Listener>> listen(const Address& address, Listener::Handler& handler) = 0;
};

}  // namespace udm
