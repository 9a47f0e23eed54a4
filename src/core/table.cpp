#include "core/table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <utility>

#include "base/parse.hpp"

namespace udm {
namespace {

std::string prefix_of(const Table::Context& context) {
    return fmt::format("table: {}:{}: ", context.major, context.minor);
}

// The least common multiple, as long as that is a size one would ask for.
std::uint32_t common_optimal_io(std::uint32_t a, std::uint32_t b) {
    if (a == 0 || b == 0) return std::max(a, b);
    constexpr std::uint64_t kLongest = std::uint64_t{32} << 20;
    const std::uint64_t common = std::lcm(std::uint64_t{a}, std::uint64_t{b});
    return common <= kLongest ? static_cast<std::uint32_t>(common) : std::max(a, b);
}

bool same_device(const OpenDevice& a, const OpenDevice& b) {
    return a.id().kind != DiskId::Kind::none && a.id() == b.id();
}

}  // namespace

void stack(Limits& upper, const Limits& lower, bool first) noexcept {
    if (first) {
        const Sectors size = upper.size;
        const bool read_only = upper.read_only;
        upper = lower;
        upper.size = size;
        upper.read_only = read_only;
        return;
    }
    upper.logical_block = std::max(upper.logical_block, lower.logical_block);
    upper.physical_block = std::max(upper.physical_block, lower.physical_block);
    upper.optimal_io = common_optimal_io(upper.optimal_io, lower.optimal_io);
    upper.memory_alignment = std::max(upper.memory_alignment, lower.memory_alignment);
    if (lower.max_transfer && (!upper.max_transfer || lower.max_transfer < upper.max_transfer))
        upper.max_transfer = lower.max_transfer;
    upper.discard_granularity = std::max(upper.discard_granularity, lower.discard_granularity);
    upper.discard = upper.discard && lower.discard;
    upper.write_zeroes = upper.write_zeroes && lower.write_zeroes;
    upper.fast_zeroes = upper.fast_zeroes && lower.fast_zeroes;
    upper.volatile_cache = upper.volatile_cache || lower.volatile_cache;
}

static std::string names_of(const TargetTypes& types) {
    std::string names;
    for (const auto& type : types.all()) names += fmt::format("{}{}", names.empty() ? "" : ", ", type->name());
    return names;
}

Result<Table::Entry> Table::make_entry(const TableLine& line, TableMode mode, const Context& context) {
    const std::string prefix = prefix_of(context);
    TargetType* type = context.types.find(line.type);
    if (!type) return fail(Errc::bad_argument, fmt::format("{}{}: unknown target type: there are {}", prefix, line.type, names_of(context.types)));
    auto words = split_words(line.params);
    if (!words) {
        return fail(Errc::bad_argument, fmt::format("{}{}: couldn't split parameters: {}", prefix, line.type, words.error().message));
    }
    const TargetArgs args{.env = context.env,
                          .begin = line.begin,
                          .length = line.length,
                          .mode = mode,
                          .words = *words,
                          .opener = context.opener,
                          .events = context.events,
                          .lost_stores = context.lost_stores,
                          .device_name = context.device_name};
    auto target = type->make(args);
    if (!target) {
        return fail(target.error().code, fmt::format("{}{}: {}", prefix, line.type, target.error().message));
    }
    for (const TargetDevice& used : (*target)->devices()) {
        if (context.self.kind != DiskId::Kind::none && used.device->id() == context.self) {
            return fail(Errc::bad_argument, fmt::format("{}{}: Device lookup failed: {} is the device the table is for",
                                                        prefix, line.type, used.device->words()));
        }
    }
    return Entry{{line.begin, line.length}, type, {}, std::move(*target), {}};
}

Result<std::unique_ptr<Table>> Table::build(std::span<const TableLine> lines, TableMode mode, const Context& context) {
    std::unique_ptr<Table> table{new Table};
    table->prefix_ = prefix_of(context);
    table->mode_ = mode;
    table->self_ = context.self;
    if (lines.empty()) return fail(Errc::bad_argument, table->prefix_ + "no targets specified");
    if (lines.size() > kTargetsMax) {
        return fail(Errc::bad_argument,
                    fmt::format("{}too many targets: {}, at most {}", table->prefix_, lines.size(), kTargetsMax));
    }
    table->entries_.reserve(lines.size());
    Sector end{};
    for (const TableLine& line : lines) {
        if (!line.length) return fail(Errc::bad_argument, table->prefix_ + "zero-length target");
        if (context.types.find(line.type) && line.begin != end) {
            return fail(Errc::bad_argument, fmt::format("{}{}: Gap in table: it starts at sector {} where {} was to come",
                                                        table->prefix_, line.type, line.begin.v, end.v));
        }
        if (line.length > kLengthMax - (end - Sector{})) {
            return fail(Errc::too_large, fmt::format("{}{}: it ends beyond sector {}, where every device ends",
                                                     table->prefix_, line.type, kLengthMax.v));
        }
        auto entry = make_entry(line, mode, context);
        if (!entry) return fail(entry);
        table->entries_.push_back(std::move(*entry));
        end += line.length;
    }
    table->size_ = end - Sector{};
    table->note_devices();
    return table;
}

Table::~Table() {
    devices_.clear();
    while (!entries_.empty()) entries_.pop_back();    // the last made goes first
}

Job<void> Table::close() {
    for (std::size_t i = entries_.size(); i-- > 0;) {
        auto step = entries_[i].target->close();
        co_await step;
    }
}

Job<Result<void>> Table::load() {
    if (auto fits = check_stack(); !fits) co_return fail(fits);
    for (Entry& entry : entries_) {
        auto loading = entry.target->load();
        auto loaded = co_await loading;
        if (!loaded) {
            co_return fail(loaded.error().code, fmt::format("{}{}: {}", prefix_, entry.type->name(), loaded.error().message));
        }
    }
    // Again, now that nothing else can happen before the caller has put the table into its device.
    if (auto fits = check_stack(); !fits) co_return fail(fits);
    co_return stack_limits();
}

Result<void> Table::check_stack() const {
    if (self_.kind != DiskId::Kind::none && reaches(self_)) {
        for (OpenDevice* device : devices_) {
            if (device->id() != self_ && !device->disk().reaches(self_)) continue;
            return fail(Errc::bad_argument,
                        fmt::format("{}Device lookup failed: {} leads back to the device the table is for", prefix_,
                                    device->words()));
        }
    }
    if (const unsigned levels_below = levels(); levels_below >= kLevelsMax) {
        return fail(Errc::bad_argument, fmt::format("{}too many mapped devices on top of each other: {}, at most {}",
                                                    prefix_, levels_below + 1, kLevelsMax));
    }
    return {};
}

Result<void> Table::stack_limits() {
    refresh();
    bool first = true;
    for (Entry& entry : entries_) {
        entry.traits = entry.target->traits();
        auto limits = entry_limits(entry);
        if (!limits) return fail(limits);
        stack(limits_, *limits, first);
        first = false;
    }
    limits_.size = size_;
    limits_.read_only = mode_ == TableMode::read_only;
    limits_.write_zeroes = true;    // core writes zeroes where nothing below can
    settle_plain();
    return check_alignment();
}

void Table::settle_plain() noexcept {
    constexpr std::uint32_t kAny = std::numeric_limits<std::uint32_t>::max();
    const std::uint64_t longest = limits_.max_transfer ? limits_.max_transfer.v : kAny;
    const auto transfer = static_cast<std::uint32_t>(std::min<std::uint64_t>(longest, kAny));
    for (Entry& entry : entries_) {
        const auto plain = [&entry](Op op) -> std::uint32_t& { return entry.plain[static_cast<std::size_t>(op)]; };
        plain(Op::read) = transfer;
        if (limits_.read_only) continue;
        plain(Op::write) = transfer;
        plain(Op::discard) = entry.traits.discard_copies == 1 ? kAny : 0;
        plain(Op::write_zeroes) = entry.traits.zeroes_natively ? kAny : 0;
    }
}

// What one line offers, from its devices and its target. Settles whether core has to write its zeroes by hand.
Result<Limits> Table::entry_limits(Entry& entry) const {
    Limits limits;
    limits.volatile_cache = false;
    limits.discard = false;
    bool first = true;
    for (const TargetDevice& used : entry.target->devices()) {
        const Limits& below = used.device->disk().limits();
        const std::string& words = used.device->words();
        const std::uint64_t block = below.logical_block / kSectorSize;
        // A device without a size yet (no table, no medium) can't be checked.
        if (below.size && (used.start.v >= below.size.v || used.length.v > below.size.v - used.start.v)) {
            return fail(Errc::bad_argument, fmt::format("{}{} too small for target: start={}, len={}, dev_size={}", prefix_,
                                                        words, used.start.v, used.length.v, below.size.v));
        }
        if (used.start.v % block != 0) {
            return fail(Errc::bad_argument, fmt::format("{}start={} not aligned to h/w logical block size {} of {}", prefix_,
                                                        used.start.v, below.logical_block, words));
        }
        if (used.length.v % block != 0) {
            return fail(Errc::bad_argument, fmt::format("{}len={} not aligned to h/w logical block size {} of {}", prefix_,
                                                        used.length.v, below.logical_block, words));
        }
        stack(limits, below, first);
        first = false;
    }
    entry.target->adjust_limits(limits);
    if (entry.traits.discard_copies == 0) limits.discard = false;
    if (!limits.write_zeroes) entry.traits.zeroes_natively = false;
    if (!entry.traits.zeroes_natively) limits.fast_zeroes = false;
    limits.write_zeroes = true;
    return limits;
}

Result<void> Table::check_alignment() const {
    const std::uint64_t block = limits_.logical_block / kSectorSize;
    std::size_t number = 0;
    for (const Entry& entry : entries_) {
        const bool starts_badly = entry.extent.first.v % block != 0;
        const bool is_last = number + 1 == entries_.size();
        // Linux counts lines from 0, and is one further when it looks at the end of the last.
        if (starts_badly || (is_last && entry.extent.end().v % block != 0)) {
            return fail(Errc::bad_argument,
                        fmt::format("{}table line {} (start sect {} len {}) not aligned to h/w logical block size {}", prefix_,
                                    starts_badly ? number : number + 1, entry.extent.first.v, entry.extent.length.v,
                                    limits_.logical_block));
        }
        ++number;
    }
    return {};
}

Table::Entry& Table::search(Sector sector) noexcept {
    ASSERT(sector.v < size_.v);
    const auto after = std::upper_bound(entries_.begin(), entries_.end(), sector,
                                        [](Sector s, const Entry& entry) { return s < entry.extent.first; });
    last_ = static_cast<std::size_t>(after - entries_.begin()) - 1;
    return entries_[last_];
}

void Table::note_devices() {
    for (const Entry& entry : entries_) {
        for (const TargetDevice& used : entry.target->devices()) {
            const bool known = std::any_of(devices_.begin(), devices_.end(), [&used](OpenDevice* device) {
                return device == used.device || same_device(*device, *used.device);
            });
            if (!known) devices_.push_back(used.device);
        }
    }
}

bool Table::reaches(const DiskId& id) const noexcept {
    return std::any_of(devices_.begin(), devices_.end(),
                       [&id](OpenDevice* device) { return device->id() == id || device->disk().reaches(id); });
}

unsigned Table::levels() const noexcept {
    unsigned most = 0;
    for (OpenDevice* device : devices_) most = std::max(most, device->disk().levels());
    return most;
}

void Table::refresh() noexcept {
    for (OpenDevice* device : devices_) device->disk().refresh();
}

}  // namespace udm
