#include "inspect/snapshot_store.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

namespace udm::inspect {

using snapshot::DiskException;
using snapshot::DiskHeader;

Result<Header> read_header(Source& source) {
    std::array<std::byte, kSectorSize> sector;
    if (source.size() < sector.size()) return fail(Errc::corrupt, "there are not even 512 bytes");
    CHECK(source.read(0, sector));
    DiskHeader header;
    std::memcpy(&header, sector.data(), sizeof header);
    return Header{header.magic, header.valid, header.version, header.chunk_size};
}

bool is_chunk_size(std::uint32_t sectors) noexcept {
    return std::has_single_bit(sectors) && sectors <= snapshot::kChunkSectorsMax;
}

std::uint64_t EntryReader::there(std::uint64_t area) const {
    if (geometry_.area(area).v < chunks_) return geometry_.exceptions_per_area();
    if (geometry_.area(area).v > chunks_) return 0;
    return (source_.size() - chunks_ * geometry_.chunk().bytes()) / sizeof(DiskException);
}

// The entry must be there.
Result<DiskException> EntryReader::at(std::uint64_t index) {
    if (index < piece_first_ || index >= piece_end_) {
        const std::uint64_t per_area = geometry_.exceptions_per_area(), in_area = index % per_area;
        const std::uint64_t count = std::min<std::uint64_t>(there(index / per_area) - in_area, kPiece / sizeof(DiskException));
        piece_.resize(count * sizeof(DiskException));
        piece_end_ = piece_first_;
        CHECK(source_.read(to_bytes(geometry_.chunk().start(geometry_.area(index / per_area))) + in_area * sizeof(DiskException), piece_));
        piece_first_ = index;
        piece_end_ = index + count;
    }
    DiskException entry;
    std::memcpy(&entry, piece_.data() + (index - piece_first_) * sizeof entry, sizeof entry);
    return entry;
}

Result<bool> EntryReader::next(Entry& entry) {
    if (index_ % geometry_.exceptions_per_area() >= there(index_ / geometry_.exceptions_per_area())) {
        open_end_ = true;
        return false;
    }
    TRY(const DiskException found, at(index_));
    if (found.new_chunk == 0) return false;
    entry = {index_, found.old_chunk, found.new_chunk};
    ++index_;
    return true;
}

Result<EntryReader::Leftovers> EntryReader::leftovers() {
    Leftovers left;
    if (open_end_) return left;
    const std::uint64_t per_area = geometry_.exceptions_per_area(), area = index_ / per_area;
    const std::uint64_t end = area * per_area + there(area);
    for (std::uint64_t i = index_; i < end; ++i) {
        TRY(const DiskException found, at(i));
        if (found.old_chunk == 0 && found.new_chunk == 0) continue;
        if (left.count++ == 0) left.first = {i, found.old_chunk, found.new_chunk};
    }
    return left;
}

}  // namespace udm::inspect
