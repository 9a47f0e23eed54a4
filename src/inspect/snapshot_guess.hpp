// What stands where a store without a header should have its first area: is that a list of exceptions, for which chunk sizes?
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "inspect/snapshot_store.hpp"

namespace udm::inspect {

// The first area (its first 64 KiB), if chunks had that size.
struct FirstArea {
    std::uint64_t listed = 0;        // entries before the end of the list
    std::uint64_t good = 0;          // of them: COW chunk there, no metadata; no chunk twice; an origin chunk there can be
    std::uint64_t behind_end = 0;    // places behind it that are not empty
    bool misplaced = false;          // something stands before it, where only zeroes would be

    bool bears_a_list() const noexcept { return listed != 0 && good >= listed - good; }    // maybe a damaged one
    bool fits() const noexcept { return listed != 0 && good == listed && behind_end == 0 && !misplaced; }
};
Result<FirstArea> look_at_first_area(Source& source, std::uint32_t chunk_sectors);    // error: io

// Those that fit, in sectors, ascending. Reads 64 KiB at most for each size that a header may have. Error: io.
Result<std::vector<std::uint32_t>> fitting_chunk_sizes(Source& source);

// As one says it after --chunk: "512", "4K", "1M".
std::string chunk_size_word(std::uint32_t sectors);
std::string chunk_size_words(const std::vector<std::uint32_t>& sizes);    // "4K" or "4K, 8K"

}  // namespace udm::inspect
