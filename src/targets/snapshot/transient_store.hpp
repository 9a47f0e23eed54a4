// The store `N`: chunks one after the other from the start of the COW device; what is where is lost with the target.
// Source: docs/formats/snapshot.md.
#pragma once

#include "port/disk.hpp"
#include "targets/snapshot/store.hpp"

namespace udm::snapshot {

class TransientStore final : public Store {
  public:
    TransientStore(Reactor& reactor, Disk& cow, ChunkSize chunk) noexcept : reactor_{reactor}, cow_{&cow}, chunk_{chunk} {}

    Job<Result<Found>> load(ExceptionTable*) override { co_return Found::nothing; }
    ChunkSize chunk_size() const noexcept override { return chunk_; }
    void start(Failure&) noexcept override {}
    Job<void> stop() override { co_return; }
    void move_to(Disk& cow) noexcept override { cow_ = &cow; }
    Allocation allocate(Chunks wanted) noexcept override {
        cow_->refresh();
        const Chunks room = chunk_.whole(cow_->limits().size);
        if (next_free_.v >= room.v) return {};
        const Allocation given{next_free_, {wanted.v < room.v - next_free_.v ? wanted.v : room.v - next_free_.v}};
        next_free_ += given.count;
        return given;
    }
    Chunks left() const noexcept override {
        const Chunks room = chunk_.whole(cow_->limits().size);
        return {next_free_.v < room.v ? room.v - next_free_.v : 0};
    }
    void give_back(const Allocation& unused) noexcept override {
        if (unused.first + unused.count == next_free_) next_free_ = unused.first;
    }
    void publish(Chunk, Chunk, Chunks) noexcept override {}
    bool maybe_volatile(Chunk, Chunks) const noexcept override { return false; }
    bool when_durable(Waiter&) noexcept override { return false; }
    void sync(Waiter& waiter) noexcept override;
    Job<IoStatus> invalidate() override { co_return IoStatus::ok; }
    Usage usage() const noexcept override { return {chunk_.extent({0}, {next_free_.v}).length, cow_->limits().size, {}}; }
    bool persistent() const noexcept override { return false; }

  private:
    Job<void> flush();

    Reactor& reactor_;
    Disk* cow_;
    ChunkSize chunk_;
    Chunk next_free_{0};
    List<Waiter> syncs_;
};

}  // namespace udm::snapshot
