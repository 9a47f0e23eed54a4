#include "sim/snapshot_run.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "sim/premade_store.hpp"

namespace udm {
namespace {
constexpr std::uint64_t kFirstContent = std::uint64_t{1} << 30;    // the write whose data the origin has at first
}  // namespace

// --- volumes --------------------------------------------------------------------------------------------------------

bool SnapshotRun::OriginVolume::excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const {
    // An error of the flush that goes with a suspend is owed to the next flush from above.
    if (op == Op::flush && causes() != faulted_at_boot) return true;
    if (run_.merging_ && causes() != run_.merge_faulted_) return true;    // what waits for a merge fails with it
    return Volume::excuses(op, status, causes_at_begin);
}

void SnapshotRun::OriginVolume::submitted(Op op, Extent extent, std::uint64_t write) {
    const bool writes = op == Op::write || op == Op::write_zeroes || op == Op::discard;
    if (writes && being_taken) being_taken->shadow().add_perhaps(extent, write);
}

bool SnapshotRun::SnapshotVolume::excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const {
    if (Volume::excuses(op, status, causes_at_begin)) return true;
    if (op == Op::discard && status == IoStatus::unsupported) return true;    // another table came between
    if (op == Op::flush && causes() != faulted_at_boot) return true;
    if (run_.outlives_origin(slot_)) return true;
    // An overflow may have ended since.
    if (status == IoStatus::no_space && slot_.store == Store::overflow && op != Op::read && op != Op::extent_status) return run_.may_be_broken(slot_);
    const std::string words = Machine::status(*slot_.mapped);
    // Whether it may be so is checked where the status is looked at.
    return words == "snapshot Invalid" || (words == "snapshot Overflow" && op != Op::read && op != Op::extent_status);
}

// --- the run --------------------------------------------------------------------------------------------------------

SnapshotRun::SnapshotRun(World& world, const History& history, Outcome& outcome)
    : world_{world},
      history_{history},
      outcome_{outcome},
      setup_{SnapshotSetup::unpack(history.setup)},
      clients_{world, outcome} {
    for (unsigned i = 0; i < kSlots; ++i) {
        slots_[i].number = i;
        slots_[i].name = "snap" + std::to_string(i);
        slots_[i].cow_name = "cow" + std::to_string(i);
        slots_[i].setup = setup_.slots[i];
        slots_[i].cow_sectors = setup_.slots[i].cow_sectors;
    }
}

SnapshotRun::~SnapshotRun() = default;

void SnapshotRun::prepare_disks() {
    origin_sectors_ = setup_.sectors;
    origin_disk_ = &setup_.add_disk(world_, "origin-disk", setup_.sectors, 0);
    std::vector<std::byte> content(to_bytes(Sectors{setup_.sectors}));
    ShadowDisk::fill({{0}, {setup_.sectors}}, kFirstContent, content.data());
    origin_disk_->write_now({{0}, {setup_.sectors}}, content.data());
    ShadowDisk shadow{Sectors{setup_.sectors}};
    shadow.set_all(kFirstContent);
    origin_ = std::make_unique<OriginVolume>(*this, std::move(shadow));
    for (Slot& slot : slots_) {
        slot.cow = &setup_.add_disk(world_, slot.cow_name, slot.setup.cow_sectors, slot.number + 1);
        // What was on the device before is nobody's business, and must not be taken for exceptions.
        slot.cow->fill_now({{0}, {std::min<std::uint64_t>({slot.setup.cow_sectors, 2 * slot.setup.chunk, 48})}}, 0x01);
    }
    if (setup_.premade != 0) {
        Slot& slot = slots_[0];
        write_premade_store(*slot.cow, {slot.setup.chunk, setup_.premade, setup_.sectors, kFirstContent});
        slot.volume = std::make_unique<SnapshotVolume>(*this, slot, origin_->shadow().fork(true));
        slot.sectors = origin_sectors_;
        slot.committed = true;
    }
}

bool SnapshotRun::may_be_broken(const Slot& slot) const noexcept {
    // A crash may leave chunks that nobody refers to, for which there is no room in the end.
    if (slot.cut_off || outlives_origin(slot)) return true;
    const bool has_room = slot.setup.roomy || (extends(slot) && merging_ != &slot && slot.cuts_at_take == world_.cuts());
    // The origin's reads matter to its copies, and nothing else of it.
    return !has_room || faulted(*slot.cow) != slot.cow_faulted_at_take ||
           origin_disk_->count(Op::read).faulted != slot.origin_faulted_at_take;
}

std::string SnapshotRun::origin_table() const {
    if (!merging_) return fmt::format("0 {} snapshot-origin {}", origin_sectors_, origin_words());
    return fmt::format("0 {} {} {} sim:{} {} {}", origin_sectors_, turned_ ? "snapshot" : "snapshot-merge", origin_words(),
                       merging_->cow_name, merging_->store == Store::overflow ? "PO" : "P", merging_->setup.chunk);
}

std::string SnapshotRun::below_table() const { return fmt::format("0 {} linear sim:origin-disk 0", origin_sectors_); }

std::string SnapshotRun::snapshot_table(const Slot& slot) const {
    static constexpr const char* kLetters[] = {"P", "PO", "N"};
    return fmt::format("0 {} snapshot {} sim:{} {} {}{}", slot.sectors, origin_words(), slot.cow_name,
                       kLetters[static_cast<unsigned>(slot.store)], slot.setup.chunk,
                       slot.setup.discard_zeroes_cow ? " 1 discard_zeroes_cow" : "");
}

void SnapshotRun::run() {
    prepare_disks();
    start_boot();
    if (!finish_boot()) return;
    for (const Step& one : history_.steps) {
        if (lost_) restore_backup();
        if (gave_up_ || outcome_.failed()) break;
        clients_.let(one.pause);
        step(one);
    }
    if (!gave_up_ && !lost_ && !outcome_.failed()) the_end();
}

Volume* SnapshotRun::volume_for(std::uint64_t which) {
    if (which >= 1 && which <= kSlots && slots_[which - 1].live) return slots_[which - 1].volume.get();
    if (booted_ && !origin_busy_) return origin_.get();
    for (Slot& slot : slots_) {
        if (slot.live) return slot.volume.get();
    }
    return nullptr;
}

void SnapshotRun::step(const Step& step) {
    if (steps::is_request(step)) {
        if (Volume* volume = volume_for(step.a)) steps::submit(clients_, *volume, step);
        return;
    }
    switch (step.kind) {
        case steps::kFault:
        case steps::kHeal: {
            SimDisk& disk = step.a == 0 ? *origin_disk_ : *slots_[step.a - 1].cow;
            world_.note(step.kind, [&] { return steps::describe(step); });
            // What is below a store is full, or broken.
            const bool full = step.a != 0 && (step.c + step.d) % 2 != 0;
            if (step.kind == steps::kFault) steps::apply_fault(disk, step, full ? IoStatus::no_space : IoStatus::io_error);
            else steps::heal(disk);
            return;
        }
        case steps::kCut: power_cut(step); return;
        case steps::kBound:
            if (booted_) bound_copies(step.a, step.b, step.c);
            return;
        default: break;
    }
    if (!booted_ || !admin_.wait() || lost_) return;
    switch (step.kind) {
        case steps::kTake: {
            Slot& slot = slots_[step.a];
            if (!slot.mapped && !merging_) admin_.start(take(&slot, static_cast<Store>(step.b), static_cast<steps::Way>(step.c), step.d == 1));
            break;
        }
        case steps::kDrop: {
            Slot& slot = slots_[step.a];
            if (slot.live) admin_.start(drop(&slot));
            break;
        }
        case steps::kCycle: {
            const Nanoseconds stay = step.c * 1000;
            if (step.a == 0) {
                admin_.start(cycle(origin_.get(), origin_mapped_, step.b == 1, stay));
            } else if (step.a <= kSlots) {
                Slot& slot = slots_[step.a - 1];
                if (slot.live) admin_.start(cycle(slot.volume.get(), slot.mapped, step.b == 1, stay));
            } else if (below_mapped_) {
                admin_.start(cycle(nullptr, below_mapped_, step.b == 1, stay));
            }
            break;
        }
        case steps::kGrow: {
            Slot& slot = slots_[step.a];
            if (slot.cut_off) break;    // what was lost would be zeroes, and nobody could know
            slot.cow_sectors = slot.cow->size_to_come().v + step.b;
            slot.cow->resize({slot.cow_sectors});
            world_.note(step.kind, [&] { return slot.cow_name + " has grown"; });
            break;
        }
        case steps::kCutOff: {
            Slot& slot = slots_[step.a];
            if (slot.live) cut_off(slot, step.b);
            break;
        }
        case steps::kResize: {
            const bool smaller = step.a == 1;
            if (smaller ? step.b < origin_sectors_ : !origin_cut_) {
                admin_.start(resize(smaller ? origin_sectors_ - step.b : origin_sectors_ + step.b));
            }
            break;
        }
        case steps::kReload: admin_.start(reload()); break;
        default: merge_step(step);
    }
}

// --- power ----------------------------------------------------------------------------------------------------------

void SnapshotRun::start_boot() {
    booted_ = false;
    world_.power_on();
    bound_copies(setup_.copy_memory, setup_.cow_threshold, setup_.copy_throttle);
    origin_->faulted_at_boot = faulted(*origin_disk_);
    origin_disk_->refresh();
    for (Slot& slot : slots_) {
        slot.cow->refresh();
        if (slot.volume) slot.volume->faulted_at_boot = faulted_of(slot);
    }
    admin_.start(boot());
}

bool SnapshotRun::finish_boot() {
    if (clients_.until([this] { return booted_; })) return true;
    clients_.violate("the machine does not come up");
    gave_up_ = true;
    return false;
}

void SnapshotRun::bound_copies(std::uint64_t memory, std::uint64_t threshold, std::uint64_t throttle) {
    Machine& machine = world_.machine();
    machine.reactor().enter();
    machine.set_parameter("snapshot_copy_memory", memory != 0 ? memory * 4096 : std::uint64_t{32} << 20);
    machine.set_parameter("snapshot_cow_threshold", threshold != 0 ? threshold - 1 : 2048);
    machine.set_parameter("snapshot_copy_throttle", throttle != 0 ? throttle : 100);
}

void SnapshotRun::power_cut(const Step& step) {
    for (std::uint64_t again = step.b;; again = 0) {
        world_.cut_power();
        std::vector<Volume*> volumes{origin_.get()};
        for (Slot& slot : slots_) {
            if (slot.volume) volumes.push_back(slot.volume.get());
        }
        clients_.power_cut(volumes);
        admin_.busy = origin_busy_ = false;
        origin_mapped_ = below_mapped_ = nullptr;
        origin_->being_taken = nullptr;
        for (Slot& slot : slots_) {
            slot.mapped = nullptr;
            slot.live = false;
            if (slot.volume && !slot.committed) slot.volume.reset();
            steps::heal_for_boot(*slot.cow, step.a == 1);
        }
        steps::heal_for_boot(*origin_disk_, step.a == 1);
        start_boot();
        if (again == 0) break;
        clients_.let(again);
    }
    if (finish_boot()) compare_all();
}

void SnapshotRun::compare_all() {
    check_merge("before it is compared");
    if (lost_) return;
    if (!clients_.compare(*origin_)) {
        clients_.violate("reads of the origin do not end");
        gave_up_ = true;
        return;
    }
    for (Slot& slot : slots_) {
        if (!slot.live) continue;
        check_status(slot, "before it is compared");
        if (!clients_.compare(*slot.volume)) {
            clients_.violate(slot.name + ": reads do not end");
            gave_up_ = true;
            return;
        }
    }
}

void SnapshotRun::check_status(Slot& slot, const char* when) {
    const std::string words = Machine::status(*slot.mapped);
    world_.note(0x57a7, [&] { return slot.name + ": " + words; });
    if ((words == "snapshot Invalid" || words == "snapshot Overflow") && !may_be_broken(slot)) {
        clients_.violate(fmt::format("{}: {} {}, without a cause", slot.name, words, when));
    }
    if (words == "snapshot Overflow" && slot.store != Store::overflow) {
        clients_.violate(slot.name + ": Overflow, though its store is not PO");
    }
}

// --- the end --------------------------------------------------------------------------------------------------------

// Errors end requests; only what stalls may hold them up.
void SnapshotRun::check_liveness() {
    constexpr std::uint64_t kPatience = 20'000;
    bool stalls = origin_disk_->stalls();
    for (const Slot& slot : slots_) stalls |= slot.cow->stalls();
    if (stalls) return;
    for (std::uint64_t n = 0; n < kPatience && (admin_.busy || clients_.in_flight() != 0); ++n) {
        if (!world_.timeline().step()) break;
    }
    if (clients_.in_flight() != 0) clients_.violate(fmt::format("{} requests hang, though no disk stalls", clients_.in_flight()));
    if (admin_.busy) clients_.violate("the administrator hangs, though no disk stalls");
}

void SnapshotRun::the_end() {
    check_liveness();
    if (outcome_.failed()) return;
    // Faults are over: everything must end.
    steps::heal(*origin_disk_);
    for (Slot& slot : slots_) steps::heal(*slot.cow);
    world_.chaos().calm();
    if (!clients_.until([this] { return !admin_.busy; })) {
        clients_.violate("the administrator's work does not end");
        return;
    }
    if (!clients_.settle()) {
        clients_.violate(fmt::format("{} requests do not end", clients_.in_flight()));
        return;
    }
    end_merge();
    if (outcome_.failed() || lost_) return;
    check_progress();
    if (outcome_.failed()) return;
    compare_all();
    if (outcome_.failed()) return;
    if (setup_.flush_at_end != 0) {
        clients_.submit(*origin_, Op::flush, {});
        for (Slot& slot : slots_) {
            if (slot.live) clients_.submit(*slot.volume, Op::flush, {});
        }
        if (!clients_.settle()) clients_.violate("flushes do not end");
    }
    power_cut({});
    if (outcome_.failed() || gave_up_) return;
    for (Slot& slot : slots_) {
        if (slot.live) check_status(slot, "at the end");
    }
    if (setup_.orderly_end != 0) remove_everything();
    clients_.check_disks();
}

void SnapshotRun::check_progress() {
    const auto last_of = [](Volume& volume) {
        const std::uint64_t size = volume.shadow().size().v, first = (size - std::min<std::uint64_t>(size, 8)) / 8 * 8;
        return Extent{{first}, {std::min<std::uint64_t>(size - first, 8)}};
    };
    clients_.submit(*origin_, Op::write, {{0}, {std::min<std::uint64_t>(origin_sectors_, 8)}});
    clients_.submit(*origin_, Op::write, last_of(*origin_));
    for (Slot& slot : slots_) {
        if (!slot.live) continue;
        if (!clients_.settle()) break;
        clients_.submit(*slot.volume, Op::write, last_of(*slot.volume));
        if (!clients_.settle()) break;
    }
    clients_.submit(*origin_, Op::flush, {});
    if (!clients_.settle()) clients_.violate("writes do not end though all disks are well");
}

// No layer may send what its disk cannot take.
void SnapshotRun::remove_everything() {
    admin_.start(remove_all());
    if (!clients_.until([this] { return !admin_.busy; })) {
        clients_.violate("removing everything does not end");
        return;
    }
    clients_.check_nothing_left();
}

}  // namespace udm
