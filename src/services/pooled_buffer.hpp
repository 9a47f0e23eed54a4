// A buffer of the reactor's pool, for as long as a job needs it.
#pragma once

#include <cstddef>

#include "port/buffer_pool.hpp"

namespace udm {

// A buffer that goes back to its pool with its scope, also when a job is destroyed in a power cut.
class PooledBuffer {
  public:
    PooledBuffer(BufferPool& pool, std::size_t bytes) noexcept : pool_{pool}, bytes_{bytes}, data_{pool.take(bytes)} {}
    PooledBuffer(const PooledBuffer&) = delete;
    PooledBuffer& operator=(const PooledBuffer&) = delete;
    ~PooledBuffer() { pool_.give(data_, bytes_); }
    std::byte* data() const noexcept { return data_; }
    std::size_t size() const noexcept { return bytes_; }

  private:
    BufferPool& pool_;
    std::size_t bytes_;
    std::byte* data_;
};

}  // namespace udm
