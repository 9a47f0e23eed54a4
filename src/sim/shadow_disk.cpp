#include "sim/shadow_disk.hpp"

#include <algorithm>
#include <cstring>

namespace udm {

void ShadowDisk::fill(Extent extent, std::uint64_t write, void* to) noexcept {
    auto* word = static_cast<std::uint64_t*>(to);
    for (std::uint64_t i = 0; i < extent.length.v; ++i, word += kSectorSize / sizeof *word) {
        std::fill_n(word, kSectorSize / sizeof *word, write == 0 ? kZero : tag(write, extent.first.v + i));
    }
}

bool ShadowDisk::value_of(const void* sector, Value& value) noexcept {
    std::memcpy(&value, sector, sizeof value);
    // Equal to itself moved by one word: all words are the same.
    return std::memcmp(sector, static_cast<const std::byte*>(sector) + sizeof value, kSectorSize - sizeof value) == 0;
}

std::string ShadowDisk::describe(Value value) {
    if (value == kZero) return "zeroes";
    return "write " + std::to_string(value >> kSectorBits) + " (sector " +
           std::to_string(value & ((Value{1} << kSectorBits) - 1)) + ")";
}

ShadowDisk::ShadowDisk(Sectors size) : sectors_(size.v) { ASSERT(size.v >> kSectorBits == 0); }

void ShadowDisk::set_all(std::uint64_t write) {
    ASSERT(operations_.size() == free_operations_.size());
    for (std::uint64_t s = 0; s < sectors_.size(); ++s) sectors_[s] = {write == 0 ? kZero : tag(write, s), kNone};
    versions_.clear();
    free_versions_.clear();
}

void ShadowDisk::resize(Sectors size) {
    ASSERT(size.v >> kSectorBits == 0 && operations_.size() == free_operations_.size());
    for (std::uint64_t s = size.v; s < sectors_.size(); ++s) {
        for (std::uint32_t i = sectors_[s].first; i != kNone; i = versions_[i].next) free_versions_.push_back(i);
    }
    sectors_.resize(static_cast<std::size_t>(size.v));
}

std::uint32_t ShadowDisk::take_version() {
    if (!free_versions_.empty()) {
        const std::uint32_t index = free_versions_.back();
        free_versions_.pop_back();
        return index;
    }
    versions_.emplace_back();
    return static_cast<std::uint32_t>(versions_.size() - 1);
}

void ShadowDisk::unfold(SectorState& state) {
    if (state.first != kNone) return;
    const std::uint32_t index = take_version();
    versions_[index] = Version{.value = state.value, .stable = true};
    state.first = index;
}

void ShadowDisk::tidy(SectorState& state) {
    std::uint32_t* link = &state.first;
    while (*link != kNone) {
        Version& version = versions_[*link];
        if (version.gone < oldest_read_ && !possible_after_cut(version)) {
            free_versions_.push_back(*link);
            *link = version.next;
        } else {
            link = &version.next;
        }
    }
    ASSERT(state.first != kNone);
    Version& only = versions_[state.first];
    if (only.next != kNone || only.end == kNever || only.gone != kNever) return;
    state.value = only.value;
    free_versions_.push_back(state.first);
    state.first = kNone;
}

ShadowDisk::Ticket ShadowDisk::begin(Extent extent, std::uint64_t write, bool fua, bool discard) {
    ASSERT(extent.end().v <= sectors_.size());
    const Operation operation{extent, write, ++now_, fua, discard, true};
    if (free_operations_.empty()) {
        operations_.push_back(operation);
        return static_cast<Ticket>(operations_.size() - 1);
    }
    const Ticket ticket = free_operations_.back();
    free_operations_.pop_back();
    operations_[ticket] = operation;
    return ticket;
}

ShadowDisk::Operation ShadowDisk::finish(Ticket ticket) {
    Operation& operation = operations_[ticket];
    ASSERT(operation.active);
    operation.active = false;
    free_operations_.push_back(ticket);
    ++now_;
    return operation;
}

ShadowDisk::Ticket ShadowDisk::begin_write(Extent extent, std::uint64_t write, bool fua) {
    const Ticket ticket = begin(extent, write, fua, false);
    for (std::uint64_t s = extent.first.v; s < extent.end().v; ++s) {
        SectorState& state = sectors_[s];
        unfold(state);
        const std::uint32_t index = take_version();
        versions_[index] = Version{.value = write == 0 ? kZero : tag(write, s),
                                   .begin = now_,
                                   .end = kNever,
                                   .next = state.first,
                                   .certain = false};
        state.first = index;
    }
    return ticket;
}

ShadowDisk::Ticket ShadowDisk::begin_discard(Extent extent) {
    const Ticket ticket = begin_write(extent, 0, false);
    operations_[ticket].discard = true;
    return ticket;
}

void ShadowDisk::end_write(SectorState& state, const Operation& operation, Value value, bool well) {
    for (std::uint32_t i = state.first; i != kNone; i = versions_[i].next) {
        Version& version = versions_[i];
        if (version.begin == operation.begin && version.value == value && version.end == kNever) {
            version.end = now_;
            version.certain = well;
        } else if (well && version.end < operation.begin) {
            version.gone = std::min(version.gone, now_);
            version.overwritten = operation.fua ? 0 : std::min(version.overwritten, now_);
        }
    }
    tidy(state);
}

void ShadowDisk::end_write(Ticket ticket, IoStatus status) {
    const Operation operation = finish(ticket);
    const bool well = status == IoStatus::ok && !operation.discard;
    for (std::uint64_t s = operation.extent.first.v; s < operation.extent.end().v; ++s) {
        end_write(sectors_[s], operation, operation.write == 0 ? kZero : tag(operation.write, s), well);
    }
}

ShadowDisk::Ticket ShadowDisk::begin_flush() { return begin({}, 0, false, false); }

void ShadowDisk::end_flush(Ticket ticket, IoStatus status) {
    const Operation operation = finish(ticket);
    if (status == IoStatus::ok) durable_before_ = std::max(durable_before_, operation.begin);
}

ShadowDisk::Ticket ShadowDisk::begin_read(Extent extent) {
    const Ticket ticket = begin(extent, 0, false, false);
    reads_.push_back(ticket);
    oldest_read_ = std::min(oldest_read_, now_);
    return ticket;
}

bool ShadowDisk::read_sector(SectorState& state, Moment begin, Value value) {
    if (state.first == kNone) return state.value == value;
    // Of all versions with this value that may have been read, the least that can be said.
    bool found = false, ended_well = true, stable = true;
    for (std::uint32_t i = state.first; i != kNone; i = versions_[i].next) {
        const Version& version = versions_[i];
        if (version.value != value || version.gone < begin) continue;
        found = true;
        ended_well &= version.end != kNever && version.certain && !version.foreign;
        stable &= version.stable;
    }
    if (!found) return false;
    for (std::uint32_t i = state.first; i != kNone; i = versions_[i].next) {
        Version& version = versions_[i];
        if (version.value == value || version.end >= begin) continue;
        version.gone = std::min(version.gone, now_);
        if (stable && version.stable) version.overwritten = 0;
        if (ended_well) version.overwritten = std::min(version.overwritten, now_);
    }
    tidy(state);
    return true;
}

bool ShadowDisk::is_tolerated(std::uint64_t sector, Value value) const {
    const auto [first, last] = tolerated_.equal_range(sector);
    return std::any_of(first, last, [value](const auto& one) { return one.second == value; });
}

bool ShadowDisk::end_read(Ticket ticket, IoStatus status, const void* data, Violation& violation,
                          Sectors length) {
    Operation operation = finish(ticket);
    operation.extent.length = std::min(operation.extent.length, length);
    std::erase(reads_, ticket);
    bool good = true;
    if (status == IoStatus::ok) {
        const auto* sector = static_cast<const std::byte*>(data);
        for (std::uint64_t s = operation.extent.first.v; s < operation.extent.end().v; ++s, sector += kSectorSize) {
            Value value = kZero;
            const bool whole = value_of(sector, value);
            if (whole && read_sector(sectors_[s], operation.begin, value)) continue;
            if (whole && !tolerated_.empty() && is_tolerated(s, value)) continue;
            violation = {{s}, expectation({s}), whole ? describe(value) : "a sector of several pieces"};
            good = false;
            break;
        }
    }
    oldest_read_ = kNever;
    for (const Ticket read : reads_) oldest_read_ = std::min(oldest_read_, operations_[read].begin);
    return good;
}

void ShadowDisk::cut() {
    ++now_;
    oldest_read_ = kNever;
    reads_.clear();
    for (SectorState& state : sectors_) {
        if (state.first == kNone) continue;
        std::uint32_t kept = kNone;
        for (std::uint32_t i = state.first; i != kNone;) {
            Version& version = versions_[i];
            const std::uint32_t next = version.next;
            bool keep = possible_after_cut(version);
            for (std::uint32_t k = kept; keep && k != kNone; k = versions_[k].next) {
                keep = versions_[k].value != version.value;
            }
            if (keep) {
                version = Version{.value = version.value, .next = kept, .stable = true};
                kept = i;
            } else {
                free_versions_.push_back(i);
            }
            i = next;
        }
        ASSERT(kept != kNone);
        state.first = kept;
        tidy(state);
    }
    // What was under way will never end.
    free_operations_.clear();
    operations_.clear();
}

void ShadowDisk::add_perhaps(Extent extent, std::uint64_t write) {
    end_write(begin_write(extent, write, false), IoStatus::io_error);
}

ShadowDisk ShadowDisk::fork(bool quiet) const {
    ShadowDisk copy{size()};
    for (std::size_t s = 0; s < sectors_.size(); ++s) {
        const SectorState& from = sectors_[s];
        SectorState& to = copy.sectors_[s];
        if (from.first == kNone) {
            to.value = from.value;
            continue;
        }
        for (std::uint32_t i = from.first; i != kNone; i = versions_[i].next) {
            const Version& version = versions_[i];
            if (version.end == kNever && quiet) continue;
            const bool readable = version.gone == kNever;
            if (!readable && !possible_after_cut(version)) continue;
            const std::uint32_t index = copy.take_version();
            copy.versions_[index] = Version{.value = version.value,
                                            .gone = readable ? kNever : 0,
                                            .next = to.first,
                                            .certain = version.certain,
                                            .stable = version.stable,
                                            .foreign = true};
            to.first = index;
        }
        ASSERT(to.first != kNone);
        copy.tidy(to);
    }
    return copy;
}

std::size_t ShadowDisk::choices(Sector sector) const noexcept {
    const SectorState& state = sectors_[sector.v];
    if (state.first == kNone) return 1;
    std::vector<Value> values;
    for (std::uint32_t i = state.first; i != kNone; i = versions_[i].next) {
        if (versions_[i].gone == kNever && !std::count(values.begin(), values.end(), versions_[i].value)) {
            values.push_back(versions_[i].value);
        }
    }
    return values.size();
}

std::string ShadowDisk::expectation(Sector sector) const {
    const SectorState& state = sectors_[sector.v];
    if (state.first == kNone) return describe(state.value);
    std::string text;
    for (std::uint32_t i = state.first; i != kNone; i = versions_[i].next) {
        const Version& version = versions_[i];
        if (version.gone < oldest_read_ && version.gone != kNever) continue;
        if (!text.empty()) text += " or ";
        text += describe(version.value);
        if (version.end == kNever) text += " (under way)";
        else if (!version.certain) text += " (perhaps)";
    }
    return text;
}

}  // namespace udm
