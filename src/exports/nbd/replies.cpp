#include "exports/nbd/replies.hpp"

namespace udm::nbd {

Replies::Window Replies::window(std::size_t bytes) noexcept {
    ASSERT(window_ == 0 && first_ < piece_count_);
    if (bytes_ <= bytes) {
        window_ = piece_count_ - first_;
        return {&pieces_[first_], window_};
    }
    std::uint32_t count = 0;
    while (first_ + count < piece_count_ && bytes != 0) {
        iovec& piece = pieces_[first_ + count];
        if (piece.iov_len > bytes) {
            rest_ = piece.iov_len - bytes;
            piece.iov_len = bytes;
        }
        bytes -= piece.iov_len;
        ++count;
    }
    window_ = count;
    return {&pieces_[first_], count};
}

bool Replies::advance() noexcept {
    ASSERT(window_ != 0);
    first_ += window_;
    window_ = 0;
    if (rest_ != 0) {
        iovec& last = pieces_[--first_];
        last = {static_cast<std::byte*>(last.iov_base) + last.iov_len, rest_};
        rest_ = 0;
    }
    return first_ == piece_count_;
}

void Replies::clear() noexcept {
    count_ = header_bytes_ = piece_count_ = payload_count_ = 0;
    bytes_ = 0;
    header_end_ = nullptr;
    first_ = window_ = 0;
    rest_ = 0;
}

}  // namespace udm::nbd
