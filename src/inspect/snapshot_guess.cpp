#include "inspect/snapshot_guess.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "targets/snapshot/exception_table.hpp"

namespace udm::inspect {

using snapshot::DiskException;
using snapshot::ExceptionTable;
using snapshot::Geometry;

namespace {

constexpr std::uint64_t kLook = 64 * 1024;
constexpr std::uint64_t kWritten = 4096;    // of the header's chunk: whatever damaged the header may have damaged so much

Result<bool> has_bytes(Source& source, std::uint64_t first, std::uint64_t end) {
    end = std::min(end, source.size());
    if (first >= end) return false;
    std::vector<std::byte> piece(static_cast<std::size_t>(end - first));
    CHECK(source.read(first, piece));
    return std::any_of(piece.begin(), piece.end(), [](std::byte b) { return b != std::byte{0}; });
}

// In the rest of the header's chunk there would be the first area of smaller chunks.
Result<bool> has_bytes_before_area(Source& source, std::uint64_t area) {
    TRY(const bool near, has_bytes(source, kWritten, std::min(area, kLook)));
    if (near) return true;
    for (std::uint64_t at = kLook; at < area; at *= 2) {
        TRY(const bool there, has_bytes(source, at, at + kSectorSize));
        if (there) return true;
    }
    return false;
}

}  // namespace

Result<FirstArea> look_at_first_area(Source& source, std::uint32_t chunk_sectors) {
    const Geometry geometry{ChunkSize::of_sectors(chunk_sectors)};
    const std::uint64_t chunk_bytes = geometry.chunk().bytes(), chunks = source.size() / chunk_bytes;
    FirstArea area;
    if (chunks < 2) return area;
    std::vector<std::byte> piece(static_cast<std::size_t>(std::min(chunk_bytes, kLook)));
    CHECK(source.read(chunk_bytes, piece));
    TRY(area.misplaced, has_bytes_before_area(source, chunk_bytes));
    std::set<std::uint64_t> origin_chunks, cow_chunks;
    bool ended = false;
    for (std::size_t at = 0; at < piece.size(); at += sizeof(DiskException)) {
        DiskException entry;
        std::memcpy(&entry, piece.data() + at, sizeof entry);
        const std::uint64_t old_chunk = entry.old_chunk, new_chunk = entry.new_chunk;
        ended = ended || new_chunk == 0;
        if (ended) {
            area.behind_end += old_chunk != 0 || new_chunk != 0;
            continue;
        }
        ++area.listed;
        const bool can_be = new_chunk < chunks && new_chunk <= ExceptionTable::kChunkMax && !geometry.is_metadata({new_chunk}) &&
                            old_chunk <= ExceptionTable::kChunkMax;
        if (can_be && cow_chunks.insert(new_chunk).second && origin_chunks.insert(old_chunk).second) ++area.good;
    }
    return area;
}

Result<std::vector<std::uint32_t>> fitting_chunk_sizes(Source& source) {
    std::vector<std::uint32_t> sizes;
    for (std::uint32_t sectors = 1; sectors <= snapshot::kChunkSectorsMax; sectors *= 2) {
        TRY(const FirstArea area, look_at_first_area(source, sectors));
        if (area.fits()) sizes.push_back(sectors);
    }
    return sizes;
}

std::string chunk_size_word(std::uint32_t sectors) {
    std::uint64_t size = to_bytes(Sectors{sectors});
    const char* unit = "";
    for (const char* larger : {"K", "M", "G"}) {
        if (size < 1024) break;
        size /= 1024;
        unit = larger;
    }
    return fmt::format("{}{}", size, unit);
}

std::string chunk_size_words(const std::vector<std::uint32_t>& sizes) {
    std::string words;
    for (const std::uint32_t sectors : sizes) words += (words.empty() ? "" : ", ") + chunk_size_word(sectors);
    return words;
}

}  // namespace udm::inspect
