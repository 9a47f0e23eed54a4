// One snapshot: its store, its table of exceptions, and what is under way for it. The target of a table line
// (snapshot_target.*) holds it; the origin's group (origin_group.*) calls it for each write to the origin.
//
// Life of a chunk:
//   none ──► in copy ──► published, volatile ──► durable
// "in copy" has a Part (copy_job.hpp) in parts_; reads still go to the origin. Published: reads and writes go to the COW
// device. A write to the origin waits for "durable"; a write to the snapshot for "published" (decision 2).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "core/target.hpp"
#include "port/disk.hpp"
#include "services/write_gather.hpp"
#include "targets/snapshot/copies.hpp"
#include "targets/snapshot/exception_table.hpp"
#include "targets/snapshot/fullness.hpp"
#include "targets/snapshot/store.hpp"

namespace udm::snapshot {

class CopyJob;
class OriginGroup;
struct Part;

// A read of a snapshot that goes to the origin. A write to the origin waits for those it overlaps.
struct TrackedRead : ListHook {
    Extent extent;
    List<Waiter> waiters;
};

class Snapshot final : Store::Failure, LostStores::Recorded {
  public:
    struct Config {
        std::unique_ptr<OpenDevice> origin;
        std::unique_ptr<OpenDevice> cow;
        Extent extent;                    // of the target, in sectors of device and origin
        bool persistent = true;
        bool overflow_supported = false;  // PO
        bool discard_zeroes_cow = false;
        bool discard_passdown = false;
        Sectors chunk{};                  // the table's wish; 0: the default
    };

    Snapshot(Env& env, OriginGroup& group, Config config, LostStores* lost_stores);
    ~Snapshot();

    // Makes or reads the store.
    Job<Result<void>> load();
    void start() noexcept;
    // Nothing can come any more: waits for what is under way, and stops the store.
    Job<void> finish();
    // Everything written so far is durable. The status is the store's.
    Job<IoStatus> commit();

    // --- from one target to another (store_target.hpp) --------------------------------------------------------------
    // Until release(), writes to the origin that the snapshot has a say in wait before they start anything for it.
    void hold() noexcept { held_ = true; }
    void release() noexcept;
    bool held() const noexcept { return held_; }
    void wait_for_release(Waiter& waiter) noexcept { release_waiters_.push_back(waiter); }
    // After finish(): goes on with the devices and words of another table. Returns what it had.
    Config adopt(Config next) noexcept;
    // While it is merged, failures of the store are the merge's, and do not make the snapshot invalid; null: no longer.
    void set_merge(Store::Failure* merge) noexcept { merge_ = merge; }
    // Exceptions that the origin has now.
    void drop(Chunk first, Chunks count) { table_.remove(first, count); }
    // All of it is in the origin: there is room again.
    void all_merged() noexcept { overflowed_ = false; }
    // A flush of the store; and the end of a FUA write that went to the COW device.
    void flush(Io& io) noexcept;
    void end_fua_write(Io& io) noexcept;
    // Whether a target may lie there, by the store's chunk size.
    Result<void> fits_extent(Extent extent) const;

    // --- requests to the snapshot -----------------------------------------------------------------------------------
    Sectors fits(const Io& io) const noexcept;
    // Where the request goes (remapped), or null: taken.
    Disk* route(Io& io) noexcept;
    void on_complete(Io& io, Frame& frame) noexcept;
    void expect(Sector at) const noexcept { table_.prefetch(chunk().of(at)); }
    void set_layer(Layer* layer) noexcept { layer_ = layer; }

    // --- for the group and its copies -------------------------------------------------------------------------------
    bool valid() const noexcept { return valid_; }
    // Wakes `waiter` once the mark "invalid" is durable; false when it is.
    bool when_marked_invalid(Waiter& waiter) noexcept;
    // Once, when the store is known as invalid by its own mark; nothing of a client is under way.
    Job<void> give_space_back();
    // `outrun`: the origin is going to change, and what the store holds is then half of an image that nobody can have. Else it is
    // kept, for it may be all that there is of what was written to the snapshot.
    void invalidate(std::string why, bool outrun = false) noexcept;
    // A write to the snapshot found no room below the COW device. True: that is an overflow, and only that write fails.
    bool overflows_below(IoStatus status) noexcept;
    // Asks the system how large the COW device is. True: it was cut off where something is kept, and that is lost.
    bool look_at_store() noexcept;
    ChunkSize chunk() const noexcept { return store_->chunk_size(); }
    // The part of `extent` that is the snapshot's concern, as chunks.
    bool covers(Extent extent, Chunk& first, Chunks& count) const noexcept;
    // A chunk's sectors, clipped at the origin's end (to whole blocks of the store's device).
    Extent origin_extent(Chunk first, Chunks count) const noexcept;
    Part* part_with(Chunk chunk) const noexcept;
    // The first chunk after `chunk` that is in copy, or `end`.
    Chunk next_in_copy(Chunk chunk, Chunk end) const noexcept;
    void add_part(Part& part);
    void remove_part(Part& part) noexcept;
    void publish(const Part& part);
    // A write to the snapshot has made an exception: there is room below the COW device.
    void found_room() noexcept {
        if (overflowed_ && try_again_ != 0 && env_.reactor.now() >= try_again_) end_overflow();
    }
    void finish_write(Io& io, IoStatus status) noexcept;

    Store& store() noexcept { return *store_; }
    const ExceptionTable& table() const noexcept { return table_; }
    WriteGather& gather() noexcept { return gather_; }
    StoreAccount& account() noexcept { return account_; }
    OpenDevice& origin() noexcept { return *config_.origin; }
    OpenDevice& cow() noexcept { return *config_.cow; }
    const Config& config() const noexcept { return config_; }
    OriginGroup& group() noexcept { return group_; }
    void set_events(DeviceEvents* events) noexcept { events_ = events; }
    bool active = false;    // in the group's list: writes to the origin make exceptions

    Fullness& fullness() noexcept { return fullness_; }
    // Of the store, with a look at how full it is.
    Store::Allocation allocate(Chunks wanted) noexcept {
        const Store::Allocation given = store_->allocate(wanted);
        fullness_.allocated();
        return given;
    }
    void raise(const std::string& what, EventKind kind = EventKind::target) noexcept {
        if (events_) events_->raise(kind, what);
    }
    void became_idle() noexcept {
        if (idle()) idle_signal_.notify_all();
    }

    std::string status() const;
    std::string trouble() const;    // why it is invalid, or overflowed; else empty
    std::string table_words() const { return words_of(config_, chunk().sectors()); }
    static std::string words_of(const Config& config, Sectors chunk);

  private:
    bool idle() const noexcept { return parts_.empty() && waits_.out() == 0 && !marking_ && !fullness_.growing(); }
    enum class Wait : std::uint64_t { origin_write = 0, tracked_read, fua };    // of our frames; OriginGroup pushes 0
    // A request that waits: for a copy of its chunk, then it is routed again; or for a commit, then it ends.
    struct QueuedIo final : Waiter {
        Snapshot* snapshot = nullptr;
        Io* io = nullptr;
        bool route_again = false;
        IoStatus status{IoStatus::ok};
        void woken(IoStatus status) noexcept override;
    };

    Disk* route_read(Io& io) noexcept;
    Disk* route_write(Io& io) noexcept;
    Disk* route_discard(Io& io) noexcept;
    Disk* to_cow(Io& io, Chunk cow_first) noexcept;
    Disk* start_exception(Io& io, Chunk chunk) noexcept;
    bool covers_whole(const Io& io, Chunk chunk) const noexcept;
    void fail_later(Io& io, IoStatus status) noexcept { env_.reactor.complete_later(io, status); }
    QueuedIo& queue(Io& io, bool route_again) noexcept;
    void store_failed(IoStatus status, const char* doing) noexcept override;
    void store_cut_off(const std::string& why) noexcept override;
    bool store_full() noexcept override { return !merge_ && overflows_below(IoStatus::no_space); }
    void overflow(const char* why, Nanoseconds try_again) noexcept;
    void end_overflow() noexcept;
    void recorded(IoStatus status) noexcept override;
    Job<void> mark_invalid();

    class ReserveTask final : public Task {
      public:
        explicit ReserveTask(ExceptionTable& table) noexcept : table_{table} {}
        ~ReserveTask() {
            if (linked() && !Abandoning::now()) unlink();
        }
        void run() noexcept override { table_.reserve(); }

      private:
        ExceptionTable& table_;
    };

    Env& env_;
    OriginGroup& group_;
    Config config_;
    LostStores* lost_stores_;
    Sectors store_size_{};      // of the COW device, the largest there was
    Sectors block_;             // the larger logical block of origin and store
    DeviceEvents* events_ = nullptr;
    Layer* layer_ = nullptr;    // the target: frames of requests name it
    std::unique_ptr<Store> store_;
    ExceptionTable table_;
    ReserveTask reserve_task_{table_};
    WriteGather gather_;
    StoreAccount account_;
    Fullness fullness_{env_, *this};
    // In copy, by chunk: in one place in memory, since every request looks.
    struct InCopy {
        Chunk first, end;
        Part* part;
    };
    std::vector<InCopy>::const_iterator in_copy_after(Chunk chunk) const noexcept;    // the first that begins behind it
    std::vector<InCopy> parts_;
    Pool<QueuedIo> waits_{16};
    bool valid_ = true;
    bool overflowed_ = false;
    Nanoseconds try_again_ = 0;     // overflowed for want of room below the device: no new exception before; 0: the device is full
    bool marked_invalid_ = false;
    bool outrun_ = false;           // invalid because of the origin's writes
    bool keeps_useless_ = false;    // what the store holds is of no use any more, and may be given back
    bool marking_ = false;
    std::string why_invalid_;
    List<Waiter> invalid_waiters_;
    bool held_ = false;
    Store::Failure* merge_ = nullptr;
    List<Waiter> release_waiters_;
    Signal idle_signal_;
    Signal recorded_signal_;
    bool recorded_ = false;
};

}  // namespace udm::snapshot
