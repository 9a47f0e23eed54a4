// Replies that go out together: headers side by side in one piece of memory, payloads where they lie.
#pragma once

#include <sys/uio.h>

#include <array>
#include <cstdint>
#include <span>

#include "base/assert.hpp"
#include "exports/nbd/codec.hpp"
#include "exports/nbd/validate.hpp"

namespace udm::nbd {

inline constexpr std::uint32_t kRequestsMax = 128;  // of one session, under way at a time

class Replies {
  public:
    // A buffer that goes back to its pool when the replies are out.
    struct Payload {
        std::byte* buffer;
        std::uint32_t bytes;  // as taken
    };

    bool empty() const noexcept { return count_ == 0; }
    std::uint32_t count() const noexcept { return count_; }

    void add_simple(std::uint64_t cookie, WireError error) noexcept {
        header(put_simple_reply(next(), error, cookie));
        ++count_;
    }
    // The data of a read; a length of 0 is a reply without payload.
    void add_data(const Request& request, bool structured, std::byte* data) noexcept {
        if (!structured) {
            header(put_simple_reply(next(), WireError::none, request.cookie));
        } else if (request.length != 0) {
            header(put_data_chunk(next(), request.cookie, request.offset, request.length));
        } else {
            header(put_chunk(next(), ChunkType::none, kReplyDone, request.cookie, 0));
        }
        if (request.length != 0) piece(data, request.length);
        ++count_;
    }
    // Whole chunks, ready made.
    void add_chunks(std::byte* chunks, std::size_t bytes) noexcept {
        piece(chunks, bytes);
        ++count_;
    }
    void add_error(std::uint64_t cookie, const Refusal& refusal, bool structured) noexcept {
        if (!structured) return add_simple(cookie, refusal.error);
        header(
            put_error_chunk(next(), refusal.error, cookie, static_cast<std::uint16_t>(refusal.text.size())));
        // Only ever read.
        if (!refusal.text.empty()) piece(const_cast<char*>(refusal.text.data()), refusal.text.size());
        ++count_;
    }
    void keep(std::byte* buffer, std::uint32_t bytes) noexcept {
        ASSERT(payload_count_ < kRequestsMax);
        payloads_[payload_count_++] = {buffer, bytes};
    }
    std::span<const Payload> payloads() const noexcept { return {payloads_.data(), payload_count_}; }

    // What is still to be sent: at most `bytes` of it as one send, or everything there is.
    struct Window {
        const iovec* pieces;
        std::uint32_t count;
    };
    Window window(std::size_t bytes) noexcept;
    // The window went out. True: that was all.
    bool advance() noexcept;
    void clear() noexcept;

  private:
    static constexpr std::uint32_t kPieces = 2 * kRequestsMax;

    std::byte* next() noexcept {
        ASSERT(count_ < kRequestsMax);
        return headers_.data() + header_bytes_;
    }
    void header(std::size_t bytes) noexcept {
        std::byte* at = headers_.data() + header_bytes_;
        header_bytes_ += static_cast<std::uint32_t>(bytes);
        // Headers without payload between them are one piece.
        if (piece_count_ != 0 && header_end_ == at) {
            pieces_[piece_count_ - 1].iov_len += bytes;
            bytes_ += bytes;
        } else {
            piece(at, bytes);
        }
        header_end_ = at + bytes;
    }
    void piece(void* at, std::size_t bytes) noexcept {
        ASSERT(piece_count_ < kPieces);
        pieces_[piece_count_++] = {at, bytes};
        bytes_ += bytes;
        header_end_ = nullptr;
    }

    std::uint32_t count_ = 0;
    std::uint32_t header_bytes_ = 0;
    std::uint32_t piece_count_ = 0;
    std::uint32_t payload_count_ = 0;
    std::uint64_t bytes_ = 0;          // in all pieces
    std::byte* header_end_ = nullptr;  // where the last piece ends, if it is made of headers
    std::uint32_t first_ = 0;          // the window: from here
    std::uint32_t window_ = 0;         // so many
    std::size_t rest_ = 0;             // of the window's last piece, not in this window
    std::array<iovec, kPieces> pieces_;
    std::array<Payload, kRequestsMax> payloads_;
    std::array<std::byte, kRequestsMax * kReplyHeaderMax> headers_;
};

}  // namespace udm::nbd
