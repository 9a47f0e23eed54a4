#include "port/frame_pool.hpp"

#include <array>
#include <new>

namespace udm {
namespace {

// Under AddressSanitizer every frame is its own allocation, so that a use after its end is seen.
#if defined(__SANITIZE_ADDRESS__)
constexpr bool kKeep = false;
#else
constexpr bool kKeep = true;
#endif

constexpr std::size_t kStep = 64;
constexpr std::size_t kClasses = 32;    // frames up to 2 KiB
constexpr unsigned kKept = 64;          // of each class

struct Free {
    Free* next;
};

struct Cache {
    std::array<Free*, kClasses> free{};
    std::array<unsigned, kClasses> count{};
    ~Cache() {
        for (Free*& list : free) {
            while (Free* frame = list) {
                list = frame->next;
                ::operator delete(frame);
            }
        }
        count.fill(kKept);    // what ends after the thread's own end goes back to the system
    }
};
thread_local Cache cache;

constexpr std::size_t class_of(std::size_t bytes) { return (bytes + kStep - 1) / kStep - 1; }

}  // namespace

void* take_frame(std::size_t bytes) {
    const std::size_t c = class_of(bytes);
    if (!kKeep || c >= kClasses) return ::operator new(bytes);
    if (Free* frame = cache.free[c]) {
        cache.free[c] = frame->next;
        --cache.count[c];
        return frame;
    }
    return ::operator new((c + 1) * kStep);
}

void give_frame(void* frame, std::size_t bytes) noexcept {
    const std::size_t c = class_of(bytes);
    if (!kKeep || c >= kClasses || cache.count[c] >= kKept) {
        ::operator delete(frame);
        return;
    }
    auto* free = static_cast<Free*>(frame);
    free->next = cache.free[c];
    cache.free[c] = free;
    ++cache.count[c];
}

}  // namespace udm
