// The administrator of the story "snapshot": what the daemon's control plane would do.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "sim/snapshot_run.hpp"

namespace udm {

// co_await of a record of a lost store.
class RecordWait final : LostStores::Recorded {
  public:
    RecordWait(LostStores& stores, const DiskId& store, const std::string& words) noexcept
        : stores_{stores}, store_{store}, words_{words} {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) noexcept {
        awaiting_ = awaiting;
        stores_.record(store_, words_, *this);
    }
    void await_resume() const noexcept {}

  private:
    void recorded(IoStatus) noexcept override { awaiting_.resume(); }
    LostStores& stores_;
    DiskId store_;
    const std::string& words_;
    std::coroutine_handle<> awaiting_;
};

void SnapshotRun::was_suspended(Volume& volume, bool noflush, std::uint64_t causes_before) {
    if (noflush || volume.causes() != causes_before) return;
    for (const Slot& slot : slots_) {    // one that is lost flushes nothing; and its mark may be lost in a cut
        if (slot.volume.get() == &volume && slot.mapped && Machine::status(*slot.mapped) == "snapshot Invalid") return;
    }
    ShadowDisk& shadow = volume.shadow();
    shadow.end_flush(shadow.begin_flush(), IoStatus::ok);
}

void SnapshotRun::wipe(Slot& slot) {
    slot.cow->fill_now({{0}, {std::min<std::uint64_t>(slot.cow_sectors, 8)}}, 0);
}

// Everything that is committed stands before the origin takes a write.
Job<void> SnapshotRun::boot() {
    Machine& machine = world_.machine();
    if (setup_.stacked != 0) {
        below_mapped_ = &machine.create("origin-real");
        const std::string below = below_table();
        auto swapping = machine.swap(*below_mapped_, below, TableMode::read_write);
        const auto swapped = co_await swapping;
        if (!swapped) clients_.violate("what the origin stands on cannot be loaded: " + swapped.error().message);
    }
    origin_mapped_ = &machine.create("origin");
    const std::string table = origin_table();
    const std::uint64_t before = origin_->causes();
    auto loading = machine.load(*origin_mapped_, table, TableMode::read_write);
    auto loaded = co_await loading;
    if (!loaded && origin_->causes() != before) {    // a merge's store, on a disk that fails: nothing can be had until it is well
        steps::heal(*merging_->cow);
        steps::heal(*origin_disk_);
        auto again = machine.load(*origin_mapped_, table, TableMode::read_write);
        loaded = co_await again;
    }
    if (!loaded) clients_.violate("the origin's table cannot be loaded: " + loaded.error().message);
    for (Slot& slot : slots_) {
        if (slot.committed) {
            auto one = boot_slot(&slot);
            co_await one;
        }
    }
    auto resuming = origin_mapped_->device->resume();
    const auto resumed = co_await resuming;
    if (!resumed) clients_.violate("the origin cannot be resumed: " + resumed.error().message);
    origin_->attach(*origin_mapped_->device, machine.reactor());
    for (Slot& slot : slots_) {
        if (!slot.mapped) continue;
        slot.volume->attach(*slot.mapped->device, machine.reactor());
        slot.live = true;
    }
    admin_.busy = false;
    booted_ = true;
}

Job<void> SnapshotRun::boot_slot(Slot* slot) {
    Machine& machine = world_.machine();
    const std::uint64_t before = faulted_of(*slot);
    slot->mapped = &machine.create(slot->name);
    auto loading = load(slot);
    auto swapped = co_await loading;
    if (swapped) {
        auto resuming = slot->mapped->device->resume();
        swapped = co_await resuming;
    }
    if (swapped && !slot->cut_off) co_return;
    if (faulted_of(*slot) == before && !slot->cut_off && !outlives_origin(*slot)) {
        clients_.violate(fmt::format("{} cannot be loaded after a cut: {}", slot->name, swapped.error().message));
    }
    // A snapshot that cannot be loaded is given up for good, before the origin changes (decision 12).
    const auto cow = machine.opener().open(slot->cow_name, OpenMode::read);
    ASSERT(cow.has_value());
    RecordWait record{world_.lost_stores(), (*cow)->id(), slot->cow_name};
    co_await record;
    auto removing = machine.remove(*slot->mapped);
    co_await removing;
    slot->mapped = nullptr;
    slot->committed = false;
    slot->volume.reset();
}

Job<Result<void>> SnapshotRun::load(Slot* slot) {
    const std::string table = snapshot_table(*slot);
    auto loading = world_.machine().load(*slot->mapped, table, TableMode::read_write);
    auto loaded = co_await loading;
    if (!loaded) co_return fail(loaded);
    if (!extends(*slot)) co_return Result<void>{};
    const std::vector<std::string> words{"set", "auto_extend", slot->number % 2 ? "50%" : "1K"};
    auto setting = slot->mapped->device->inactive()->entries()[0].target->message(&words);
    const auto set = co_await setting;
    if (!set) clients_.violate(slot->name + " cannot be told to extend its COW device: " + set.error().message);
    co_return Result<void>{};
}

// From the table's load on, up to the moment from which the state has it.
Job<void> SnapshotRun::take(Slot* slot, Store store, steps::Way way, bool on_what_is_left) {
    Machine& machine = world_.machine();
    if (!(on_what_is_left && slot->half_made && store != Store::transient)) wipe(*slot);
    slot->half_made = store != Store::transient;
    slot->store = store;
    slot->sectors = origin_sectors_;
    slot->cut_off = false;
    slot->cow_faulted_at_take = faulted(*slot->cow);
    slot->origin_faulted_at_take = origin_disk_->count(Op::read).faulted;
    const std::uint64_t before = faulted_of(*slot);
    slot->mapped = &machine.create(slot->name);
    slot->cuts_at_take = world_.cuts();
    auto loading = load(slot);
    auto done = co_await loading;
    const bool was_loaded = done.has_value();
    if (was_loaded) {
        auto making = make_view(slot, way, &done);
        co_await making;
    }
    if (!done && faulted_of(*slot) == before) {
        clients_.violate(fmt::format("{} cannot be taken: {}", slot->name, done.error().message));
    }
    if (done) {
        slot->volume->attach(*slot->mapped->device, machine.reactor());
        slot->live = true;
        slot->committed = store != Store::transient;
        ++outcome_.views;
        world_.note(0x7a4e, [&] { return slot->name + " is taken: " + snapshot_table(*slot); });
    } else {
        slot->volume.reset();
        auto removing = machine.remove(*slot->mapped);
        co_await removing;
        slot->mapped = nullptr;
    }
    if (was_loaded && way != steps::Way::live) {
        auto back = origin_mapped_->device->resume();
        const auto resumed = co_await back;
        if (!resumed) clients_.violate("the origin cannot be resumed: " + resumed.error().message);
    }
    admin_.busy = false;
}

// The point in time. Leaves the origin suspended if the way is to suspend it.
Job<void> SnapshotRun::make_view(Slot* slot, steps::Way way, Result<void>* result) {
    if (way != steps::Way::live) {
        const std::uint64_t before = origin_->causes();
        auto suspending = origin_mapped_->device->suspend({.noflush = way == steps::Way::noflush});
        const auto suspended = co_await suspending;
        if (!suspended) clients_.violate("the origin cannot be suspended: " + suspended.error().message);
        was_suspended(*origin_, way == steps::Way::noflush, before);
    }
    slot->half_made = false;
    slot->volume = std::make_unique<SnapshotVolume>(*this, *slot, origin_->shadow().fork(way != steps::Way::live));
    slot->volume->faulted_at_boot = faulted_of(*slot);
    if (way == steps::Way::live) origin_->being_taken = slot->volume.get();
    auto resuming = slot->mapped->device->resume();
    *result = co_await resuming;
    origin_->being_taken = nullptr;
}

Job<void> SnapshotRun::drop(Slot* slot) {
    slot->live = slot->committed = false;
    world_.note(0xd209, [&] { return slot->name + " is dropped"; });
    check_status(*slot, "before it is dropped");
    auto removing = world_.machine().remove(*slot->mapped);
    co_await removing;
    slot->mapped = nullptr;
    if (clients_.in_flight(*slot->volume) != 0) {
        clients_.violate(fmt::format("{}: removed with {} requests under way", slot->name, clients_.in_flight(*slot->volume)));
        clients_.forget(*slot->volume);
    }
    slot->volume.reset();
    admin_.busy = false;
}

Job<void> SnapshotRun::cycle(Volume* volume, Machine::Mapped* mapped, bool noflush, Nanoseconds stay) {
    const std::uint64_t before = volume ? volume->causes() : 0;
    auto suspending = mapped->device->suspend({.noflush = noflush});
    const auto suspended = co_await suspending;
    if (!suspended) clients_.violate(mapped->name + " cannot be suspended: " + suspended.error().message);
    if (volume) was_suspended(*volume, noflush, before);
    world_.note(0x5059, [&] { return mapped->name + " is suspended"; });
    if (stay != 0) {
        Reactor& reactor = world_.machine().reactor();
        Sleep nap{reactor, reactor.now() + stay};
        co_await nap;
    }
    auto resuming = mapped->device->resume();
    const auto resumed = co_await resuming;
    if (!resumed) clients_.violate(mapped->name + " cannot be resumed: " + resumed.error().message);
    ++outcome_.swaps;
    admin_.busy = false;
}

Job<void> SnapshotRun::reload() {
    const std::string table = origin_table();
    auto swapping = world_.machine().swap(*origin_mapped_, table, TableMode::read_write);
    const auto swapped = co_await swapping;
    if (!swapped) clients_.violate("the origin's table cannot be swapped: " + swapped.error().message);
    world_.note(0x5a4b, [] { return std::string{"the origin has a new table"}; });
    ++outcome_.swaps;
    admin_.busy = false;
}

// What is new at the end is written at once. What is behind the end of a smaller one is gone, for its snapshots too.
Job<void> SnapshotRun::resize(std::uint64_t sectors) {
    Machine& machine = world_.machine();
    const std::uint64_t was = std::exchange(origin_sectors_, sectors);
    const std::string table = origin_table(), below = below_table();
    origin_sectors_ = was;
    origin_busy_ = true;
    if (sectors > was) {
        origin_disk_->resize({sectors});
        if (below_mapped_) {
            auto swapping = machine.swap(*below_mapped_, below, TableMode::read_write);
            const auto swapped = co_await swapping;
            if (!swapped) clients_.violate("what the origin stands on cannot grow: " + swapped.error().message);
        }
    }
    auto loading = machine.load(*origin_mapped_, table, TableMode::read_write);
    Result<void> done = co_await loading;
    if (!done) clients_.violate("the origin's table of another size cannot be loaded: " + done.error().message);
    auto suspending = swap_origin(&done);
    co_await suspending;
    origin_sectors_ = sectors;
    origin_cut_ |= sectors < was;
    origin_->shadow().resize({sectors});
    auto resuming = origin_mapped_->device->resume();
    const auto resumed = co_await resuming;
    if (!resumed) clients_.violate("the origin of another size cannot be resumed: " + resumed.error().message);
    if (sectors < was) {
        if (below_mapped_) {
            auto swapping = machine.swap(*below_mapped_, below, TableMode::read_write);
            const auto swapped = co_await swapping;
            if (!swapped) clients_.violate("what the origin stands on cannot become smaller: " + swapped.error().message);
        }
        origin_disk_->resize({sectors});
    } else {
        clients_.submit(*origin_, Op::write, {{was}, {sectors - was}});
    }
    world_.note(0x512e, [&] { return fmt::format("the origin has {} sectors", sectors); });
    ++outcome_.swaps;
    admin_.busy = origin_busy_ = false;
}

// Somebody has cut the end off: what was there is lost.
void SnapshotRun::cut_off(Slot& slot, std::uint64_t by) {
    const std::uint64_t least = std::max<std::uint64_t>(3 * slot.setup.chunk, 8 + 2 * slot.setup.chunk);
    const std::uint64_t now = slot.cow->size_to_come().v;
    if (now <= least) return;
    slot.cow_sectors = std::max(least, now - std::min(by, now));
    slot.cow->resize({slot.cow_sectors});
    slot.cut_off = true;
    slot.setup.roomy = 0;
    world_.note(0xc07f, [&] { return fmt::format("{} has {} sectors left", slot.cow_name, slot.cow_sectors); });
}

Job<void> SnapshotRun::remove_all() {
    Machine& machine = world_.machine();
    for (Slot& slot : slots_) {
        if (!slot.mapped) continue;
        slot.live = false;
        auto removing = machine.remove(*slot.mapped);
        co_await removing;
        slot.mapped = nullptr;
    }
    auto removing = machine.remove(*origin_mapped_);
    co_await removing;
    origin_mapped_ = nullptr;
    if (below_mapped_) {
        auto below = machine.remove(*below_mapped_);
        co_await below;
        below_mapped_ = nullptr;
    }
    admin_.busy = false;
}

}  // namespace udm
