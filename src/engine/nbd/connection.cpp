#include "engine/nbd/connection.hpp"

#include <sys/socket.h>

#include <cerrno>

namespace udm {

NbdConnection::NbdConnection(Loop& loop, Owner& owner, NbdHandle handle) noexcept
    : loop_{loop}, owner_{owner}, handle_{std::move(handle)} {
    file_.fd = nbd_aio_get_fd(handle_.get());
    in_.file = out_.file = &file_;
}

NbdConnection::~NbdConnection() {
    if (pump_.linked()) pump_.unlink();
}

// Under libnbd's lock. A command that ended because the connection did stays under way, for another one.
int NbdConnection::completed(void* user, int* error) noexcept {
    auto& piece = *static_cast<NbdPiece*>(user);
    NbdConnection& self = *piece.connection;
    if (self.closed_ || *error == ENOTCONN) return 1;
    if (*error == ESHUTDOWN) {
        self.leaving_ = true;
        return 1;
    }
    piece.error = *error;
    self.settle(piece);
    return 1;
}

void NbdConnection::settle(NbdPiece& piece) noexcept {
    piece.unlink();
    piece.connection = nullptr;
    --load_;
    ++answers_;
    done_.push_back(piece);
}

int NbdConnection::told_extents(void* user, const char*, std::uint64_t, std::uint32_t* entries, std::size_t count, int*) noexcept {
    auto& piece = *static_cast<NbdPiece*>(user);
    if (count >= 2) {
        piece.extent_length = entries[0];
        piece.extent_flags = entries[1];
    }
    return 0;
}

std::int64_t NbdConnection::hand_over(NbdPiece& piece) noexcept {
    nbd_handle* const handle = handle_.get();
    const nbd_completion_callback done{completed, &piece, nullptr};
    switch (piece.kind) {
        case NbdPiece::Kind::read:
            return nbd_aio_pread(handle, piece.memory, piece.length, piece.offset, done, piece.flags);
        case NbdPiece::Kind::write:
            return nbd_aio_pwrite(handle, piece.memory, piece.length, piece.offset, done, piece.flags);
        case NbdPiece::Kind::flush:
            return nbd_aio_flush(handle, done, 0);
        case NbdPiece::Kind::trim:
            return nbd_aio_trim(handle, piece.length, piece.offset, done, piece.flags);
        case NbdPiece::Kind::zero:
            return nbd_aio_zero(handle, piece.length, piece.offset, done, piece.flags);
        case NbdPiece::Kind::status: {
            const nbd_extent_callback extents{told_extents, &piece, nullptr};
            piece.extent_length = 0;
            return nbd_aio_block_status(handle, piece.length, piece.offset, extents, done, piece.flags);
        }
    }
    UNREACHABLE();
}

void NbdConnection::issue(NbdPiece& piece) noexcept {
    ASSERT(!closed_);
    piece.connection = this;
    piece.error = 0;
    under_way_.push_back(piece);
    ++load_;
    if (hand_over(piece) < 0 && piece.connection == this) {
        const int error = nbd_get_errno();
        if (!alive()) {
            note_failure();
        } else {    // libnbd itself finds fault with it
            piece.error = error != 0 ? error : EIO;
            settle(piece);
        }
    }
    if (!pump_.linked()) loop_.post(pump_);
}

bool NbdConnection::alive() const noexcept {
    return nbd_aio_is_ready(handle_.get()) > 0 || nbd_aio_is_processing(handle_.get()) > 0;
}

void NbdConnection::note_failure() noexcept {
    if (why_.empty()) why_ = nbd_error_text();
}

void NbdConnection::Poll::done(int) noexcept {
    active = false;
    if (connection_.closed_) return connection_.end_if_quiet();
    connection_.ready(*this);
}

void NbdConnection::ready(const Poll& poll) noexcept {
    nbd_handle* const handle = handle_.get();
    if (&poll == &out_) {
        if ((nbd_aio_get_direction(handle) & LIBNBD_AIO_DIRECTION_WRITE) != 0 && nbd_aio_notify_write(handle) < 0) note_failure();
        return pump();
    }
    // One call brings one answer, and the next is often there already. Never without something to read: libnbd sends nothing
    // then until it has read an answer.
    constexpr unsigned kAnswersMax = 256;
    for (unsigned i = 0; i < kAnswersMax && has_input(); ++i) {
        if ((nbd_aio_get_direction(handle) & LIBNBD_AIO_DIRECTION_READ) == 0) break;
        if (nbd_aio_notify_read(handle) < 0) {
            note_failure();
            break;
        }
    }
    pump();
}

// Or the end of it.
bool NbdConnection::has_input() const noexcept {
    char byte;
    return ::recv(file_.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 || errno != EAGAIN;
}

void NbdConnection::tell_done() noexcept {
    while (!closed_) {
        NbdPiece* piece = done_.pop_front_or_null();
        if (!piece) return;
        owner_.piece_done(*piece);
    }
}

void NbdConnection::pump() noexcept {
    tell_done();
    if (closed_) return;
    if (leaving_ || !alive()) return lost();
    watch();
}

void NbdConnection::watch() noexcept {
    const unsigned direction = nbd_aio_get_direction(handle_.get());
    if ((direction & LIBNBD_AIO_DIRECTION_READ) != 0 && !in_.active) {
        in_.active = true;
        loop_.start(in_);
    }
    if ((direction & LIBNBD_AIO_DIRECTION_WRITE) != 0 && !out_.active) {
        out_.active = true;
        loop_.start(out_);
    }
}

void NbdConnection::lost() noexcept {
    if (leaving_) why_ = "the server shuts down";
    if (why_.empty()) why_ = "the server closed the connection";
    owner_.connection_lost(*this, why_);
    ASSERT(closed_);
}

void NbdConnection::close(bool politely, List<NbdPiece>& unanswered) noexcept {
    ASSERT(!closed_);
    unanswered.take_all(done_);
    unanswered.take_all(under_way_);
    if (politely && alive()) {
        nbd_aio_disconnect(handle_.get(), 0);
    } else {
        const linger now{1, 0};
        ::setsockopt(file_.fd, SOL_SOCKET, SO_LINGER, &now, sizeof now);
    }
    closed_ = true;
    loop_.leave(*this);
    if (in_.active) loop_.cancel(in_);
    if (out_.active) loop_.cancel(out_);
    loop_.detach(file_);
    handle_.reset();
    end_if_quiet();
}

// Not at once: who calls close() may be in the middle of a call of this connection.
void NbdConnection::end_if_quiet() noexcept {
    if (!in_.active && !out_.active && !pump_.linked()) loop_.post(pump_);
}

}  // namespace udm
