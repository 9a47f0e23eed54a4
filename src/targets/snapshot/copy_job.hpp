// A copy of origin chunks to the COW devices of the snapshots that need them: one read, as many writes as there are
// snapshots, in pieces of 512 KiB. Also the first write to a chunk of a snapshot, whose data come from the request.
#pragma once

#include "services/write_gather.hpp"
#include "targets/snapshot/store.hpp"

namespace udm::snapshot {

class CopyJob;
class OriginGroup;
class Snapshot;

// Consecutive chunks of one snapshot, on their way to consecutive chunks of its COW device.
struct Part final : WriteGather::Write {
    struct Durable final : Waiter {
        Part* part = nullptr;
        void woken(IoStatus status) noexcept override;
    };
    CopyJob* job = nullptr;
    Snapshot* snapshot = nullptr;
    Chunk first{};
    Chunks count{};
    Chunk cow_first{};
    Extent source{};          // in the origin's sectors, clipped at its end
    Part* next = nullptr;     // of the job
    iovec segment{};
    Durable durable;
    bool failed = false;
    void written(IoStatus status) noexcept override;
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
    CopyJob(OriginGroup& group, Disk& source, Data data, Io* io) noexcept
        : group_{group}, source_{source}, data_{data}, io_{io} {}
    // Before start(): parts in ascending order of their source; each joins its snapshot's parts.
    void add(Part& part) noexcept;
    void start() noexcept;
    void cancel() noexcept;    // instead of start()
    void wait(Waiter& waiter) noexcept { waiters_.push_back(waiter); }
    Extent range() const noexcept { return range_; }

  private:
    friend struct Part;
    friend struct Part::Durable;
    friend class OriginGroup;
    void next_piece() noexcept;
    void memory_given() noexcept;
    void fill_piece() noexcept;       // there is a buffer
    void piece_ready() noexcept;      // it has the data
    void piece_done() noexcept;
    void piece_unreadable(IoStatus status) noexcept;
    void part_written(Part& part, IoStatus status) noexcept;
    void copied() noexcept;
    void part_durable() noexcept;
    void done() noexcept;
    void drop_parts() noexcept;
    void give_buffer() noexcept;
    void on_complete(Io& io, Frame& frame) noexcept override;

    OriginGroup& group_;
    Disk& source_;
    Data data_;
    Io* io_;
    Extent range_{};
    Part* parts_ = nullptr;
    Part* last_part_ = nullptr;
    Sector at_{};
    Sectors piece_{};
    std::byte* buffer_ = nullptr;
    std::size_t buffer_bytes_ = 0;
    unsigned pending_ = 0;
    bool one_by_one_ = false;    // a read has failed: pieces end where a part begins or ends
    IoStatus status_{IoStatus::ok};
    List<Waiter> waiters_;
};

}  // namespace udm::snapshot
