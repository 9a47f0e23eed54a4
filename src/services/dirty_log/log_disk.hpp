// The device of a disk log: reads it, judging what is there; writes the blocks of it that have changed.
//
// What a power cut may leave of a write: each sector old or new. That is harmless for single bits, since a mark counts only when
// all of it is written and flushed, and a region made clean is so already. It would not be where the meaning of bits changes
// (a new log, more regions, another region size): there all bits are durable before the header that makes them count (M26).
#pragma once

#include <array>
#include <memory>
#include <string>

#include "port/disk.hpp"
#include "port/job.hpp"
#include "services/dirty_log/bitmap.hpp"
#include "services/dirty_log/format.hpp"

namespace udm::dirty_log {

// The third word of a table's log.
enum class SyncWord : std::uint8_t { none, sync, nosync };

class LogDisk {
  public:
    LogDisk(Env& env, std::unique_ptr<OpenDevice> device, RegionSize region_size, Regions regions, SyncWord word)
        : env_{env}, device_{std::move(device)}, region_size_{region_size}, regions_{regions}, word_{word} {}

    // Home reactor, first: the device's size and blocks are right.
    Result<void> check();
    const Layout& layout() const noexcept { return layout_; }
    OpenDevice& device() noexcept { return *device_; }
    std::string words() const;
    RegionSize region_size() const noexcept { return region_size_; }

    struct Read {
        Found found{};
        std::optional<LegRecord> legs{};
        bool rewrite = false;            // write_all() before anything is written otherwise
        std::uint64_t grown_from = 0; // with nosync: regions from here on are new and count as in sync; write_all() comes first
    };
    // Fills `clean` with what counts. Never writes.
    Job<Read> read(Bitmap* clean);

    // All bits, durably; then the header, durably.
    Job<IoStatus> write_all(const Bitmap* clean, const std::optional<LegRecord>* legs);
    // The blocks in `blocks`, as they are when their turn comes. Not flushed.
    Job<IoStatus> write(const Bitmap* blocks, const Bitmap* clean, const std::optional<LegRecord>* legs);
    Job<IoStatus> flush();

  private:
    static constexpr std::uint64_t kRoundBytes = 128 * 1024;    // written at a time, in up to kPieces places
    static constexpr std::size_t kPieces = 32;
    struct Piece {
        Extent extent;
        std::byte* memory;
    };
    class Round;

    Job<IoStatus> read_bytes(std::uint64_t from, std::byte* to, std::uint64_t bytes);
    Job<IoStatus> read_bits(std::uint64_t known, Bitmap* clean);
    std::uint64_t at_most(std::uint64_t bytes) const noexcept;
    // Bytes from .. from+bytes of the image: multiples of 8.
    void fill(std::uint64_t from, std::uint64_t bytes, const Bitmap& clean, const std::optional<LegRecord>& legs, std::byte* to) const noexcept;

    Env& env_;
    std::unique_ptr<OpenDevice> device_;
    RegionSize region_size_;
    Regions regions_;
    SyncWord word_;
    Layout layout_;
    std::array<Piece, kPieces> pieces_;    // of the round under way; there is one write at a time
};

}  // namespace udm::dirty_log
