#include "services/dirty_log/log_disk.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <span>

#include "core/target_args.hpp"
#include "services/pooled_buffer.hpp"

namespace udm::dirty_log {

// co_await of several writes at once; the first error wins.
class LogDisk::Round final : Layer {
  public:
    Round(Reactor& reactor, Disk& disk, std::span<const Piece> pieces) noexcept : reactor_{reactor}, disk_{disk}, pieces_{pieces} {}
    Round(const Round&) = delete;
    Round& operator=(const Round&) = delete;
    bool await_ready() const noexcept { return pieces_.empty(); }
    void await_suspend(std::coroutine_handle<> awaiting) noexcept {
        awaiting_ = awaiting;
        pending_ = pieces_.size();
        for (const Piece& piece : pieces_) {
            Io& io = reactor_.take_io();
            io.op = Op::write;
            io.extent = piece.extent;
            io.set_memory(piece.memory, to_bytes(piece.extent.length));
            io.push(*this);
            disk_.submit(io);
        }
    }
    IoStatus await_resume() const noexcept { return status_; }

  private:
    void on_complete(Io& io, Frame&) noexcept override {
        status_ = first_error(status_, io.status);
        reactor_.give_io(io);
        if (--pending_ == 0) awaiting_.resume();
    }
    Reactor& reactor_;
    Disk& disk_;
    std::span<const Piece> pieces_;
    std::size_t pending_ = 0;
    std::coroutine_handle<> awaiting_;
    IoStatus status_{IoStatus::ok};
};

std::string LogDisk::words() const { return device_words(*device_); }

std::uint64_t LogDisk::at_most(std::uint64_t bytes) const noexcept {
    const Sectors most = device_->disk().limits().max_transfer;
    return most ? std::min(bytes, std::bit_floor(to_bytes(most))) : bytes;
}

Result<void> LogDisk::check() {
    const Limits& limits = device_->disk().limits();
    layout_ = Layout{regions_, limits.logical_block};
    if (to_bytes(limits.size) < layout_.bytes()) {
        return fail(Errc::bad_argument, fmt::format("log device {} too small: need {} bytes", words(), layout_.bytes()));
    }
    if (at_most(kRoundBytes) < layout_.block_bytes()) {
        return fail(Errc::bad_argument, fmt::format("log device {} takes at most {} bytes at a time: need {}", words(),
                                                    to_bytes(limits.max_transfer), layout_.block_bytes()));
    }
    return {};
}

// --- reading --------------------------------------------------------------------------------------------------------

Job<IoStatus> LogDisk::read_bytes(std::uint64_t from, std::byte* to, std::uint64_t bytes) {
    IoWait wait{env_.reactor, device_->disk(), Op::read, {{from / kSectorSize}, whole_sectors(bytes)}, to};
    co_return co_await wait;
}

// The bits below `known`; the others are zero.
Job<IoStatus> LogDisk::read_bits(std::uint64_t known, Bitmap* clean) {
    clean->reset_all();
    if (known == 0) co_return IoStatus::ok;
    const std::uint64_t block = layout_.block_bytes();
    const std::uint64_t end = kBitmapOffset + (known + 63) / 64 * 8;
    const std::uint64_t step = at_most(4 * kRoundBytes);
    PooledBuffer buffer{env_.reactor.buffers(), step};
    auto* bits = reinterpret_cast<std::byte*>(clean->words());
    for (std::uint64_t from = 0; from < end; from += step) {
        const std::uint64_t wanted = std::min(step, end - from);
        const std::uint64_t bytes = std::min((wanted + block - 1) / block * block, layout_.bytes() - from);
        auto reading = read_bytes(from, buffer.data(), bytes);
        if (const IoStatus status = co_await reading; status != IoStatus::ok) co_return status;
        const std::uint64_t skip = from == 0 ? kBitmapOffset : 0;
        if (wanted > skip) std::memcpy(bits + (from + skip - kBitmapOffset), buffer.data() + skip, wanted - skip);
    }
    clean->trim();
    clean->reset_from(known);
    co_return IoStatus::ok;
}

Job<LogDisk::Read> LogDisk::read(Bitmap* clean) {
    Read result;
    const std::uint64_t start_bytes = std::min(layout_.block_bytes(), to_bytes(device_->disk().limits().size) / layout_.header_bytes() * layout_.header_bytes());
    Judged judged;
    {
        PooledBuffer start{env_.reactor.buffers(), start_bytes};
        auto reading = read_bytes(0, start.data(), start_bytes);
        const IoStatus status = co_await reading;
        if (status != IoStatus::ok) {
            result.found = {Found::Kind::unreadable, fmt::format("log device {}: cannot read it: {}", words(), to_string(status))};
            clean->reset_all();
            co_return result;
        }
        judged = judge({start.data(), static_cast<std::size_t>(start_bytes)});
    }
    result.legs = judged.legs;
    const bool asked = word_ == SyncWord::sync;
    // A word that stays in the table for years is not taken as the wish to lose a log of another version (M40).
    if (judged.kind == Judged::Kind::unknown || (judged.kind == Judged::Kind::foreign && !asked)) {
        result.found = {Found::Kind::distrusted, fmt::format("log device {}: {}", words(), judged.why)};
        clean->reset_all();
        co_return result;
    }
    const bool fresh = judged.kind != Judged::Kind::log;
    std::uint64_t known = fresh ? 0 : std::min(judged.regions, regions_.v);
    result.grown_from = known;
    result.found.kind = fresh ? Found::Kind::fresh : Found::Kind::trusted;
    if (judged.region_size != 0 && judged.region_size != region_size_.sectors().v) {
        result.found.why = fmt::format("log device {}: it is of regions of {} sectors, these have {}: all is copied anew", words(),
                                       judged.region_size, region_size_.sectors().v);
        known = 0;
        result.grown_from = regions_.v;
    } else if (!fresh && known < regions_.v) {
        result.found.why = fmt::format("log device {}: it knows {} regions of {}; the others are {}", words(), known, regions_.v,
                                       word_ == SyncWord::nosync ? "taken to be in sync" : "out of sync");
    }
    if (asked) known = 0;
    if (word_ != SyncWord::nosync) result.grown_from = regions_.v;
    result.rewrite = fresh || asked || judged.regions != regions_.v || known == 0 || (judged.version == kVersionOfRecords && !judged.legs);
    auto bits = read_bits(known, clean);
    if (const IoStatus status = co_await bits; status != IoStatus::ok) {
        result.found = {Found::Kind::unreadable, fmt::format("log device {}: cannot read its bitmap: {}", words(), to_string(status))};
        clean->reset_all();
    }
    co_return result;
}

// --- writing --------------------------------------------------------------------------------------------------------

Job<IoStatus> LogDisk::flush() {
    if (!device_->disk().limits().volatile_cache) co_return IoStatus::ok;
    IoWait wait{env_.reactor, device_->disk(), Op::flush, {}};
    co_return co_await wait;
}

void LogDisk::fill(std::uint64_t from, std::uint64_t bytes, const Bitmap& clean, const std::optional<LegRecord>& legs,
                   std::byte* to) const noexcept {
    std::memset(to, 0, static_cast<std::size_t>(bytes));
    if (from == 0) put_header(to, regions_, region_size_, legs);
    const std::uint64_t first = std::max(from, kBitmapOffset);
    const std::uint64_t end = std::min(from + bytes, kBitmapOffset + layout_.bitmap_bytes());
    if (first >= end) return;
    const auto* bits = reinterpret_cast<const std::byte*>(clean.words());
    std::memcpy(to + (first - from), bits + (first - kBitmapOffset), static_cast<std::size_t>(end - first));
}

Job<IoStatus> LogDisk::write(const Bitmap* blocks, const Bitmap* clean, const std::optional<LegRecord>* legs) {
    const std::uint64_t block = layout_.block_bytes();
    const std::uint64_t room = at_most(std::max(kRoundBytes, block));
    PooledBuffer buffer{env_.reactor.buffers(), room};
    std::uint64_t at = blocks->find(0);
    while (at < blocks->size()) {
        std::size_t pieces = 0;
        std::uint64_t used = 0;
        // Adjacent blocks go together.
        while (at < blocks->size() && pieces < kPieces && used + block <= room) {
            std::uint64_t end = at;
            while (end < blocks->size() && blocks->test(end) && used + (end - at + 1) * block <= room) ++end;
            const std::uint64_t from = at * block;
            const std::uint64_t bytes = std::min(end * block, layout_.bytes()) - from;
            fill(from, bytes, *clean, *legs, buffer.data() + used);
            pieces_[pieces++] = {{{from / kSectorSize}, whole_sectors(bytes)}, buffer.data() + used};
            used += bytes;
            at = blocks->find(end);
        }
        Round round{env_.reactor, device_->disk(), {pieces_.data(), pieces}};
        if (const IoStatus status = co_await round; status != IoStatus::ok) co_return status;
    }
    co_return IoStatus::ok;
}

Job<IoStatus> LogDisk::write_all(const Bitmap* clean, const std::optional<LegRecord>* legs) {
    const std::uint64_t room = at_most(4 * kRoundBytes);
    PooledBuffer buffer{env_.reactor.buffers(), room};
    for (std::uint64_t from = layout_.header_bytes(); from < layout_.bytes();) {
        const std::uint64_t bytes = std::min(room, layout_.bytes() - from);
        fill(from, bytes, *clean, *legs, buffer.data());
        IoWait wait{env_.reactor, device_->disk(), Op::write, {{from / kSectorSize}, whole_sectors(bytes)}, buffer.data()};
        if (const IoStatus status = co_await wait; status != IoStatus::ok) co_return status;
        from += bytes;
    }
    if (env_.chaos.keeps("dirty_log.bits_before_header")) {
        auto flushing = flush();
        if (const IoStatus status = co_await flushing; status != IoStatus::ok) co_return status;
    }
    fill(0, layout_.header_bytes(), *clean, *legs, buffer.data());
    IoWait wait{env_.reactor, device_->disk(), Op::write, {{0}, whole_sectors(layout_.header_bytes())}, buffer.data()};
    if (const IoStatus status = co_await wait; status != IoStatus::ok) co_return status;
    auto flushing = flush();
    co_return co_await flushing;
}

}  // namespace udm::dirty_log
