// A connected socket on a loop.
#pragma once

#include "engine/loop.hpp"
#include "port/net.hpp"

namespace udm {

class SocketStream final : public Stream, private Task {
  public:
    // Takes over the descriptor.
    SocketStream(Loop& loop, int fd, StreamHandler& handler) noexcept;
    ~SocketStream() override;

    void recv(std::byte* to, std::size_t max, bool all) noexcept override;
    void send(const iovec* vec, std::uint32_t count) noexcept override;
    void close() noexcept override;
    int release() noexcept override;

  private:
    class Receive final : public Operation {
      public:
        explicit Receive(SocketStream& stream) noexcept : stream_{stream} {}
        void done(int n) noexcept override { stream_.receive_done(n); }
        bool active = false;
        std::size_t got = 0;
        iovec piece{};  // what is still to come

      private:
        SocketStream& stream_;
    };
    class Send final : public Operation {
      public:
        explicit Send(SocketStream& stream) noexcept : stream_{stream} {}
        void done(int n) noexcept override { stream_.send_done(n); }
        bool active = false;
        const iovec* left = nullptr;  // the caller's pieces not yet sent
        std::uint32_t left_count = 0;
        iovec rest{};  // of a piece that went out in part; sent before `left`
        msghdr header{};

      private:
        SocketStream& stream_;
    };

    void receive_done(int n) noexcept;
    void send_done(int n) noexcept;
    void start_send() noexcept;
    void end_if_quiet() noexcept;
    void run() noexcept override;  // closed()

    Loop& loop_;
    File file_;
    StreamHandler& handler_;
    Receive receive_{*this};
    Send send_{*this};
    bool closing_ = false;
    bool ended_ = false;  // closed() was called or is about to be
};

}  // namespace udm
