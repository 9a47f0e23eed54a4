#include "targets/mirror/mirror.hpp"

#include <fmt/format.h>

#include "core/split.hpp"
#include "core/table.hpp"
#include "core/target_args.hpp"

namespace udm::mirror {

Mirror::Mirror(const TargetArgs& args, Config config, Successions& all, const std::uint64_t& throttle)
    : read_only_{args.mode == TableMode::read_only},
      set_{args.env, args.events, args.extent(), config.features, std::move(config.legs), std::move(config.log)},
      resync_{set_, writes_, failures_, throttle},
      scrub_{set_, writes_, reads_, failures_, resync_, throttle, read_only_},
      succession_{set_, failures_, all} {}

Mirror::~Mirror() { ASSERT(set_.foreground == 0 || Abandoning::now()); }

// --- requests -------------------------------------------------------------------------------------------------------

Sectors Mirror::fits(const Io& io) noexcept {
    const Sectors to_end = until_boundary(io.extent.first, set_.extent.first, set_.size().sectors());
    return std::min(to_end, io.extent.length);
}

Mapped Mirror::map(Io& io) noexcept {
    if (io.op == Op::read || io.op == Op::extent_status) return reads_.map(io);
    writes_.start(io);
    return Mapped::taken();
}

// --- life -----------------------------------------------------------------------------------------------------------

Job<Result<void>> Mirror::load() {
    CO_CHECK(set_.log->load(this));
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        const std::uint32_t block = set_.legs.disk(leg).limits().logical_block;
        if (to_bytes(set_.size().sectors()) % block == 0) continue;
        co_return fail(Errc::bad_argument, fmt::format("Invalid region size: {} sectors are no multiple of the logical block of {}, {} bytes; {} would do",
                                                       set_.size().sectors().v, set_.legs[leg].device->words(), block, block / kSectorSize));
    }
    set_.regions.start(*set_.log);
    set_.map.start();
    set_.settle_piece();
    auto pairing = succession_.load();
    auto paired = co_await pairing;
    co_return paired;
}

// A log that cannot be written, or not be trusted, is told of and does not keep the mirror from starting: reads need none. One
// that does not answer does (defect M18): it may say that another leg is the source, and then the first has old data.
Job<Result<void>> Mirror::preresume() {
    if (auto good = succession_.before_resume(); !good) co_return good;
    auto resuming = set_.log->resume();
    auto found = co_await resuming;
    if (!found) {
        set_.events.raise(EventKind::target, "mirror log: " + found.error().message);
    } else if (found->kind == dirty_log::Found::Kind::unreadable) {
        co_return fail(Errc::io, fmt::format("{}; resume again when it can be read, or load a table with another log", found->why));
    } else if (found->kind == dirty_log::Found::Kind::distrusted) {
        set_.events.raise(EventKind::target, fmt::format("mirror log is not trusted, and left as it is: {}; the message log_start_anew writes a new one", found->why));
    } else if (!found->why.empty()) {
        set_.events.raise(EventKind::target, "mirror log: " + found->why);
    }
    set_.map.log_resumed();
    failures_.resumed();
    const bool was_in_use = succession_.in_use();
    succession_.resumed();
    auto starting = failures_.start_without_those_away();
    if (auto started = co_await starting; !started) {
        failures_.close();
        auto ending = set_.log->presuspend();
        co_await ending;
        auto ended = set_.log->postsuspend();
        static_cast<void>(co_await ended);
        if (!was_in_use) succession_.not_resumed();
        co_return fail(started);
    }
    co_return Result<void>{};
}

void Mirror::resume() noexcept {
    set_.stopping = false;
    failures_.start();
    if (!read_only_) resync_.start();
    scrub_.resume();
}

// What waits for a copy would keep the requests under way from ending (defects M17, M34): copies end first.
Job<void> Mirror::presuspend(SuspendFlags) {
    set_.stopping = true;
    failures_.stop();
    failures_.end_held();
    auto stopping = resync_.stop();
    co_await stopping;
    auto scrubbing = scrub_.suspend();
    co_await scrubbing;
    auto ending = set_.jobs.wait();
    co_await ending;
    auto telling = set_.log->presuspend();
    co_await telling;
}

Job<void> Mirror::postsuspend(SuspendFlags) {
    auto ending = set_.jobs.wait();
    co_await ending;
    const bool succeeded = succession_.postsuspend();
    if (failures_.unsettled()) {
        auto settling = failures_.settle_now();
        static_cast<void>(co_await settling);
    }
    failures_.close();
    if (!succeeded) failures_.drop_record();
    auto committing = set_.log->postsuspend();
    auto committed = co_await committing;
    if (!committed) set_.events.raise(EventKind::target, "mirror log: " + committed.error().message);
}

// --- for the log ----------------------------------------------------------------------------------------------------

Job<IoStatus> Mirror::flush_legs() {
    auto flushing = failures_.flush_legs();
    const IoStatus status = co_await flushing;
    co_return status;
}

void Mirror::log_failed(std::string_view what) noexcept { set_.events.raise(EventKind::target, fmt::format("mirror log failed: {}", what)); }

void Mirror::log_recovered() noexcept {
    set_.events.raise(EventKind::target, "mirror log is written again");
    resync_.look_again();    // some regions may have waited for it
}

// --- words ----------------------------------------------------------------------------------------------------------

// A discard leaves each leg as it likes, and two reads might differ: so legs get zeroes to write, which frees the space as well.
bool Mirror::zeroes_for_discards() const noexcept {
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        const Limits& limits = set_.legs.disk(leg).limits();
        if (!limits.discard || !limits.write_zeroes) return false;
    }
    return true;
}

TargetTraits Mirror::traits() const {
    TargetTraits traits;
    traits.discard_copies = zeroes_for_discards() ? 1 : 0;
    return traits;
}

std::vector<TargetDevice> Mirror::devices() const {
    std::vector<TargetDevice> devices;
    if (OpenDevice* log = set_.log->device()) {
        const Limits& limits = log->disk().limits();
        const std::uint64_t block = limits.logical_block / kSectorSize;
        devices.push_back({log, {}, {std::max<std::uint64_t>(limits.size.v / block, 1) * block}});
    }
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        devices.push_back({set_.legs[leg].device.get(), set_.legs[leg].start, set_.extent.length});
    }
    return devices;
}

// The log's device has no say in what requests may be like.
void Mirror::adjust_limits(Limits& limits) const {
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) stack(limits, set_.legs.disk(leg).limits(), leg == 0);
    limits.discard = zeroes_for_discards();
}

std::string Mirror::status() const {
    std::string line = fmt::format("{}", set_.legs.count());
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) line += " " + device_words(*set_.legs[leg].device);
    return fmt::format("{} {}/{} 1 {} {}", line, set_.log->sync_count().v, set_.log->region_count().v, set_.legs.health(), set_.log->info());
}

std::string Mirror::table() const {
    std::string line = fmt::format("{}{}", set_.log->table(), set_.legs.count());
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        line += fmt::format(" {} {}", device_words(*set_.legs[leg].device), set_.legs[leg].start.v);
    }
    if (set_.features.handle_errors) line += set_.features.keep_log ? " 2 handle_errors keep_log" : " 1 handle_errors";
    return line;
}

std::vector<TargetDetail> Mirror::details() const {
    const std::uint64_t left = resync_.bytes_left(), speed = resync_.bytes_per_second();
    std::vector<TargetDetail> details{{"source_leg", set_.legs.source()}, {"resync_left_bytes", left}};
    if (left != 0) {
        details.push_back({"resync_bytes_per_second", speed});
        if (speed != 0) details.push_back({"resync_seconds_left", (left + speed - 1) / speed});
    }
    if (resync_.bytes_copied() != 0) details.push_back({"resync_copied_bytes", resync_.bytes_copied()});
    if (resync_.paused()) details.push_back({"resync_paused", 1});
    if (set_.legs.away() != 0) details.push_back({"legs_away", static_cast<std::uint64_t>(std::popcount(set_.legs.away()))});
    if (failures_.held() != 0) details.push_back({"held_requests", failures_.held()});
    if (reads_.repaired() != 0) details.push_back({"read_repairs", reads_.repaired()});
    if (scrub_.under_way()) {
        const std::uint64_t to_scrub = to_bytes(scrub_.left()), pace = scrub_.bytes_per_second();
        details.push_back({"scrub_left_bytes", to_scrub});
        details.push_back({"scrub_bytes_per_second", pace});
        if (pace != 0) details.push_back({"scrub_seconds_left", (to_scrub + pace - 1) / pace});
        if (scrub_.report().state == ScrubReport::State::paused) details.push_back({"scrub_paused", 1});
    }
    if (scrub_.report().differing) details.push_back({"scrub_differing_bytes", to_bytes(scrub_.report().differing)});
    return details;
}

}  // namespace udm::mirror
