// Integers of a fixed byte order, for structures on disk (little-endian) and on the wire (big-endian).
#pragma once

#include <bit>
#include <cstdint>
#include <cstring>

namespace udm {

static_assert(std::endian::native == std::endian::little, "udm is built for little-endian machines");

template <class T>
constexpr T byte_swapped(T v) {
    if constexpr (sizeof(T) == 1) return v;
    if constexpr (sizeof(T) == 2) return static_cast<T>(__builtin_bswap16(v));
    if constexpr (sizeof(T) == 4) return static_cast<T>(__builtin_bswap32(v));
    if constexpr (sizeof(T) == 8) return static_cast<T>(__builtin_bswap64(v));
}

// Stored as bytes, so that a structure of them has no padding and no alignment.
template <class T, bool kBig>
class Stored {
  public:
    Stored() = default;
    Stored(T v) noexcept { *this = v; }
    Stored& operator=(T v) noexcept {
        if constexpr (kBig) v = byte_swapped(v);
        std::memcpy(bytes_, &v, sizeof v);
        return *this;
    }
    operator T() const noexcept {
        T v;
        std::memcpy(&v, bytes_, sizeof v);
        return kBig ? byte_swapped(v) : v;
    }

  private:
    unsigned char bytes_[sizeof(T)]{};
};

using le16 = Stored<std::uint16_t, false>;
using le32 = Stored<std::uint32_t, false>;
using le64 = Stored<std::uint64_t, false>;
using be16 = Stored<std::uint16_t, true>;
using be32 = Stored<std::uint32_t, true>;
using be64 = Stored<std::uint64_t, true>;

}  // namespace udm
