#include "targets/snapshot/merge.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace udm::snapshot {

Merge::Merge(Env& env, Snapshot& snapshot, Observer& observer)
    : env_{env}, snapshot_{snapshot}, observer_{observer}, origin_layer_{snapshot.group()}, changed_{env.reactor} {}

Merge::~Merge() {
    ASSERT((!running_ && queued_.empty() && writes_.empty()) || Abandoning::now());
    if (!Abandoning::now()) env_.reactor.cancel(pace_);
}

// --- life -----------------------------------------------------------------------------------------------------------

void Merge::start() noexcept {
    if (running_) return;
    running_ = true;
    stopping_ = failed_ = false;
    mark_time_ = env_.reactor.now();
    mark_bytes_ = bytes_merged_;
    last_rate_ = 0;
    env_.reactor.jobs().spawn(run());
}

Job<void> Merge::stop() {
    stopping_ = true;
    changed_.notify_all();
    pump();    // the rate does not hold up a suspend
    while (running_) {
        auto wait = changed_.wait();
        co_await wait;
    }
}

void Merge::set_paused(bool paused) noexcept {
    paused_ = paused;
    changed_.notify_all();
}

void Merge::set_rate(std::uint64_t bytes_per_second) noexcept {
    rate_ = bytes_per_second;
    next_start_ = env_.reactor.now();
    pump();
}

std::uint64_t Merge::bytes_per_second() const noexcept {
    const Nanoseconds elapsed = env_.reactor.now() - mark_time_;
    if (!running_ || paused_) return 0;
    return elapsed < kSecond / 10 ? last_rate_ : (bytes_merged_ - mark_bytes_) * kSecond / elapsed;
}

Job<void> Merge::run() {
    Store& store = snapshot_.store();
    if (store.any_volatile()) {    // left so by a clearing that failed
        auto committing = snapshot_.commit();
        if (const IoStatus status = co_await committing; status != IoStatus::ok) fail(fmt::format("cannot commit: {}", to_string(status)));
    }
    untaken_ = store.listed();
    unsigned turn = 0;
    while (!failed_ && untaken_ != 0 && !stopping_) {
        if (paused_) {
            auto wait = changed_.wait();
            co_await wait;
            continue;
        }
        Batch& batch = batches_[turn];
        turn ^= 1;
        auto taking = take_batch(&batch);
        if (const IoStatus status = co_await taking; status != IoStatus::ok) {
            fail(status == IoStatus::invalid ? "the store's list is not what it was when it was loaded"
                                             : fmt::format("the store's list cannot be read: {}", to_string(status)));
            break;
        }
        batch.active = true;
        batch.begun = env_.reactor.now();
        copy_status_ = IoStatus::ok;
        copying_ = &batch;
        pump();
        while (copying_) {
            auto wait = changed_.wait();
            co_await wait;
        }
        while (committing_) {
            auto wait = changed_.wait();
            co_await wait;
        }
        if (copy_status_ != IoStatus::ok) fail(fmt::format("{}: {}", copy_doing_, to_string(copy_status_)));
        if (failed_) break;
        committing_ = true;
        env_.reactor.jobs().spawn(commit(&batch));
    }
    while (committing_) {
        auto wait = changed_.wait();
        co_await wait;
    }
    for (Batch& batch : batches_) batch.active = false;
    release_writes(failed_);
    // Chunks given out and never listed count no longer: LVM looks whether what is used is all metadata.
    if (store.listed() == 0) {
        store.recount(snapshot_.table());
        snapshot_.all_merged();
    }
    running_ = false;
    changed_.notify_all();
    if (!failed_ && store.listed() == 0) observer_.merge_finished();
}

void Merge::fail(std::string why) noexcept {
    if (failed_) return;
    if (!std::exchange(looking_, true)) {    // a store that was cut off is the cause of whatever failed
        snapshot_.look_at_store();
        looking_ = false;
        if (failed_) return;
    }
    failed_ = true;
    observer_.merge_failed(why);
    pump();    // no more pieces; the batch ends with those that are out
}

void Merge::store_failed(IoStatus status, const char* doing) noexcept {
    snapshot_.store().forgive();    // the next retry tries again
    fail(fmt::format("the COW device cannot {}: {}", doing, to_string(status)));
}

void Merge::store_cut_off(const std::string& why) noexcept {
    snapshot_.store().forgive();
    fail(why + ". What lay behind and was not merged yet is lost; only the file as it was, with its content, lets the merge go on");
}

// --- a batch --------------------------------------------------------------------------------------------------------

// How many exceptions: what may be blocked at a time. With a rate, a quarter of a second's.
std::uint64_t Merge::batch_size() const noexcept {
    std::uint64_t bytes = batch_bytes_;
    if (rate_ != 0) bytes = std::min(bytes, rate_ / 4);
    std::uint64_t entries = std::clamp<std::uint64_t>(bytes / snapshot_.chunk().bytes(), 1, kBatchEntries);
    if (env_.chaos.fires("merge.small_batch")) entries = std::min(entries, 1 + env_.random.below(4));
    if (env_.chaos.fires("merge.smallest_batch")) entries = 1;
    return std::min(entries, untaken_);
}

Job<IoStatus> Merge::take_batch(Batch* batch) {
    batch->end = untaken_;
    batch->first = untaken_ - batch_size();
    auto reading = snapshot_.store().read_listed(batch->first, batch->end, &batch->listed);
    if (const IoStatus status = co_await reading; status != IoStatus::ok) co_return status;
    for (const Listed& entry : batch->listed) {
        const auto run = snapshot_.table().find(entry.old_chunk);
        if (!run || run->new_first != entry.new_chunk) co_return IoStatus::invalid;
        if (snapshot_.chunk().start(entry.old_chunk).v >= snapshot_.origin().disk().limits().size.v) {
            fail(fmt::format("the store has origin chunk {}, and the origin ends before it: `udm cow repair --origin` drops what is beyond",
                             entry.old_chunk.v));
            co_return IoStatus::invalid;
        }
    }
    batch->sorted = batch->listed;
    if (!env_.chaos.keeps("merge.clears_only_what_was_copied") && batch->sorted.size() > 1) batch->sorted.erase(batch->sorted.begin());
    std::sort(batch->sorted.begin(), batch->sorted.end(), [](const Listed& a, const Listed& b) { return a.new_chunk < b.new_chunk; });
    batch->started = 0;
    batch->in_chunk = false;
    batch->offset = {};
    untaken_ = batch->first;
    co_return IoStatus::ok;
}

Job<void> Merge::commit(Batch* batch) {
    IoStatus status = IoStatus::ok;
    if (env_.chaos.keeps("merge.flush_origin_before_clearing")) {
        IoWait flush{env_.reactor, snapshot_.origin().disk(), Op::flush, Extent{}};
        status = co_await flush;
    }
    if (status != IoStatus::ok) {
        fail(fmt::format("the origin cannot be flushed: {}", to_string(status)));
    } else if (!failed_) {
        auto clearing = snapshot_.store().clear_listed(batch->first, &batch->listed);
        status = co_await clearing;
        if (status != IoStatus::ok) {
            fail(fmt::format("the exceptions cannot be cleared: {}", to_string(status)));
        } else {
            for (const Listed& entry : batch->listed) snapshot_.drop(entry.old_chunk, {1});
            bytes_merged_ += batch->listed.size() * snapshot_.chunk().bytes();
            const Nanoseconds now = env_.reactor.now();
            const Nanoseconds took = now - batch->begun;
            if (rate_ == 0 && took < kBatchTime / 2) batch_bytes_ = std::min(2 * batch_bytes_, kBatchBytesMax);
            if (rate_ == 0 && took > 2 * kBatchTime) batch_bytes_ = std::max(batch_bytes_ / 2, kBatchBytesMin);
            if (now - mark_time_ >= kSecond) {
                last_rate_ = (bytes_merged_ - mark_bytes_) * kSecond / (now - mark_time_);
                mark_time_ = now;
                mark_bytes_ = bytes_merged_;
            }
            batch->active = false;
            release_writes(false);
        }
    }
    committing_ = false;
    changed_.notify_all();
}

// --- copying --------------------------------------------------------------------------------------------------------

bool Merge::may_start() noexcept {
    if (!copying_ || copy_status_ != IoStatus::ok || failed_) return false;
    if (pieces_.out() >= kPieces || writes_out_ >= kWritesMax) return false;
    if (rate_ == 0 || stopping_) return true;
    const Nanoseconds now = env_.reactor.now();
    if (now >= next_start_) return true;
    env_.reactor.arm(pace_, next_start_);
    return false;
}

void Merge::pump() noexcept {
    while (may_start()) {
        Piece& piece = pieces_.take();
        piece.merge = this;
        if (!build_piece(piece)) {
            pieces_.give(piece);
            break;
        }
        if (rate_ != 0) {
            const Nanoseconds now = env_.reactor.now();
            next_start_ = std::max(next_start_, now) + to_bytes(piece.cow.length) * kSecond / rate_;
        }
        piece.pending = 1;
        for (Write& write : writes_) {
            if (!write.extent.overlaps(piece.cow) || !env_.chaos.keeps("merge.waits_for_writes")) continue;
            WriteWait& wait = write_waits_.take();
            wait.piece = &piece;
            write.waiters.push_back(wait);
            ++piece.pending;
        }
        piece_unblocked(piece);
    }
    if (copying_ && pieces_.out() == 0) {
        Batch& batch = *copying_;
        const bool all = batch.started == batch.sorted.size() && !batch.in_chunk;
        if (all || copy_status_ != IoStatus::ok || failed_) {
            copying_ = nullptr;
            changed_.notify_all();
        }
    }
}

// What comes next on the COW device, as long as it lies side by side there. False: there is nothing more.
bool Merge::build_piece(Piece& piece) noexcept {
    Batch& batch = *copying_;
    const ChunkSize chunk = snapshot_.chunk();
    Sectors most = kPieceMax;
    for (Disk* disk : {&snapshot_.origin().disk(), &snapshot_.cow().disk()}) {
        if (const Sectors limit = disk->limits().max_transfer) most = std::min(most, limit);
    }
    if (env_.chaos.fires("merge.short_piece")) most = std::min(most, chunk.sectors());
    while (batch.in_chunk || batch.started < batch.sorted.size()) {
        if (!batch.in_chunk) {
            ++batch.started;
            batch.in_chunk = true;
            batch.offset = {};
        }
        const Listed& entry = batch.sorted[batch.started - 1];
        const Extent whole = snapshot_.origin_extent(entry.old_chunk, {1});
        const Extent to{whole.first + batch.offset, std::min(whole.length - batch.offset, most - piece.cow.length)};
        const Sector from = chunk.start(entry.new_chunk) + batch.offset;
        const bool first = piece.run_count == 0;
        if (!first && from != piece.cow.end()) {
            if (!batch.offset) {    // it begins the next piece
                --batch.started;
                batch.in_chunk = false;
            }
            break;
        }
        if (first) piece.cow.first = from;
        if (!first && piece.runs[piece.run_count - 1].end() == to.first) {
            piece.runs[piece.run_count - 1].length += to.length;
        } else {
            piece.runs[piece.run_count++] = to;
        }
        piece.cow.length += to.length;
        batch.offset += to.length;
        if (batch.offset == whole.length) batch.in_chunk = false;
        if (piece.cow.length == most || piece.run_count == kRuns) break;
    }
    return piece.run_count != 0;
}

void Merge::WriteWait::woken(IoStatus) noexcept {
    Piece& waiting = *piece;
    waiting.merge->write_waits_.give(*this);
    waiting.merge->piece_unblocked(waiting);
}

void Merge::piece_unblocked(Piece& piece) noexcept {
    if (--piece.pending != 0) return;
    Reactor& reactor = env_.reactor;
    piece.buffer_bytes = static_cast<std::size_t>(to_bytes(piece.cow.length));
    piece.buffer = reactor.buffers().take(piece.buffer_bytes);
    Io& io = reactor.take_io();
    io.op = Op::read;
    io.extent = piece.cow;
    io.flags.sequential = true;
    io.set_memory(piece.buffer, piece.buffer_bytes);
    io.push(*this, static_cast<std::uint64_t>(Kind::read), reinterpret_cast<std::uintptr_t>(&piece));
    snapshot_.cow().disk().submit(io);
}

void Merge::on_complete(Io& io, Frame& frame) noexcept {
    const IoStatus status = io.status;
    Piece& piece = *reinterpret_cast<Piece*>(frame.b);
    env_.reactor.give_io(io);
    if (static_cast<Kind>(frame.a) == Kind::read) {
        piece_read(piece, status);
    } else {
        --writes_out_;
        run_written(piece, status);
    }
}

void Merge::piece_read(Piece& piece, IoStatus status) noexcept {
    if (status != IoStatus::ok) {
        if (copy_status_ == IoStatus::ok) copy_doing_ = "the COW device cannot be read";
        copy_status_ = first_error(copy_status_, status);
    }
    piece.pending = 1;
    std::byte* from = piece.buffer;
    Disk& origin = snapshot_.origin().disk();
    for (unsigned i = 0; i < piece.run_count && copy_status_ == IoStatus::ok; ++i) {
        Io& io = env_.reactor.take_io();
        io.op = Op::write;
        io.extent = piece.runs[i];
        io.set_memory(from, to_bytes(io.extent.length));
        from += to_bytes(io.extent.length);
        ++piece.pending;
        ++writes_out_;
        io.push(*this, static_cast<std::uint64_t>(Kind::write), reinterpret_cast<std::uintptr_t>(&piece));
        if (!env_.chaos.keeps("merge.exceptions_of_others_first")) {
            origin.submit(io);
        } else if (Disk* disk = snapshot_.group().route(io, origin, origin_layer_)) {
            disk->submit(io);
        }
    }
    run_written(piece, IoStatus::ok);
}

void Merge::run_written(Piece& piece, IoStatus status) noexcept {
    if (status != IoStatus::ok) {
        if (copy_status_ == IoStatus::ok) copy_doing_ = "the origin cannot be written";
        copy_status_ = first_error(copy_status_, status);
    }
    if (--piece.pending == 0) end_piece(piece);
}

void Merge::end_piece(Piece& piece) noexcept {
    env_.reactor.buffers().give(piece.buffer, piece.buffer_bytes);
    pieces_.give(piece);
    pump();
}

// --- writes of clients ----------------------------------------------------------------------------------------------

unsigned Merge::blocking(Chunk cow_chunk) const noexcept {
    for (unsigned i = 0; i < batches_.size(); ++i) {
        const Batch& batch = batches_[i];
        if (!batch.active) continue;
        const auto begin = batch.sorted.begin(), end = begin + static_cast<std::ptrdiff_t>(batch.started);
        const auto at = std::lower_bound(begin, end, cow_chunk, [](const Listed& e, Chunk c) { return e.new_chunk < c; });
        if (at != end && at->new_chunk == cow_chunk) return i + 1;
    }
    return 0;
}

void Merge::release_writes(bool failed) noexcept {
    List<Io> queued;
    queued.take_all(queued_);
    while (Io* io = queued.pop_front_or_null()) observer_.merge_released(*io, failed);
}

Merge::Write& Merge::track(Extent cow_extent) noexcept {
    Write& write = tracked_.take();
    write.extent = cow_extent;
    writes_.push_back(write);
    return write;
}

void Merge::untrack(Write& write) noexcept {
    write.unlink();
    List<Waiter> waiters;
    waiters.take_all(write.waiters);
    tracked_.give(write);
    while (Waiter* waiter = waiters.pop_front_or_null()) waiter->woken(IoStatus::ok);
}

}  // namespace udm::snapshot
