// A merge at work: chunks go from the COW device back to the origin, and their exceptions off the list, from its end.
//
// It takes the list's last exceptions as a batch (of 1 to 16 MiB, as much as takes about a tenth of a second: so long may a
// write wait), and for each batch:
//   1. reads their chunks from the COW device, sorted as they lie there, in pieces of 512 KiB, many at once, and writes
//      them to the origin, consecutive chunks in one request, as any write to the origin goes: when the other
//      snapshots have their exceptions, and no read of theirs is out over these sectors;
//   2. flushes the origin;
//   3. clears the exceptions in the store, durably, with one commit;
//   4. drops them from memory, and lets go the writes that waited.
// While one batch is at 2 and 3 the next one is copied. A write to a chunk waits from the moment its copy begins until 4;
// a copy begins when the writes to the chunk that are out have ended. Reads go to the COW device until 4.
//
// A failure ends the merge where it is: nothing is lost, since the exceptions of the batch are still there.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "targets/snapshot/origin_group.hpp"
#include "targets/snapshot/snapshot.hpp"

namespace udm::snapshot {

class Merge final : public Store::Failure, Layer {
  public:
    class Observer {
      public:
        // The merge goes no further.
        virtual void merge_failed(const std::string& why) noexcept = 0;
        virtual void merge_finished() noexcept = 0;
        // A write that waited for a chunk may go on, by the way it now has; or ends, if its chunks could not be merged.
        virtual void merge_released(Io& write, bool failed) noexcept = 0;

      protected:
        ~Observer() = default;
    };
    // A write to chunks that have exceptions, out on the COW device.
    struct Write : ListHook {
        Extent extent;    // of the COW device
        List<Waiter> waiters;
    };

    Merge(Env& env, Snapshot& snapshot, Observer& observer);
    ~Merge();

    // Merges until nothing is left, it fails, or it is stopped. Fine when it runs already.
    void start() noexcept;
    // Ends what has begun. Fine when nothing runs.
    Job<void> stop();
    void set_paused(bool paused) noexcept;
    bool paused() const noexcept { return paused_; }
    void set_rate(std::uint64_t bytes_per_second) noexcept;    // 0: as fast as it goes
    std::uint64_t rate() const noexcept { return rate_; }
    bool running() const noexcept { return running_; }
    std::uint64_t bytes_merged() const noexcept { return bytes_merged_; }
    std::uint64_t bytes_per_second() const noexcept;    // of late

    // --- for the target's requests ----------------------------------------------------------------------------------
    // Which batch has a chunk that is being merged, 0: none does; `cow_chunk` is where its exception leads to. The chunks of
    // one batch become free together.
    unsigned blocking(Chunk cow_chunk) const noexcept;
    void wait(Io& write) noexcept { queued_.push_back(write); }
    Write& track(Extent cow_extent) noexcept;
    void untrack(Write& write) noexcept;

    void store_failed(IoStatus status, const char* doing) noexcept override;
    void store_cut_off(const std::string& why) noexcept override;

  private:
    static constexpr std::uint64_t kBatchBytesMin = std::uint64_t{1} << 20;
    static constexpr std::uint64_t kBatchBytesMax = std::uint64_t{16} << 20;
    static constexpr Nanoseconds kBatchTime = 100 * kMillisecond;
    static constexpr std::uint64_t kBatchEntries = 4096;
    static constexpr unsigned kPieces = 16;         // under way at once: 8 MiB of memory
    static constexpr unsigned kWritesMax = 512;     // to the origin, under way at once
    static constexpr unsigned kRuns = 128;          // of a piece
    static constexpr Sectors kPieceMax{1024};       // 512 KiB (decision 19)

    struct Batch {
        std::uint64_t first = 0, end = 0;    // places in the list
        std::vector<Listed> listed;          // in the list's order
        std::vector<Listed> sorted;          // as they lie on the COW device
        std::size_t started = 0;             // of `sorted`: their chunks are being copied, or have been
        Sectors offset{};                    // within sorted[started - 1], for chunks larger than a piece
        bool in_chunk = false;
        bool active = false;
        Nanoseconds begun = 0;
    };
    struct Piece final : Waiter {
        Merge* merge = nullptr;
        Extent cow;
        std::byte* buffer = nullptr;
        std::size_t buffer_bytes = 0;
        unsigned pending = 0;
        std::array<Extent, kRuns> runs;    // of the origin, one after the other in the buffer
        unsigned run_count = 0;
        void woken(IoStatus) noexcept override { merge->piece_unblocked(*this); }
    };
    struct WriteWait final : Waiter {    // of a piece, for a write that is out
        Piece* piece = nullptr;
        void woken(IoStatus) noexcept override;
    };
    class OriginLayer final : public Layer {    // counts our writes among the origin's
      public:
        explicit OriginLayer(OriginGroup& group) noexcept : group_{group} {}
        void on_complete(Io& io, Frame&) noexcept override {
            group_.write_done();
            io.complete(io.status);
        }

      private:
        OriginGroup& group_;
    };
    class Pace final : public Timer {
      public:
        explicit Pace(Merge& merge) noexcept : merge_{merge} {}
        void expired() noexcept override { merge_.pump(); }

      private:
        Merge& merge_;
    };
    enum class Kind : std::uint64_t { read, write };

    Job<void> run();
    Job<IoStatus> take_batch(Batch* batch);
    Job<void> commit(Batch* batch);
    std::uint64_t batch_size() const noexcept;
    bool may_start() noexcept;
    void pump() noexcept;
    bool build_piece(Piece& piece) noexcept;
    void piece_unblocked(Piece& piece) noexcept;
    void piece_read(Piece& piece, IoStatus status) noexcept;
    void run_written(Piece& piece, IoStatus status) noexcept;
    void end_piece(Piece& piece) noexcept;
    void copied(Batch& batch) noexcept;
    void fail(std::string why) noexcept;
    void release_writes(bool failed) noexcept;
    void on_complete(Io& io, Frame& frame) noexcept override;

    Env& env_;
    Snapshot& snapshot_;
    Observer& observer_;
    OriginLayer origin_layer_;
    std::array<Batch, 2> batches_;    // one is copied while the other is committed
    Batch* copying_ = nullptr;
    Pool<Piece> pieces_{kPieces};
    Pool<WriteWait> write_waits_;
    Pool<Write> tracked_;
    List<Write> writes_;
    List<Io> queued_;
    unsigned writes_out_ = 0;
    IoStatus copy_status_{IoStatus::ok};
    const char* copy_doing_ = "";
    std::uint64_t batch_bytes_ = kBatchBytesMin;
    std::uint64_t untaken_ = 0;     // entries of the list that are in no batch
    bool running_ = false;
    bool stopping_ = false;
    bool failed_ = false;
    bool looking_ = false;    // at the store, since something failed
    bool paused_ = false;
    bool committing_ = false;
    std::uint64_t rate_ = 0;
    Nanoseconds next_start_ = 0;    // of a piece, by the rate
    std::uint64_t bytes_merged_ = 0;
    std::uint64_t mark_bytes_ = 0, last_rate_ = 0;
    Nanoseconds mark_time_ = 0;
    Pace pace_{*this};
    Signal changed_;    // a batch was copied or committed; told to stop or go on
};

}  // namespace udm::snapshot
