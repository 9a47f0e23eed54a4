#include "sim/snapshot_run.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace udm {
namespace {
constexpr std::uint64_t kFirstContent = std::uint64_t{1} << 30;    // the write whose data the origin has at first
}  // namespace

std::vector<std::uint64_t> SnapshotSetup::pack() const {
    std::vector<std::uint64_t> words{sectors, stable_disks, fast, lazy_discard, orderly_end, flush_at_end};
    for (const Slot& slot : slots) words.insert(words.end(), {slot.chunk, slot.cow_sectors, slot.roomy, slot.discard_zeroes_cow});
    return words;
}

SnapshotSetup SnapshotSetup::unpack(const std::vector<std::uint64_t>& words) {
    SnapshotSetup setup{words[0], words[1], words[2], words[3], words[4], words[5], {}};
    for (std::size_t i = 0; i < kSlots; ++i) {
        const std::size_t at = 6 + 4 * i;
        setup.slots[i] = {words[at], words[at + 1], words[at + 2], words[at + 3]};
    }
    return setup;
}

// --- volumes --------------------------------------------------------------------------------------------------------

bool SnapshotRun::OriginVolume::excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const {
    // An error of the flush that goes with a suspend is owed to the next flush from above.
    if (op == Op::flush && causes() != errors_at_boot) return true;
    return Volume::excuses(op, status, causes_at_begin);
}

bool SnapshotRun::SnapshotVolume::excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const {
    if (Volume::excuses(op, status, causes_at_begin)) return true;
    if (op == Op::flush && causes() != errors_at_boot) return true;
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
    }
}

SnapshotRun::~SnapshotRun() = default;

void SnapshotRun::prepare_disks() {
    const auto add = [this](const std::string& name, std::uint64_t sectors, unsigned number) -> SimDisk& {
        SimDisk::Options options;
        options.name = name;
        options.limits.size = {sectors};
        options.limits.discard = true;
        options.limits.volatile_cache = (setup_.stable_disks >> number & 1) == 0;
        options.lazy_discard = setup_.lazy_discard != 0;
        options.latency_min = (setup_.fast >> number & 1) != 0 ? 5'000 : 50'000;
        options.latency_max = 8 * options.latency_min;
        return world_.add_disk(options);
    };
    origin_disk_ = &add("origin-disk", setup_.sectors, 0);
    std::vector<std::byte> content(to_bytes(Sectors{setup_.sectors}));
    ShadowDisk::fill({{0}, {setup_.sectors}}, kFirstContent, content.data());
    origin_disk_->write_now({{0}, {setup_.sectors}}, content.data());
    ShadowDisk shadow{Sectors{setup_.sectors}};
    shadow.set_all(kFirstContent);
    origin_ = std::make_unique<OriginVolume>(*this, std::move(shadow));
    for (Slot& slot : slots_) {
        slot.cow = &add(slot.cow_name, slot.setup.cow_sectors, slot.number + 1);
        // What was on the device before is nobody's business, and must not be taken for exceptions.
        slot.cow->fill_now({{0}, {std::min<std::uint64_t>({slot.setup.cow_sectors, 2 * slot.setup.chunk, 48})}}, 0x01);
    }
}

std::uint64_t SnapshotRun::errors(const SimDisk& disk) noexcept {
    std::uint64_t errors = 0;
    for (const auto& op : disk.counters().by_op) errors += op.errors;
    return errors;
}

bool SnapshotRun::may_be_broken(const Slot& slot) const noexcept {
    return !slot.setup.roomy || errors(*slot.cow) != slot.cow_errors_at_take ||
           read_errors(*origin_disk_) != slot.origin_errors_at_take;
}

bool SnapshotRun::is_invalid(const Slot& slot) { return Machine::status(*slot.mapped) == "snapshot Invalid"; }

std::string SnapshotRun::origin_table() const {
    return fmt::format("0 {} snapshot-origin sim:origin-disk", setup_.sectors);
}

std::string SnapshotRun::snapshot_table(const Slot& slot) const {
    static constexpr const char* kLetters[] = {"P", "PO", "N"};
    return fmt::format("0 {} snapshot sim:origin-disk sim:{} {} {}{}", setup_.sectors, slot.cow_name,
                       kLetters[static_cast<unsigned>(slot.store)], slot.setup.chunk,
                       slot.setup.discard_zeroes_cow ? " 1 discard_zeroes_cow" : "");
}

void SnapshotRun::run() {
    prepare_disks();
    start_boot();
    if (!finish_boot()) return;
    for (const Step& one : history_.steps) {
        if (gave_up_ || outcome_.failed()) break;
        clients_.let(one.pause);
        step(one);
    }
    if (!gave_up_ && !outcome_.failed()) the_end();
}

Volume* SnapshotRun::volume_for(std::uint64_t which) {
    if (which >= 1 && which <= kSlots && slots_[which - 1].live) return slots_[which - 1].volume.get();
    return booted_ ? origin_.get() : nullptr;
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
            if (step.kind == steps::kFault) steps::apply_fault(disk, step);
            else steps::heal(disk);
            return;
        }
        case steps::kCut: power_cut(step); return;
        default: break;
    }
    if (!booted_ || !wait_for_admin()) return;
    switch (step.kind) {
        case steps::kTake: {
            Slot& slot = slots_[step.a];
            if (!slot.mapped) start(take(&slot, static_cast<Store>(step.b), step.c == 1));
            break;
        }
        case steps::kDrop: {
            Slot& slot = slots_[step.a];
            if (slot.live) start(drop(&slot));
            break;
        }
        case steps::kCycle: {
            Slot* slot = step.a == 0 ? nullptr : &slots_[step.a - 1];
            if (slot && !slot->live) break;
            if (slot) start(cycle(slot->volume.get(), slot->mapped, step.b == 1, step.c * 1000));
            else start(cycle(origin_.get(), origin_mapped_, step.b == 1, step.c * 1000));
            break;
        }
        case steps::kReload: start(reload()); break;
        default: UNREACHABLE();
    }
}

// --- power ----------------------------------------------------------------------------------------------------------

void SnapshotRun::start_boot() {
    booted_ = false;
    world_.power_on();
    origin_->errors_at_boot = errors(*origin_disk_);
    for (Slot& slot : slots_) {
        if (slot.volume) slot.volume->errors_at_boot = errors_of(slot);
    }
    start(boot());
}

bool SnapshotRun::finish_boot() {
    if (clients_.until([this] { return booted_; })) return true;
    clients_.violate("the machine does not come up");
    gave_up_ = true;
    return false;
}

void SnapshotRun::power_cut(const Step& step) {
    for (std::uint64_t again = step.b;; again = 0) {
        world_.cut_power();
        std::vector<Volume*> volumes{origin_.get()};
        for (Slot& slot : slots_) {
            if (slot.volume) volumes.push_back(slot.volume.get());
        }
        clients_.power_cut(volumes);
        admin_busy_ = false;
        origin_mapped_ = nullptr;
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

void SnapshotRun::the_end() {
    // Faults are over: everything must end.
    steps::heal(*origin_disk_);
    for (Slot& slot : slots_) steps::heal(*slot.cow);
    world_.chaos().calm();
    if (!clients_.until([this] { return !admin_busy_; })) {
        clients_.violate("the administrator's work does not end");
        return;
    }
    if (!clients_.settle()) {
        clients_.violate(fmt::format("{} requests do not end", clients_.in_flight()));
        return;
    }
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
    for (const Slot& slot : slots_) {
        if (slot.live) check_status(slots_[slot.number], "at the end");
    }
    if (setup_.orderly_end != 0) remove_everything();
}

void SnapshotRun::check_progress() {
    const std::uint64_t length = std::min<std::uint64_t>(setup_.sectors, 8);
    clients_.submit(*origin_, Op::write, {{0}, {length}});
    for (Slot& slot : slots_) {
        if (slot.live) clients_.submit(*slot.volume, Op::write, {{setup_.sectors - length}, {length}});
    }
    clients_.submit(*origin_, Op::flush, {});
    if (!clients_.settle()) clients_.violate("writes do not end though all disks are well");
}

void SnapshotRun::remove_everything() {
    start(remove_all());
    if (!clients_.until([this] { return !admin_busy_; })) {
        clients_.violate("removing everything does not end");
        return;
    }
    // What targets still do for themselves ends, too.
    static_cast<void>(clients_.until([] { return false; }));
    SimReactor& reactor = world_.machine().reactor();
    if (reactor.ios_out() != 0) clients_.violate(fmt::format("{} requests are left when all is removed", reactor.ios_out()));
    if (reactor.buffers().bytes_out() != 0) {
        clients_.violate(fmt::format("{} bytes of buffers are left when all is removed", reactor.buffers().bytes_out()));
    }
}

}  // namespace udm
