// The stores `P` and `PO`: exceptions are listed on the COW device, in the kernel's format.
//
// Commits. One loop a store; each turn of it:
//   1. fixes the batch: the exceptions published so far, whose data has been written;
//   2. if the batch fills the current area, first writes the areas after it (nobody can reach them yet);
//   3. flushes: the batch's data is durable, and so is the metadata of the batch before, whose waiters go on;
//   4. writes the pieces (4 KiB) of the current area that the batch changed.
// So under load a batch costs one flush and one small write, and what comes while one is under way joins the next.
// A batch that nothing follows takes a second flush. Without anyone waiting nothing is committed until a few
// thousand exceptions have gathered (decision 2).
//
// No room below the device (Failure::store_full) ends a commit and no more. What is not known as durable is kept in memory until
// it is, and is written again by the next commit, after a flush of the data it leads to: some of the list may have arrived.
//
// Invariants: the entry after the last one on disk is always zero or unreachable; a full area's successor is
// initialised durably before the piece that fills the area is written; the list never fills the last area there is.
#pragma once

#include <span>
#include <vector>

#include "port/disk.hpp"
#include "targets/snapshot/format.hpp"
#include "targets/snapshot/store.hpp"

namespace udm::snapshot {

class PersistentStore final : public Store {
  public:
    // `chunk` is the table's wish; a store that exists has its own. `cow_name` is for messages.
    PersistentStore(Env& env, Disk& cow, ChunkSize chunk, Sectors lowest_chunk, std::string cow_name);

    Job<Result<Found>> load(ExceptionTable* table) override;
    ChunkSize chunk_size() const noexcept override { return geometry_.chunk(); }
    void start(Failure& failure) noexcept override;
    Job<void> stop() override;
    void move_to(Disk& cow) noexcept override { cow_ = &cow; }
    Allocation allocate(Chunks wanted) noexcept override;
    Chunks left() const noexcept override;
    void give_back(const Allocation& unused) noexcept override;
    void publish(Chunk old_first, Chunk new_first, Chunks count) noexcept override;
    bool maybe_volatile(Chunk old_first, Chunks count) const noexcept override;
    bool when_durable(Waiter& waiter) noexcept override;
    void sync(Waiter& waiter) noexcept override;
    Job<IoStatus> invalidate() override;
    Job<void> give_space_back() override;
    bool any_volatile() const noexcept override { return durable_ != published_; }
    std::uint64_t listed() const noexcept override { return published_; }
    Job<IoStatus> read_listed(std::uint64_t first, std::uint64_t end, std::vector<Listed>* entries) override;
    Job<IoStatus> clear_listed(std::uint64_t first, const std::vector<Listed>* cleared) override;
    void forgive() noexcept override;
    void recount(const ExceptionTable& table) override;
    Usage usage() const noexcept override;
    bool persistent() const noexcept override { return true; }

  private:
    static constexpr std::size_t kHolesMax = 65536;            // runs; 1 MiB
    static constexpr std::uint64_t kBackgroundBatch = 8192;    // exceptions: 128 KiB of list

    Job<Result<void>> format();
    Job<Result<void>> read_list(ExceptionTable* table);
    // `used`: from COW chunk to origin chunk.
    Result<void> check_entry(std::uint64_t index, Chunk old_chunk, Chunk new_chunk, const ExceptionTable& table,
                             const ExceptionTable& used) const;
    Job<void> clear_behind_end(std::span<std::byte> read, std::size_t entries);
    void find_holes(const ExceptionTable& used, Chunk highest);
    Chunk next_area(Chunk chunk) const noexcept;
    Allocation allocate_hole(Chunks wanted) noexcept;
    Job<IoStatus> write_header(bool valid);
    Job<void> commit_loop();
    Job<IoStatus> commit_batch(std::uint64_t end);
    // Writes the pieces that hold the entries first .. end-1 of one area, entries from `end` on as zeroes.
    Job<IoStatus> write_entries(std::uint64_t first, std::uint64_t end);
    Job<IoStatus> write_zeroes(Extent extent);
    Job<IoStatus> clear_in_turn(std::uint64_t first, const std::vector<Listed>* cleared);
    Job<IoStatus> write_cleared(std::uint64_t first, const std::vector<Listed>* kept);
    Job<IoStatus> flush();

    std::uint64_t area_end(std::uint64_t index) const noexcept {
        return (index / geometry_.exceptions_per_area() + 1) * geometry_.exceptions_per_area();
    }
    // The length of a transfer, a power of two, that the device takes; a piece of metadata at least is asked of it.
    std::size_t at_most(std::size_t bytes) const noexcept;
    Chunks room() const noexcept { return geometry_.chunk().whole(cow_->limits().size); }
    bool wants_commit() const noexcept;
    bool put_off(bool told) noexcept;
    void forget_durable() noexcept;
    void trim_tail();
    void release(List<Waiter>& list, std::uint64_t upto, IoStatus status) noexcept;
    std::string where(const char* what) const;

    Env& env_;
    Disk* cow_;
    Geometry geometry_;
    Sectors lowest_chunk_;
    std::string cow_name_;
    Failure* failure_ = nullptr;

    Chunk next_free_{2};
    std::vector<Allocation> holes_;    // below next_free_, given out by allocate() when nothing is left above
    Chunks hole_chunks_{0};
    std::uint64_t reserved_ = 0;     // places in the list given to allocated chunks
    std::uint64_t published_ = 0;    // exceptions in the list, in memory
    std::uint64_t written_ = 0;      // … written to the store
    std::uint64_t durable_ = 0;      // … and flushed
    std::uint64_t wanted_ = 0;       // somebody waits for these
    // The entries from tail_first_ (the start of a piece, at or before durable_) to published_.
    std::vector<DiskException> tail_;
    std::uint64_t tail_first_ = 0;
    bool rest_of_area_unknown_ = false;    // after a load: what follows the current piece may be of a torn commit
    bool failed_ = false;
    // After a commit that found no room below the device:
    bool flush_first_ = false;             // what was written may be there or not: data first, then all of the list again
    bool flush_failed_ = false;            // of the commit under way
    std::uint64_t tried_ = 0;              // published then: what is no more than that is not tried again in the background
    IoStatus untold_{IoStatus::ok};        // a flush failed and nobody waited: the next sync is told
    bool stopping_ = false;
    bool running_ = false;
    bool committing_ = false;    // a batch is under way
    bool clearing_ = false;      // the end of the list is being cleared, or is to be: no new batch
    List<Waiter> waiting_;
    List<Waiter> syncs_;
    Signal work_;
    Signal stopped_;
    Signal turn_;    // of whoever clears
};

}  // namespace udm::snapshot
