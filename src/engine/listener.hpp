// Accepts connections on a loop. Made and destroyed by control threads or on the loop.
#pragma once

#include "engine/listen_socket.hpp"
#include "engine/loop.hpp"
#include "port/net.hpp"

namespace udm {

class SocketListener final : public Listener {
  public:
    SocketListener(Loop& loop, ListenSocket socket, Handler& handler);
    // The handler is not called any more when it returns. From another thread than the loop's it waits for
    // the loop.
    ~SocketListener() override;
    std::uint16_t port() const noexcept override { return port_; }

  private:
    class Acceptor;
    Acceptor* acceptor_;
    const std::uint16_t port_;
};

}  // namespace udm
