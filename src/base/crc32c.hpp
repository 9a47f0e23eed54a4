// CRC-32C (Castagnoli), as iSCSI and many file formats use it: reflected, initial and final value all ones.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace udm {

// Continues from `crc`, the result so far (0 to begin with).
std::uint32_t crc32c_bytes(const void* data, std::size_t bytes, std::uint32_t crc = 0) noexcept;
// Of two runs of bytes one behind the other, of which `second` has so many.
std::uint32_t crc32c_joined(std::uint32_t first, std::uint32_t second, std::uint64_t bytes_of_second) noexcept;
inline std::uint32_t crc32c(std::string_view text, std::uint32_t crc = 0) noexcept {
    return crc32c_bytes(text.data(), text.size(), crc);
}

}  // namespace udm
