// A request to a file while it is under way: a story of rounds, each one operation of the loop.
//
//   transfer    read or write until all is done; a round ends where the system stops, where memory has to be
//   copied
//               for its alignment, or where the pieces are too many
//   zero_fill   writes of zeroes, where nothing quicker is to be had
//   allocate    fallocate: discard, write_zeroes; the next way if this one is unsupported
//   call        what may block and has no other way: a helper thread
//   sync        the flush, and the end of a FUA request that could not carry it itself
#pragma once

#include <array>

#include "base/pool.hpp"
#include "engine/operation.hpp"
#include "port/io.hpp"

namespace udm {

class FileDisk;

class FileRequest final : public Operation {
  public:
    FileRequest(FileDisk& disk, Io& io) noexcept : disk_{disk}, io_{io} {}
    void begin() noexcept;
    void done(int n) noexcept override;
    int call() noexcept override;

  private:
    enum class Stage : std::uint8_t { transfer, zero_fill, allocate, call, sync };
    static constexpr unsigned kPieces = 8;  // without taking a buffer for them
    static constexpr std::uint64_t kCopyMax = std::uint64_t{1}
                                              << 20;  // a round's, when memory is not aligned
    static constexpr std::uint64_t kRoundMax = std::uint64_t{1} << 30;
    static constexpr unsigned kRetriesMax = 1000;

    void next_round() noexcept;
    void plan_copy(const Buffers& from, std::uint64_t left) noexcept;
    void plan_zeroes(std::uint64_t left) noexcept;
    void transferred(int n) noexcept;
    void allocate_or_else() noexcept;
    void allocated(int n) noexcept;
    void sync_or_finish() noexcept;
    void finish(IoStatus status) noexcept;
    void give_round_back() noexcept;

    FileDisk& disk_;
    Io& io_;
    Stage stage_ = Stage::transfer;
    std::uint64_t at_ = 0;  // bytes done
    std::uint64_t total_ = 0;
    std::uint64_t copy_bytes_ = 0;
    std::byte* copy_ = nullptr;         // of memory that isn't aligned
    std::byte* more_pieces_ = nullptr;  // for more than kPieces: a buffer of kPiecesBytes
    unsigned retries_ = 0;
    std::array<iovec, kPieces> pieces_;
};

// The requests under way on one loop.
class FileRequests {
  public:
    FileRequest& take(FileDisk& disk, Io& io) { return pool_.take(disk, io); }
    void give(FileRequest& request) noexcept { pool_.give(request); }

  private:
    Pool<FileRequest> pool_{32};
};

}  // namespace udm
