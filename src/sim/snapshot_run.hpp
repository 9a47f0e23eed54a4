// One history of the story "snapshot", lived through: an origin, up to four snapshots of it in slots with a COW device
// each, and an administrator who takes, drops, suspends and reloads, one thing at a time, as jobs on the machine.
//
// What must hold, in the words of the volumes' shadows and no others:
//   - the origin reads as its shadow allows, and its requests fail only when its own disk failed;
//   - a snapshot reads as a fork of the origin's shadow made when the origin was quiet, changed by its own writes;
//   - a snapshot is invalid or full only for a cause; after a cut it says so, or it is right;
//   - everything ends once faults are over.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <string>

#include "sim/clients.hpp"
#include "sim/machine.hpp"
#include "sim/request_steps.hpp"
#include "sim/story.hpp"

namespace udm {

inline constexpr unsigned kSlots = 4;

struct SnapshotSetup {
    std::uint64_t sectors = 0;             // of the origin
    std::uint64_t stable_disks = 0;        // bits: disks without a volatile cache; 0 origin, 1.. COW devices
    std::uint64_t fast = 0;                // bits: disks much faster than the others
    std::uint64_t lazy_discard = 0;
    std::uint64_t orderly_end = 0;         // everything is removed at the end, and nothing may be left
    std::uint64_t flush_at_end = 0;        // before the last cut
    struct Slot {
        std::uint64_t chunk = 0, cow_sectors = 0;
        std::uint64_t roomy = 0;           // can never be full
        std::uint64_t discard_zeroes_cow = 0;
    };
    std::array<Slot, kSlots> slots{};

    std::vector<std::uint64_t> pack() const;
    static SnapshotSetup unpack(const std::vector<std::uint64_t>& words);
};

namespace steps {
enum SnapshotKind : std::uint32_t {
    kTake = kFirstOfStory,    // a: slot, b: 0 P, 1 PO, 2 N, c: 1 suspends with noflush
    kDrop,                    // a: slot
    kCycle,                   // a: volume, b: 1 noflush, c: microseconds to stay suspended
    kReload,                  // the origin's table again
};
}

class SnapshotRun {
  public:
    SnapshotRun(World& world, const History& history, Outcome& outcome);
    ~SnapshotRun();
    void run();

  private:
    static constexpr std::uint64_t kAdminPatience = 3'000;    // events a step waits for the administrator
    enum class Store : std::uint8_t { persistent, overflow, transient };
    struct Slot;
    class OriginVolume final : public Volume {
      public:
        OriginVolume(SnapshotRun& run, ShadowDisk shadow) : Volume{"origin", std::move(shadow)}, run_{run} {}
        std::uint64_t causes() const override { return errors(*run_.origin_disk_); }
        bool excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const override;
        std::uint64_t errors_at_boot = 0;

      private:
        SnapshotRun& run_;
    };
    class SnapshotVolume final : public Volume {
      public:
        SnapshotVolume(SnapshotRun& run, Slot& slot, ShadowDisk shadow)
            : Volume{slot.name, std::move(shadow)}, run_{run}, slot_{slot} {}
        std::uint64_t causes() const override { return run_.errors_of(slot_); }
        bool excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const override;
        std::uint64_t errors_at_boot = 0;

      private:
        SnapshotRun& run_;
        Slot& slot_;
    };
    struct Slot {
        unsigned number = 0;
        std::string name, cow_name;
        SimDisk* cow = nullptr;
        SnapshotSetup::Slot setup;
        Store store = Store::persistent;
        // A snapshot is taken: the state has it, and it comes back after a power cut (unless it is transient).
        bool committed = false;
        bool live = false;               // clients may use it
        Machine::Mapped* mapped = nullptr;
        std::uint64_t cow_errors_at_take = 0, origin_errors_at_take = 0;
        std::unique_ptr<SnapshotVolume> volume;
    };

    void prepare_disks();
    void step(const Step& step);
    void power_cut(const Step& step);
    void start_boot();
    bool finish_boot();
    void compare_all();
    void the_end();
    void remove_everything();
    void check_progress();
    void check_status(Slot& slot, const char* when);
    Volume* volume_for(std::uint64_t which);

    // The administrator.
    void start(Job<void> job);
    bool wait_for_admin();
    Job<void> boot();
    Job<void> boot_slot(Slot* slot);
    Job<void> take(Slot* slot, Store store, bool noflush);
    Job<void> drop(Slot* slot);
    Job<void> cycle(Volume* volume, Machine::Mapped* mapped, bool noflush, Nanoseconds stay);
    Job<void> reload();
    Job<void> remove_all();
    // The device is suspended, and flushed if it was asked to be: so says its shadow from here on.
    void was_suspended(Volume& volume, bool noflush, std::uint64_t errors_before);
    void wipe(Slot& slot);

    std::string origin_table() const;
    std::string snapshot_table(const Slot& slot) const;
    static std::uint64_t errors(const SimDisk& disk) noexcept;
    static std::uint64_t read_errors(const SimDisk& disk) noexcept { return disk.count(Op::read).errors; }
    std::uint64_t errors_of(const Slot& slot) const noexcept { return errors(*slot.cow) + errors(*origin_disk_); }
    bool may_be_broken(const Slot& slot) const noexcept;
    static bool is_invalid(const Slot& slot);

    World& world_;
    const History& history_;
    Outcome& outcome_;
    SnapshotSetup setup_;
    Clients clients_;
    SimDisk* origin_disk_ = nullptr;
    std::unique_ptr<OriginVolume> origin_;
    Machine::Mapped* origin_mapped_ = nullptr;
    std::array<Slot, kSlots> slots_;
    bool admin_busy_ = false;
    bool booted_ = false;
    bool gave_up_ = false;    // something is stuck: no use in going on
};

}  // namespace udm
