#include "engine/ram_disk.hpp"

#include <fmt/format.h>
#include <sys/mman.h>

#include <bit>
#include <cstring>

#include "base/abandon.hpp"

namespace udm {
namespace {

// Copying this much, or freeing its pages, takes a tenth of a millisecond; more is left to a helper thread.
constexpr std::uint64_t kInPlaceMax = std::uint64_t{1} << 20;
// The first lines of what a request reads come from memory while those before it are served: with 32 small
// ones at a time that is a third of their cost.
constexpr std::uint64_t kLine = 64;
constexpr std::uint64_t kPrefetched = 8 * kLine;

void* reserve(std::uint64_t bytes) {
    void* memory =
        ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

std::uint64_t Memory::bitmap_bytes(std::uint64_t bytes) noexcept {
    const std::uint64_t pages = (bytes + kPage - 1) >> kPageShift;
    return (pages + 63) / 64 * sizeof(std::uint64_t);
}

Result<std::shared_ptr<Memory>> Memory::make(std::uint64_t bytes) {
    ASSERT(bytes > 0);
    void* data = reserve(bytes);
    void* touched = data ? reserve(bitmap_bytes(bytes)) : nullptr;
    if (!touched) {
        if (data) ::munmap(data, bytes);
        return fail(Errc::no_memory, fmt::format("no address space for {} bytes of memory", bytes));
    }
    return std::shared_ptr<Memory>{
        new Memory{static_cast<std::byte*>(data), static_cast<std::uint64_t*>(touched), bytes}};
}

Memory::~Memory() {
    ::munmap(data_, bytes_);
    ::munmap(touched_, bitmap_bytes(bytes_));
}

bool Memory::is_touched(std::uint64_t page) const noexcept {
    const std::atomic_ref<std::uint64_t> word{touched_[page / 64]};
    return ((word.load(std::memory_order_relaxed) >> (page % 64)) & 1) != 0;
}

void Memory::touch(std::uint64_t offset, std::uint64_t length) noexcept {
    const std::uint64_t end = (offset + length + kPage - 1) >> kPageShift;
    for (std::uint64_t page = offset >> kPageShift; page < end;) {
        const std::uint64_t in_word = 64 - page % 64 < end - page ? 64 - page % 64 : end - page;
        const std::uint64_t mask = (~std::uint64_t{0} >> (64 - in_word)) << (page % 64);
        const std::atomic_ref<std::uint64_t> word{touched_[page / 64]};
        // Mostly they are set already, and reading is cheaper.
        if ((word.load(std::memory_order_relaxed) & mask) != mask)
            word.fetch_or(mask, std::memory_order_relaxed);
        page += in_word;
    }
}

void Memory::forget(std::uint64_t offset, std::uint64_t length) noexcept {
    const std::uint64_t end = (offset + length) >> kPageShift;  // whole pages only
    for (std::uint64_t page = (offset + kPage - 1) >> kPageShift; page < end;) {
        const std::uint64_t in_word = 64 - page % 64 < end - page ? 64 - page % 64 : end - page;
        const std::uint64_t mask = (~std::uint64_t{0} >> (64 - in_word)) << (page % 64);
        const std::atomic_ref<std::uint64_t> word{touched_[page / 64]};
        if ((word.load(std::memory_order_relaxed) & mask) != 0)
            word.fetch_and(~mask, std::memory_order_relaxed);
        page += in_word;
    }
}

void Memory::clear(std::uint64_t offset, std::uint64_t length) noexcept {
    const std::uint64_t end = offset + length;
    const std::uint64_t first_whole = (offset + kPage - 1) & ~(kPage - 1);
    const std::uint64_t end_whole = end & ~(kPage - 1);
    if (first_whole >= end_whole) {
        std::memset(data_ + offset, 0, length);
        return;
    }
    std::memset(data_ + offset, 0, first_whole - offset);
    std::memset(data_ + end_whole, 0, end - end_whole);
    const int rc = ::madvise(data_ + first_whole, end_whole - first_whole, MADV_DONTNEED);
    if (rc != 0) std::memset(data_ + first_whole, 0, end_whole - first_whole);  // locked memory
}

std::uint64_t Memory::alike(std::uint64_t offset, std::uint64_t length, bool& touched) const noexcept {
    const std::uint64_t last = (offset + length - 1) >> kPageShift;
    std::uint64_t page = offset >> kPageShift;
    touched = is_touched(page);
    while (++page <= last) {
        // A word at a time where it is all alike.
        if (page % 64 == 0 && last - page >= 64) {
            const std::atomic_ref<std::uint64_t> word{touched_[page / 64]};
            if (word.load(std::memory_order_relaxed) == (touched ? ~std::uint64_t{0} : 0)) {
                page += 63;
                continue;
            }
        }
        if (is_touched(page) != touched) break;
    }
    const std::uint64_t end = page << kPageShift;
    return end - offset < length ? end - offset : length;
}

RamDisk::RamDisk(Loop& loop, std::shared_ptr<Memory> memory) : loop_{loop}, memory_{std::move(memory)} {
    limits_.size = whole_sectors(memory_->bytes());
    limits_.physical_block = 4096;
    limits_.discard_granularity = 4096;
    limits_.discard = true;
    limits_.fast_zeroes = true;
    limits_.volatile_cache = false;
}

void RamDisk::submit(Io& io) noexcept {
    ASSERT(loop_.is_current());
    if (io.op == Op::flush) return loop_.complete_later(io, IoStatus::ok);
    const bool fits =
        io.extent.length <= limits_.size && io.extent.first.v <= limits_.size.v - io.extent.length.v;
    if (!fits) return loop_.complete_later(io, IoStatus::invalid);
    if (!io.extent.length) return loop_.complete_later(io, IoStatus::ok);
    const std::uint64_t offset = to_bytes(io.extent.first);
    const std::uint64_t bytes = to_bytes(io.extent.length);
    switch (io.op) {
        case Op::read:
            break;
        // On the loop, before the pages change: a write that follows a clear shows as data, whichever is done
        // first.
        case Op::write:
            memory_->touch(offset, bytes);
            break;
        case Op::discard:
        case Op::write_zeroes:
            memory_->forget(offset, bytes);
            break;
        case Op::extent_status: {
            bool touched = false;
            const Sectors length = whole_sectors(memory_->alike(offset, bytes, touched));
            io.answer = {length, !touched, !touched};
            return loop_.complete_later(io, IoStatus::ok);
        }
        case Op::flush:
            UNREACHABLE();
    }
    if (bytes > kInPlaceMax) return loop_.start(helper_calls_.take(*this, io));
    if (io.op == Op::write) {  // stores wait for nothing
        serve(io);
        return loop_.complete_later(io, IoStatus::ok);
    }
    for (std::uint64_t at = 0; at < kPrefetched; at += kLine)
        __builtin_prefetch(memory_->data() + offset + at);
    waiting_.push_back(io);
    if (!linked()) loop_.post(*this);
}

void RamDisk::run() noexcept {
    std::uint64_t bytes = 0;
    while (Io* io = waiting_.pop_front_or_null()) {
        serve(*io);
        bytes += to_bytes(io->extent.length);
        loop_.complete_later(*io, IoStatus::ok);
        if (bytes < kInPlaceMax) continue;
        if (!waiting_.empty()) loop_.post(*this);  // in a turn to come
        return;
    }
}

void RamDisk::serve(Io& io) noexcept {
    const std::uint64_t offset = to_bytes(io.extent.first);
    const std::uint64_t bytes = to_bytes(io.extent.length);
    switch (io.op) {
        case Op::read:
            return io.buffers.copy_from(memory_->data() + offset, bytes);
        case Op::write:
            return io.buffers.copy_to(memory_->data() + offset, bytes);
        // no_hole needs no care: memory was never promised.
        case Op::discard:
        case Op::write_zeroes:
            return memory_->clear(offset, bytes);
        case Op::flush:
        case Op::extent_status:
            break;
    }
    UNREACHABLE();
}

RamDisk::~RamDisk() {
    ASSERT(waiting_.empty() || Abandoning::now());
    if (linked()) unlink();
}

RamDisk::HelperCall::HelperCall(RamDisk& disk, Io& io) noexcept : disk_{disk}, io_{io} { kind = Kind::call; }

int RamDisk::HelperCall::call() noexcept {
    disk_.serve(io_);
    return 0;
}

void RamDisk::HelperCall::done(int) noexcept {
    RamDisk& disk = disk_;
    Io& io = io_;
    disk.helper_calls_.give(*this);
    disk.loop_.complete_later(io, IoStatus::ok);
}

}  // namespace udm
