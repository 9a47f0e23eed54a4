#include "port/io.hpp"

#include <cstring>

namespace udm {

const char* to_string(Op op) noexcept {
    switch (op) {
        case Op::read: return "read";
        case Op::write: return "write";
        case Op::flush: return "flush";
        case Op::discard: return "discard";
        case Op::write_zeroes: return "write_zeroes";
        case Op::extent_status: return "extent_status";
    }
    UNREACHABLE();
}

void Buffers::copy_to(std::byte* to, std::uint64_t bytes) const noexcept {
    for_each(bytes, [&to](std::byte* piece, std::size_t n) {
        std::memcpy(to, piece, n);
        to += n;
    });
}

void Buffers::copy_from(const std::byte* from, std::uint64_t bytes) const noexcept {
    for_each(bytes, [&from](std::byte* piece, std::size_t n) {
        std::memcpy(piece, from, n);
        from += n;
    });
}

void Buffers::fill_zero(std::uint64_t bytes) const noexcept {
    for_each(bytes, [](std::byte* piece, std::size_t n) { std::memset(piece, 0, n); });
}

std::uint32_t Buffers::to_iovecs(iovec* out, std::uint32_t room, std::uint64_t bytes) const noexcept {
    std::uint32_t count = 0;
    bool fits = true;
    for_each(bytes, [&](std::byte* piece, std::size_t n) {
        if (count == room) {
            fits = false;
        } else {
            out[count++] = {piece, n};
        }
    });
    return fits ? count : 0;
}

}  // namespace udm
