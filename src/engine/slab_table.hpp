// From an address to the registered buffer it lies in, in a few nanoseconds. Slabs start at multiples of 1
// MiB and are whole MiB long (BufferPool), so that each MiB of address space belongs to one slab at most.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/assert.hpp"

namespace udm {

class SlabTable {
  public:
    static constexpr unsigned kShift = 20;

    void add(const std::byte* start, std::size_t bytes, unsigned index) {
        const std::uint64_t first = key_of(start);
        ASSERT((first << kShift) == reinterpret_cast<std::uint64_t>(start));
        const std::uint64_t pieces = (bytes + (std::size_t{1} << kShift) - 1) >> kShift;
        if ((used_ + pieces) * 2 > entries_.size()) grow(pieces);
        for (std::uint64_t i = 0; i < pieces; ++i) insert({first + i, start, start + bytes, index});
    }
    // The index of the buffer that holds all of the `bytes` bytes, or -1.
    int find(const void* address, std::size_t bytes) const noexcept {
        if (entries_.empty()) return -1;
        const auto* at = static_cast<const std::byte*>(address);
        const std::uint64_t key = key_of(at);
        for (std::size_t i = place_of(key);; i = (i + 1) & mask_) {
            const Entry& entry = entries_[i];
            if (entry.key == key) return at + bytes <= entry.end ? static_cast<int>(entry.index) : -1;
            if (entry.key == kNone) return -1;
        }
    }

  private:
    static constexpr std::uint64_t kNone = ~std::uint64_t{0};
    struct Entry {
        std::uint64_t key = kNone;
        const std::byte* start = nullptr;
        const std::byte* end = nullptr;
        unsigned index = 0;
    };
    static std::uint64_t key_of(const std::byte* at) noexcept {
        return reinterpret_cast<std::uint64_t>(at) >> kShift;
    }
    // Neighbours get neighbouring places: slabs follow each other in memory.
    std::size_t place_of(std::uint64_t key) const noexcept { return static_cast<std::size_t>(key) & mask_; }
    void insert(const Entry& entry) noexcept {
        std::size_t i = place_of(entry.key);
        while (entries_[i].key != kNone) i = (i + 1) & mask_;
        entries_[i] = entry;
        ++used_;
    }
    void grow(std::uint64_t pieces) {
        std::size_t size = 64;
        while ((used_ + pieces) * 2 > size) size *= 2;
        std::vector<Entry> old(size);
        old.swap(entries_);
        mask_ = size - 1;
        used_ = 0;
        for (const Entry& entry : old) {
            if (entry.key != kNone) insert(entry);
        }
    }
    std::vector<Entry> entries_;
    std::size_t mask_ = 0;
    std::size_t used_ = 0;
};

}  // namespace udm
