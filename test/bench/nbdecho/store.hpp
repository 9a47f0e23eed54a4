// Where the echo server's data is. A whole batch of requests is one call.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace echo {

struct Op {
    std::uint16_t type;  // nbd::Command
    bool fua;
    std::uint32_t length;
    std::uint32_t error;  // out
    std::uint64_t handle;
    std::uint64_t offset;
    unsigned char* data;  // a write's payload; out, a read's: valid until the next batch
};

inline constexpr std::size_t kScratchSize = 64 << 20;  // reads of one batch stay below this

class Store {
  public:
    virtual ~Store() = default;
    virtual void execute(std::span<Op> batch) = 0;  // offsets are within size()
    std::uint64_t size() const noexcept { return size_; }

  protected:
    std::uint64_t size_ = 0;
};

// Each "null", "memory" (of `size` bytes), or a file, `direct` with O_DIRECT through io_uring. Several (at
// least one): what changes data goes to all of them, reads to the first.
std::unique_ptr<Store> make_store(std::span<char* const> what, std::uint64_t size, bool direct);

}  // namespace echo
