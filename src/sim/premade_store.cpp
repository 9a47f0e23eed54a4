#include "sim/premade_store.hpp"

#include <algorithm>
#include <vector>

#include "base/endian.hpp"
#include "sim/shadow_disk.hpp"

namespace udm {
namespace {

struct Entry {
    le64 old_chunk, new_chunk;
};
static_assert(sizeof(Entry) == 16);

}  // namespace

void write_premade_store(SimDisk& cow, const PremadeStore& store) {
    const std::uint64_t sectors = store.chunk, per_area = sectors * kSectorSize / sizeof(Entry);
    const auto chunk_at = [sectors](std::uint64_t chunk) { return Extent{{chunk * sectors}, {sectors}}; };
    std::vector<std::byte> bytes(sectors * kSectorSize);
    auto* header = reinterpret_cast<le32*>(bytes.data());
    header[0] = 0x70416E53;    // "SnAp"
    header[1] = 1;             // valid
    header[2] = 1;             // version
    header[3] = static_cast<std::uint32_t>(sectors);
    cow.write_now(chunk_at(0), bytes.data());

    // The k-th exception has the k-th chunk of data.
    const auto data_chunk = [per_area](std::uint64_t k) { return 2 + k + k / per_area; };
    for (std::uint64_t k = 0; k < store.exceptions; ++k) {
        const std::uint64_t first = k * sectors;
        const Extent from{{first}, {std::min(sectors, store.origin_sectors - first)}};
        std::fill(bytes.begin(), bytes.end(), std::byte{});
        ShadowDisk::fill(from, store.content, bytes.data());
        cow.write_now(chunk_at(data_chunk(k)), bytes.data());
    }
    for (std::uint64_t area = 0; area <= store.exceptions / per_area + 1; ++area) {
        const std::uint64_t at = 1 + area * (per_area + 1);
        if ((at + 1) * sectors > cow.limits().size.v) break;
        auto* entries = reinterpret_cast<Entry*>(bytes.data());
        for (std::uint64_t i = 0; i < per_area; ++i) {
            const std::uint64_t k = area * per_area + i;
            // Beyond the end: chunks of the origin that have no exception, at chunks of data that are there.
            if (k < store.exceptions) entries[i] = {k, data_chunk(k)};
            else if (k == store.exceptions) entries[i] = {0, 0};
            else entries[i] = {k, data_chunk(i % 8)};
        }
        cow.write_now(chunk_at(at), bytes.data());
    }
}

}  // namespace udm
