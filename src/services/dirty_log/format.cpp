#include "services/dirty_log/format.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/crc32c.hpp"

namespace udm::dirty_log {
namespace {

constexpr std::size_t kCovered = kNoteOffset + offsetof(DiskNote, checksum);

// Null: there is no leg that the record can mean.
std::optional<LegRecord> legs_of(const DiskNote& note) {
    LegRecord legs;
    legs.leg_count = note.leg_count;
    legs.source = note.source;
    legs.failed = note.failed;
    for (std::size_t i = 0; i < legs.tags.size(); ++i) legs.tags[i] = note.tags[i];
    if (!legs.makes_sense()) return {};
    return legs;
}

}  // namespace

Judged judge(std::span<const std::byte> start) {
    ASSERT(start.size() >= kSectorSize);
    Judged judged;
    if (std::all_of(start.begin(), start.end(), [](std::byte b) { return b == std::byte{0}; })) return judged;
    DiskHeader header;
    std::memcpy(&header, start.data(), sizeof header);
    judged.version = header.version;
    judged.regions = header.regions;
    if (header.magic != kMagic) {
        judged.kind = Judged::Kind::foreign;
        judged.why = fmt::format("it holds something else than a mirror's log (the first bytes are {:#010x}); a new log needs the first "
                                 "4 KiB zeroed, or the word sync", static_cast<std::uint32_t>(header.magic));
        return judged;
    }
    if (header.version != kVersion && header.version != kVersionOfRecords) {
        judged.kind = Judged::Kind::unknown;
        judged.why = fmt::format("log version {}, known are 1 and 2", judged.version);
        return judged;
    }
    judged.kind = Judged::Kind::log;
    DiskNote note;
    std::memcpy(&note, start.data() + kNoteOffset, sizeof note);
    if (note.magic != kNoteMagic) return judged;
    const bool intact = crc32c_bytes(start.data(), kCovered) == note.checksum;
    if (header.version == kVersionOfRecords) {
        // Only we write such a note under version 1, in one sector with it.
        if (intact && note.leg_count != 0) judged.legs = legs_of(note);
        if (!judged.legs) {
            judged.kind = Judged::Kind::unknown;
            judged.why = "the record of the legs in the log's header is damaged";
            return judged;
        }
    }
    // Under version 2 it is only our last word if nobody changed the header since.
    if (intact && std::has_single_bit(static_cast<std::uint32_t>(note.region_size))) judged.region_size = note.region_size;
    return judged;
}

void put_header(std::byte* sector, Regions regions, RegionSize region_size, const std::optional<LegRecord>& legs) noexcept {
    std::memset(sector, 0, kSectorSize);
    DiskHeader header;
    header.magic = kMagic;
    header.version = legs ? kVersionOfRecords : kVersion;
    header.regions = regions.v;
    std::memcpy(sector, &header, sizeof header);
    DiskNote note{};
    note.magic = kNoteMagic;
    note.region_size = static_cast<std::uint32_t>(region_size.sectors().v);
    if (legs) {
        note.leg_count = legs->leg_count;
        note.source = legs->source;
        note.failed = legs->failed;
        for (std::size_t i = 0; i < legs->tags.size(); ++i) note.tags[i] = legs->tags[i];
    }
    std::memcpy(sector + kNoteOffset, &note, sizeof note);
    note.checksum = crc32c_bytes(sector, kCovered);
    std::memcpy(sector + kNoteOffset, &note, sizeof note);
}

}  // namespace udm::dirty_log
