// Sockets of one loop.
#pragma once

#include "engine/loop.hpp"
#include "port/net.hpp"

namespace udm {

class LoopNetwork final : public Network {
  public:
    explicit LoopNetwork(Loop& loop) noexcept : loop_{loop} {}
    std::unique_ptr<Stream> adopt(int fd, StreamHandler& handler) override;
    Result<std::unique_ptr<Listener>> listen(const Address& address, Listener::Handler& handler) override;

  private:
    Loop& loop_;
};

}  // namespace udm
