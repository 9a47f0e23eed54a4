// A mapped device: a Disk whose requests go through a table. Two slots, suspend and resume, events, counters.
// Names, uuids, numbers and who has it open are the control plane's (ctl/); everything here runs on the device's
// home reactor.
//
// Life of a request: submit() → held back if suspended → refused if it doesn't fit the device or the table is
// read-only → fits one target in one piece: the device's frame is pushed, Target::map(), the disk below, up again.
// Otherwise it is fanned out (device_fan.cpp): pieces (core/split.hpp), copies, zeroes written by hand, or simply a
// request of its own where the one from above has no frames left. Children come from the reactor's pool.
//
// What a target may change in a request that it maps: the extent, and what it puts back before it completes it.
#pragma once

#include <array>
#include <memory>
#include <string>

#include "base/pool.hpp"
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
    void expect(Sector at) const noexcept override;
    // Of the live table; size 0 without one.
    const Limits& limits() const noexcept override { return live_ ? live_->limits() : no_limits_; }
    void refresh() noexcept override;    // of the disks below; a mapped device's own size is its table's
    bool reaches(const DiskId& id) const noexcept override;
    unsigned levels() const noexcept override;

    // --- control plane ------------------------------------------------------------------------------------------
    // Puts a loaded table into the inactive slot, in place of what was there.
    void set_inactive(std::unique_ptr<Table> table) noexcept;
    void clear_inactive() noexcept;
    // Requests are held back when it completes; nothing is under way; targets have committed, and without noflush
    // the device was flushed if anything was written since its last flush. Should that flush fail, the device is
    // suspended all the same (one must be able to replace a table whose disk is broken) and the next flush from
    // above ends with its error. Fine when it is suspended already. Calls of suspend, resume, detach and message on
    // one device wait for each other. Errors: not_found after detach().
    Job<Result<void>> suspend(SuspendFlags flags);
    // With an inactive table: suspends if need be, swaps, preresume (error: the new table stays, suspended), resume;
    // lets go what was held back; the old table goes last. Errors: bad_argument when it was suspended and there is no
    // table (a device that never had one is not taken for suspended, as in Linux), not_found after detach().
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
    bool suspended() const noexcept { return lifecycle_.is_suspended() && !fresh_; }
    const DeviceCounters& counters() const noexcept { return counters_; }

    // Routes a message to the live table's target that has the sector. Messages whose first word starts with '@' are
    // core's ("@cancel_deferred_remove" is the control plane's and doesn't come here); there are none so far. At
    // least one word. Errors: bad_argument with Linux's texts, or the target's.
    Job<Result<std::string>> message(Sector sector, const std::vector<std::string>* words);

    // --- events -------------------------------------------------------------------------------------------------
    void raise(EventKind kind, std::string_view what) noexcept override;
    std::uint32_t event_number() const noexcept { return event_number_; }
    // Let go at each event and at detach(); check the number again afterwards.
    Signal& event_signal() noexcept { return event_signal_; }

  private:
    // One request under way as several. Lives in fans_ from start_fan() until end_fan().
    struct Fan {
        Io* parent;
        Extent rest;           // not yet sent down
        Sectors longest{};     // of a piece, 0: no limit of its own
        Sectors piece{};       // of the copies of a discard: as long as the first one
        std::size_t entry = 0;     // a flush: the next line of the table
        unsigned copy = 0;         // the next copy
        unsigned under_way = 0;
        IoStatus status{IoStatus::ok};
        Op op;
        bool counted;      // the parent is a request to this device, else a child that needs its zeroes written
        bool as_writes;    // write_zeroes, by writing zeroes
        bool issuing = false;
        std::uint8_t flushed_count = 0;
        std::array<Disk*, 8> flushed{};    // where a flush of this fan went
    };
    class FanLayer final : public Layer {
      public:
        explicit FanLayer(Device& device) noexcept : device_{device} {}
        void on_complete(Io& io, Frame& frame) noexcept override { device_.child_done(io, frame); }

      private:
        Device& device_;
    };
    // Where the device's own requests enter: not held back, not counted as anybody's.
    class Door final : public Disk {
      public:
        explicit Door(Device& device) noexcept : device_{device} {}
        void submit(Io& io) noexcept override;
        const Limits& limits() const noexcept override { return device_.limits(); }

      private:
        Device& device_;
    };
    class ReleaseTask final : public Task {
      public:
        explicit ReleaseTask(Device& device) noexcept : device_{device} {}
        void run() noexcept override { device_.release(); }

      private:
        Device& device_;
    };

    // device.cpp
    void on_complete(Io& io, Frame& frame) noexcept override;
    bool passes(Table::Entry& entry, const Io& io) noexcept;
    void send(Table::Entry& entry, Io& io, std::uint64_t asked = 0) noexcept;
    void locate(Table::Entry& entry, Io& io, Disk& disk) noexcept;
    void submit_slowly(Io& io) noexcept;
    void start(Io& io) noexcept;
    IoStatus refusal(const Io& io) const noexcept;
    void dispatch(Io& io) noexcept;
    static void settle_answer(Io& io, Sectors asked) noexcept;
    void finish(Io& io, IoStatus status, bool inside_submit) noexcept;
    bool wrote_something() noexcept;
    void release() noexcept;
    void update_open() noexcept;
    DeviceCounters::PerOp& counter(Op op) noexcept { return counters_.by_op[static_cast<std::size_t>(op)]; }

    // device_fan.cpp
    void start_fan(Io& parent, bool counted, bool as_writes, bool inside_submit) noexcept;
    bool has_more(const Fan& fan) noexcept;
    void issue(Fan& fan, bool inside_submit) noexcept;
    void issue_piece(Fan& fan) noexcept;
    void issue_flush(Fan& fan) noexcept;
    void child_done(Io& child, Frame& frame) noexcept;
    void end_fan(Fan& fan, bool inside_submit) noexcept;

    // device_control.cpp
    Job<void> take_turn();
    void give_turn() noexcept;
    Job<Result<void>> suspend_in_turn(SuspendFlags flags);
    Job<Result<void>> resume_in_turn();
    Job<Result<std::string>> message_in_turn(Sector sector, const std::vector<std::string>* words);
    Job<void> drain();
    void tell_draining(bool begins, bool noflush) noexcept;

    static constexpr unsigned kFanWidth = 32;    // children of one request under way at a time

    Env& env_;
    bool fast_ = false;    // open, and nobody wants pieces where there need be none
    bool open_ = false;    // requests go down at once: admitted, and none held back before them
    bool fresh_ = true;    // never suspended by anybody, never with a table
    bool unflushed_ = false;    // something was written since the last flush began
    bool busy_ = false;         // suspend, resume, detach or a message is under way
    std::uint64_t block_mask_ = 0;    // sectors of a logical block, less one
    const bool splits_early_;    // the simulated world wants more pieces
    const unsigned fan_width_;
    IoStatus owed_flush_error_{IoStatus::ok};
    std::unique_ptr<Table> live_;
    DeviceCounters counters_;
    Lifecycle lifecycle_;
    FanLayer fan_layer_{*this};
    Pool<Fan> fans_{8};
    List<Io> requeued_;     // were under way at a suspend with noflush; older than those held back
    List<Io> held_back_;
    Door door_{*this};
    ReleaseTask release_task_{*this};

    std::unique_ptr<Table> inactive_;
    std::string name_;
    DiskId id_;
    Observer* observer_;
    std::uint32_t event_number_ = 0;
    Signal event_signal_;
    Signal idle_signal_;
    Signal turn_signal_;
    Limits no_limits_{};
};

}  // namespace udm
