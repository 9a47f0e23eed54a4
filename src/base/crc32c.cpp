#include "base/crc32c.hpp"

#include <array>

namespace udm {
namespace {

constexpr std::uint32_t kPolynomial = 0x82F63B78;  // reflected

// table[k][b]: of byte b followed by k zero bytes, so that eight bytes are done at once.
constexpr std::array<std::array<std::uint32_t, 256>, 8> make_tables() {
    std::array<std::array<std::uint32_t, 256>, 8> table{};
    for (std::uint32_t b = 0; b < 256; ++b) {
        std::uint32_t crc = b;
        for (int bit = 0; bit < 8; ++bit) crc = (crc & 1) ? (crc >> 1) ^ kPolynomial : crc >> 1;
        table[0][b] = crc;
    }
    for (std::size_t k = 1; k < 8; ++k) {
        for (std::size_t b = 0; b < 256; ++b) {
            const std::uint32_t before = table[k - 1][b];
            table[k][b] = (before >> 8) ^ table[0][before & 0xFF];
        }
    }
    return table;
}
constexpr auto kTable = make_tables();

// Polynomials modulo the CRC's, reflected: bit 31 is 1, bit 30 is x.
constexpr std::uint32_t multiply(std::uint32_t a, std::uint32_t b) noexcept {
    std::uint32_t product = 0;
    for (; a != 0; a <<= 1) {
        if ((a & 0x8000'0000) != 0) product ^= b;
        b = (b & 1) != 0 ? (b >> 1) ^ kPolynomial : b >> 1;
    }
    return product;
}

}  // namespace

std::uint32_t crc32c_bytes(const void* data, std::size_t bytes, std::uint32_t crc) noexcept {
    const auto* at = static_cast<const unsigned char*>(data);
    crc = ~crc;
    for (; bytes >= 8; bytes -= 8, at += 8) {
        const std::uint32_t low = crc ^ (std::uint32_t{at[0]} | std::uint32_t{at[1]} << 8 |
                                         std::uint32_t{at[2]} << 16 | std::uint32_t{at[3]} << 24);
        crc = kTable[7][low & 0xFF] ^ kTable[6][(low >> 8) & 0xFF] ^ kTable[5][(low >> 16) & 0xFF] ^
              kTable[4][low >> 24] ^ kTable[3][at[4]] ^ kTable[2][at[5]] ^ kTable[1][at[6]] ^
              kTable[0][at[7]];
    }
    for (; bytes != 0; --bytes, ++at) crc = (crc >> 8) ^ kTable[0][(crc ^ *at) & 0xFF];
    return ~crc;
}

// So many bytes behind `first` multiply it by x^8 for each.
std::uint32_t crc32c_joined(std::uint32_t first, std::uint32_t second, std::uint64_t bytes_of_second) noexcept {
    std::uint32_t power = std::uint32_t{1} << 23;
    for (std::uint64_t n = bytes_of_second; n != 0; n >>= 1) {
        if ((n & 1) != 0) first = multiply(first, power);
        power = multiply(power, power);
    }
    return first ^ second;
}

}  // namespace udm
