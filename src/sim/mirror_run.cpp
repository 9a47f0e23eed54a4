#include "sim/mirror_run.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "sim/mirror_log_bytes.hpp"
#include "sim/request_steps.hpp"

namespace udm {
namespace {
constexpr std::uint64_t kDataAtFirst = std::uint64_t{1} << 30;    // the write whose data the mirror has at first
constexpr std::uint64_t kTimePatience = 20'000;                    // events of a time that passes
}  // namespace

bool MirrorRun::MirrorVolume::excuses(Op op, IoStatus status, std::uint64_t) const {
    if (op == Op::discard && status == IoStatus::unsupported) return (run_.setup_.no_discard | run_.setup_.no_zeroes) != 0;
    if (op == Op::flush && run_.owes_flush_error_) {
        // It may have failed for a reason of its own, and the error is owed still.
        run_.owes_flush_error_ = run_.causes() != run_.causes_when_well_;
        return true;
    }
    if (run_.must_succeed()) return false;
    return run_.causes() != run_.causes_when_well_;
}

MirrorRun::MirrorRun(World& world, const History& history, Outcome& outcome)
    : world_{world},
      history_{history},
      outcome_{outcome},
      setup_{MirrorSetup::unpack(history.setup)},
      clients_{world, outcome} {
    outcome_.views = setup_.legs;
}

MirrorRun::~MirrorRun() = default;

std::uint64_t MirrorRun::leg_faults() const noexcept {
    std::uint64_t faults = 0;
    for (const SimDisk* one : legs_) faults += faulted(*one);
    return faults;
}

bool MirrorRun::must_succeed() const noexcept {
    if (setup_.handle_errors == 0 || setup_.keep_log == 0 || !known_well_) return false;
    if (has_log() && faulted(*log_) != log_faults_at_load_) return false;
    for (const std::size_t i : members_) {
        if (leg_faults_when_well_[i] == faulted(*legs_[i])) return true;
    }
    return false;
}

void MirrorRun::prepare_disks() {
    const auto begin = static_cast<MirrorSetup::Begin>(setup_.begin);
    const std::uint64_t size = setup_.front + setup_.sectors;
    std::vector<std::byte> right(to_bytes(Sectors{size})), wrong(to_bytes(Sectors{size}));
    ShadowDisk::fill({{0}, {size}}, kDataAtFirst, right.data());
    std::vector<bool> clean(setup_.regions());
    for (std::size_t r = 0; r < clean.size(); ++r) clean[r] = setup_.recorded_clean(r);
    if (setup_.disk_log != 0) {
        log_ = &setup_.add_disk(world_, "log", setup_.log_sectors(), 0);
        if (begin == MirrorSetup::Begin::recorded) {
            std::vector<std::byte> bytes = MirrorLogBytes::make(clean);
            bytes.resize(to_bytes(Sectors{setup_.log_sectors()}));
            log_->write_now({{0}, {setup_.log_sectors()}}, bytes.data());
        }
    }
    for (std::uint64_t i = 0; i < setup_.leg_disks(); ++i) {
        const std::uint64_t offset = setup_.offsets[i];
        SimDisk& disk = setup_.add_disk(world_, "leg" + std::to_string(i), offset + setup_.sectors, static_cast<unsigned>(i + 1));
        legs_.push_back(&disk);
        const bool spare = i >= setup_.legs;
        if (!spare) members_.push_back(i);
        // What must never be read: every other leg holds data of its own at first.
        ShadowDisk::fill({{0}, {size}}, kDataAtFirst + 1 + i, wrong.data());
        for (std::uint64_t s = 0; s < setup_.sectors; ++s) {
            const bool same = i == 0 || (!spare && (begin == MirrorSetup::Begin::equal ||
                                                    (begin == MirrorSetup::Begin::recorded && clean[s / setup_.region])));
            disk.write_now({{offset + s}, {1}}, (same ? right : wrong).data() + (setup_.front + s) * kSectorSize);
        }
    }
    if (setup_.front != 0) {
        SimDisk::Options options;
        options.name = "front";
        options.lazy_discard = setup_.lazy_discard != 0;
        options.limits.size = {setup_.front};
        options.limits.discard = true;
        if (setup_.block != 0) options.limits.logical_block = static_cast<std::uint32_t>(setup_.block * kSectorSize);
        front_ = &world_.add_disk(options);
        front_->write_now({{0}, {setup_.front}}, right.data());
    }
    ShadowDisk shadow{Sectors{size}};
    shadow.set_all(kDataAtFirst);
    volume_ = std::make_unique<MirrorVolume>(*this, std::move(shadow));
}

void MirrorRun::run() {
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

void MirrorRun::step(const Step& step) {
    if (steps::is_request(step)) {
        if (booted_) steps::submit(clients_, *volume_, step);
        return;
    }
    switch (step.kind) {
        case steps::kFault:
        case steps::kHeal: {
            SimDisk* disk = step.a == 0 ? log_ : legs_[(step.a - 1) % legs_.size()];
            if (!disk) return;
            world_.note(step.kind, [&] { return steps::describe(step); });
            if (step.kind == steps::kFault) steps::apply_fault(*disk, step);
            else steps::heal(*disk);
            return;
        }
        case steps::kCut:
            if (!would_forget()) power_cut(step);
            return;
        case steps::kMirrorRot: rot(step); return;
        case steps::kMirrorTime: {
            const Nanoseconds limit = world_.timeline().now() + step.c * kMillisecond;
            for (std::uint64_t n = 0; n < kTimePatience && world_.timeline().step_until(limit); ++n) {
            }
            return;
        }
        default: break;
    }
    if (!booted_ || !admin_.wait()) return;
    switch (step.kind) {
        case steps::kMirrorCycle: admin_.start(cycle(step.b == 1, step.c * 1000)); break;
        case steps::kMirrorReload:
            if (!would_forget()) admin_.start(reload());
            break;
        case steps::kMirrorLegs: admin_.start(change_legs(static_cast<steps::LegChange>(step.b), step.c, step.d)); break;
        case steps::kMirrorSay: admin_.start(say(static_cast<steps::MirrorWord>(step.b), step.c)); break;
        case steps::kMirrorRest:
            if (wait_for_rest()) look_at_rest();
            break;
        case steps::kMirrorScrub: admin_.start(scrub(static_cast<steps::ScrubWord>(step.b))); break;
        case steps::kMirrorScrubLook: look_at_scrub(step.c); break;
        default: UNREACHABLE();
    }
}

// --- power ----------------------------------------------------------------------------------------------------------

void MirrorRun::start_boot() {
    booted_ = false;
    world_.power_on();
    causes_when_well_ = causes();
    not_known_to_be_well();
    owes_flush_error_ = false;
    admin_.start(boot());
}

bool MirrorRun::finish_boot() {
    if (clients_.until([this] { return booted_; })) return true;
    clients_.violate("the machine does not come up");
    gave_up_ = true;
    return false;
}

void MirrorRun::heal_all() {
    for (const auto& disk : world_.disks()) steps::heal(*disk);
}

// a: 0 all is well afterwards, 1 errors stay, 2 what is gone stays away, too (but not the log).
void MirrorRun::heal_after_cut(const Step& step) {
    for (const auto& disk : world_.disks()) {
        const bool stays_away = step.a == 2 && disk->gone() && disk.get() != log_;
        steps::heal_for_boot(*disk, step.a != 0);
        if (stays_away) disk->go_away();
    }
}

void MirrorRun::power_cut(const Step& step) {
    for (std::uint64_t again = step.b;; again = 0) {
        world_.cut_power();
        clients_.power_cut({volume_.get()});
        admin_.busy = false;
        mapped_ = nullptr;
        must_be_found_.clear();    // what was overwritten may be there again, and is copied then
        heal_after_cut(step);
        compare_clean_regions("after a power cut");
        start_boot();
        if (again == 0) break;
        clients_.let(again);
    }
    if (finish_boot()) {
        compare_volume();
        compare_volume();
    }
}

}  // namespace udm
