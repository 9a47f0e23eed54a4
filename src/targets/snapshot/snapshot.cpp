#include "targets/snapshot/snapshot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "core/target_args.hpp"
#include "targets/snapshot/copy_job.hpp"
#include "targets/snapshot/origin_group.hpp"
#include "targets/snapshot/persistent_store.hpp"
#include "targets/snapshot/transient_store.hpp"

namespace udm::snapshot {

Snapshot::Snapshot(Env& env, OriginGroup& group, Config config, LostStores* lost_stores)
    : env_{env}, group_{group}, config_{std::move(config)}, lost_stores_{lost_stores},
      block_{whole_sectors(std::max(config_.origin->disk().limits().logical_block, config_.cow->disk().limits().logical_block))},
      gather_{env.reactor, config_.cow->disk()}, idle_signal_{env.reactor}, recorded_signal_{env.reactor} {
    const Sectors chunk = config_.chunk ? config_.chunk : std::max(Sectors{32}, block_);
    const ChunkSize size = ChunkSize::of_sectors(static_cast<std::uint32_t>(chunk.v));
    if (config_.persistent) {
        store_ = std::make_unique<PersistentStore>(env, config_.cow->disk(), size, block_, config_.cow->words());
    } else {
        store_ = std::make_unique<TransientStore>(env.reactor, config_.cow->disk(), size);
    }
}

Snapshot::~Snapshot() = default;

Job<Result<void>> Snapshot::load() {
    auto loading = store_->load(&table_);
    auto found = co_await loading;
    if (!found) co_return fail(found);
    if (auto good = fits_extent(config_.extent); !good) co_return fail(good);
    bool lost = lost_stores_ && config_.persistent && lost_stores_->is_lost(config_.cow->id());
    if (lost && *found == Store::Found::nothing) {
        // What must never be trusted again are the exceptions that were here. Somebody has wiped them, durably by now,
        // and the same device or inode has a store that never missed a write.
        lost_stores_->forget(config_.cow->id());
        lost = false;
    }
    if (lost && *found == Store::Found::valid) {
        // The store could not be told so when it was lost; now it can.
        auto marking = store_->invalidate();
        const IoStatus marked = co_await marking;
        if (marked == IoStatus::ok) lost_stores_->forget(config_.cow->id());
    }
    if (lost || *found == Store::Found::invalid) {
        valid_ = false;
        marked_invalid_ = true;
        why_invalid_ = lost ? "it was lost before" : "the store says so";
    }
    co_return Result<void>{};
}

Result<void> Snapshot::fits_extent(Extent extent) const {
    const std::uint64_t sectors = chunk().sectors().v;
    if (extent.first.v % sectors != 0) {
        return fail(Errc::bad_argument, fmt::format("the target starts at sector {}, which is no multiple of the chunk size {}",
                                                    extent.first.v, sectors));
    }
    if (const Chunk last = chunk().of(extent.end() - Sectors{1}); last.v > ExceptionTable::kChunkMax) {
        return fail(Errc::too_large, fmt::format("{} sectors are more than {} chunks of {} sectors, which is all that can be counted",
                                                 extent.length.v, ExceptionTable::kChunkMax + 1, sectors));
    }
    return {};
}

Snapshot::Config Snapshot::adopt(Config next) noexcept {
    ASSERT(idle() && held_);
    next.persistent = config_.persistent;    // that is the store's
    std::swap(config_, next);
    Disk& cow = config_.cow->disk();
    cow.refresh();    // growing it is what a reload is often for
    block_ = whole_sectors(std::max(config_.origin->disk().limits().logical_block, cow.limits().logical_block));
    store_->move_to(cow);
    gather_.move_to(cow);
    return next;
}

void Snapshot::release() noexcept {
    if (!held_) return;
    held_ = false;
    List<Waiter> waiters;
    waiters.take_all(release_waiters_);
    while (Waiter* waiter = waiters.pop_front_or_null()) waiter->woken(IoStatus::ok);
}

void Snapshot::start() noexcept {
    store_->start(*this);
    store_size_ = config_.cow->disk().limits().size;
    fullness_.settle();
}

Job<void> Snapshot::finish() {
    do {
        while (!idle()) {
            auto wait = idle_signal_.wait();
            co_await wait;
        }
        auto stopping = store_->stop();
        co_await stopping;
    } while (!idle());    // its last commit may have failed, and then the store is being marked
}

// co_await of a sync of a store.
class SyncWait final : Waiter {
  public:
    explicit SyncWait(Store& store) noexcept : store_{store} {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) noexcept {
        awaiting_ = awaiting;
        store_.sync(*this);
    }
    IoStatus await_resume() const noexcept { return status_; }

  private:
    void woken(IoStatus status) noexcept override {
        status_ = status;
        awaiting_.resume();
    }
    Store& store_;
    std::coroutine_handle<> awaiting_;
    IoStatus status_{IoStatus::ok};
};

Job<IoStatus> Snapshot::commit() {
    if (!valid_) co_return IoStatus::ok;
    if (merge_ && !store_->any_volatile()) co_return IoStatus::ok;    // its own flush goes to the COW device
    SyncWait wait{*store_};
    co_return co_await wait;
}

// --- places ---------------------------------------------------------------------------------------------------------

bool Snapshot::covers(Extent extent, Chunk& first, Chunks& count) const noexcept {
    const Sector begin = std::max(extent.first, config_.extent.first);
    const Sector end = std::min(extent.end(), config_.extent.end());
    if (begin >= end) return false;
    first = chunk().of(begin);
    count = chunk().of(end - Sectors{1}) - first + Chunks{1};
    return true;
}

Extent Snapshot::origin_extent(Chunk first, Chunks count) const noexcept {
    Extent extent = chunk().extent(first, count);
    // Of an origin that has shrunk below the snapshot's end nothing is left out: reading there fails, and so it shall.
    const Sector end_of_origin = std::max(Sector{config_.origin->disk().limits().size.v}, config_.extent.end());
    if (extent.end() <= end_of_origin) return extent;
    extent.length = end_of_origin - extent.first;
    // A store's device may have the larger blocks. What is left of the origin's last one no snapshot reaches.
    if (extent.length > block_) extent.length.v -= extent.length.v % block_.v;
    return extent;
}

std::vector<Snapshot::InCopy>::const_iterator Snapshot::in_copy_after(Chunk chunk) const noexcept {
    return std::upper_bound(parts_.begin(), parts_.end(), chunk, [](Chunk c, const InCopy& p) { return c < p.first; });
}

Part* Snapshot::part_with(Chunk chunk) const noexcept {
    const auto after = in_copy_after(chunk);
    return after != parts_.begin() && chunk < after[-1].end ? after[-1].part : nullptr;
}

Chunk Snapshot::next_in_copy(Chunk chunk, Chunk end) const noexcept {
    const auto after = in_copy_after(chunk);
    return after != parts_.end() && after->first < end ? after->first : end;
}

void Snapshot::add_part(Part& part) {
    const auto place = in_copy_after(part.first);
    ASSERT(place == parts_.begin() || place[-1].end <= part.first);
    parts_.insert(place, {part.first, part.first + part.count, &part});
}

void Snapshot::remove_part(Part& part) noexcept {
    const auto found = in_copy_after(part.first) - 1;
    ASSERT(found->part == &part);
    parts_.erase(found);
    became_idle();
}

void Snapshot::publish(const Part& part) {
    table_.insert({part.first, part.cow_first, part.count});
    store_->publish(part.first, part.cow_first, part.count);
    if (table_.wants_reserve() && !reserve_task_.linked()) env_.reactor.post(reserve_task_);
}

bool Snapshot::covers_whole(const Io& io, Chunk chunk) const noexcept { return io.extent.contains(origin_extent(chunk, {1})); }

Sectors Snapshot::fits(const Io& io) const noexcept {
    const ChunkSize size = chunk();
    const Chunk first = size.of(io.extent.first);
    const Chunk end = size.of(io.extent.end() - Sectors{1}) + Chunks{1};
    if (end - first == Chunks{1}) return io.extent.length;

    const auto until = [&](Chunk chunk_end) {
        return chunk_end >= end ? io.extent.length : size.start(chunk_end) - io.extent.first;
    };
    // Whole chunks become zeroes, and for that they have to come by themselves.
    if (io.op == Op::discard && !covers_whole(io, first)) return until(first + Chunks{1});
    if (const auto run = table_.find(first)) return until(first + run->count);
    const auto mapped = table_.next_mapped(first);
    Chunk plain_end = mapped ? std::min(*mapped, end) : end;
    if (io.op == Op::read || io.op == Op::extent_status || io.op == Op::discard) return until(plain_end);
    // A first write: as many whole chunks as there are, or what it has of one.
    plain_end = next_in_copy(first, plain_end);
    if (part_with(first) || !covers_whole(io, first)) return until(first + Chunks{1});
    static constexpr std::uint64_t kBytesMax = 512 * 1024;
    plain_end = std::min(plain_end, first + Chunks{std::max<std::uint64_t>(1, kBytesMax / size.bytes())});
    if (plain_end == end && !covers_whole(io, end - Chunks{1})) plain_end = end - Chunks{1};
    // What no longer fits is written chunk by chunk, as far as it does: the kernel's answer, too.
    if (plain_end > first + store_->left()) plain_end = first + Chunks{1};
    return until(std::max(plain_end, first + Chunks{1}));
}

// --- requests -------------------------------------------------------------------------------------------------------

Disk* Snapshot::route(Io& io) noexcept {
    if (!valid_) {
        if (io.op == Op::extent_status && io.answer.place) io.answer.place->explain("the snapshot is invalid: " + why_invalid_);
        fail_later(io, IoStatus::io_error);
        return nullptr;
    }
    switch (io.op) {
        case Op::read:
        case Op::extent_status: return route_read(io);
        case Op::flush: flush(io); return nullptr;
        case Op::discard: return route_discard(io);
        case Op::write:
        case Op::write_zeroes: return route_write(io);
    }
    UNREACHABLE();
}

Disk* Snapshot::to_cow(Io& io, Chunk cow_first) noexcept {
    io.extent.first = chunk().start(cow_first) + chunk().offset(io.extent.first);
    return &config_.cow->disk();
}

Disk* Snapshot::route_read(Io& io) noexcept {
    if (overflowed_ && io.op == Op::extent_status && io.answer.place) {
        // It can be read, but it isn't what its users wrote: whoever asks what they changed must know.
        io.answer.place->explain("the snapshot overflowed: its store was full, and a write to it was refused");
        fail_later(io, IoStatus::io_error);
        return nullptr;
    }
    if (const auto run = table_.find(chunk().of(io.extent.first))) return to_cow(io, run->new_first);
    // Questions, too: the answer must not be about what the origin has afterwards.
    TrackedRead* read = nullptr;
    group_.track(io, read);
    io.push(*layer_, static_cast<std::uint64_t>(Wait::tracked_read), reinterpret_cast<std::uintptr_t>(read));
    return &config_.origin->disk();
}

void Snapshot::flush(Io& io) noexcept { store_->sync(queue(io, false)); }

Disk* Snapshot::route_discard(Io& io) noexcept {
    // Passed down as it is. Not past the other snapshots, where the kernel's goes (decision 9).
    if (io.copy == 1) return group_.route(io, config_.origin->disk(), *layer_, this);
    const auto run = table_.find(chunk().of(io.extent.first));
    if (!run) {
        env_.reactor.complete_later(io, IoStatus::ok);
        return nullptr;
    }
    // A chunk that is covered whole reads as zeroes afterwards; space is given back where the store's device can. It is
    // a hint: a device that can neither is left alone.
    const Limits& cow = config_.cow->disk().limits();
    if (cow.write_zeroes && covers_whole(io, chunk().of(io.extent.first))) {
        io.op = Op::write_zeroes;    // core puts it back
    } else if (!cow.discard) {
        env_.reactor.complete_later(io, IoStatus::ok);
        return nullptr;
    }
    return to_cow(io, run->new_first);
}

Disk* Snapshot::route_write(Io& io) noexcept {
    const Chunk first = chunk().of(io.extent.first);
    if (const auto run = table_.find(first)) {
        if (io.flags.fua) io.push(*layer_, static_cast<std::uint64_t>(Wait::fua));
        return to_cow(io, run->new_first);
    }
    if (Part* part = part_with(first)) {
        part->wait(queue(io, true));
        return nullptr;
    }
    return start_exception(io, first);
}

Disk* Snapshot::start_exception(Io& io, Chunk first) noexcept {
    if (io.op == Op::write_zeroes && io.flags.fast_only) {
        fail_later(io, IoStatus::unsupported);
        return nullptr;
    }
    if (overflowed_ && try_again_ > env_.reactor.now()) {
        fail_later(io, IoStatus::no_space);
        return nullptr;
    }
    const Chunks wanted = chunk().of(io.extent.end() - Sectors{1}) - first + Chunks{1};
    const bool whole = covers_whole(io, first);
    ASSERT(whole || wanted == Chunks{1});
    CopyJob::Data data = CopyJob::Data::origin_patched;
    if (whole) data = io.op == Op::write ? CopyJob::Data::request : CopyJob::Data::zeroes;

    CopyJob* job = nullptr;
    for (Chunks done{}; done < wanted;) {
        const Store::Allocation given = allocate(wanted - done);
        if (!given.count) break;
        if (overflowed_ && try_again_ == 0) end_overflow();    // it has grown
        Part& part = group_.new_part();
        part.snapshot = this;
        part.first = first + done;
        part.count = given.count;
        part.cow_first = given.first;
        if (!job) job = &group_.new_job(config_.origin->disk(), data, &io);
        job->add(part);
        done += given.count;
        if (done < wanted) continue;
        group_.copies().start(*job);
        return nullptr;
    }
    // Full. Unless the device has just shrunk, the request is of one chunk (see fits()) and nothing was allocated.
    QueuedIo& waiting = queue(io, true);
    if (fullness_.wait_for_space(waiting)) {
        if (job) job->cancel();
        return nullptr;
    }
    waits_.give(waiting);
    const bool overflows = config_.persistent && config_.overflow_supported && valid_;
    if (overflows) {
        overflow("the COW device is full", 0);
    } else {
        invalidate("the COW device is full");
    }
    if (job) job->cancel();
    fail_later(io, overflows ? IoStatus::no_space : IoStatus::io_error);
    return nullptr;
}

void Snapshot::overflow(const char* why, Nanoseconds try_again) noexcept {
    try_again_ = try_again;
    if (std::exchange(overflowed_, true)) return;
    raise(fmt::format("snapshot overflow: {}; all that was written is kept, and what needs more room fails until there is some: make {} larger, "
                      "or free space below it", why, config_.cow->words()));
}

void Snapshot::end_overflow() noexcept {
    overflowed_ = false;
    raise("snapshot overflow ended: there is room again");
}

// The copies of a write to the origin cannot be refused.
bool Snapshot::overflows_below(IoStatus status) noexcept {
    static constexpr Nanoseconds kRest = kSecond;    // every try is a write that fails, and a chunk that is given back
    if (status != IoStatus::no_space || !config_.persistent || !config_.overflow_supported || !valid_) return false;
    overflow("what is below the COW device is full", env_.reactor.now() + kRest);
    return true;
}

void Snapshot::finish_write(Io& io, IoStatus status) noexcept {
    if (status == IoStatus::ok && !valid_) status = IoStatus::io_error;
    if (status == IoStatus::ok && io.flags.fua) {
        store_->sync(queue(io, false));
        return;
    }
    io.complete(status);
}

Snapshot::QueuedIo& Snapshot::queue(Io& io, bool route_again) noexcept {
    QueuedIo& queued = waits_.take();
    queued.snapshot = this;
    queued.io = &io;
    queued.route_again = route_again;
    queued.of_snapshot = true;
    return queued;
}

void Snapshot::QueuedIo::woken(IoStatus woken_status) noexcept {
    Snapshot& self = *snapshot;
    Io& request = *io;
    const bool again = route_again;
    IoStatus result = first_error(status, woken_status);
    // What was to be durable is lost with the snapshot, wherever it lies now.
    if (result == IoStatus::ok && !self.valid_) result = IoStatus::io_error;
    self.waits_.give(*this);
    if (again) {
        if (Disk* disk = self.route(request)) disk->submit(request);
        self.became_idle();
    } else {
        // Before it ends: whoever waited for it may remove the device there and then, and the snapshot with it.
        self.became_idle();
        request.complete(result);
    }
}

void Snapshot::on_complete(Io& io, Frame& frame) noexcept {
    switch (static_cast<Wait>(frame.a)) {
        case Wait::origin_write:
            group_.write_done();
            io.complete(io.status);
            return;
        case Wait::tracked_read:
            group_.untrack(*reinterpret_cast<TrackedRead*>(frame.b));
            io.complete(io.status);
            return;
        case Wait::fua: end_fua_write(io); return;
    }
    UNREACHABLE();
}

// The data is durable; the exception that leads to it must be, too.
void Snapshot::end_fua_write(Io& io) noexcept {
    IoStatus status = io.status;
    if (status == IoStatus::ok && !valid_) status = IoStatus::io_error;    // as a first write
    if (status == IoStatus::ok) {
        QueuedIo& queued = queue(io, false);
        if (store_->when_durable(queued)) return;
        waits_.give(queued);
    }
    io.complete(status);
}

// A write may have made a file longer again since it was cut off: then it ends with what is allocated, and somewhere below are
// zeroes for data. One that ends behind all that is allocated was cut off there, and has only lost room.
bool Snapshot::look_at_store() noexcept {
    Disk& cow = config_.cow->disk();
    cow.refresh();    // it may also have grown
    const Sectors now = cow.limits().size;
    const bool shrunk = now < store_size_;
    if (!shrunk || now > store_->usage().allocated) {
        store_size_ = now;
        return false;
    }
    if (!valid_) return true;
    store_cut_off(fmt::format("{} was cut off from outside: it has {} bytes, and had {}", config_.cow->words(), to_bytes(now), to_bytes(store_size_)));
    return true;
}

void Snapshot::store_cut_off(const std::string& why) noexcept {
    if (!merge_) return invalidate(why);
    if (store_->listed() != 0) merge_->store_cut_off(why);
}

// --- the end of a snapshot ------------------------------------------------------------------------------------------

void Snapshot::store_failed(IoStatus status, const char* doing) noexcept {
    if (merge_) {
        merge_->store_failed(status, doing);
        return;
    }
    invalidate(fmt::format("the COW device cannot {}: {}", doing, to_string(status)));
}

void Snapshot::invalidate(std::string why, bool outrun) noexcept {
    if (!valid_) return;
    valid_ = false;
    outrun_ = outrun;
    why_invalid_ = std::move(why);
    if (events_) events_->raise(EventKind::target, "snapshot invalid: " + why_invalid_);
    marking_ = true;
    group_.copies().look_again();    // copies that wait for it needn't
    env_.reactor.jobs().spawn(mark_invalid());
}

Job<void> Snapshot::mark_invalid() {
    auto marking = store_->invalidate();
    const IoStatus marked = co_await marking;
    if (marked != IoStatus::ok && lost_stores_) {
        lost_stores_->record(config_.cow->id(), config_.cow->words(), *this);
        while (!recorded_) {
            auto wait = recorded_signal_.wait();
            co_await wait;
        }
    }
    marked_invalid_ = true;
    keeps_useless_ = marked == IoStatus::ok && outrun_;
    marking_ = false;
    List<Waiter> waiters;
    waiters.take_all(invalid_waiters_);
    while (Waiter* waiter = waiters.pop_front_or_null()) waiter->woken(IoStatus::ok);
    became_idle();
}

Job<void> Snapshot::give_space_back() {
    if (!std::exchange(keeps_useless_, false)) co_return;
    auto giving = store_->give_space_back();
    co_await giving;
}

void Snapshot::recorded(IoStatus) noexcept {
    recorded_ = true;
    recorded_signal_.notify_all();
}

bool Snapshot::when_marked_invalid(Waiter& waiter) noexcept {
    if (marked_invalid_) return false;
    invalid_waiters_.push_back(waiter);
    return true;
}

// --- words ----------------------------------------------------------------------------------------------------------

std::string Snapshot::status() const {
    if (!valid_) return "Invalid";
    if (overflowed_) return "Overflow";
    const Store::Usage usage = store_->usage();
    return fmt::format("{}/{} {}", usage.allocated.v, usage.total.v, usage.metadata.v);
}

std::string Snapshot::trouble() const {
    if (!valid_) return why_invalid_;
    return overflowed_ ? "its store was full, and a write to it was refused" : "";
}

std::string Snapshot::words_of(const Config& config, Sectors chunk) {
    std::string words = fmt::format("{} {} {} {}", device_words(*config.origin), device_words(*config.cow),
                                    !config.persistent ? "N" : config.overflow_supported ? "PO" : "P", chunk.v);
    if (config.discard_zeroes_cow) {
        words += config.discard_passdown ? " 2 discard_zeroes_cow discard_passdown_origin" : " 1 discard_zeroes_cow";
    }
    return words;
}

}  // namespace udm::snapshot
