#include "port/buffer_pool.hpp"

#include <sys/mman.h>

#include <bit>

#include "base/assert.hpp"

namespace udm {

BufferPool::~BufferPool() {
    for (const Slab& slab : slabs_) ::munmap(slab.start, slab.bytes);
}

unsigned BufferPool::class_of(std::size_t bytes) noexcept {
    ASSERT(bytes > 0 && bytes <= kLargest);
    const std::size_t pages = (bytes + kSmallest - 1) / kSmallest;
    return static_cast<unsigned>(std::bit_width(pages - 1));
}

void BufferPool::grow(unsigned size_class) noexcept {
    const std::size_t size = kSmallest << size_class;
    const std::size_t bytes = size > kSlab ? size : kSlab;
    // One MiB more than needed, so that the slab can start at a multiple of it; the rest goes back.
    void* memory = ::mmap(nullptr, bytes + kSlab, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT(memory != MAP_FAILED);
    const std::size_t before = -reinterpret_cast<std::size_t>(memory) % kSlab;
    auto* start = static_cast<std::byte*>(memory) + before;
    if (before != 0) ::munmap(memory, before);
    if (before != kSlab) ::munmap(start + bytes, kSlab - before);
    slabs_.push_back({start, bytes});
    bytes_held_ += bytes;
    if (listener_) listener_->slab_added(start, bytes, size);
    fresh_[size_class] = {start, bytes};
}

std::byte* BufferPool::take(std::size_t bytes) noexcept {
    const unsigned size_class = class_of(bytes);
    const std::size_t size = kSmallest << size_class;
    bytes_out_ += size;
    if (Free* free = free_[size_class]) {
        free_[size_class] = free->next;
        return reinterpret_cast<std::byte*>(free);
    }
    // Buffers that nobody has used yet are not on a list: their pages stay untouched.
    Slab& fresh = fresh_[size_class];
    if (fresh.bytes == 0) grow(size_class);
    std::byte* buffer = fresh.start;
    fresh.start += size;
    fresh.bytes -= size;
    return buffer;
}

void BufferPool::give(std::byte* buffer, std::size_t bytes) noexcept {
    const unsigned size_class = class_of(bytes);
    ASSERT(bytes_out_ >= kSmallest << size_class);
    bytes_out_ -= kSmallest << size_class;
    if (kSmallest << size_class >= kTrimmed) trimmable_ = true;
    auto* free = reinterpret_cast<Free*>(buffer);
    free->next = free_[size_class];
    free_[size_class] = free;
}

void BufferPool::trim() noexcept {
    trimmable_ = false;
    for (unsigned c = class_of(kTrimmed); c < kClasses; ++c) {
        for (Free* free = free_[c]; free; free = free->next) {
            // All but the first page, which holds the link.
            ::madvise(reinterpret_cast<std::byte*>(free) + kSmallest, (kSmallest << c) - kSmallest,
                      MADV_DONTNEED);
        }
    }
}

}  // namespace udm
