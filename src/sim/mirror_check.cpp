// What must hold in the story "mirror", and how it ends.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "sim/mirror_log_bytes.hpp"
#include "sim/mirror_run.hpp"

namespace udm {
namespace {
constexpr std::uint64_t kPatience = 20'000;                    // events
constexpr std::uint64_t kRestPatience = 3'000;
constexpr Nanoseconds kRestTime = 5 * kSecond;
constexpr Nanoseconds kSyncPatience = 3600 * kSecond;          // of virtual time, once faults are over
}  // namespace

std::optional<MirrorRun::Words> MirrorRun::words() const {
    Table* live = mapped_ ? mapped_->device->live() : nullptr;
    if (!live) return std::nullopt;
    for (const Table::Entry& entry : live->entries()) {
        if (entry.type->name() != "mirror") continue;
        // K DEVICE... IN/TOTAL 1 HEALTH 1 core | 3 disk DEVICE LETTER
        std::istringstream text{entry.target->status()};
        std::vector<std::string> parts;
        for (std::string part; text >> part;) parts.push_back(part);
        const std::size_t at = 1 + members_.size();
        if (parts.size() < at + 5 || parts[0] != std::to_string(members_.size())) return std::nullopt;
        Words words;
        char slash = 0;
        std::istringstream numbers{parts[at]};
        numbers >> words.in_sync >> slash >> words.total;
        words.health = parts[at + 2];
        if (parts[at + 4] == "disk") words.log = parts.back()[0];
        return words;
    }
    return std::nullopt;
}

// --- at rest --------------------------------------------------------------------------------------------------------

bool MirrorRun::at_rest() const noexcept {
    if (admin_.busy || clients_.in_flight() != 0) return false;
    return std::all_of(world_.disks().begin(), world_.disks().end(),
                       [](const auto& disk) { return disk->counters().in_flight == 0; });
}

// What a disk has ended may not have been told yet.
bool MirrorRun::all_is_told() {
    Timeline& timeline = world_.timeline();
    while (at_rest()) {
        if (!timeline.step_until(timeline.now())) return true;
    }
    return false;
}

bool MirrorRun::wait_for_rest() {
    const Nanoseconds limit = world_.timeline().now() + kRestTime;
    for (std::uint64_t n = 0; n < kRestPatience; ++n) {
        if (all_is_told()) {
            const auto now = words();
            if (now && now->all_well()) return true;
        }
        if (!world_.timeline().step_until(limit)) break;
    }
    return all_is_told();
}

void MirrorRun::look_at_rest() {
    const auto now = words();
    if (!now) {
        clients_.violate("the status line is none of a mirror");
        return;
    }
    world_.note(0x57a7, [&] { return fmt::format("at rest: {}/{} {} {}", now->in_sync, now->total, now->health, now->log); });
    if (now->total != setup_.regions() || now->in_sync > now->total || now->health.size() != members_.size()) {
        clients_.violate(fmt::format("the status line says {}/{} {}", now->in_sync, now->total, now->health));
    }
    compare_clean_regions("at rest");
    if (!now->all_well()) return;
    compare_legs("at rest");
    known_well_ = true;
    causes_when_well_ = causes();
    leg_faults_when_well_.assign(legs_.size(), std::nullopt);
    for (const std::size_t i : members_) leg_faults_when_well_[i] = faulted(*legs_[i]);
}

// Legs are equal wherever the log's bytes say so.
void MirrorRun::compare_clean_regions(const char* when) {
    if (!has_log()) return;
    std::vector<std::byte> bytes(to_bytes(Sectors{setup_.log_sectors()}));
    log_->read_now({{0}, {setup_.log_sectors()}}, bytes.data());
    const MirrorLogBytes log = MirrorLogBytes::parse(bytes, setup_.regions());
    if (!log.known) return;
    std::array<std::byte, kSectorSize> first, other;
    for (std::uint64_t s = 0; s < setup_.sectors; ++s) {
        if (!log.clean[s / setup_.region] || rotten_.contains(s)) continue;
        const std::size_t front = members_[0];
        legs_[front]->read_now({{setup_.offsets[front] + s}, {1}}, first.data());
        for (const std::size_t i : members_) {
            legs_[i]->read_now({{setup_.offsets[i] + s}, {1}}, other.data());
            if (first == other) continue;
            ShadowDisk::Value a = 0, b = 0;
            static_cast<void>(ShadowDisk::value_of(first.data(), a));
            static_cast<void>(ShadowDisk::value_of(other.data(), b));
            clients_.violate(fmt::format("{}: region {} is clean in the log, but sector {} holds {} on leg {} and {} on leg {}", when,
                                         s / setup_.region, s, ShadowDisk::describe(a), front, ShadowDisk::describe(b), i));
            return;
        }
    }
}

// Any leg may be read: each holds what a client may read, and the same.
void MirrorRun::compare_legs(const char* when) {
    std::vector<std::byte> bytes(to_bytes(Sectors{setup_.sectors}));
    const Extent extent{{setup_.front}, {setup_.sectors}};
    for (const std::size_t i : members_) {
        legs_[i]->read_now({{setup_.offsets[i]}, {setup_.sectors}}, bytes.data());
        ShadowDisk::Violation violation;
        ShadowDisk& shadow = volume_->shadow();
        if (shadow.end_read(shadow.begin_read(extent), IoStatus::ok, bytes.data(), violation)) continue;
        clients_.violate(fmt::format("{}: all is in sync, but leg {} holds {} in sector {}, which may hold {}", when, i, violation.found,
                                     violation.sector.v, violation.expected));
        return;
    }
}

void MirrorRun::compare_volume() {
    if (gave_up_ || outcome_.failed()) return;
    if (clients_.compare(*volume_)) return;
    clients_.violate("reads do not end");
    gave_up_ = true;
}

// --- the end --------------------------------------------------------------------------------------------------------

// Errors end requests; only what stalls may hold them up, and tables that say so.
void MirrorRun::check_liveness() {
    const auto stalls = [](const auto& disk) { return disk->stalls(); };
    if (std::any_of(world_.disks().begin(), world_.disks().end(), stalls)) return;
    for (std::uint64_t n = 0; n < kPatience && (admin_.busy || clients_.in_flight() != 0); ++n) {
        if (holds_writes() && causes() != causes_when_well_) return;
        if (!world_.timeline().step()) break;
    }
    if (clients_.in_flight() != 0) clients_.violate(fmt::format("{} requests hang, though no disk stalls", clients_.in_flight()));
    if (admin_.busy) clients_.violate("the administrator hangs, though no disk stalls");
}

bool MirrorRun::wait_until_in_sync() {
    const Nanoseconds limit = world_.timeline().now() + kSyncPatience;
    for (std::uint64_t n = 0; n < 20 * kPatience; ++n) {
        if (all_is_told()) {
            const auto now = words();
            if (now && now->in_sync == now->total) return true;
        }
        if (!world_.timeline().step_until(limit)) break;
    }
    const auto now = words();
    return all_is_told() && now && now->in_sync == now->total;
}

void MirrorRun::the_end() {
    check_liveness();
    if (outcome_.failed()) return;
    // Faults are over: everything must end, and all come back into sync.
    heal_all();
    world_.chaos().calm();
    if (!clients_.until([this] { return !admin_.busy; })) {
        clients_.violate("the administrator's work does not end");
        return;
    }
    // What was under way may fail yet, and be held: the suspend waits for that, and lets it go.
    if (holds_writes()) {
        admin_.start(cycle(false, 0));
        if (!clients_.until([this] { return !admin_.busy; })) {
            clients_.violate("a suspend to let go what is held does not end");
            return;
        }
    }
    admin_.start(call_legs_back());
    if (!clients_.until([this] { return !admin_.busy; })) {
        clients_.violate("calling legs back does not end");
        return;
    }
    if (!clients_.settle()) {
        clients_.violate(fmt::format("{} requests do not end", clients_.in_flight()));
        return;
    }
    // A failed log is latched until another table is loaded.
    if (has_log() && faulted(*log_) != log_faults_at_load_) {
        admin_.start(reload());
        if (!clients_.until([this] { return !admin_.busy; })) {
            clients_.violate("a reload after the log failed does not end");
            return;
        }
    }
    if (!wait_until_in_sync()) {
        const auto now = words();
        clients_.violate(now ? fmt::format("faults are over, but {} of {} regions are in sync ({})", now->in_sync, now->total, now->health)
                             : "no status");
        return;
    }
    if (rots_ != 0) repair_all();
    if (outcome_.failed()) return;
    compare_clean_regions("at the end");
    compare_legs("at the end");
    // An error of the flush that went with a suspend is owed to the next flush from above.
    clients_.submit(*volume_, Op::flush, {});
    if (!clients_.settle()) clients_.violate("a flush does not end though all disks are well");
    const std::uint64_t length = std::min<std::uint64_t>(setup_.sectors, 8), well = clients_.ended_well();
    clients_.submit(*volume_, Op::write, {{setup_.front}, {length}});
    clients_.submit(*volume_, Op::flush, {});
    if (!clients_.settle() || clients_.ended_well() != well + 2) clients_.violate("writes do not end well though all disks are well");
    compare_volume();
    if (outcome_.failed() || gave_up_) return;
    if (setup_.flush_at_end != 0) {
        clients_.submit(*volume_, Op::flush, {});
        if (!clients_.settle()) clients_.violate("a flush does not end");
    }
    power_cut({});
    if (outcome_.failed() || gave_up_) return;
    if (!wait_until_in_sync()) {
        clients_.violate("after the last cut not all regions come back into sync");
        return;
    }
    look_at_rest();
    compare_volume();
    if (outcome_.failed() || gave_up_) return;
    if (setup_.orderly_end != 0) remove_everything();
    clients_.check_disks();
}

// No layer may send what its disk cannot take.
void MirrorRun::remove_everything() {
    admin_.start(remove_all());
    if (!clients_.until([this] { return !admin_.busy; })) {
        clients_.violate("removing the mirror does not end");
        return;
    }
    clients_.check_nothing_left();
    if (has_log()) compare_clean_regions("after it is removed");
}

}  // namespace udm
