#include "targets/snapshot/fullness.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/parse.hpp"
#include "targets/snapshot/format.hpp"
#include "targets/snapshot/snapshot.hpp"

namespace udm::snapshot {
namespace {

std::optional<unsigned> percent_of(std::string_view word) {
    const auto number = parse_u32(word);
    if (!number || *number < 1 || *number > 100) return std::nullopt;
    return *number;
}

std::string human(Sectors size) {
    const std::uint64_t bytes = to_bytes(size);
    if (bytes % (std::uint64_t{1} << 20) == 0) return fmt::format("{} MiB", bytes >> 20);
    return fmt::format("{} KiB", bytes >> 10);
}

}  // namespace

Result<bool> FullnessSettings::set(const std::string& name, const std::string& value) {
    const FullnessSettings standard;
    const bool none = value == "none", is_default = value == "default";
    if (name == "thresholds") {
        std::vector<unsigned> wanted;
        std::string_view rest = none ? std::string_view{} : std::string_view{value};
        while (!is_default && !rest.empty()) {
            const std::size_t end = std::min(rest.find(','), rest.size());
            const auto percent = percent_of(rest.substr(0, end));
            if (!percent) return fail(Errc::bad_argument, fmt::format("thresholds are percentages from 1 to 100 (50,80,95) or none, not '{}'", value));
            wanted.push_back(*percent);
            rest.remove_prefix(std::min(end + 1, rest.size()));
        }
        std::sort(wanted.begin(), wanted.end());
        thresholds = is_default ? standard.thresholds : std::move(wanted);
        return true;
    }
    if (name == "auto_extend_at") {
        const auto percent = is_default ? standard.extend_at : percent_of(value);
        if (!percent) return fail(Errc::bad_argument, fmt::format("auto_extend_at is a percentage from 1 to 100, not '{}'", value));
        extend_at = *percent;
        return true;
    }
    if (name != "auto_extend") return false;
    if (none || is_default) {
        step = most = 0;
        return true;
    }
    const std::size_t comma = std::min(value.find(','), value.size());
    std::string_view first = std::string_view{value}.substr(0, comma);
    const bool in_percent = first.ends_with('%');
    if (in_percent) first.remove_suffix(1);
    const auto by = in_percent ? parse_u64(first) : parse_size(first);
    const auto up_to = comma == value.size() ? std::optional<std::uint64_t>{0} : parse_size(std::string_view{value}.substr(comma + 1));
    if (!by || *by == 0 || (in_percent && *by > 1000) || !up_to || (comma != value.size() && *up_to == 0)) {
        return fail(Errc::bad_argument, fmt::format("auto_extend is STEP or STEP,MAX in bytes (1G,20G; STEP also as 20%) or none, not '{}'", value));
    }
    step = *by;
    step_in_percent = in_percent;
    most = *up_to;
    return true;
}

Result<void> Fullness::check(const FullnessSettings& settings) const {
    if (settings.step == 0) return {};
    const std::string why = snapshot_.cow().cannot_grow();
    if (why.empty()) return {};
    return fail(Errc::bad_argument, fmt::format("{} cannot be extended: {}", snapshot_.cow().words(), why));
}

Result<void> Fullness::set(FullnessSettings settings) {
    CHECK(check(settings));
    settings_ = std::move(settings);
    cannot_grow_ = told_most_ = false;
    settle();
    return {};
}

bool Fullness::full_as_of(Snapshot& snapshot) const noexcept { return snapshot.store().usage().allocated >= mark_; }

void Fullness::look(bool raises) noexcept {
    if (snapshot_.look_at_store()) return;
    const Store::Usage usage = snapshot_.store().usage();
    const std::uint64_t total = std::max<std::uint64_t>(usage.total.v, 1);
    const auto percent = static_cast<unsigned>(usage.allocated.v * 100 / total);
    std::uint64_t next = total;
    const auto note = [&](unsigned mark) {
        if (mark > percent) next = std::min(next, (mark * total + 99) / 100);
    };
    unsigned passed = 0;
    for (const unsigned threshold : settings_.thresholds) {
        note(threshold);
        if (threshold > percent) continue;
        passed = threshold;
        if (raises && threshold > passed_) {
            snapshot_.raise(fmt::format("snapshot full {}%: {}% of the COW device is used", threshold, percent));
        }
    }
    passed_ = passed;
    if (settings_.step != 0) {
        note(settings_.extend_at);
        if (percent >= settings_.extend_at) grow(usage.total);
    }
    mark_ = {next};
}

// What holds the whole origin (formats.md 3.2): more is never used.
Sectors Fullness::most() const noexcept {
    const ChunkSize chunk = snapshot_.chunk();
    const Extent extent = snapshot_.config().extent;
    const std::uint64_t chunks = (chunk.of(extent.end() - Sectors{1}) - chunk.of(extent.first)).v + 1;
    const std::uint64_t per_area = Geometry{chunk}.exceptions_per_area();
    const std::uint64_t all = snapshot_.store().persistent() ? 1 + chunks + (chunks + per_area) / per_area : chunks;
    const Sectors useful{all * chunk.sectors().v};
    if (settings_.most == 0) return useful;
    return std::min(useful, Sectors{settings_.most / chunk.bytes() * chunk.sectors().v});
}

// Chunks are lost; in a device that grows again they would be zeroes.
bool Fullness::grow(Sectors total) noexcept {
    if (growing_) return true;
    if (snapshot_.look_at_store()) return false;
    const ChunkSize chunk = snapshot_.chunk();
    if (settings_.step == 0 || cannot_grow_ || !snapshot_.valid()) return false;
    const std::uint64_t bytes = settings_.step_in_percent ? to_bytes(total) / 100 * settings_.step : settings_.step;
    const std::uint64_t step = (bytes + chunk.bytes() - 1) / chunk.bytes() * chunk.sectors().v;
    growing_to_ = std::min(most(), Sectors{total.v + std::max<std::uint64_t>(step, chunk.sectors().v)});
    if (growing_to_ <= total) {
        tell_most(total);
        return false;
    }
    growing_ = true;
    snapshot_.cow().grow(growing_to_, *this);
    return true;
}

// Once: a bound that somebody forgot is not to be met first when the store is full.
void Fullness::tell_most(Sectors total) noexcept {
    if (settings_.most == 0 || to_bytes(total) < settings_.most / snapshot_.chunk().bytes() * snapshot_.chunk().bytes() || std::exchange(told_most_, true)) return;
    snapshot_.raise(fmt::format("snapshot not extended any more: the COW device has {}, and auto_extend has a MAX of {}; set it to more, or make {} larger",
                                human(total), human(Sectors{settings_.most / kSectorSize}), snapshot_.cow().words()));
}

void Fullness::grown(Result<void> result) noexcept {
    growing_ = false;
    if (result) {
        snapshot_.raise(fmt::format("snapshot extended: the COW device has {} now", human(growing_to_)), EventKind::progress);
    } else {
        cannot_grow_ = true;
        snapshot_.raise("snapshot cannot be extended: " + result.error().message);
    }
    look(false);
    List<Waiter> waiters;
    waiters.take_all(waiters_);
    while (Waiter* waiter = waiters.pop_front_or_null()) waiter->woken(IoStatus::ok);
    snapshot_.became_idle();
}

bool Fullness::wait_for_space(Waiter& waiter) noexcept {
    if (!grow(snapshot_.store().usage().total)) return false;
    waiters_.push_back(waiter);
    return true;
}

}  // namespace udm::snapshot
