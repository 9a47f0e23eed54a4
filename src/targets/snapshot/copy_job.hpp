// A copy of origin chunks to the COW devices of the snapshots that need them: one read, as many writes as there are
// snapshots, in pieces of 512 KiB. Also the first write to a chunk of a snapshot, whose data come from the request.
//
// Each part goes its own way: it is published, durable and let go when its own store has it, whatever the other stores do
// (defect N24). So that a store that hangs holds up nobody's next piece either, a job for several snapshots is of one piece.
#pragma once

#include "services/write_gather.hpp"
#include "targets/snapshot/store.hpp"

namespace udm::snapshot {

class CopyJob;
class OriginGroup;
class Snapshot;
class StoreAccount;

// Consecutive chunks of one snapshot, on their way to consecutive chunks of its COW device. The job has it until it is
// copied, the snapshot until it is let go.
struct Part final : WriteGather::Write {
    struct Durable final : Waiter {
        Part* part = nullptr;
        void woken(IoStatus) noexcept override { part->let_go(); }
    };
    CopyJob* job = nullptr;
    Snapshot* snapshot = nullptr;
    Chunk first{};
    Chunks count{};
    Chunk cow_first{};
    Extent source{};          // in the origin's sectors, clipped at its end
    Part* next = nullptr;     // of the job
    Part** link = nullptr;    // what points at it
    std::uint64_t memory = 0;    // of the job when it joined: what its store has of the bounds (copies.hpp)
    bool counted = false;        // … as a copy under way
    iovec segment{};
    Durable durable;
    List<Waiter> waiters;
    // Wakes `waiter` when the exception is there (for a write to the origin: durable) or will never be.
    void wait(Waiter& waiter) noexcept { waiters.push_back(waiter); }
    void written(IoStatus status) noexcept override;
    void let_go() noexcept;
};

class CopyJob final : public ListHook, private Layer {
  public:
    enum class Data : std::uint8_t {
        origin,           // copied
        origin_patched,   // copied, with the request's data over it
        request,          // the request covers all of it
        zeroes,           // the request is write_zeroes and covers all of it
    };

    // `source` is read; `io` is the snapshot's request, null for a copy that a write to the origin needs.
    CopyJob(OriginGroup& group, Disk& source, Data data, Io* io) noexcept;
    // Before start(): parts in ascending order of their source; each joins its snapshot's parts.
    void add(Part& part) noexcept;
    // Whether it may have the part, too: it overlaps or follows what is there, and all of it is one piece.
    bool takes(const Part& part) const noexcept;
    // Bytes of the buffer it needs, with one part more.
    std::uint64_t memory() const noexcept;
    std::uint64_t memory_with(const Part& part) const noexcept;

    // --- for the bounds (copies.hpp) --------------------------------------------------------------------------------
    StoreAccount& lead() const noexcept;    // the store of its first part
    bool copies_data() const noexcept { return data_ == Data::origin || data_ == Data::origin_patched; }
    // The snapshot was lost while it waited: it ends as soon as it starts.
    bool pointless() const noexcept;
    void admitted() noexcept { count(*parts_); }
    void count(Part& part) noexcept;    // the part has joined within the bounds
    void start() noexcept;
    void cancel() noexcept;    // instead of start()

  private:
    friend struct Part;
    friend class OriginGroup;
    void join(Part& part) noexcept;
    void next_piece() noexcept;
    void fill_piece() noexcept;       // there is a buffer
    void piece_ready() noexcept;      // it has the data
    void piece_done() noexcept;
    void piece_unreadable(IoStatus status) noexcept;
    void part_written(Part& part, IoStatus status) noexcept;
    void part_ends(Part& part, bool copied) noexcept;
    void uncount(Part& part) noexcept;
    void end() noexcept;
    void on_complete(Io& io, Frame& frame) noexcept override;

    OriginGroup& group_;
    Disk& source_;
    Data data_;
    Io* io_;
    Snapshot* snapshot_ = nullptr;    // of the request
    Extent range_{};
    Sectors longest_;                 // of a piece
    Part* parts_ = nullptr;           // not yet copied
    Part** last_link_ = &parts_;
    Sector at_{};
    Sectors piece_{};
    std::uint64_t memory_ = 0;        // taken of the bounds
    std::byte* buffer_ = nullptr;
    std::size_t buffer_bytes_ = 0;
    bool copying_ = false;
    unsigned pending_ = 0;
    IoStatus status_{IoStatus::ok};
};

}  // namespace udm::snapshot
