// Memory as a disk. The memory may be shared by several disks, on several loops (`ram:NAME:SIZE`).
#pragma once

#include <atomic>
#include <memory>

#include "base/pool.hpp"
#include "engine/loop.hpp"
#include "port/disk.hpp"

namespace udm {

// Zeroed memory that takes pages as they are written, and a bit a page that tells which have been.
class Memory {
  public:
    static Result<std::shared_ptr<Memory>> make(std::uint64_t bytes);
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory();

    std::byte* data() noexcept { return data_; }
    std::uint64_t bytes() const noexcept { return bytes_; }

    void touch(std::uint64_t offset, std::uint64_t length) noexcept;  // before writing
    // Zeroes; pages that are covered as a whole go back to the system. `forget` comes first, on the caller's
    // loop: a write that follows it shows as data even if the pages are freed after it.
    void forget(std::uint64_t offset, std::uint64_t length) noexcept;
    void clear(std::uint64_t offset, std::uint64_t length) noexcept;
    // How many bytes from `offset` on, up to `length`, lie in pages that are all touched, or all not.
    std::uint64_t alike(std::uint64_t offset, std::uint64_t length, bool& touched) const noexcept;

  private:
    static constexpr unsigned kPageShift = 12;
    static constexpr std::uint64_t kPage = std::uint64_t{1} << kPageShift;
    Memory(std::byte* data, std::uint64_t* touched, std::uint64_t bytes) noexcept
        : data_{data}, touched_{touched}, bytes_{bytes} {}
    static std::uint64_t bitmap_bytes(std::uint64_t bytes) noexcept;
    bool is_touched(std::uint64_t page) const noexcept;

    std::byte* const data_;
    std::uint64_t* const touched_;
    const std::uint64_t bytes_;
};

class RamDisk final : public Disk, private Task {
  public:
    RamDisk(Loop& loop, std::shared_ptr<Memory> memory);
    ~RamDisk() override;

    void submit(Io& io) noexcept override;
    const Limits& limits() const noexcept override { return limits_; }

  private:
    // What takes long is done by a helper thread.
    class HelperCall final : public Operation {
      public:
        HelperCall(RamDisk& disk, Io& io) noexcept;
        int call() noexcept override;
        void done(int n) noexcept override;

      private:
        RamDisk& disk_;
        Io& io_;
    };

    void run() noexcept override;  // serves what waits
    void serve(Io& io) noexcept;   // reads, writes and clears; any thread

    Loop& loop_;
    const std::shared_ptr<Memory> memory_;
    Limits limits_;
    List<Io> waiting_;
    Pool<HelperCall> helper_calls_{8};
};

}  // namespace udm
