// What the load writes: every sector says which write it is from and where it belongs.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <optional>

namespace crash {

inline constexpr std::size_t kSectorSize = 512;

// A write's number; never used twice, over all volumes. 0: the content before the first write. kZero: the
// write was of zeroes.
using Seq = std::uint64_t;
inline constexpr Seq kZero = 1ull << 63;

namespace detail {
inline constexpr std::uint64_t kMagic = 0x6372617368756d64;
inline std::uint64_t mixed(std::uint64_t z) noexcept {
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
}
}  // namespace detail

inline void fill_sector(unsigned char* to, Seq seq, std::uint64_t sector) noexcept {
    if (seq & kZero) {
        std::memset(to, 0, kSectorSize);
        return;
    }
    std::uint64_t words[kSectorSize / 8] = {detail::kMagic, seq, sector};
    std::uint64_t state = detail::mixed(seq * 0x9e3779b97f4a7c15 + sector);
    for (std::size_t i = 3; i < kSectorSize / 8; ++i) words[i] = state += 0x9e3779b97f4a7c15;
    std::memcpy(to, words, kSectorSize);
}

inline bool is_zero(const unsigned char* sector) noexcept {
    return sector[0] == 0 && std::memcmp(sector, sector + 1, kSectorSize - 1) == 0;
}

// The write that the sector's first bytes name; nothing if they are not ours. The rest has to be compared.
inline std::optional<Seq> named_write(const unsigned char* sector) noexcept {
    std::uint64_t words[3];
    std::memcpy(words, sector, sizeof words);
    if (words[0] != detail::kMagic) return std::nullopt;
    return words[1];
}

}  // namespace crash
