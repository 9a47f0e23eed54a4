// A device of ours as a disk to ask questions of, from any reactor and for as long as one likes: it holds nothing, and when the
// device is gone its answer is `removed`. (What stands on a device and reads it has it open: opener.hpp.)
#pragma once

#include "base/pool.hpp"
#include "ctl/host.hpp"
#include "ctl/registry.hpp"

namespace udm::ctl {

class RecordDisk final : public Disk {
  public:
    // `here` is the reactor of those who ask. Destroyed there, when nothing is under way.
    // `limits`: those of the device, as far as who asks cares.
    RecordDisk(Reactor& here, Host& host, Registry& registry, RecordPtr record, const Limits& limits = {}) noexcept
        : here_{here}, host_{host}, registry_{registry}, record_{std::move(record)}, limits_{limits} {}
    ~RecordDisk() override { ASSERT(hops_.out() == 0); }

    // Op::extent_status alone. What lies beyond the device's end is `invalid`; what begins before is answered for.
    void submit(Io& io) noexcept override;
    const Limits& limits() const noexcept override { return limits_; }

  private:
    // One question on its way there and back, as in port/remote_disk.hpp.
    class Hop final : public Task, public Layer {
      public:
        Hop(RecordDisk& disk, Io& io) noexcept : disk_{disk}, io_{io} {}
        void start() noexcept;

      private:
        void run() noexcept override;
        void go() noexcept;
        void on_complete(Io& child, Frame& frame) noexcept override;
        void come_back(IoStatus status) noexcept;
        void finish() noexcept;

        RecordDisk& disk_;
        Io& io_;
        unsigned home_ = 0;
        Reactor* there_ = nullptr;
        ExtentAnswer answer_{};
        IoStatus status_{IoStatus::ok};
        bool returning_ = false;
    };
    friend class Pool<Hop>;
    // The device's home, if it is there.
    std::optional<unsigned> home() const noexcept;

    Reactor& here_;
    Host& host_;
    Registry& registry_;
    const RecordPtr record_;
    const Limits limits_;
    Pool<Hop> hops_;    // here's
};

}  // namespace udm::ctl
