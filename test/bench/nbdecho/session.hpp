// One client of the echo server.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <vector>

#include "test/bench/nbdecho/store.hpp"
#include "test/support/nbd_client.hpp"

namespace echo {

class Session {
  public:
    Session(int fd, Store& store);
    ~Session();
    Session(const Session&) = delete;
    Session& operator=(const Session&) = delete;

    int fd() const noexcept { return fd_; }
    bool handshake();  // false: the client left
    // Receives what is there, does it and answers. False: the client is gone or broke the protocol.
    bool serve_batch(int receive_flags);

  private:
    bool receive_exactly(void* to, std::size_t size);
    bool send_exactly(const void* from, std::size_t size);
    bool option_reply(std::uint32_t option, std::uint32_t type, const void* body, std::size_t size);
    bool parse();
    bool reply();

    int fd_;
    Store& store_;
    unsigned char* in_;  // one large buffer; at most one incomplete request stays in it
    std::size_t in_fill_ = 0;
    std::vector<Op> batch_;
    std::vector<nbd::SimpleReply> headers_;
    std::vector<iovec> out_;
    bool closing_ = false;
};

}  // namespace echo
