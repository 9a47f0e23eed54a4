// A mapped device: a Disk whose requests go through a table. Two slots, suspend and resume, events, counters.
// Names, uuids, numbers and who has it open are the control plane's (ctl/); everything here runs on the device's
// home reactor.
//
// Life of a request: submit() → held back if suspended → refused if it doesn't fit the device or the table is
// read-only → one frame of the device is pushed (so that suspend can count) → if it crosses a target's end or is
// longer than the target takes, it is cut (core/split.*) → Target::map() → the disk below → up again.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string>

#include "core/lifecycle.hpp"
#include "core/table.hpp"

namespace udm {

struct DeviceCounters {    // since the device was made
    struct PerOp {
        std::uint64_t requests = 0, sectors = 0, errors = 0;
    };
    std::array<PerOp, 6> by_op{};    // index: Op
    std::uint64_t in_flight = 0;
    std::uint64_t held_back = 0;     // requests waiting for a resume, now
};

class Device final : public Disk, public DeviceEvents, private Layer {
  public:
    // Told of each event, on the home reactor.
    class Observer {
      public:
        virtual void device_event(Device& device, std::uint32_t event_number, EventKind kind, std::string_view what) noexcept = 0;

      protected:
        ~Observer() = default;
    };

    Device(Env& env, std::string name, DiskId id, Observer* observer = nullptr);
    ~Device() override;    // only when nothing is under way; the tables go with it

    // --- data plane ---------------------------------------------------------------------------------------------
    void submit(Io& io) noexcept override;
    // Of the live table; size 0 without one.
    const Limits& limits() const noexcept override;
    void refresh() noexcept override;

    // --- control plane ------------------------------------------------------------------------------------------
    // Puts a loaded table into the inactive slot, in place of what was there.
    void set_inactive(std::unique_ptr<Table> table) noexcept;
    void clear_inactive() noexcept;
    // Requests are held back when it completes; nothing is under way; targets have committed, and without noflush
    // the device was flushed. Fine when it is suspended already. Calls of suspend, resume and detach on one device
    // wait for each other.
    Job<Result<void>> suspend(SuspendFlags flags);
    // With an inactive table: suspends if need be, swaps, preresume (error: the new table stays, suspended), resume;
    // lets go what was held back. Errors: bad_argument without a table.
    Job<Result<void>> resume();
    // For remove: presuspend and postsuspend of the live table, then both tables are destroyed. Requests that come
    // or are held back afterwards end with `removed`.
    Job<void> detach();
    // Internal suspends nest and are independent of the user's: hold back requests and wait for those under way,
    // without a word to the targets.
    Job<void> quiesce();
    void unquiesce() noexcept;

    void rename(std::string name) { name_ = std::move(name); }
    const std::string& name() const noexcept { return name_; }
    const DiskId& id() const noexcept { return id_; }
    Env& env() noexcept { return env_; }
    Table* live() noexcept { return live_.get(); }
    Table* inactive() noexcept { return inactive_.get(); }
    bool suspended() const noexcept { return lifecycle_.is_suspended(); }
    const DeviceCounters& counters() const noexcept { return counters_; }

    // Routes a message to the live table's target that has the sector. Words starting with '@' are core's.
    Job<Result<std::string>> message(Sector sector, const std::vector<std::string>* words);

    // --- events -------------------------------------------------------------------------------------------------
    void raise(EventKind kind, std::string_view what) noexcept override;
    std::uint32_t event_number() const noexcept { return event_number_; }
    // Let go at each event and at detach(); check the number again afterwards.
    Signal& event_signal() noexcept { return event_signal_; }

  private:
    class SplitLayer final : public Layer {
      public:
        explicit SplitLayer(Device& device) noexcept : device_{device} {}
        void on_complete(Io& io, Frame& frame) noexcept override;

      private:
        Device& device_;
    };

    void on_complete(Io& io, Frame& frame) noexcept override;
    void start(Io& io) noexcept;
    void dispatch(Io& io) noexcept;
    // ... the rest of the private part is the implementation's.

    Env& env_;
    std::string name_;
    DiskId id_;
    Observer* observer_;
    Lifecycle lifecycle_;
    std::unique_ptr<Table> live_;
    std::unique_ptr<Table> inactive_;
    SplitLayer split_layer_{*this};
    List<Io> held_back_;
    DeviceCounters counters_;
    std::uint32_t event_number_ = 0;
    Signal event_signal_;
    Signal idle_signal_;
    Limits no_limits_{};
};

}  // namespace udm
