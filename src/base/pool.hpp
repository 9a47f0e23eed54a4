// A pool of objects in slabs: take and give are a pointer each. It grows by a slab when it runs dry, up to
// the high-water mark of its user, and never shrinks; all of it goes when the pool goes, whatever is still
// out (a simulated power cut drops a machine with its requests in flight).
#pragma once

#include <cstddef>
#include <memory>
#include <new>
#include <utility>
#include <vector>

#include "base/assert.hpp"

namespace udm {

template <class T>
class Pool {
  public:
    explicit Pool(std::size_t slab_size = 64) : slab_size_{slab_size} {}
    Pool(const Pool&) = delete;
    Pool& operator=(const Pool&) = delete;
    // Objects still out at the end are dropped without their destructor: T must not own anything then.
    ~Pool() = default;

    template <class... Args>
    T& take(Args&&... args) {
        if (!free_) grow();
        Slot* slot = free_;
        free_ = slot->next;
        ++out_;
        return *::new (static_cast<void*>(slot)) T(std::forward<Args>(args)...);
    }
    void give(T& object) noexcept {
        ASSERT(out_ > 0);
        --out_;
        object.~T();
        Slot* slot = reinterpret_cast<Slot*>(&object);
        slot->next = free_;
        free_ = slot;
    }
    std::size_t out() const noexcept { return out_; }
    std::size_t capacity() const noexcept { return slabs_.size() * slab_size_; }

  private:
    union Slot {
        Slot* next;
        alignas(T) std::byte storage[sizeof(T)];
    };
    void grow() {
        slabs_.push_back(std::make_unique_for_overwrite<Slot[]>(slab_size_));
        Slot* slab = slabs_.back().get();
        for (std::size_t i = slab_size_; i-- > 0;) {
            slab[i].next = free_;
            free_ = &slab[i];
        }
    }
    std::size_t slab_size_;
    std::size_t out_ = 0;
    Slot* free_ = nullptr;
    std::vector<std::unique_ptr<Slot[]>> slabs_;
};

}  // namespace udm
