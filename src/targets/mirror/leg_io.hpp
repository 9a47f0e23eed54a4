// The same request to several legs at once, for jobs: `LegIo io{set, legs, Op::flush}; const LegResult r = co_await io;`
#pragma once

#include "targets/mirror/set.hpp"

namespace udm::mirror {

using LegBuffers = std::array<std::byte*, kLegsMax>;

struct LegResult {
    LegMask failed = 0;
    IoStatus status{IoStatus::ok};    // the first error
};

class LegIo final : Layer {
  public:
    // `legs` is not empty; the extent is the device's.
    LegIo(Set& set, LegMask legs, Op op, Extent extent = {}, void* memory = nullptr) noexcept
        : set_{set}, legs_{legs}, op_{op}, extent_{extent} {
        memory_.fill(static_cast<std::byte*>(memory));
    }
    // Each leg has memory of its own.
    LegIo(Set& set, LegMask legs, Op op, Extent extent, const LegBuffers& memory) noexcept
        : set_{set}, legs_{legs}, op_{op}, extent_{extent}, memory_{memory} {}
    LegIo(const LegIo&) = delete;
    LegIo& operator=(const LegIo&) = delete;
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) noexcept {
        awaiting_ = awaiting;
        pending_ = static_cast<unsigned>(std::popcount(legs_));
        for_each_leg(legs_, [this](unsigned leg) {
            Io& io = set_.env.reactor.take_io();
            io.op = op_;
            io.flags.sequential = memory_[leg] != nullptr;
            if (op_ != Op::flush) io.extent = set_.on_leg(leg, extent_);
            if (memory_[leg]) io.set_memory(memory_[leg], to_bytes(extent_.length));
            io.push(*this, leg);
            set_.legs.disk(leg).submit(io);
        });
    }
    LegResult await_resume() const noexcept { return result_; }

  private:
    void on_complete(Io& io, Frame& frame) noexcept override {
        if (io.status != IoStatus::ok) {
            result_.failed |= leg_bit(static_cast<unsigned>(frame.a));
            result_.status = first_error(result_.status, io.status);
        }
        set_.env.reactor.give_io(io);
        if (--pending_ == 0) awaiting_.resume();
    }
    Set& set_;
    LegMask legs_;
    Op op_;
    Extent extent_;
    LegBuffers memory_{};
    unsigned pending_ = 0;
    LegResult result_;
    std::coroutine_handle<> awaiting_;
};

}  // namespace udm::mirror
