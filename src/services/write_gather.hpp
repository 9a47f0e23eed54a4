// Writes to one disk that lie side by side become one request. Snapshots allocate chunks one after the other, so what
// a batch of requests copies or redirects to a store is adjacent there although it was scattered before: on a disk one
// request of 128 KiB costs about what one of 4 KiB does.
//
// Never waits for more: it collects what comes before the reactor runs the task it posts, that is in the same
// round of completions.
#pragma once

#include "base/pool.hpp"
#include "port/disk.hpp"
#include "port/reactor.hpp"

namespace udm {

class WriteGather final : Task, Layer {
  public:
    static constexpr std::uint32_t kPiecesMax = 64;
    static constexpr std::uint64_t kBytesMax = 512 * 1024;    // decision 19

    // One write. Belongs to the gather from add() to written().
    class Write : public ListHook {
      public:
        Extent extent{};
        Buffers buffers{};
        virtual void written(IoStatus status) noexcept = 0;

      protected:
        ~Write() = default;
    };

    WriteGather(Reactor& reactor, Disk& disk) noexcept : reactor_{reactor}, disk_{&disk} {}
    ~WriteGather();
    void add(Write& write) noexcept;
    // Nothing may be waiting or under way.
    void move_to(Disk& disk) noexcept {
        ASSERT(waiting_.empty() && batches_.out() == 0);
        disk_ = &disk;
    }

  private:
    struct Batch {    // one request under way
        List<Write> writes;
        std::array<iovec, kPiecesMax> pieces;
    };
    void run() noexcept override;
    void on_complete(Io& io, Frame& frame) noexcept override;

    Reactor& reactor_;
    Disk* disk_;
    List<Write> waiting_;
    Pool<Batch> batches_{4};    // 1 KiB each, and a gather for each of many disks
};

}  // namespace udm
