// One I/O request. It travels down a stack of layers; a layer that wants the completion pushes a frame.
//
// An Io belongs to exactly one place at a time: the layer that is working on it, a list it is linked on, or
// the disk it was submitted to. It is taken from its reactor's pool and never allocated for each request.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>

#include "base/intrusive.hpp"
#include "base/status.hpp"
#include "base/units.hpp"

namespace udm {

class Io;
class Layer;
struct Place;

enum class Op : std::uint8_t {
    read,
    write,
    flush,           // no extent; durable: every write completed on this disk before the flush was submitted
    discard,         // a hint: content is undefined afterwards
    write_zeroes,
    extent_status,   // a question: see Io::answer, also for what it asks; moves no data
};
const char* to_string(Op op) noexcept;

struct IoFlags {
    bool fua : 1 = false;         // write, write_zeroes, discard: durable when completed
    bool no_hole : 1 = false;     // write_zeroes: the space must stay allocated
    bool fast_only : 1 = false;   // write_zeroes: fail with `unsupported` unless quicker than writing
    bool sequential : 1 = false;  // a hint: part of a long copy
};

// What extent_status answers, about the request's first sectors: `length` (1 .. the extent's) sectors that
// are alike. Layers above only ever shorten it; the asker asks again for the rest.
struct ExtentAnswer {
    Sectors length{};
    bool hole = false;    // nothing is allocated here
    bool zero = false;    // reads as zeroes
    std::uint32_t flags = 0;    // to an ExtentQuestion only: what that question's answers mean
    // Set by who asks: the question is where the data lie, not what they are, and this is filled in, too. It
    // stays the asker's, and may be written on another reactor until the request completes.
    Place* place = nullptr;
};

// A view of the memory of a request: segments owned by whoever owns the request (or by the Io itself, for one
// segment). Slices refer to the same segments.
class Buffers {
  public:
    Buffers() = default;
    // `skip` bytes into the segments; the length is the extent's, so it is not kept here.
    Buffers(const iovec* segments, std::uint32_t count, std::uint64_t skip = 0) noexcept
        : segments_{segments}, count_{count}, skip_{skip} {
        settle();
    }
    bool empty() const noexcept { return count_ == 0; }
    Buffers advanced(std::uint64_t bytes) const noexcept { return {segments_, count_, skip_ + bytes}; }
    // The first contiguous piece, and its length up to the end of its segment.
    std::byte* data() const noexcept { return static_cast<std::byte*>(segments_->iov_base) + skip_; }
    std::uint64_t contiguous() const noexcept { return count_ == 0 ? 0 : segments_->iov_len - skip_; }
    // Calls f(std::byte*, std::size_t) for each piece of the first `bytes` bytes.
    template <class F>
    void for_each(std::uint64_t bytes, F&& f) const {
        Buffers at = *this;
        while (bytes != 0) {
            ASSERT(!at.empty());
            const std::uint64_t n = at.contiguous() < bytes ? at.contiguous() : bytes;
            f(at.data(), static_cast<std::size_t>(n));
            bytes -= n;
            at = at.advanced(n);
        }
    }
    void copy_to(std::byte* to, std::uint64_t bytes) const noexcept;
    void copy_from(const std::byte* from, std::uint64_t bytes) const noexcept;
    void fill_zero(std::uint64_t bytes) const noexcept;
    // Writes at most `room` iovecs that cover the first `bytes` bytes; returns how many, 0 if there is no room.
    std::uint32_t to_iovecs(iovec* out, std::uint32_t room, std::uint64_t bytes) const noexcept;

  private:
    void settle() noexcept {
        while (count_ != 0 && skip_ >= segments_->iov_len) {
            skip_ -= segments_->iov_len;
            ++segments_;
            --count_;
        }
    }
    const iovec* segments_ = nullptr;
    std::uint32_t count_ = 0;
    std::uint64_t skip_ = 0;
};

// What a layer left in the request on the way down: its own extent, restored before on_complete, and two
// scratch words that mean what that layer says.
struct Frame {
    Layer* layer;
    Extent saved;
    std::uint64_t a, b;
};

class Layer {
  public:
    // Called with io.status set and the extent as it was at push. The layer now owns the request, and ends
    // with io.complete(...), or gives it back to its pool if it took it from there.
    virtual void on_complete(Io& io, Frame& frame) noexcept = 0;

  protected:
    ~Layer() = default;
};

class Io : public ListHook {
  public:
    Io() noexcept {}
    ~Io() {}
    static constexpr unsigned kDepthMax = 8;
    // What one mapped device may push: itself and its target. Core checks that there is room.
    static constexpr unsigned kFramesPerDevice = 3;

    Op op{};
    IoFlags flags{};
    IoStatus status{IoStatus::ok};
    std::uint16_t copy = 0;    // which of several flush or discard copies this is
    Extent extent{};
    Buffers buffers{};
    ExtentAnswer answer{};

    // One contiguous piece of memory.
    void set_memory(void* data, std::uint64_t bytes) noexcept {
        own_segment_ = {data, static_cast<std::size_t>(bytes)};
        buffers = Buffers{&own_segment_, 1};
    }
    void push(Layer& layer, std::uint64_t a = 0, std::uint64_t b = 0) noexcept {
        ASSERT(depth_ < kDepthMax);
        std::construct_at(&frames_[depth_++], Frame{&layer, extent, a, b});
    }
    // Hands the request up by one frame. Never called from inside submit(): a disk queues completions with
    // Reactor::complete_later; on_complete handlers may call it directly.
    void complete(IoStatus s) noexcept {
        ASSERT(depth_ > 0);
        status = s;
        Frame& frame = frames_[--depth_];
        extent = frame.saved;
        Layer* layer = frame.layer;
        Frame copy_of_frame = frame;
        layer->on_complete(*this, copy_of_frame);
    }
    // The scratch words of whoever pushed last and still holds the request (on a queue of its own, say).
    Frame& top() noexcept {
        ASSERT(depth_ > 0);
        return frames_[depth_ - 1];
    }
    unsigned depth() const noexcept { return depth_; }
    unsigned frames_left() const noexcept { return kDepthMax - depth_; }
    bool is_write() const noexcept {
        return op == Op::write || op == Op::write_zeroes || op == Op::discard;
    }

  private:
    iovec own_segment_{};
    std::uint8_t depth_ = 0;
    // Begin their lives in push(): a request that few layers look at does not pay for the other frames.
    union {
        Frame frames_[kDepthMax];
    };
};

}  // namespace udm
