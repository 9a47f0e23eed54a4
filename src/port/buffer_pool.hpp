// Aligned memory for payloads and copies, in sizes of powers of two. A reactor has one; the engine registers
// its slabs with the ring as they come.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace udm {

class BufferPool {
  public:
    static constexpr std::size_t kSmallest = 4096;
    static constexpr std::size_t kLargest = std::size_t{32} << 20;

    // Unused buffers of this size and more may lose their pages (trim).
    static constexpr std::size_t kTrimmed = std::size_t{256} << 10;

    // Told of each new slab, to register it: whole MiB at a multiple of 1 MiB, cut into buffers of
    // `buffer_size`. The slab lives as long as the pool.
    class SlabListener {
      public:
        virtual void slab_added(std::byte* start, std::size_t bytes, std::size_t buffer_size) noexcept = 0;

      protected:
        ~SlabListener() = default;
    };

    BufferPool() = default;
    BufferPool(const BufferPool&) = delete;
    BufferPool& operator=(const BufferPool&) = delete;
    ~BufferPool();

    // At least `bytes` (1 .. kLargest), aligned to 4096. Content is whatever it was.
    std::byte* take(std::size_t bytes) noexcept;
    void give(std::byte* buffer, std::size_t bytes) noexcept;  // `bytes` as taken
    void set_listener(SlabListener* listener) noexcept { listener_ = listener; }
    std::size_t bytes_out() const noexcept { return bytes_out_; }
    std::size_t bytes_held() const noexcept { return bytes_held_; }
    // Gives the pages of unused buffers of kTrimmed and more back to the system.
    void trim() noexcept;
    // Whether trim() would find anything: such a buffer was given back since the last one.
    bool trimmable() const noexcept { return trimmable_; }

  private:
    static constexpr std::size_t kSlab = std::size_t{1} << 20;
    static constexpr unsigned kClasses = 14;  // 4 KiB .. 32 MiB
    struct Free {
        Free* next;
    };
    struct Slab {
        std::byte* start;
        std::size_t bytes;
    };
    static unsigned class_of(std::size_t bytes) noexcept;
    void grow(unsigned size_class) noexcept;

    std::array<Free*, kClasses> free_{};
    std::array<Slab, kClasses> fresh_{};  // the rest of the newest slab of each
    std::vector<Slab> slabs_;
    SlabListener* listener_ = nullptr;
    std::size_t bytes_out_ = 0;
    std::size_t bytes_held_ = 0;
    bool trimmable_ = false;
};

}  // namespace udm
