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

#include "sim/administrator.hpp"
#include "sim/clients.hpp"
#include "sim/machine.hpp"
#include "sim/snapshot_setup.hpp"
#include "sim/story.hpp"

namespace udm {

class SnapshotRun {
  public:
    SnapshotRun(World& world, const History& history, Outcome& outcome);
    ~SnapshotRun();
    void run();

  private:
    enum class Store : std::uint8_t { persistent, overflow, transient };
    struct Slot;
    class OriginVolume final : public Volume {
      public:
        OriginVolume(SnapshotRun& run, ShadowDisk shadow) : Volume{"origin", std::move(shadow)}, run_{run} {}
        std::uint64_t causes() const override {
            return run_.merging_ ? run_.faulted_of(*run_.merging_) : faulted(*run_.origin_disk_);
        }
        bool excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const override;
        // While a snapshot is taken of a live origin, what is written meanwhile may be in it.
        void submitted(Op op, Extent extent, std::uint64_t write) override;
        std::uint64_t faulted_at_boot = 0;
        Volume* being_taken = nullptr;

      private:
        SnapshotRun& run_;
    };
    class SnapshotVolume final : public Volume {
      public:
        SnapshotVolume(SnapshotRun& run, Slot& slot, ShadowDisk shadow)
            : Volume{slot.name, std::move(shadow)}, run_{run}, slot_{slot} {}
        std::uint64_t causes() const override { return run_.faulted_of(slot_); }
        bool excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const override;
        std::uint64_t faulted_at_boot = 0;

      private:
        SnapshotRun& run_;
        Slot& slot_;
    };
    struct Slot {
        unsigned number = 0;
        std::string name, cow_name;
        SimDisk* cow = nullptr;
        SnapshotSetup::Slot setup;
        std::uint64_t cow_sectors = 0;
        std::uint64_t sectors = 0;       // of the snapshot: the origin's when it was taken
        bool cut_off = false;            // its COW device has become smaller
        Store store = Store::persistent;
        // A snapshot is taken: the state has it, and it comes back after a power cut (unless it is transient).
        bool committed = false;
        bool live = false;               // clients may use it
        // A store was made on a wiped device, or was on its way to be, and never used.
        bool half_made = false;
        Machine::Mapped* mapped = nullptr;
        std::uint64_t cuts_at_take = 0;
        std::uint64_t cow_faulted_at_take = 0, origin_faulted_at_take = 0;
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
    Job<void> boot();
    Job<void> boot_slot(Slot* slot);
    Job<void> take(Slot* slot, Store store, steps::Way way, bool on_what_is_left);
    Job<void> drop(Slot* slot);
    bool extends(const Slot& slot) const noexcept { return (setup_.auto_extend >> slot.number & 1) != 0; }
    // Loads the slot's table, with its settings.
    Job<Result<void>> load(Slot* slot);
    // `volume` may be null: what the origin stands on has no clients of its own.
    Job<void> cycle(Volume* volume, Machine::Mapped* mapped, bool noflush, Nanoseconds stay);
    Job<void> make_view(Slot* slot, steps::Way way, Result<void>* result);
    Job<void> reload();
    Job<void> resize(std::uint64_t sectors);
    void cut_off(Slot& slot, std::uint64_t by);
    Job<void> remove_all();
    // Merges (snapshot_merge.cpp).
    Job<void> merge(Slot* slot, std::uint64_t rate, std::uint64_t how);
    bool was_refused(const Result<void>& result, const char* words);
    Job<void> turn();
    Job<void> settle();
    Job<void> say(steps::Say what, std::uint64_t rate);
    Job<void> replace(Slot* slot);
    Job<void> swap_origin(Result<void>* result);
    void merge_step(const Step& step);
    void restore_backup();
    bool merged() const;
    void check_merge(const char* when);
    void end_merge();
    // The device is suspended, and flushed if it was asked to be: so says its shadow from here on.
    void was_suspended(Volume& volume, bool noflush, std::uint64_t causes_before);
    void wipe(Slot& slot);
    void bound_copies(std::uint64_t memory, std::uint64_t threshold, std::uint64_t throttle);

    const char* origin_words() const noexcept { return setup_.stacked ? "udm:origin-real" : "sim:origin-disk"; }
    std::string origin_table() const;
    std::string below_table() const;
    // The origin has become smaller than the snapshot.
    bool outlives_origin(const Slot& slot) const noexcept { return slot.sectors > origin_sectors_; }
    std::string snapshot_table(const Slot& slot) const;
    // Requests that disks have failed because they were told to: what excuses errors above.
    static std::uint64_t faulted(const SimDisk& disk) noexcept { return disk.counters().faulted; }
    std::uint64_t faulted_of(const Slot& slot) const noexcept { return faulted(*slot.cow) + faulted(*origin_disk_); }
    bool may_be_broken(const Slot& slot) const noexcept;
    void check_liveness();

    World& world_;
    const History& history_;
    Outcome& outcome_;
    SnapshotSetup setup_;
    Clients clients_;
    Administrator admin_{world_};
    SimDisk* origin_disk_ = nullptr;
    std::unique_ptr<OriginVolume> origin_;
    std::uint64_t origin_sectors_ = 0;    // as the state has it
    bool origin_cut_ = false;             // it has become smaller, and stays so: what was lost would be zeroes
    Machine::Mapped* below_mapped_ = nullptr;    // what the origin stands on, if it is a mapped device
    Machine::Mapped* origin_mapped_ = nullptr;
    std::array<Slot, kSlots> slots_;
    // The origin's device merges this slot's snapshot, or is a snapshot with its store in the meantime: its content is that
    // snapshot's. The slot has no device of its own.
    Slot* merging_ = nullptr;
    bool turned_ = false;                  // it is a snapshot in the meantime
    bool may_be_lost_ = false;             // it was one, or became a merge with a disk failing: it may be Invalid for that
    std::uint64_t merge_faulted_ = 0;      // when the merge began
    bool origin_busy_ = false;             // clients keep off: what the origin's device shows is about to change
    bool lost_ = false;                    // what the origin's device shows is gone, for a cause
    bool booted_ = false;
    bool gave_up_ = false;    // something is stuck: no use in going on
};

}  // namespace udm
