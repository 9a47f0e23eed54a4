// A disk whose home is another reactor, as a disk of this one: requests hop there and their completions back.
// For tables that stack over homes; the plain way is to share a home (decision 18), so this one is simple,
// not fast. reaches() stays false here: another home cannot be asked at once. Loops over homes are refused before a table
// is built, by the control plane, which knows all uses.
#pragma once

#include <utility>

#include "base/pool.hpp"
#include "port/disk.hpp"
#include "port/reactor.hpp"

namespace udm {

class RemoteDisk final : public Disk {
  public:
    // `here` is the home of those who submit, `there` that of `disk`, whose limits were `limits` when asked
    // there.
    RemoteDisk(Reactor& here, Reactor& there, Disk& disk, const Limits& limits, unsigned levels) noexcept
        : here_{here}, there_{there}, disk_{disk}, limits_{limits}, levels_{levels} {}
    ~RemoteDisk() override { ASSERT(hops_.out() == 0); }

    void submit(Io& io) noexcept override {
        Hop& hop = hops_.take(*this, io, std::exchange(refresh_, false));
        there_.post_remote(hop);
    }
    // There, before the next request. The size of a mapped device is its table's, which set_limits() brings.
    void refresh() noexcept override { refresh_ = true; }
    const Limits& limits() const noexcept override { return limits_; }
    // The control plane asked there again. `here`.
    void set_limits(const Limits& limits) noexcept { limits_ = limits; }
    unsigned levels() const noexcept override { return levels_; }

  private:
    // One request on its way. It is only ever linked in one reactor's queue at a time; what crosses is
    // ordered by post_remote.
    class Hop final : public Task, public Layer {
      public:
        Hop(RemoteDisk& disk, Io& io, bool refresh) noexcept : disk_{disk}, io_{io}, refresh_{refresh} {}

      private:
        void run() noexcept override {
            if (returning_) {
                finish();
            } else {
                go();
            }
        }
        void go() noexcept {  // there
            if (refresh_) disk_.disk_.refresh();
            Io& child = disk_.there_.take_io();
            child.op = io_.op;
            child.flags = io_.flags;
            child.copy = io_.copy;
            child.extent = io_.extent;
            child.buffers = io_.buffers;  // whose memory stays with the waiting request
            child.answer = io_.answer;
            child.push(*this);
            disk_.disk_.submit(child);
        }
        void on_complete(Io& child, Frame&) noexcept override {  // there
            status_ = child.status;
            answer_ = child.answer;
            disk_.there_.give_io(child);
            returning_ = true;
            disk_.here_.post_remote(*this);
        }
        void finish() noexcept {  // here
            Io& io = io_;
            io.answer = answer_;
            const IoStatus status = status_;
            disk_.hops_.give(*this);
            io.complete(status);
        }
        RemoteDisk& disk_;
        Io& io_;
        ExtentAnswer answer_{};
        IoStatus status_{IoStatus::ok};
        bool returning_ = false;
        const bool refresh_;
    };
    friend class Pool<Hop>;

    Reactor& here_;
    Reactor& there_;
    Disk& disk_;
    Limits limits_;
    unsigned levels_;
    bool refresh_ = false;  // wanted
    Pool<Hop> hops_;  // here's
};

}  // namespace udm
