// A snapshot's store on disk, looked at from outside: by tools, without a daemon, also while one writes to it. What it
// says of itself is doubted: reads are of fixed pieces, and nothing is allocated for what a header claims.
// The format is in targets/snapshot/format.hpp.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.hpp"
#include "targets/snapshot/format.hpp"

namespace udm::inspect {

// Where the bytes come from.
class Source {
  public:
    virtual ~Source() = default;
    virtual std::uint64_t size() const = 0;    // bytes
    // All of `into`, which lies within size(). Error: io.
    virtual Result<void> read(std::uint64_t offset, std::span<std::byte> into) = 0;
};

// … and go to. What was written is durable after a sync().
class Target : public Source {
  public:
    virtual Result<void> write(std::uint64_t offset, std::span<const std::byte> from) = 0;
    virtual Result<void> sync() = 0;
    // Makes it longer, with zeroes. Error: unsupported where that cannot be.
    virtual Result<void> grow(std::uint64_t size) = 0;
};

// As it stands there.
struct Header {
    std::uint32_t magic = 0, valid = 0, version = 0, chunk_sectors = 0;
};
Result<Header> read_header(Source& source);    // error: io, or corrupt when there are not even 512 bytes

// A chunk size that may stand in a header.
bool is_chunk_size(std::uint32_t sectors) noexcept;

// One exception as listed.
struct Entry {
    std::uint64_t index = 0;    // in the order of the list, over all areas
    std::uint64_t old_chunk = 0, new_chunk = 0;
};

// The list of exceptions, front to back; of an area that is only partly there (whose exceptions Linux and the daemon do
// not see) what there is. Memory: one piece.
class EntryReader {
  public:
    EntryReader(Source& source, snapshot::Geometry geometry)
        : source_{source}, geometry_{geometry}, chunks_{source.size() / geometry.chunk().bytes()} {}

    // False: the list has ended. Error: io.
    Result<bool> next(Entry& entry);
    // Then: its end is in an area that is not there, or not all of it.
    bool cut() const noexcept { return geometry_.area(index_ / geometry_.exceptions_per_area()).v >= chunks_; }
    // … and nothing was seen of the end: nobody can tell how far the list went on.
    bool open_end() const noexcept { return open_end_; }
    // Then: places of the last area behind the end that are not empty, and the first of them. Reads the rest of that area.
    struct Leftovers {
        std::uint64_t count = 0;
        Entry first{};
    };
    Result<Leftovers> leftovers();

    std::uint64_t chunks() const noexcept { return chunks_; }    // whole ones
    const snapshot::Geometry& geometry() const noexcept { return geometry_; }

  private:
    static constexpr std::size_t kPiece = 64 * 1024;
    std::uint64_t there(std::uint64_t area) const;    // entries of that area within the source
    Result<snapshot::DiskException> at(std::uint64_t index);

    Source& source_;
    const snapshot::Geometry geometry_;
    const std::uint64_t chunks_;
    std::vector<std::byte> piece_;
    std::uint64_t piece_first_ = 0, piece_end_ = 0;    // the entries it has
    std::uint64_t index_ = 0;
    bool open_end_ = false;
};

}  // namespace udm::inspect
