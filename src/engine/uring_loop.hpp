// The loop over io_uring: everything prepared in a turn goes to the system in one call, which also waits.
#pragma once

#include <liburing.h>

#include <vector>

#include "engine/loop.hpp"
#include "engine/slab_table.hpp"

namespace udm {

class UringLoop final : public Loop, private BufferPool::SlabListener {
  public:
    // `plain`: none of what kernels newer than 5.11 added.
    UringLoop(EngineShared& shared, bool plain) : Loop{shared}, plain_{plain} {}
    ~UringLoop() override;

    void start(Operation& op) noexcept override;
    using Loop::cancel;
    void cancel(Operation& op) noexcept override;
    void attach(File& file) noexcept override;
    void detach(File& file) noexcept override;

    // Whether io_uring may be used here at all; the error says why not.
    static Result<void> probe();

  private:
    // Reads the eventfd: done() has nothing to do but to read it again.
    class WakeOperation final : public Operation {
      public:
        void done(int) noexcept override { loop->start(*this); }
        std::uint64_t counter = 0;
        iovec piece{&counter, sizeof counter};
        File eventfd{};
    };

    Result<void> open() override;
    void close() noexcept override;
    void turn(bool wait, Nanoseconds deadline) noexcept override;
    void slab_added(std::byte* start, std::size_t bytes, std::size_t buffer_size) noexcept override;

    int set_up(unsigned entries) noexcept;
    void register_tables();
    io_uring_sqe* next_entry() noexcept;
    void enqueue(Operation& op) noexcept;
    void fill(io_uring_sqe& sqe, Operation& op) noexcept;
    void start_sends() noexcept;
    void start_cancels() noexcept;
    void submit() noexcept;
    void wait(Nanoseconds deadline) noexcept;
    void reap() noexcept;
    void drop_all() noexcept;

    const bool plain_;
    bool opened_ = false;
    bool deferred_ = false;   // completions come only when asked for
    bool task_flag_ = false;  // the ring says when there are some
    bool multishot_ = false;  // accept
    io_uring ring_{};
    std::uint64_t in_flight_ = 0;
    List<Operation> waiting_;  // for room in the queue
    List<Operation> cancels_;  // under way, and to be cancelled when there is room in the queue
    List<Operation> sends_;    // of this turn
    WakeOperation wake_;

    SlabTable slabs_;
    unsigned buffers_max_ = 0;
    unsigned buffers_used_ = 0;
    std::vector<int> free_slots_;
    std::vector<std::pair<std::byte*, std::size_t>> unregistered_;
};

}  // namespace udm
