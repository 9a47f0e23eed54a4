// Sockets in memory, for exports on simulated reactors: what a client writes arrives in pieces of any size,
// it may read slowly or not at all, end its side, or vanish.
#pragma once

#include <cerrno>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "port/net.hpp"
#include "port/reactor.hpp"

namespace udm::test {

class FakeStream;

// One connection, as its client sees it.
class Wire {
  public:
    void write(std::string_view bytes);
    void end();     // sends nothing more
    void vanish();  // the connection is reset
    // False: what the server sends stays where it is.
    void set_reads(bool reads);
    // All that came since the last time.
    std::string take() { return std::exchange(from_server_, {}); }
    const std::string& pending() const { return from_server_; }
    // The server has closed its side.
    bool closed() const { return closed_; }
    // How many bytes one receive gets, of so many; default: all.
    std::function<std::size_t(std::size_t)> fragment;
    std::uint64_t receives = 0, sends = 0;  // by the server
    std::uint64_t moves = 0;                // between reactors
    bool discards = false;                  // what the server sends is only counted
    std::uint64_t received_bytes = 0;

  private:
    friend class FakeStream;
    friend class FakeNetwork;
    void kick();
    std::string to_server_;
    std::size_t taken_ = 0;
    std::string from_server_;
    bool ended_ = false, vanished_ = false, closed_ = false, reads_ = true;
    FakeStream* stream_ = nullptr;
};

class FakeStream final : public Stream, private Task {
  public:
    FakeStream(Reactor& reactor, Wire& wire, int fd, StreamHandler& handler)
        : reactor_{reactor}, wire_{wire}, fd_{fd}, handler_{handler} {
        ASSERT(!wire_.stream_);
        wire_.stream_ = this;
    }
    ~FakeStream() override {
        ASSERT(released_ || told_closed_);
        ASSERT(!inside_);
        if (linked()) unlink();
        if (wire_.stream_ == this) wire_.stream_ = nullptr;
    }
    void recv(std::byte* to, std::size_t max, bool all) noexcept override {
        ASSERT(!receiving_ && !closing_ && !inside_wrong_thread() && max > 0);
        receiving_ = true;
        to_ = to;
        max_ = max;
        got_ = 0;
        all_ = all;
        ++wire_.receives;
        kick();
    }
    void send(const iovec* vec, std::uint32_t count) noexcept override {
        ASSERT(!sending_ && !closing_ && count > 0 && count <= 1024);
        sending_ = true;
        vec_ = vec;
        count_ = count;
        ++wire_.sends;
        kick();
    }
    void close() noexcept override {
        ASSERT(!closing_ && !released_);
        closing_ = true;
        kick();
    }
    int release() noexcept override {
        ASSERT(!receiving_ && !sending_ && !closing_);
        released_ = true;
        wire_.stream_ = nullptr;
        ++wire_.moves;
        return fd_;
    }
    void kick() noexcept {
        if (!linked() && !released_ && !told_closed_) reactor_.post(*this);
    }

  private:
    bool inside_wrong_thread() const noexcept { return !reactor_.is_current(); }
    template <class F>
    void tell(F&& f) noexcept {
        inside_ = true;
        f();
        inside_ = false;
    }
    void run() noexcept override {
        if (closing_) {
            if (std::exchange(receiving_, false)) tell([&] { handler_.received(-ECANCELED); });
            if (std::exchange(sending_, false)) tell([&] { handler_.sent(-ECANCELED); });
            wire_.closed_ = true;
            told_closed_ = true;
            tell([&] { handler_.closed(); });
            return;
        }
        if (sending_ && wire_.vanished_) {
            sending_ = false;
            tell([&] { handler_.sent(-EPIPE); });
        } else if (sending_ && wire_.reads_) {
            for (std::uint32_t i = 0; i < count_; ++i) {
                wire_.received_bytes += vec_[i].iov_len;
                if (!wire_.discards)
                    wire_.from_server_.append(static_cast<const char*>(vec_[i].iov_base), vec_[i].iov_len);
            }
            sending_ = false;
            tell([&] { handler_.sent(0); });
        }
        if (receiving_ && !closing_) take_bytes();
        const bool more = !closing_ && receiving_ && wire_.taken_ < wire_.to_server_.size();
        if (closing_ || more) kick();
    }
    void take_bytes() noexcept {
        if (wire_.vanished_) {
            receiving_ = false;
            tell([&] { handler_.received(-ECONNRESET); });
            return;
        }
        std::size_t there = wire_.to_server_.size() - wire_.taken_;
        if (there == 0) {
            if (!wire_.ended_) return;
            receiving_ = false;
            tell([&] { handler_.received(static_cast<ssize_t>(got_)); });
            return;
        }
        if (wire_.fragment) there = std::min(there, std::max<std::size_t>(1, wire_.fragment(there)));
        const std::size_t n = std::min(there, max_ - got_);
        std::memcpy(to_ + got_, wire_.to_server_.data() + wire_.taken_, n);
        wire_.taken_ += n;
        got_ += n;
        if (wire_.taken_ == wire_.to_server_.size()) {
            wire_.to_server_.clear();
            wire_.taken_ = 0;
        }
        if (all_ && got_ < max_) return;
        receiving_ = false;
        tell([&] { handler_.received(static_cast<ssize_t>(got_)); });
    }

    Reactor& reactor_;
    Wire& wire_;
    int fd_;
    StreamHandler& handler_;
    bool receiving_ = false, sending_ = false, closing_ = false, released_ = false, told_closed_ = false,
         inside_ = false;
    bool all_ = false;
    std::byte* to_ = nullptr;
    std::size_t max_ = 0, got_ = 0;
    const iovec* vec_ = nullptr;
    std::uint32_t count_ = 0;
};

inline void Wire::kick() {
    if (stream_) stream_->kick();
}
inline void Wire::write(std::string_view bytes) {
    to_server_.append(bytes);
    kick();
}
inline void Wire::end() {
    ended_ = true;
    kick();
}
inline void Wire::vanish() {
    vanished_ = true;
    kick();
}
inline void Wire::set_reads(bool reads) {
    reads_ = reads;
    kick();
}

// All wires of a test; a file descriptor is an index.
class Wires {
  public:
    int add() {
        wires_.push_back(std::make_unique<Wire>());
        return static_cast<int>(wires_.size()) - 1;
    }
    Wire& operator[](int fd) { return *wires_.at(static_cast<std::size_t>(fd)); }

  private:
    std::vector<std::unique_ptr<Wire>> wires_;
};

class FakeNetwork final : public Network {
  public:
    FakeNetwork(Reactor& reactor, Wires& wires) : reactor_{reactor}, wires_{wires} {}
    std::unique_ptr<Stream> adopt(int fd, StreamHandler& handler) override {
        ASSERT(reactor_.is_current());
        return std::make_unique<FakeStream>(reactor_, wires_[fd], fd, handler);
    }
    Result<std::unique_ptr<Listener>> listen(const Address& address, Listener::Handler& handler) override {
        if (address.path == "/taken") return fail(Errc::busy, "/taken: somebody answers there");
        handler_ = &handler;
        return std::unique_ptr<Listener>{std::make_unique<FakeListener>(*this)};
    }
    bool listens() const { return handler_ != nullptr; }
    // A client connects; on this network's reactor.
    Wire& connect() {
        ASSERT(handler_);
        const int fd = wires_.add();
        handler_->accepted(fd);
        return wires_[fd];
    }

  private:
    class FakeListener final : public Listener {
      public:
        explicit FakeListener(FakeNetwork& of) : of_{of} {}
        ~FakeListener() override { of_.handler_ = nullptr; }
        std::uint16_t port() const noexcept override { return 10809; }

      private:
        FakeNetwork& of_;
    };
    Reactor& reactor_;
    Wires& wires_;
    Listener::Handler* handler_ = nullptr;
};

}  // namespace udm::test
