#include "targets/snapshot/persistent_store.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "services/pooled_buffer.hpp"

namespace udm::snapshot {

namespace {

constexpr std::size_t kReadPiece = 128 * 1024;
constexpr std::uint64_t kZeroPiece = 512 * 1024;    // decision 19

}  // namespace

PersistentStore::PersistentStore(Env& env, Disk& cow, ChunkSize chunk, Sectors lowest_chunk, std::string cow_name)
    : env_{env}, cow_{&cow}, geometry_{chunk}, lowest_chunk_{lowest_chunk}, cow_name_{std::move(cow_name)},
      work_{env.reactor}, stopped_{env.reactor}, turn_{env.reactor} {
}

std::size_t PersistentStore::at_most(std::size_t bytes) const noexcept {
    const Sectors most = cow_->limits().max_transfer;
    return most ? std::min(bytes, static_cast<std::size_t>(std::bit_floor(to_bytes(most)))) : bytes;
}

std::string PersistentStore::where(const char* what) const { return fmt::format("COW {}: {}", cow_name_, what); }

// --- load -----------------------------------------------------------------------------------------------------------

Job<Result<Store::Found>> PersistentStore::load(ExceptionTable* table) {
    // The header is 16 bytes at the start, whatever the chunk size: one block is enough to know it.
    const std::size_t block = std::max<std::size_t>(cow_->limits().logical_block, 4096);
    if (to_bytes(cow_->limits().size) < 2 * geometry_.chunk().bytes() || to_bytes(cow_->limits().size) < block) {
        co_return fail(Errc::bad_argument, where("too small for a header and an area"));
    }
    if (const Sectors most = cow_->limits().max_transfer; most && to_bytes(most) < block) {
        co_return fail(Errc::bad_argument, where(fmt::format("the device takes at most {} bytes at a time; a store's metadata go in pieces "
                                                             "of {}", to_bytes(most), block).c_str()));
    }
    PooledBuffer buffer{env_.reactor.buffers(), block};
    IoWait read{env_.reactor, *cow_, Op::read, {{0}, whole_sectors(block)}, buffer.data()};
    if (const IoStatus status = co_await read; status != IoStatus::ok) {
        co_return fail(Errc::io, where(fmt::format("cannot read the header: {}", to_string(status)).c_str()));
    }
    DiskHeader header;
    std::memcpy(&header, buffer.data(), sizeof header);
    if (header.magic == 0) {
        auto formatting = format();
        auto formatted = co_await formatting;
        if (!formatted) co_return fail(formatted);
        co_return Found::nothing;
    }
    if (header.magic != kMagic) {
        co_return fail(Errc::not_found, where(fmt::format("no snapshot store: the first bytes are {:#010x}; a new store needs "
                                                          "its first 4 KiB zeroed",
                                                          static_cast<std::uint32_t>(header.magic)).c_str()));
    }
    if (header.version != kVersion) {
        co_return fail(Errc::bad_argument,
                       where(fmt::format("store version {}, known is {}", static_cast<std::uint32_t>(header.version), kVersion).c_str()));
    }
    if (header.valid != 0 && header.valid != 1) {
        co_return fail(Errc::bad_argument, where(fmt::format("the header's valid field is {}, not 0 or 1",
                                                             static_cast<std::uint32_t>(header.valid)).c_str()));
    }
    const std::uint32_t sectors = header.chunk_size;
    if (!std::has_single_bit(sectors) || sectors > kChunkSectorsMax || sectors % lowest_chunk_.v != 0) {
        co_return fail(Errc::bad_argument, where(fmt::format("the header's chunk size {} is not a power of two of sectors from {} to {}",
                                                             sectors, lowest_chunk_.v, kChunkSectorsMax).c_str()));
    }
    geometry_ = Geometry{ChunkSize::of_sectors(sectors)};
    if (room().v < 2) co_return fail(Errc::bad_argument, where("smaller than two of its own chunks"));
    if (header.valid == 0) co_return Found::invalid;
    auto reading = read_list(table);
    auto list = co_await reading;
    if (!list) co_return fail(list);
    co_return Found::valid;
}

// The area is empty and durable before there is a header that says so (defect N20).
Job<Result<void>> PersistentStore::format() {
    auto zeroing = write_zeroes(geometry_.chunk().extent({0}, {2}));
    IoStatus status = co_await zeroing;
    if (status == IoStatus::ok) {
        auto flushing = flush();
        status = co_await flushing;
    }
    if (status == IoStatus::ok) {
        auto writing = write_header(true);
        status = co_await writing;
    }
    if (status != IoStatus::ok) {
        co_return fail(Errc::io, where(fmt::format("cannot write a new store: {}", to_string(status)).c_str()));
    }
    co_return Result<void>{};
}

Result<void> PersistentStore::check_entry(std::uint64_t index, Chunk old_chunk, Chunk new_chunk, const ExceptionTable& table,
                                          const ExceptionTable& used) const {
    const auto bad = [&](std::string why) {
        return fail(Errc::corrupt, where(fmt::format("area {}, entry {} ({} -> {}): {}", index / geometry_.exceptions_per_area(),
                                                     index % geometry_.exceptions_per_area(), old_chunk.v, new_chunk.v, why).c_str()));
    };
    if (new_chunk.v >= room().v) return bad(fmt::format("the device has {} chunks; is it smaller than it was?", room().v));
    if (new_chunk.v > ExceptionTable::kChunkMax) return bad("no store has so many chunks");
    if (geometry_.is_metadata(new_chunk)) return bad("points at a chunk of metadata");
    if (used.find(new_chunk)) return bad("another entry has this COW chunk");
    if (old_chunk.v > ExceptionTable::kChunkMax) return bad("no origin has so many chunks");
    if (table.find(old_chunk)) return bad("another entry has this origin chunk");
    return {};
}

Job<Result<void>> PersistentStore::read_list(ExceptionTable* table) {
    const std::uint64_t per_area = geometry_.exceptions_per_area();
    const std::size_t piece = static_cast<std::size_t>(std::min<std::uint64_t>(at_most(kReadPiece), geometry_.chunk().bytes()));
    PooledBuffer buffer{env_.reactor.buffers(), piece};
    ExceptionTable used;    // its size is that of the list, however large the device
    std::uint64_t index = 0, piece_first = 0;
    Chunk highest{1};
    bool ended = false;
    while (!ended) {
        const std::uint64_t area = index / per_area;
        if (geometry_.area(area).v >= room().v) break;    // the last area is full: nothing can follow (N21)
        const Sector at = geometry_.chunk().start(geometry_.area(area)) + whole_sectors(index % per_area * sizeof(DiskException));
        IoWait read{env_.reactor, *cow_, Op::read, {at, whole_sectors(piece)}, buffer.data()};
        if (const IoStatus status = co_await read; status != IoStatus::ok) {
            co_return fail(Errc::io, where(fmt::format("cannot read area {}: {}", area, to_string(status)).c_str()));
        }
        piece_first = index;
        for (std::size_t i = 0; i < piece / sizeof(DiskException); ++i) {
            DiskException entry;
            std::memcpy(&entry, buffer.data() + i * sizeof entry, sizeof entry);
            if (entry.new_chunk == 0) {
                ended = true;
                break;
            }
            const Chunk old_chunk{entry.old_chunk}, new_chunk{entry.new_chunk};
            auto checked = check_entry(index, old_chunk, new_chunk, *table, used);
            if (!checked) co_return fail(checked);
            used.insert({new_chunk, old_chunk, {1}});
            table->insert({old_chunk, new_chunk, {1}});
            highest = std::max(highest, new_chunk);
            ++index;
        }
        // The entries of the piece that will be written next.
        const std::uint64_t per_piece = geometry_.exceptions_per_piece();
        tail_first_ = index - index % per_piece;
        tail_.clear();
        for (std::uint64_t i = std::max(tail_first_, piece_first); i < index; ++i) {
            DiskException entry;
            std::memcpy(&entry, buffer.data() + (i - piece_first) * sizeof entry, sizeof entry);
            tail_.push_back(entry);
        }
    }
    reserved_ = published_ = written_ = durable_ = index;
    rest_of_area_unknown_ = true;
    next_free_ = highest + Chunks{1};
    if (geometry_.is_metadata(next_free_)) next_free_ += Chunks{1};
    find_holes(used, highest);
    if (ended) {
        auto clearing = clear_behind_end({buffer.data(), piece}, index - piece_first);
        co_await clearing;
    }
    co_return Result<void>{};
}

// Entries behind the list's end are of a commit that a crash cut off, and their chunks may have been given to others since. Linux
// takes them for exceptions as soon as its list has grown up to them. `read`: the list's last part, of so many entries; what
// a larger area has behind it is cleared by the first commit. A device that cannot be written stays as it is.
Job<void> PersistentStore::clear_behind_end(std::span<std::byte> read, std::size_t entries) {
    const std::span<std::byte> rest = read.subspan(entries * sizeof(DiskException));
    if (std::any_of(rest.begin(), rest.end(), [](std::byte b) { return b != std::byte{0}; })) {
        std::fill(rest.begin(), rest.end(), std::byte{0});
        const std::uint64_t per_piece = geometry_.exceptions_per_piece(), kept = entries / per_piece * per_piece;
        const std::span<std::byte> changed = read.subspan(kept * sizeof(DiskException));
        IoWait write{env_.reactor, *cow_, Op::write, {geometry_.piece(published_ - entries + kept).first, whole_sectors(changed.size())}, changed.data()};
        IoStatus status = co_await write;
        if (status == IoStatus::ok) {
            auto flushing = flush();
            status = co_await flushing;
        }
        if (status != IoStatus::ok) co_return;
    }
    rest_of_area_unknown_ = read.size() < geometry_.chunk().bytes();
}

// Chunks below the highest used one to which no entry points: they were given out before a crash, and the entries never came to be.
void PersistentStore::find_holes(const ExceptionTable& used, Chunk highest) {
    holes_.clear();
    hole_chunks_ = {0};
    for (Chunk chunk{2}; chunk < highest && holes_.size() < kHolesMax;) {
        if (const auto run = used.find(chunk)) {
            chunk += run->count;
            continue;
        }
        if (geometry_.is_metadata(chunk)) {
            chunk += Chunks{1};
            continue;
        }
        const Chunk end = std::min(used.next_mapped(chunk).value_or(highest), next_area(chunk));
        holes_.push_back({chunk, end - chunk});
        hole_chunks_ += end - chunk;
        chunk = end;
    }
}

// The first chunk of metadata behind `chunk`, which is one for data.
Chunk PersistentStore::next_area(Chunk chunk) const noexcept {
    const std::uint64_t stride = geometry_.exceptions_per_area() + 1;
    return {(chunk.v - 1) / stride * stride + stride + 1};
}

// --- writing --------------------------------------------------------------------------------------------------------

Job<IoStatus> PersistentStore::flush() {
    if (!cow_->limits().volatile_cache) co_return IoStatus::ok;
    IoWait wait{env_.reactor, *cow_, Op::flush, {}};
    const IoStatus status = co_await wait;
    if (status != IoStatus::ok) flush_failed_ = true;
    co_return status;
}

Job<IoStatus> PersistentStore::write_zeroes(Extent extent) {
    if (!extent.length) co_return IoStatus::ok;
    {
        IoWait wait{env_.reactor, *cow_, Op::write_zeroes, extent};
        const IoStatus status = co_await wait;
        if (status != IoStatus::unsupported) co_return status;
    }
    PooledBuffer buffer{env_.reactor.buffers(), static_cast<std::size_t>(std::min<std::uint64_t>(to_bytes(extent.length), at_most(kZeroPiece)))};
    std::memset(buffer.data(), 0, buffer.size());
    while (extent.length) {
        const Sectors n = std::min(extent.length, whole_sectors(buffer.size()));
        IoWait wait{env_.reactor, *cow_, Op::write, {extent.first, n}, buffer.data()};
        if (const IoStatus status = co_await wait; status != IoStatus::ok) co_return status;
        extent = {extent.first + n, extent.length - n};
    }
    co_return IoStatus::ok;
}

Job<IoStatus> PersistentStore::write_header(bool valid) {
    PooledBuffer buffer{env_.reactor.buffers(), static_cast<std::size_t>(geometry_.piece_bytes())};
    std::memset(buffer.data(), 0, buffer.size());
    DiskHeader header{};
    header.magic = kMagic;
    header.valid = valid ? 1 : 0;
    header.version = kVersion;
    header.chunk_size = static_cast<std::uint32_t>(geometry_.chunk().sectors().v);
    std::memcpy(buffer.data(), &header, sizeof header);
    IoWait wait{env_.reactor, *cow_, Op::write, {{0}, whole_sectors(buffer.size())}, buffer.data()};
    if (const IoStatus status = co_await wait; status != IoStatus::ok) co_return status;
    if (!valid && !env_.chaos.keeps("snapshot.flush_invalidation")) co_return IoStatus::ok;
    auto flushing = flush();
    co_return co_await flushing;
}

Job<IoStatus> PersistentStore::invalidate() { return write_header(false); }

// Whoever finds the mark looks no further.
Job<void> PersistentStore::give_space_back() {
    const Sector from = geometry_.chunk().start({1});
    cow_->refresh();
    const Sector end{cow_->limits().size.v};
    if (!cow_->limits().discard || end <= from) co_return;
    IoWait discard{env_.reactor, *cow_, Op::discard, {from, end - from}};
    static_cast<void>(co_await discard);
}

Job<IoStatus> PersistentStore::write_entries(std::uint64_t first, std::uint64_t end) {
    const std::uint64_t per_piece = geometry_.exceptions_per_piece();
    const std::uint64_t end_of_area = area_end(first);
    ASSERT(first < end && end <= end_of_area && first >= tail_first_);
    std::uint64_t from = first - first % per_piece;
    const std::uint64_t to = (end + per_piece - 1) / per_piece * per_piece;
    while (from < to) {
        const std::uint64_t n = std::min<std::uint64_t>(to - from, at_most(kReadPiece) / sizeof(DiskException));
        PooledBuffer buffer{env_.reactor.buffers(), n * sizeof(DiskException)};
        const std::uint64_t filled = std::min(n, end > from ? end - from : 0);
        std::memcpy(buffer.data(), tail_.data() + (from - tail_first_), filled * sizeof(DiskException));
        std::memset(buffer.data() + filled * sizeof(DiskException), 0, (n - filled) * sizeof(DiskException));
        IoWait wait{env_.reactor, *cow_, Op::write, {geometry_.piece(from).first, whole_sectors(n * sizeof(DiskException))}, buffer.data()};
        if (const IoStatus status = co_await wait; status != IoStatus::ok) co_return status;
        from += n;
    }
    co_return IoStatus::ok;
}

// Steps 2 to 4 of a commit, for the exceptions written_ .. end-1.
Job<IoStatus> PersistentStore::commit_batch(std::uint64_t end) {
    const std::uint64_t per_piece = geometry_.exceptions_per_piece();
    const std::uint64_t here_end = area_end(written_);
    if (flush_first_) {
        auto flushing = flush();
        if (const IoStatus status = co_await flushing; status != IoStatus::ok) co_return status;
        flush_first_ = false;
    }
    if (rest_of_area_unknown_) {
        const std::uint64_t next_piece = written_ - written_ % per_piece + per_piece;
        if (end > written_ && next_piece < here_end) {
            const Sector from = geometry_.piece(next_piece).first;
            const Sector to = geometry_.piece(here_end - 1).end();
            auto zeroing = write_zeroes({from, to - from});
            if (const IoStatus status = co_await zeroing; status != IoStatus::ok) co_return status;
        }
        if (end > written_) rest_of_area_unknown_ = false;
    }
    if (end >= here_end && end > written_) {    // fills the area: what follows must be ready
        for (std::uint64_t first = here_end; first <= end; first = area_end(first)) {
            const std::uint64_t last = std::min(end, area_end(first));
            if (first < last) {
                auto writing = write_entries(first, last);
                if (const IoStatus status = co_await writing; status != IoStatus::ok) co_return status;
            }
            const std::uint64_t rest = (last + per_piece - 1) / per_piece * per_piece;
            if (rest < area_end(first)) {
                const Sector from = geometry_.piece(rest).first;
                const Sector to = geometry_.piece(area_end(first) - 1).end();
                auto zeroing = write_zeroes({from, to - from});
                if (const IoStatus status = co_await zeroing; status != IoStatus::ok) co_return status;
            }
        }
    }

    // What waits for a flush that starts now: commits written before, and syncs with nothing left to write.
    const std::uint64_t written_before = written_;
    List<Waiter> synced;
    while (!syncs_.empty() && syncs_.front().wanted <= written_) synced.push_back(syncs_.pop_front());
    IoStatus status = IoStatus::ok;
    if (written_ > durable_ || !synced.empty() || env_.chaos.keeps("snapshot.data_before_metadata")) {
        auto flushing = flush();
        status = co_await flushing;
    }
    if (status == IoStatus::ok) {
        durable_ = written_before;
        forget_durable();
        release(waiting_, durable_, status);
    }
    while (Waiter* waiter = synced.pop_front_or_null()) waiter->woken(status);
    if (status != IoStatus::ok || end == written_) co_return status;

    if (!env_.chaos.keeps("snapshot.commit_barrier")) end = std::min(published_, here_end > end ? here_end : end);
    auto writing = write_entries(written_, std::min(end, here_end));
    status = co_await writing;
    if (status != IoStatus::ok) co_return status;
    written_ = end;
    if (!env_.chaos.keeps("snapshot.flush_before_origin_write")) {
        durable_ = written_;
        forget_durable();
        release(waiting_, durable_, status);
    }
    co_return IoStatus::ok;
}

// Entries of pieces that are done with are not needed any more.
void PersistentStore::forget_durable() noexcept {
    const std::uint64_t keep_from = durable_ - durable_ % geometry_.exceptions_per_piece();
    tail_.erase(tail_.begin(), tail_.begin() + static_cast<std::ptrdiff_t>(keep_from - tail_first_));
    tail_first_ = keep_from;
}

// A commit found no room below the device. False: that is a failure. `told`: somebody who asked for a flush learns of it.
bool PersistentStore::put_off(bool told) noexcept {
    for (const Waiter& waiter : waiting_) {
        if (!waiter.of_snapshot) return false;
    }
    if (!failure_->store_full()) return false;
    if (flush_failed_ && !told) untold_ = IoStatus::no_space;
    flush_first_ = rest_of_area_unknown_ = true;
    written_ = wanted_ = durable_;
    tried_ = published_;
    return true;
}

bool PersistentStore::wants_commit() const noexcept {
    return !failed_ && (wanted_ > durable_ || !syncs_.empty() || published_ - std::max(written_, tried_) >= kBackgroundBatch);
}

Job<void> PersistentStore::commit_loop() {
    running_ = true;
    for (;;) {
        while (!wants_commit() || clearing_) {
            if (!clearing_) trim_tail();
            if (stopping_ && !clearing_) {
                running_ = false;
                stopped_.notify_all();
                co_return;
            }
            auto wait = work_.wait();
            co_await wait;
        }
        if (untold_ != IoStatus::ok && !syncs_.empty()) {
            release(syncs_, ~std::uint64_t{0}, std::exchange(untold_, IoStatus::ok));
            continue;
        }
        const bool told = !syncs_.empty();
        flush_failed_ = false;
        std::uint64_t end = published_;
        if (end - written_ > 1 && env_.chaos.fires("snapshot.small_commit")) end = written_ + 1;
        committing_ = true;
        auto committing = commit_batch(end);
        const IoStatus status = co_await committing;
        committing_ = false;
        if (clearing_) turn_.notify_all();
        if (status != IoStatus::ok) {
            if (status != IoStatus::no_space || !put_off(told || !syncs_.empty())) {
                failed_ = true;
                failure_->store_failed(status, "commit exceptions");
            }
            release(waiting_, ~std::uint64_t{0}, status);
            release(syncs_, ~std::uint64_t{0}, status);
        }
    }
}

// What a burst has left behind goes when there is nothing to do: a store that rests is one of thousands (decision 19).
void PersistentStore::trim_tail() {
    constexpr std::size_t kKept = 1024;    // entries: four pieces
    if (tail_.capacity() <= kKept || tail_.size() > kKept / 2) return;
    std::vector<DiskException> smaller(tail_);
    tail_.swap(smaller);
}

void PersistentStore::release(List<Waiter>& list, std::uint64_t upto, IoStatus status) noexcept {
    while (!list.empty() && list.front().wanted <= upto) list.pop_front().woken(status);
}

void PersistentStore::start(Failure& failure) noexcept {
    failure_ = &failure;
    stopping_ = false;
    env_.reactor.jobs().spawn(commit_loop());
}

Job<void> PersistentStore::stop() {
    stopping_ = true;
    work_.notify_all();
    while (running_) {
        auto wait = stopped_.wait();
        co_await wait;
    }
}

// --- allocation and commits -----------------------------------------------------------------------------------------

Store::Allocation PersistentStore::allocate(Chunks wanted) noexcept {
    ASSERT(wanted.v > 0);
    std::uint64_t chunks = room().v;
    std::uint64_t places = geometry_.capacity(chunks);
    if (next_free_.v + wanted.v > chunks || reserved_ + wanted.v > places) {
        cow_->refresh();    // it may have grown
        chunks = room().v;
        places = geometry_.capacity(chunks);
    }
    if (reserved_ >= places) return {};
    if (next_free_.v >= chunks || next_free_.v > ExceptionTable::kChunkMax) {
        const Allocation given = allocate_hole({std::min(wanted.v, places - reserved_)});
        reserved_ += given.count.v;
        return given;
    }
    // Up to the next chunk of metadata.
    std::uint64_t n = std::min({wanted.v, chunks - next_free_.v, places - reserved_, (next_area(next_free_) - next_free_).v,
                                ExceptionTable::kChunkMax + 1 - next_free_.v});
    if (n > 1 && env_.chaos.fires("snapshot.short_run")) n = 1;
    const Allocation given{next_free_, {n}};
    next_free_ += given.count;
    if (geometry_.is_metadata(next_free_)) next_free_ += Chunks{1};
    reserved_ += n;
    return given;
}

// What crashes left unused is used last, so that a store that was never killed looks as the kernel's does. Without it each crash
// would make the store smaller, and one that was made to hold the whole origin no longer did.
Store::Allocation PersistentStore::allocate_hole(Chunks wanted) noexcept {
    if (holes_.empty()) return {};
    Allocation& hole = holes_.back();
    const Allocation given{hole.first, std::min(wanted, hole.count)};
    hole.first += given.count;
    hole.count.v -= given.count.v;
    hole_chunks_.v -= given.count.v;
    if (!hole.count) holes_.pop_back();
    return given;
}

Chunks PersistentStore::left() const noexcept {
    const std::uint64_t chunks = room().v, places = geometry_.capacity(chunks);
    if (reserved_ >= places) return {0};
    std::uint64_t free = hole_chunks_.v;
    if (next_free_.v < chunks) free += chunks - next_free_.v - (geometry_.areas_within(chunks) - geometry_.areas_within(next_free_.v));
    return {std::min(free, places - reserved_)};
}

void PersistentStore::give_back(const Allocation& unused) noexcept {
    Chunk after = unused.first + unused.count;
    if (geometry_.is_metadata(after)) after += Chunks{1};
    if (after == next_free_) {
        next_free_ = unused.first;
    } else {
        if (holes_.size() >= kHolesMax) return;
        holes_.push_back(unused);
        hole_chunks_ += unused.count;
    }
    reserved_ -= unused.count.v;
}

void PersistentStore::publish(Chunk old_first, Chunk new_first, Chunks count) noexcept {
    for (std::uint64_t i = 0; i < count.v; ++i) {
        tail_.push_back({old_first.v + i, new_first.v + i});
        ++published_;
    }
    if (published_ - std::max(written_, tried_) >= kBackgroundBatch) work_.notify_all();
}

bool PersistentStore::maybe_volatile(Chunk old_first, Chunks count) const noexcept {
    if (durable_ == published_) return false;
    static constexpr std::uint64_t kLookAt = 256;    // beyond that, waiting for a commit is cheaper than searching
    if (published_ - durable_ > kLookAt) return true;
    for (std::uint64_t i = durable_ - tail_first_; i < tail_.size(); ++i) {
        const std::uint64_t old_chunk = tail_[i].old_chunk;
        if (old_chunk >= old_first.v && old_chunk < old_first.v + count.v) return true;
    }
    return false;
}

bool PersistentStore::when_durable(Waiter& waiter) noexcept {
    if (failed_ || durable_ == published_) return false;
    waiter.wanted = published_;
    wanted_ = published_;
    waiting_.push_back(waiter);
    work_.notify_all();
    return true;
}

void PersistentStore::sync(Waiter& waiter) noexcept {
    waiter.wanted = published_;
    syncs_.push_back(waiter);
    work_.notify_all();
}

Store::Usage PersistentStore::usage() const noexcept {
    const ChunkSize chunk = geometry_.chunk();
    const std::uint64_t area = published_ / geometry_.exceptions_per_area();
    const Sectors total = cow_->limits().size;
    // The next free chunk may be the first that the device doesn't have.
    return {std::min(Sectors{next_free_.v * chunk.sectors().v}, total), total, {(area + 2) * chunk.sectors().v}};
}

}  // namespace udm::snapshot
