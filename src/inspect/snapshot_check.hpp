// Is a snapshot's store whole? Every fault by chunk number, and what it means.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "inspect/snapshot_store.hpp"

namespace udm::inspect {

enum class Fault : std::uint8_t {
    // Of the header. After these nothing else can be looked at, unless the chunk size is given.
    too_small,         // no room for a header and an area
    wiped_header,      // no magic, but a list behind it
    bad_magic,
    bad_version,
    bad_chunk_size,
    bad_valid,         // neither 0 nor 1
    // Of the list.
    no_end,            // its end is in an area that is not there, or not all of it
    after_end,         // something stands behind its end
    // Of an exception.
    beyond_device,
    in_metadata,       // its data would be in the header or an area
    cow_twice,         // an earlier one has that COW chunk
    origin_twice,      // an earlier one is for that origin chunk
    same_twice,        // an earlier one is the same
    beyond_origin,
};
inline constexpr std::size_t kFaults = static_cast<std::size_t>(Fault::beyond_origin) + 1;
const char* word_of(Fault fault) noexcept;    // "beyond-device", for scripts
constexpr bool is_of_header(Fault fault) noexcept { return fault <= Fault::bad_valid; }
constexpr bool is_of_exception(Fault fault) noexcept { return fault >= Fault::beyond_device; }

struct Finding {
    Fault fault{};
    Entry entry{};              // of an exception; the first of after_end
    std::uint64_t other = 0;    // cow_twice: the origin chunk that has it; origin_twice: the COW chunk it has; else what counts
};

class Findings {
  public:
    virtual void found(const Finding& finding) = 0;
    // Every exception of the list, after its faults; `good`: it has none.
    virtual void listed(const Entry& entry, bool good) {
        static_cast<void>(entry);
        static_cast<void>(good);
    }

  protected:
    ~Findings() = default;
};

struct CheckOptions {
    std::optional<std::uint32_t> chunk_sectors{};      // instead of the header's; is_chunk_size()
    std::optional<std::uint64_t> origin_sectors{};     // to find exceptions beyond it
};

struct Report {
    // blank: would be made a new store. unknown: nothing says that this is a store, not even a list where --chunk would have one.
    enum class Kind : std::uint8_t { store, blank, unknown };
    Kind kind = Kind::unknown;
    std::uint64_t bytes = 0;
    Header header{};
    bool header_good = false;                  // all of it
    std::vector<std::uint32_t> fitting{};      // else: the chunk sizes that fit what stands behind it, in sectors
    std::uint32_t chunk_sectors = 0;    // in force; 0: not known, and nothing below is
    std::uint64_t chunks = 0;           // whole ones
    std::uint64_t exceptions = 0;       // listed
    bool open_end = false;              // … as far as the list is there: its end is not
    std::uint64_t runs = 0;             // of good ones, where both chunks follow each other
    std::uint64_t largest_run = 0;
    std::uint64_t areas = 0, areas_max = 0;              // with entries (one at least); that fit
    std::uint64_t next_free = 0;                         // where allocation goes on
    std::uint64_t holes = 0, hole_chunks = 0, largest_hole = 0;    // below it, that nobody refers to
    std::array<std::uint64_t, kFaults> faults{};

    bool valid() const noexcept { return header.valid == 1; }
    std::uint64_t fault_count() const noexcept;
    // As the status line has them: sectors.
    std::uint64_t allocated_sectors() const noexcept { return next_free * chunk_sectors; }
    std::uint64_t metadata_sectors() const noexcept;
};

// Only what the header says; no exceptions are counted. Error: io.
Result<Report> check_header(Source& source);

// Error: io. Memory: some 30 bytes for each exception that stands in the store.
Result<Report> check(Source& source, const CheckOptions& options, Findings* findings);

// What a finding means, one sentence or two, with its place: "area 0, entry 17 (origin chunk 100 -> COW chunk 999): …".
std::string explain(const Finding& finding, const Report& report);

}  // namespace udm::inspect
