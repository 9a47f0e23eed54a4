#include "sim/mirror_log_bytes.hpp"

namespace udm {
namespace {

// Little-endian, whatever the host is.
std::uint64_t number(std::span<const std::byte> bytes, std::size_t at, std::size_t length) {
    std::uint64_t value = 0;
    for (std::size_t i = length; i-- > 0;) value = value << 8 | std::to_integer<std::uint64_t>(bytes[at + i]);
    return value;
}

void put(std::vector<std::byte>& bytes, std::size_t at, std::size_t length, std::uint64_t value) {
    for (std::size_t i = 0; i < length; ++i) bytes[at + i] = std::byte{static_cast<unsigned char>(value >> (8 * i))};
}

}  // namespace

MirrorLogBytes MirrorLogBytes::parse(std::span<const std::byte> bytes, std::uint64_t regions) {
    MirrorLogBytes log;
    log.clean.assign(regions, false);
    if (bytes.size() < kBitmapAt) return log;
    log.version = static_cast<std::uint32_t>(number(bytes, 4, 4));
    log.known = number(bytes, 0, 4) == kMagic && (log.version == 1 || log.version == 2);
    if (!log.known) return log;
    log.regions = number(bytes, 8, 8);
    for (std::uint64_t region = 0; region < regions && region < log.regions; ++region) {
        const std::size_t at = kBitmapAt + region / 8;
        if (at >= bytes.size()) break;
        log.clean[region] = (std::to_integer<unsigned>(bytes[at]) >> (region % 8) & 1) != 0;
    }
    return log;
}

std::vector<std::byte> MirrorLogBytes::make(const std::vector<bool>& clean) {
    std::vector<std::byte> bytes(bytes_for(clean.size()));
    put(bytes, 0, 4, kMagic);
    put(bytes, 4, 4, 2);
    put(bytes, 8, 8, clean.size());
    for (std::size_t region = 0; region < clean.size(); ++region) {
        if (clean[region]) bytes[kBitmapAt + region / 8] |= std::byte{static_cast<unsigned char>(1U << (region % 8))};
    }
    return bytes;
}

}  // namespace udm
