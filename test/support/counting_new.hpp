// Counts every call of operator new in the program: include it in one source file.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

namespace udm::test {
inline std::uint64_t news = 0;
}

void* operator new(std::size_t bytes) {
    ++udm::test::news;
    void* memory = std::malloc(bytes == 0 ? 1 : bytes);
    if (!memory) std::abort();
    return memory;
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
    ++udm::test::news;
    const auto align = static_cast<std::size_t>(alignment);
    void* memory = std::aligned_alloc(align, (bytes + align - 1) / align * align);
    if (!memory) std::abort();
    return memory;
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }
