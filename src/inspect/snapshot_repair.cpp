#include "inspect/snapshot_repair.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "inspect/snapshot_guess.hpp"
#include "targets/snapshot/exception_table.hpp"

namespace udm::inspect {

using snapshot::DiskException;
using snapshot::DiskHeader;
using snapshot::ExceptionTable;
using snapshot::Geometry;

namespace {

constexpr std::size_t kZeroPiece = 64 * 1024;

std::uint64_t place_of(const Geometry& geometry, std::uint64_t index) {
    const std::uint64_t per_area = geometry.exceptions_per_area();
    return to_bytes(geometry.chunk().start(geometry.area(index / per_area))) + index % per_area * sizeof(DiskException);
}

void sort_and_keep_one(std::vector<std::uint64_t>& chunks) {
    std::sort(chunks.begin(), chunks.end());
    chunks.erase(std::unique(chunks.begin(), chunks.end()), chunks.end());
}

std::string what_fits(const Report& report) {
    if (report.fitting.empty()) return "no chunk size fits what stands there";
    return fmt::format("chunks of {} fit what stands there", chunk_size_words(report.fitting));
}

// The header is not good, and no chunk size is given.
std::string no_chunk_size(const Report& report) {
    if (!report.fitting.empty()) {
        return fmt::format("the header cannot be trusted; {}: --chunk SIZE, with the size that the table has, makes a new one", what_fits(report));
    }
    if (report.header.magic != snapshot::kMagic) {
        return "it has no snapshot store's header, and what stands there is no list of exceptions, whatever the chunk size";
    }
    return "the header cannot be trusted, and nothing else says how large its chunks are";
}

Result<std::string> no_list(Source& source, const Report& report) {
    const std::string size = chunk_size_word(report.chunk_sectors);
    TRY(const FirstArea area, look_at_first_area(source, report.chunk_sectors));
    if (area.listed == 0) {
        return fmt::format("with chunks of {} its list would be empty, and a new header would only make it look whole; {}", size, what_fits(report));
    }
    return fmt::format("with chunks of {} its first area is no list of exceptions: of {} entries {} can be right; {}", size, area.listed, area.good,
                       what_fits(report));
}

}  // namespace

void RepairPlan::found(const Finding& finding) {
    switch (finding.fault) {
        case Fault::after_end:
            has_leftovers_ = true;
            return;
        case Fault::cow_twice:
            contradicted_.push_back(finding.other);
            return;
        case Fault::origin_twice:
            contradicted_.push_back(finding.entry.old_chunk);
            return;
        default:
            return;
    }
}

void RepairPlan::listed(const Entry& entry, bool good) {
    if (!good) dropped_.push_back(entry);
}

Result<RepairPlan> RepairPlan::make(Source& source, const CheckOptions& options) {
    RepairPlan plan{options};
    TRY(plan.before_, check(source, options, &plan));
    const Report& report = plan.before_;
    if (report.kind == Report::Kind::blank) return plan;
    if (report.header_good && options.chunk_sectors && *options.chunk_sectors != report.header.chunk_sectors) {
        return fail(Errc::unsupported, fmt::format("its header is whole and says chunks of {}, not {}; without --chunk they are believed",
                                                   chunk_size_word(report.header.chunk_sectors), chunk_size_word(*options.chunk_sectors)));
    }
    if (plan.has(Fault::too_small)) return fail(Errc::unsupported, "it is too small to be a store: there is nothing to repair");
    if (report.kind == Report::Kind::unknown) {
        if (!options.chunk_sectors) return fail(Errc::unsupported, no_chunk_size(report));
        TRY(std::string why, no_list(source, report));
        return fail(Errc::unsupported, std::move(why));
    }
    plan.new_header_ = options.chunk_sectors.has_value() && !report.header_good;
    if (!plan.new_header_ && plan.has(Fault::bad_valid)) {
        return fail(Errc::unsupported, "the header does not say whether the snapshot was whole, and nothing else does");
    }
    if (!plan.new_header_ && !report.valid()) {
        return fail(Errc::unsupported, "the store is marked invalid: the snapshot missed changes of its origin, and nothing brings them back");
    }
    // The end of the list needs an area. When it has none, all that is kept has its data in chunks before that area.
    const Geometry geometry{ChunkSize::of_sectors(report.chunk_sectors)};
    const Chunk end_area = geometry.area(plan.kept() / geometry.exceptions_per_area());
    if (end_area.v >= report.chunks) plan.grown_bytes_ = to_bytes(geometry.chunk().start(end_area + Chunks{1}));
    CHECK(plan.find_lost(source));
    return plan;
}

// The list once more, for those that have a good exception, too.
Result<void> RepairPlan::find_lost(Source& source) {
    if (dropped_.empty()) return {};
    const Geometry geometry{ChunkSize::of_sectors(before_.chunk_sectors)};
    const std::uint64_t origin_chunks =
        options_.origin_sectors ? geometry.chunk().covering({*options_.origin_sectors}).v : ExceptionTable::kChunkMax + 1;
    for (const Entry& entry : dropped_) {
        if (entry.old_chunk < origin_chunks) lost_.push_back(entry.old_chunk);
    }
    lost_unnamed_ = dropped_.size() - lost_.size();
    sort_and_keep_one(lost_);
    std::vector<std::uint64_t> kept;
    EntryReader reader{source, geometry};
    auto next_dropped = dropped_.begin();
    for (Entry entry;;) {
        TRY(const bool there, reader.next(entry));
        if (!there) break;
        if (next_dropped != dropped_.end() && next_dropped->index == entry.index) {
            ++next_dropped;
        } else if (std::binary_search(lost_.begin(), lost_.end(), entry.old_chunk)) {
            kept.push_back(entry.old_chunk);
        }
    }
    sort_and_keep_one(kept);
    std::erase_if(lost_, [&](std::uint64_t chunk) { return std::binary_search(kept.begin(), kept.end(), chunk); });
    return {};
}

RepairPlan::Beyond RepairPlan::lost_beyond() const noexcept {
    if (!before_.open_end) return Beyond::none;
    // A store that Linux filled ends right behind the chunks of its last area.
    const std::uint64_t per_area = to_bytes(Sectors{before_.chunk_sectors}) / sizeof(DiskException);
    return has(Fault::beyond_device) || before_.exceptions % per_area != 0 ? Beyond::certain : Beyond::possible;
}

std::vector<std::uint64_t> RepairPlan::doubtful() const {
    std::vector<std::uint64_t> chunks = contradicted_;
    sort_and_keep_one(chunks);
    return chunks;
}

Result<void> RepairPlan::carry_out(Target& target) const {
    CHECK(fill_places(target));
    CHECK(clear_tail(target));
    CHECK(grow(target));
    return write_header(target);
}

// Last: a store without a header is one that nobody writes to.
Result<void> RepairPlan::write_header(Target& target) const {
    if (!new_header_) return {};
    std::array<std::byte, kSectorSize> sector{};
    DiskHeader header;
    header.magic = snapshot::kMagic;
    header.valid = 1;
    header.version = snapshot::kVersion;
    header.chunk_size = before_.chunk_sectors;
    std::memcpy(sector.data(), &header, sizeof header);
    CHECK(target.write(0, sector));
    return target.sync();
}

// dropped_ is in the order of the list, so the places below kept() and the good ones from there on are as many.
Result<void> RepairPlan::fill_places(Target& target) const {
    if (dropped_.empty()) return {};
    const Geometry geometry{ChunkSize::of_sectors(before_.chunk_sectors)};
    std::uint64_t from = kept();
    auto next_dropped = std::lower_bound(dropped_.begin(), dropped_.end(), from, [](const Entry& e, std::uint64_t index) { return e.index < index; });
    bool wrote = false;
    for (const Entry& place : dropped_) {
        if (place.index >= kept()) break;
        while (next_dropped != dropped_.end() && next_dropped->index == from) {
            ++next_dropped;
            ++from;
        }
        ASSERT(from < before_.exceptions);
        std::array<std::byte, sizeof(DiskException)> entry;
        CHECK(target.read(place_of(geometry, from), entry));
        CHECK(target.write(place_of(geometry, place.index), entry));
        wrote = true;
        ++from;
    }
    return wrote ? target.sync() : Result<void>{};
}

// From the new end to the end of the area that has the old one, or of what there is of that area. Nothing there is needed any
// more, so the order is free.
Result<void> RepairPlan::clear_tail(Target& target) const {
    if (dropped_.empty() && !has_leftovers_ && grown_bytes_ == 0) return {};
    const Geometry geometry{ChunkSize::of_sectors(before_.chunk_sectors)};
    const std::uint64_t per_area = geometry.exceptions_per_area();
    const std::uint64_t end = (before_.exceptions / per_area + 1) * per_area;
    const std::vector<std::byte> zeroes(kZeroPiece);
    for (std::uint64_t index = kept(); index < end;) {
        const std::uint64_t at = place_of(geometry, index);
        if (at >= target.size()) break;
        const std::uint64_t count = std::min<std::uint64_t>(per_area - index % per_area, kZeroPiece / sizeof(DiskException));
        CHECK(target.write(at, {zeroes.data(), static_cast<std::size_t>(std::min(count * sizeof(DiskException), target.size() - at))}));
        index += count;
    }
    return target.sync();
}

Result<void> RepairPlan::grow(Target& target) const { return grown_bytes_ == 0 ? Result<void>{} : target.grow(grown_bytes_); }

}  // namespace udm::inspect
