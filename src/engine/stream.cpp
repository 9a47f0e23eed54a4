// A handler may give the stream's socket away and destroy the stream while it is being called: after a call
// of the handler nothing here is touched.
#include "engine/stream.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>

namespace udm {
namespace {
constexpr std::uint32_t kPiecesMax = 1024;  // IOV_MAX
}

SocketStream::SocketStream(Loop& loop, int fd, StreamHandler& handler) noexcept
    : loop_{loop}, file_{fd, -1}, handler_{handler} {
    loop_.attach(file_);
    receive_.kind = Operation::Kind::receive;
    receive_.file = &file_;
    receive_.vec = &receive_.piece;
    receive_.count = 1;
    send_.kind = Operation::Kind::send;
    send_.file = &file_;
    send_.message = &send_.header;
}

SocketStream::~SocketStream() {
    // Dropped with the engine: nobody hears of what was under way.
    if (loop_.running()) ASSERT(file_.fd < 0);
    if (file_.fd >= 0) ::close(file_.fd);
    if (linked()) unlink();
}

void SocketStream::recv(std::byte* to, std::size_t max, bool all) noexcept {
    ASSERT(!closing_ && !receive_.active && file_.fd >= 0 && max > 0);
    receive_.active = true;
    receive_.got = 0;
    receive_.all = all;
    receive_.piece = {to, max};
    loop_.start(receive_);
}

void SocketStream::receive_done(int n) noexcept {
    if (n > 0) {
        receive_.got += static_cast<std::size_t>(n);
        receive_.piece.iov_base = static_cast<std::byte*>(receive_.piece.iov_base) + n;
        receive_.piece.iov_len -= static_cast<std::size_t>(n);
    }
    const bool again = n == -EINTR || n == -EAGAIN || (n > 0 && receive_.all && receive_.piece.iov_len != 0);
    if (again && !closing_) return loop_.start(receive_);
    receive_.active = false;
    if (closing_ && (n == -EINTR || n == -EAGAIN)) n = -ECANCELED;
    // What came before the end of the stream counts; the end shows at the next recv().
    const auto result = n < 0 ? static_cast<ssize_t>(n) : static_cast<ssize_t>(receive_.got);
    end_if_quiet();
    handler_.received(result);
}

void SocketStream::send(const iovec* vec, std::uint32_t count) noexcept {
    ASSERT(!closing_ && !send_.active && file_.fd >= 0 && count > 0 && count <= kPiecesMax);
    send_.active = true;
    send_.left = vec;
    send_.left_count = count;
    send_.rest = {};
    start_send();
}

void SocketStream::start_send() noexcept {
    send_.header = {};
    if (send_.rest.iov_len != 0) {
        send_.header.msg_iov = &send_.rest;
        send_.header.msg_iovlen = 1;
    } else {
        send_.header.msg_iov = const_cast<iovec*>(send_.left);  // the interface of 1983
        send_.header.msg_iovlen = send_.left_count;
    }
    loop_.start(send_);
}

void SocketStream::send_done(int n) noexcept {
    if (n > 0) {
        auto sent = static_cast<std::size_t>(n);
        if (send_.rest.iov_len != 0) {
            ASSERT(sent <= send_.rest.iov_len);
            send_.rest.iov_base = static_cast<std::byte*>(send_.rest.iov_base) + sent;
            send_.rest.iov_len -= sent;
        } else {
            while (send_.left_count != 0 && sent >= send_.left->iov_len) {
                sent -= send_.left->iov_len;
                ++send_.left;
                --send_.left_count;
            }
            if (sent != 0) {
                send_.rest = {static_cast<std::byte*>(send_.left->iov_base) + sent,
                              send_.left->iov_len - sent};
                ++send_.left;
                --send_.left_count;
            }
        }
    }
    const bool all = send_.rest.iov_len == 0 && send_.left_count == 0;
    const bool again = n == -EINTR || n == -EAGAIN || (n >= 0 && !all);
    if (again && !closing_) return start_send();
    send_.active = false;
    int status = all ? 0 : n;
    if (status > 0 || (closing_ && (n == -EINTR || n == -EAGAIN))) status = -ECANCELED;
    end_if_quiet();
    handler_.sent(status);
}

void SocketStream::close() noexcept {
    ASSERT(!closing_ && file_.fd >= 0);
    closing_ = true;
    if (receive_.active) loop_.cancel(receive_);
    if (send_.active) loop_.cancel(send_);
    end_if_quiet();
}

void SocketStream::end_if_quiet() noexcept {
    if (!closing_ || ended_ || receive_.active || send_.active) return;
    ended_ = true;
    loop_.post(*this);
}

void SocketStream::run() noexcept {
    loop_.detach(file_);
    ::close(std::exchange(file_.fd, -1));
    handler_.closed();
}

int SocketStream::release() noexcept {
    ASSERT(!closing_ && !receive_.active && !send_.active);
    loop_.detach(file_);
    return std::exchange(file_.fd, -1);
}

}  // namespace udm
