// The administrator of the story "merge": a snapshot goes back into its origin, as LVM does it. The origin's device gets the
// merging table and with it the snapshot's store, the snapshot's own device goes away, and when all is merged the device
// becomes an origin again. From the first swap on its content is what the snapshot's was.
#include <fmt/format.h>

#include <algorithm>

#include "sim/snapshot_run.hpp"

namespace udm {
namespace {
// No number of faults: the error of a flush at a suspend may be told to any flush that comes.
constexpr std::uint64_t kOwesAnError = ~std::uint64_t{0};
}  // namespace

void SnapshotRun::merge_step(const Step& step) {
    switch (step.kind) {
        case steps::kMerge: {
            Slot& slot = slots_[step.a];
            if (!merging_ && slot.live && slot.store != Store::transient) admin_.start(merge(&slot, step.b, step.c));
            break;
        }
        case steps::kTurn:
            // Only where the store cannot become full meanwhile: that would be the end of the volume.
            if (merging_ && merging_->setup.roomy) admin_.start(turn());
            break;
        case steps::kSettle:
            if (merged()) admin_.start(settle());
            break;
        case steps::kSay:
            if (merging_ && !turned_) admin_.start(say(static_cast<steps::Say>(step.b), step.c));
            break;
        case steps::kReplace: {
            Slot& slot = slots_[step.a];
            if (slot.live) admin_.start(replace(&slot));
            break;
        }
        default: UNREACHABLE();
    }
}

bool SnapshotRun::merged() const {
    if (!merging_ || turned_) return false;
    const std::uint64_t two = 2 * merging_->setup.chunk;
    return Machine::status(*origin_mapped_) == fmt::format("snapshot-merge {}/{} {}", two, merging_->cow->limits().size.v, two);
}

void SnapshotRun::check_merge(const char* when) {
    if (!merging_ || !origin_mapped_) return;
    const std::string words = Machine::status(*origin_mapped_);
    world_.note(0x6e57, [&] { return "origin: " + words; });
    const bool broken = words == "snapshot-merge Merge failed" || words == "snapshot-merge Invalid" || words == "snapshot Invalid";
    if (broken && !may_be_lost_ && faulted_of(*merging_) == merge_faulted_) clients_.violate(fmt::format("origin: {} {}, without a cause", words, when));
    // While it merges nothing makes it invalid; as a snapshot it may be lost, and the volume with it.
    if (words == "snapshot Invalid" || (words == "snapshot-merge Invalid" && may_be_lost_)) lost_ = true;
    if (words == "snapshot-merge Invalid" && !lost_) clients_.violate("origin: Invalid while it is merged");
}

// The volume is lost: its machine is switched off, the disk gets what a backup has, and all snapshots are gone.
void SnapshotRun::restore_backup() {
    static constexpr std::uint64_t kBackup = (std::uint64_t{1} << 30) + 1;
    world_.note(0xbac0, [] { return std::string{"the origin comes from a backup"}; });
    world_.cut_power();
    clients_.power_cut({origin_.get()});
    admin_.busy = origin_busy_ = lost_ = false;
    origin_mapped_ = below_mapped_ = nullptr;
    merging_ = nullptr;
    for (Slot& slot : slots_) {
        slot.mapped = nullptr;
        slot.live = slot.committed = slot.half_made = false;
        slot.volume.reset();
        steps::heal_for_boot(*slot.cow, false);
    }
    steps::heal_for_boot(*origin_disk_, false);
    std::vector<std::byte> content(to_bytes(Sectors{setup_.sectors}));
    ShadowDisk::fill({{0}, {setup_.sectors}}, kBackup, content.data());
    origin_disk_->write_now({{0}, {setup_.sectors}}, content.data());
    origin_->shadow() = ShadowDisk{Sectors{setup_.sectors}};
    origin_->shadow().set_all(kBackup);
    start_boot();
    static_cast<void>(finish_boot());
}

// The table that the state asks for is loaded, and the device suspended; it is not resumed.
Job<void> SnapshotRun::swap_origin(Result<void>* result) {
    const std::uint64_t before = origin_->causes();
    auto suspending = origin_mapped_->device->suspend({});
    *result = co_await suspending;
    if (!*result) co_return;
    was_suspended(*origin_, false, before);
    if (clients_.in_flight(*origin_) != 0) clients_.violate("origin: suspended with requests under way");
}

// What must not happen while a store goes from one table to another.
bool SnapshotRun::was_refused(const Result<void>& result, const char* words) {
    if (!result && result.error().message.find(words) != std::string::npos) return true;
    clients_.violate(fmt::format("it should have been refused as \"{}\", and {}", words,
                                 result ? std::string{"was not"} : "was as " + result.error().message));
    return false;
}

Job<void> SnapshotRun::merge(Slot* slot, std::uint64_t rate, std::uint64_t how) {
    Machine& machine = world_.machine();
    slot->live = false;
    origin_busy_ = true;
    turned_ = false;
    merging_ = slot;
    const std::string table = origin_table();
    merging_ = nullptr;
    auto loading = machine.load(*origin_mapped_, table, TableMode::read_write);
    Result<void> done = co_await loading;
    if (!done) clients_.violate("the merging table cannot be loaded: " + done.error().message);
    const bool early = (how & steps::kTooEarly) != 0 && clients_.in_flight(*slot->volume) == 0;
    if (early) {
        auto swapping = swap_origin(&done);
        co_await swapping;
        auto hurrying = origin_mapped_->device->resume();
        const auto hurried = co_await hurrying;
        if (!was_refused(hurried, "Unable to perform snapshot handover until source is suspended.")) {
            origin_busy_ = admin_.busy = false;
            co_return;
        }
    }
    const std::uint64_t before = slot->volume->causes();
    const std::uint64_t slot_faults = faulted(*slot->cow);
    auto suspending = slot->mapped->device->suspend({});
    const auto suspended = co_await suspending;
    if (!suspended) clients_.violate(slot->name + " cannot be suspended: " + suspended.error().message);
    was_suspended(*slot->volume, false, before);
    if (how & steps::kSourceAgain) {
        auto returning = slot->mapped->device->resume();
        const auto returned = co_await returning;
        if (!was_refused(returned, "Unable to resume snapshot source until handover completes.")) {
            origin_busy_ = admin_.busy = false;
            co_return;
        }
    }
    if (!early) {
        auto swapping = swap_origin(&done);
        co_await swapping;
    }
    if (clients_.in_flight(*slot->volume) != 0) clients_.violate(slot->name + ": suspended with requests under way");
    check_status(*slot, "before it is merged");
    const bool lost = Machine::status(*slot->mapped) == "snapshot Invalid";
    if (lost && early) {    // it has the merging table already
        const std::string plain = origin_table();
        auto again = machine.load(*origin_mapped_, plain, TableMode::read_write);
        done = co_await again;
        if (!done) clients_.violate("the origin's table cannot be loaded again: " + done.error().message);
    } else if (lost) {
        origin_mapped_->device->clear_inactive();
    } else {
        // From here on the state has the merge: a cut finds it begun.
        origin_->shadow() = std::move(slot->volume->shadow());
        const bool owes = origin_->causes() != origin_->faulted_at_boot;
        merge_faulted_ = faulted_of(*slot);
        origin_->faulted_at_boot = owes ? kOwesAnError : merge_faulted_;
        slot->volume.reset();
        slot->committed = false;
        merging_ = slot;
        may_be_lost_ = faulted(*slot->cow) != slot_faults;    // the mark may be on its way
    }
    auto resuming = origin_mapped_->device->resume();
    const auto resumed = co_await resuming;
    if (!resumed) clients_.violate("the merge cannot begin: " + resumed.error().message);
    if (lost) {
        auto back = slot->mapped->device->resume();
        const auto again = co_await back;
        if (!again) clients_.violate(slot->name + " cannot be resumed: " + again.error().message);
        slot->live = true;
    } else {
        world_.note(0x4e46, [&] { return slot->name + " is merged"; });
        auto removing = machine.remove(*slot->mapped);
        co_await removing;
        slot->mapped = nullptr;
        check_merge("as it begins");
        auto saying = say(steps::Say::rate, rate);
        co_await saying;
        if (how & steps::kPausedAtFirst) {
            auto pausing = say(steps::Say::pause, 0);
            co_await pausing;
        }
    }
    ++outcome_.swaps;
    origin_busy_ = admin_.busy = false;
}

Job<void> SnapshotRun::turn() {
    turned_ = !turned_;
    const std::string table = origin_table();
    turned_ = !turned_;
    auto loading = world_.machine().load(*origin_mapped_, table, TableMode::read_write);
    Result<void> done = co_await loading;
    if (!done) clients_.violate("the other table cannot be loaded: " + done.error().message);
    origin_busy_ = true;
    const std::uint64_t before = origin_->causes();
    auto swapping = swap_origin(&done);
    co_await swapping;
    check_merge("before its table is swapped");
    if (origin_->causes() != before) {    // what was not flushed by this table might not be by the other
        origin_mapped_->device->clear_inactive();
        auto resuming = origin_mapped_->device->resume();
        static_cast<void>(co_await resuming);
    } else if (!lost_) {
        turned_ = !turned_;
        may_be_lost_ = true;
        auto resuming = origin_mapped_->device->resume();
        const auto resumed = co_await resuming;
        check_merge("as its table is swapped");
        if (!resumed) clients_.violate("the other table cannot be resumed: " + resumed.error().message);
        world_.note(0x7524, [&] { return turned_ ? "the merge is a snapshot again" : "the snapshot is merged again"; });
        ++outcome_.swaps;
    }
    origin_busy_ = admin_.busy = false;
}

Job<void> SnapshotRun::settle() {
    Slot* const slot = merging_;
    merging_ = nullptr;
    const std::string table = origin_table();
    merging_ = slot;
    auto loading = world_.machine().load(*origin_mapped_, table, TableMode::read_write);
    Result<void> done = co_await loading;
    if (!done) clients_.violate("the origin's table cannot be loaded: " + done.error().message);
    origin_busy_ = true;
    auto swapping = swap_origin(&done);
    co_await swapping;
    const bool owes = origin_->causes() != origin_->faulted_at_boot;
    merging_ = nullptr;
    origin_->faulted_at_boot = owes ? kOwesAnError : faulted(*origin_disk_);
    auto resuming = origin_mapped_->device->resume();
    const auto resumed = co_await resuming;
    if (!resumed) clients_.violate("the origin cannot be resumed: " + resumed.error().message);
    world_.note(0x5e77, [] { return std::string{"the merge is done, and the device an origin again"}; });
    ++outcome_.swaps;
    origin_busy_ = admin_.busy = false;
}

Job<void> SnapshotRun::say(steps::Say what, std::uint64_t rate) {
    static const std::vector<std::string> kWords[] = {{"merge_pause"}, {"merge_resume"}, {"merge_retry"}};
    std::vector<std::string> setting{"set", "merge_rate", std::to_string(rate)};
    const std::vector<std::string>* words = what == steps::Say::rate ? &setting : &kWords[static_cast<unsigned>(what)];
    auto saying = origin_mapped_->device->message({0}, words);
    const auto answer = co_await saying;
    if (!answer) clients_.violate("the merge does not take " + words->front() + ": " + answer.error().message);
    admin_.busy = origin_busy_;    // false, but in the middle of a larger job
}

Job<void> SnapshotRun::replace(Slot* slot) {
    slot->setup.discard_zeroes_cow = slot->setup.discard_zeroes_cow == 0;
    const std::uint64_t before = slot->volume->causes();
    auto loading = load(slot);
    const auto loaded = co_await loading;
    if (!loaded) clients_.violate(slot->name + " cannot be given another table: " + loaded.error().message);
    auto suspending = slot->mapped->device->suspend({});
    static_cast<void>(co_await suspending);
    was_suspended(*slot->volume, false, before);
    auto resuming = slot->mapped->device->resume();
    const auto resumed = co_await resuming;
    if (!resumed) clients_.violate(slot->name + " cannot be resumed with another table: " + resumed.error().message);
    world_.note(0x4e91, [&] { return slot->name + " has another table"; });
    ++outcome_.swaps;
    admin_.busy = false;
}

// Faults are over: what can be merged is, and the device becomes an origin again.
void SnapshotRun::end_merge() {
    if (!merging_) return;
    const auto admin = [this](Job<void> job) {
        admin_.start(std::move(job));
        if (!clients_.until([this] { return !admin_.busy; })) clients_.violate("the administrator's work does not end");
        return !outcome_.failed();
    };
    check_merge("at the end");
    if (lost_ || outcome_.failed()) return;
    if (turned_ && (!admin(turn()) || lost_)) return;
    if (!admin(say(steps::Say::rate, 0)) || !admin(say(steps::Say::go_on, 0))) return;
    for (unsigned tries = 0; tries < 3 && !merged(); ++tries) {    // what was under way when the disks were healed may fail yet
        if (!admin(say(steps::Say::retry, 0))) return;
        static_cast<void>(clients_.until([this] { return merged(); }));    // or nothing happens any more
    }
    if (!merged()) {
        clients_.violate("the merge does not end though all disks are well: " + Machine::status(*origin_mapped_));
        return;
    }
    static_cast<void>(admin(settle()));
}

}  // namespace udm
