#include "inspect/snapshot_check.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <numeric>

#include "inspect/snapshot_guess.hpp"
#include "targets/snapshot/exception_table.hpp"

namespace udm::inspect {

using snapshot::ExceptionTable;
using snapshot::Geometry;

namespace {

constexpr std::size_t kWipedLook = 64 * 1024;    // bytes behind a zero magic

Result<bool> has_bytes_behind_header(Source& source) {
    std::vector<std::byte> piece(static_cast<std::size_t>(std::min<std::uint64_t>(source.size(), kWipedLook)));
    CHECK(source.read(0, piece));
    return std::any_of(piece.begin() + 4, piece.end(), [](std::byte b) { return b != std::byte{0}; });
}

class Check {
  public:
    Check(Source& source, const CheckOptions& options, Findings* findings)
        : source_{source}, options_{options}, findings_{findings} {}

    Result<Report> header() {
        report_.bytes = source_.size();
        if (source_.size() < kSectorSize) {
            found({Fault::too_small, {}, source_.size()});
            return report_;
        }
        TRY(report_.header, read_header(source_));
        CHECK(look_at_header());
        return report_;
    }

    Result<Report> run() {
        CHECK(header());
        if (report_.chunk_sectors == 0) return report_;
        const Geometry geometry{ChunkSize::of_sectors(report_.chunk_sectors)};
        report_.chunks = source_.size() / geometry.chunk().bytes();
        if (report_.chunks < 2) {
            found({Fault::too_small, {}, report_.chunks});
            return report_;
        }
        EntryReader reader{source_, geometry};
        CHECK(walk(reader));
        count_space(geometry);
        return report_;
    }

  private:
    void found(const Finding& finding) {
        ++report_.faults[static_cast<std::size_t>(finding.fault)];
        if (findings_) findings_->found(finding);
    }

    Result<void> look_at_header() {
        const Header& header = report_.header;
        bool known = header.magic == snapshot::kMagic;
        report_.header_good = known && header.version == snapshot::kVersion && is_chunk_size(header.chunk_sectors) && header.valid <= 1;
        bool list_there = true;
        if (!report_.header_good) {
            TRY(report_.fitting, fitting_chunk_sizes(source_));
            list_there = !report_.fitting.empty();
            if (options_.chunk_sectors) {
                TRY(const FirstArea area, look_at_first_area(source_, *options_.chunk_sectors));
                list_there = area.bears_a_list();
            }
        }
        if (!known) {
            const bool wiped = header.magic == 0 && (list_there || !report_.fitting.empty());
            if (header.magic == 0 && !wiped) {
                TRY(const bool something, has_bytes_behind_header(source_));
                if (!something) {
                    report_.kind = Report::Kind::blank;
                    return {};
                }
            }
            found({wiped ? Fault::wiped_header : Fault::bad_magic, {}, header.magic});
        } else {
            if (header.version != snapshot::kVersion) {
                found({Fault::bad_version, {}, header.version});
                known = false;
            }
            if (!is_chunk_size(header.chunk_sectors)) {
                found({Fault::bad_chunk_size, {}, header.chunk_sectors});
                known = false;
            }
            if (header.valid > 1) found({Fault::bad_valid, {}, header.valid});
        }
        report_.chunk_sectors = options_.chunk_sectors ? *options_.chunk_sectors : known ? header.chunk_sectors : 0;
        if (options_.chunk_sectors ? list_there : known) report_.kind = Report::Kind::store;
        return {};
    }

    Result<void> walk(EntryReader& reader) {
        const Geometry& geometry = reader.geometry();
        Entry entry{}, last{};
        bool last_good = false;
        std::uint64_t run = 0;
        for (;;) {
            TRY(const bool there, reader.next(entry));
            if (!there) break;
            ++report_.exceptions;
            const bool good = look_at(entry, geometry);
            if (findings_) findings_->listed(entry, good);
            if (good) {
                used_.insert({{entry.new_chunk}, {entry.old_chunk}, {1}});
                table_.insert({{entry.old_chunk}, {entry.new_chunk}, {1}});
                const bool goes_on = last_good && entry.old_chunk == last.old_chunk + 1 && entry.new_chunk == last.new_chunk + 1;
                run = goes_on ? run + 1 : 1;
                if (!goes_on) ++report_.runs;
                report_.largest_run = std::max(report_.largest_run, run);
                last = entry;
                last_good = true;
            }
        }
        report_.areas = report_.exceptions / geometry.exceptions_per_area() + 1;
        report_.areas_max = geometry.areas_within(report_.chunks);
        if (reader.cut()) {
            --report_.areas;
            report_.open_end = reader.open_end();
            found({Fault::no_end, {report_.exceptions, 0, 0}, geometry.area(report_.exceptions / geometry.exceptions_per_area()).v});
        }
        TRY(const auto left, reader.leftovers());
        if (left.count != 0) found({Fault::after_end, left.first, left.count});
        return {};
    }

    bool look_at(const Entry& entry, const Geometry& geometry) {
        bool good = true;
        const auto bad = [&](Fault fault, std::uint64_t other) {
            found({fault, entry, other});
            good = false;
        };
        if (entry.new_chunk >= report_.chunks || entry.new_chunk > ExceptionTable::kChunkMax) {
            bad(Fault::beyond_device, report_.chunks);
        } else if (geometry.is_metadata({entry.new_chunk})) {
            bad(Fault::in_metadata, (entry.new_chunk - 1) / (geometry.exceptions_per_area() + 1));
        }
        const std::uint64_t origin_chunks =
            options_.origin_sectors ? geometry.chunk().covering({*options_.origin_sectors}).v : ExceptionTable::kChunkMax + 1;
        if (entry.old_chunk >= origin_chunks) bad(Fault::beyond_origin, origin_chunks);
        if (!good) return false;
        const auto by_cow = used_.find({entry.new_chunk}), by_origin = table_.find({entry.old_chunk});
        if (by_cow && by_cow->new_first.v == entry.old_chunk) {
            bad(Fault::same_twice, 0);
        } else {
            if (by_cow) bad(Fault::cow_twice, by_cow->new_first.v);
            if (by_origin) bad(Fault::origin_twice, by_origin->new_first.v);
        }
        return good;
    }

    void count_space(const Geometry& geometry) {
        std::uint64_t highest = 1;
        used_.for_each([&](const ExceptionTable::Run& run) { highest = std::max(highest, run.old_first.v + run.count.v - 1); });
        report_.next_free = highest + 1;
        if (geometry.is_metadata({report_.next_free})) ++report_.next_free;
        std::uint64_t at = 2;
        used_.for_each([&](const ExceptionTable::Run& run) {
            count_holes(geometry, at, run.old_first.v);
            at = run.old_first.v + run.count.v;
        });
    }

    // Chunks first .. end-1 have no exception; the areas among them are no holes, and part them. Not one by one: a sparse file
    // may be said to have 2^50 chunks.
    void count_holes(const Geometry& geometry, std::uint64_t first, std::uint64_t end) {
        const std::uint64_t stride = geometry.exceptions_per_area() + 1;
        const auto area_behind = [&](std::uint64_t chunk) { return 1 + ((chunk - 1) / stride + 1) * stride; };
        const auto hole = [&](std::uint64_t count, std::uint64_t length) {
            if (count == 0 || length == 0) return;
            report_.holes += count;
            report_.hole_chunks += count * length;
            report_.largest_hole = std::max(report_.largest_hole, length);
        };
        if (first < end && geometry.is_metadata({first})) ++first;
        if (first >= end) return;
        const std::uint64_t next_area = area_behind(first);
        hole(1, std::min(end, next_area) - first);
        if (next_area >= end) return;
        const std::uint64_t last_area = 1 + (end - 2) / stride * stride;
        hole((last_area - next_area) / stride, stride - 1);
        hole(1, end - last_area - 1);
    }

    Source& source_;
    const CheckOptions& options_;
    Findings* findings_;
    Report report_;
    ExceptionTable table_;    // origin chunk → COW chunk
    ExceptionTable used_;     // the other way
};

}  // namespace

std::uint64_t Report::fault_count() const noexcept { return std::accumulate(faults.begin(), faults.end(), std::uint64_t{0}); }

std::uint64_t Report::metadata_sectors() const noexcept {
    if (chunk_sectors == 0) return 0;
    const std::uint64_t per_area = to_bytes(Sectors{chunk_sectors}) / sizeof(snapshot::DiskException);
    return (exceptions / per_area + 2) * chunk_sectors;
}

Result<Report> check_header(Source& source) {
    const CheckOptions none;
    return Check{source, none, nullptr}.header();
}

Result<Report> check(Source& source, const CheckOptions& options, Findings* findings) { return Check{source, options, findings}.run(); }

const char* word_of(Fault fault) noexcept {
    switch (fault) {
        case Fault::too_small: return "too-small";
        case Fault::wiped_header: return "wiped-header";
        case Fault::bad_magic: return "bad-magic";
        case Fault::bad_version: return "bad-version";
        case Fault::bad_chunk_size: return "bad-chunk-size";
        case Fault::bad_valid: return "bad-valid";
        case Fault::no_end: return "no-end";
        case Fault::after_end: return "after-end";
        case Fault::beyond_device: return "beyond-device";
        case Fault::in_metadata: return "in-metadata";
        case Fault::cow_twice: return "cow-twice";
        case Fault::origin_twice: return "origin-twice";
        case Fault::same_twice: return "same-twice";
        case Fault::beyond_origin: return "beyond-origin";
    }
    UNREACHABLE();
}

std::string explain(const Finding& finding, const Report& report) {
    const Entry& entry = finding.entry;
    std::string where;
    if (finding.fault >= Fault::no_end && report.chunk_sectors != 0) {
        const std::uint64_t per_area = to_bytes(Sectors{report.chunk_sectors}) / sizeof(snapshot::DiskException);
        where = fmt::format("area {}, entry {}", entry.index / per_area, entry.index % per_area);
        if (is_of_exception(finding.fault)) where += fmt::format(" (origin chunk {} -> COW chunk {})", entry.old_chunk, entry.new_chunk);
        where += ": ";
    }
    switch (finding.fault) {
        case Fault::too_small: return "too small: a store is a header and an area, two chunks at least";
        case Fault::wiped_header:
            return "the header is zero, but something stands behind it: whoever loads this makes a new, empty store of it";
        case Fault::bad_magic:
            if (finding.other == 0) {
                return "no snapshot store: the header is zero, and what stands behind it is no list of exceptions. Whoever loads this as a COW "
                       "device makes a new, empty store of it";
            }
            return fmt::format("no snapshot store: the first four bytes are {:#010x}, not {:#010x} (\"SnAp\")", finding.other, snapshot::kMagic);
        case Fault::bad_version: return fmt::format("the header says version {}; there is only version {}", finding.other, snapshot::kVersion);
        case Fault::bad_chunk_size:
            return fmt::format("the header's chunk size, {} sectors, is no power of two up to {}", finding.other, snapshot::kChunkSectorsMax);
        case Fault::bad_valid:
            return fmt::format("the header's valid field is {}, neither 0 nor 1: whether the snapshot was whole cannot be told", finding.other);
        case Fault::no_end:
            return fmt::format("{}the list goes on in an area at chunk {}, but there are {} chunks: the store was cut off, or its list fills "
                               "all areas there are, which Linux cannot load", where, finding.other, report.chunks);
        case Fault::after_end:
            return fmt::format("{}{} entries stand behind the end of the list: what a crash left of a commit. Nobody reads them, but Linux "
                               "takes them for exceptions after its next write", where, finding.other);
        case Fault::beyond_device:
            return fmt::format("{}the store has chunks 0 to {}: its data are not there. The store was cut off, or the entry is damaged",
                               where, finding.other - 1);
        case Fault::in_metadata:
            return entry.new_chunk == 0 || entry.new_chunk == 1
                       ? fmt::format("{}COW chunk {} is {}, and has no data", where, entry.new_chunk, entry.new_chunk == 0 ? "the header" : "area 0")
                       : fmt::format("{}COW chunk {} is area {} of the list, and has no data", where, entry.new_chunk, finding.other);
        case Fault::cow_twice:
            return fmt::format("{}that COW chunk has the old data of origin chunk {} already: at most one of the two is right", where, finding.other);
        case Fault::origin_twice:
            return fmt::format("{}the old data of that origin chunk are in COW chunk {} already: at most one of the two is right", where, finding.other);
        case Fault::same_twice: return where + "an earlier entry says the same: nothing is lost with this one";
        case Fault::beyond_origin: return fmt::format("{}the origin has chunks 0 to {} only", where, finding.other - 1);
    }
    UNREACHABLE();
}

}  // namespace udm::inspect
