// Where a snapshot keeps its chunks: allocation on the COW device, and the list of exceptions.
//
// An exception is published (it counts in memory, reads find it) when its data is written; it is durable when its entry
// in the store is. Publishing gives it the next place in the commit order, so "durable up to n" says it all.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/intrusive.hpp"
#include "base/result.hpp"
#include "base/units.hpp"
#include "port/job.hpp"
#include "targets/snapshot/exception_table.hpp"

namespace udm::snapshot {

// Something that waits for one thing: a commit, a copy, a read, a mark. It is on that thing's list until woken.
class Waiter : public ListHook {
  public:
    std::uint64_t wanted = 0;    // commits: the place in the commit order, set by the store
    bool of_snapshot = false;    // of a request to the snapshot: it can be refused; else the origin is going to change
    virtual void woken(IoStatus status) noexcept = 0;

  protected:
    ~Waiter() = default;
};

// One exception as it is listed.
struct Listed {
    Chunk old_chunk{}, new_chunk{};
};

class Store {
  public:
    class Failure {
      public:
        virtual void store_failed(IoStatus status, const char* doing) noexcept = 0;
        // Its device was made shorter from outside, where something is kept; `why` says so.
        virtual void store_cut_off(const std::string& why) noexcept = 0;
        // What is below the COW device has no room for the list, and nothing depends on it but requests to the snapshot. True:
        // they are told, and the next commit tries again; false: it is a failure like any other.
        virtual bool store_full() noexcept { return false; }

      protected:
        ~Failure() = default;
    };
    struct Allocation {
        Chunk first{};
        Chunks count{};    // 0: the store is full
    };
    struct Usage {
        Sectors allocated{}, total{}, metadata{};
    };

    virtual ~Store() = default;
    enum class Found : std::uint8_t { valid, invalid, nothing };
    // Reads what is there, or makes a new store where nothing is (durable then); fills the table. On error the message
    // names what is wrong and where.
    virtual Job<Result<Found>> load(ExceptionTable* table) = 0;
    // After load(): the chunk size in force (a persistent store's own).
    virtual ChunkSize chunk_size() const noexcept = 0;
    // Starts what commits, also again after stop(); `failure` is told once.
    virtual void start(Failure& failure) noexcept = 0;
    // Nothing may be under way. Completes when nothing runs any more.
    virtual Job<void> stop() = 0;
    // Stopped: goes on, when started again, with the same store through another table's device.
    virtual void move_to(Disk& cow) noexcept = 0;

    // At most `wanted` consecutive chunks of the COW device.
    virtual Allocation allocate(Chunks wanted) noexcept = 0;
    // How many chunks allocate() can still give, by what is known of the device's size. Never too many.
    virtual Chunks left() const noexcept = 0;
    // What was allocated and will not be published is free again.
    virtual void give_back(const Allocation& unused) noexcept = 0;
    virtual void publish(Chunk old_first, Chunk new_first, Chunks count) noexcept = 0;
    // True when one of the chunks was published and isn't durable yet; may say so when it is.
    virtual bool maybe_volatile(Chunk old_first, Chunks count) const noexcept = 0;
    // Wakes `waiter` when all that is published now is durable, or never will be (the store has told its Failure first);
    // false when it is durable already.
    virtual bool when_durable(Waiter& waiter) noexcept = 0;
    // Wakes `waiter` when all that is published now, and all data written to the COW device before, is durable.
    virtual void sync(Waiter& waiter) noexcept = 0;
    // Marks the store as never to be used again, durably. The status is that of the mark.
    virtual Job<IoStatus> invalidate() = 0;

    // Marked invalid, with nothing under way: gives back what the device can take back, all but the mark. A failure is none.
    virtual Job<void> give_space_back();

    // --- merging (persistent stores only); meanwhile nothing is allocated ---------------------------------------------
    // Something was published that is not durable.
    virtual bool any_volatile() const noexcept { return false; }
    // Exceptions in the list.
    virtual std::uint64_t listed() const noexcept { return 0; }
    // Reads the list's entries first .. end-1, in its order; all that is published is durable.
    virtual Job<IoStatus> read_listed(std::uint64_t first, std::uint64_t end, std::vector<Listed>* entries);
    // Takes the entries from `first` on off the list, durably. `cleared` has them. When it fails they are listed as before,
    // and count as published but not durable, since nobody knows what the device has of it.
    virtual Job<IoStatus> clear_listed(std::uint64_t first, const std::vector<Listed>* cleared);
    // After a failure of a commit: tries again with the next one.
    virtual void forgive() noexcept {}
    // After a merge, before something is allocated again: counts what is free.
    virtual void recount(const ExceptionTable& table) { static_cast<void>(table); }

    virtual Usage usage() const noexcept = 0;
    virtual bool persistent() const noexcept = 0;
};

}  // namespace udm::snapshot
