#include "test/system/crash_load/model.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/assert.hpp"

namespace crash {
namespace {

std::string described(Seq seq) {
    if (seq == 0) return "the content before the first write";
    return fmt::format("write {}{}", seq & ~kZero, seq & kZero ? " (of zeroes)" : "");
}

std::string bytes_at(const unsigned char* data, std::size_t at) {
    std::string text;
    for (std::size_t i = 0; i < 16; ++i) text += fmt::format("{:02x}", data[at + i]);
    return text;
}

// Where data differs from the content of a write; kSectorSize if it doesn't.
std::size_t first_difference(const unsigned char* data, Seq seq, std::uint64_t sector) {
    unsigned char wanted[kSectorSize];
    fill_sector(wanted, seq, sector);
    return static_cast<std::size_t>(std::mismatch(wanted, wanted + kSectorSize, data).first - wanted);
}

}  // namespace

Volume& Model::add_volume(const std::string& name, std::uint64_t sectors) {
    auto& place = volumes_[name];
    ASSERT(place == nullptr);
    place = std::make_unique<Volume>(name, sectors);
    return *place;
}

Volume* Model::find(const std::string& name) {
    const auto it = volumes_.find(name);
    return it == volumes_.end() ? nullptr : it->second.get();
}

void Model::sent(Volume& volume, Seq seq, std::uint64_t first, std::uint32_t count) {
    for (std::uint64_t s = first; s < first + count; ++s) {
        prune(volume, s);
        volume.later_[s].push_back({.seq = seq, .sent_in = epoch_});
        for (auto& [name, take] : takes_)
            if (take.origin == &volume) take.volume->later_[s].push_back({.seq = seq});
        if (Revert* revert = reverting(volume)) revert->meanwhile[s].push_back(seq);
    }
}

void Model::acknowledged(Volume& volume, Seq seq, std::uint64_t first, std::uint32_t count, bool fua) {
    ++volume.acknowledgements_;
    for (std::uint64_t s = first; s < first + count; ++s) {
        const auto it = volume.later_.find(s);
        ASSERT(it != volume.later_.end());
        auto& version = it->second.back();
        ASSERT(version.seq == seq);
        version.acknowledged = volume.acknowledgements_;
        version.epoch = epoch_;
        version.durable = fua;
        prune(volume, s);
    }
}

void Model::flushed(Volume& volume, std::uint64_t mark) noexcept {
    volume.durable_up_to_ = std::max(volume.durable_up_to_, mark);
}

void Model::lost() {
    ++epoch_;
    for (auto& [name, volume] : volumes_) {
        for (auto& [s, versions] : volume->later_)
            for (auto& v : versions)  // a later flush does not bring back what was lost
                if (!v.durable && v.acknowledged > volume->durable_up_to_) v.acknowledged = 0;
    }
    // A snapshot whose take was under way may be of before or after the crash, so it may have anything the
    // origin may.
    for (auto& [name, take] : takes_) {
        for (const auto& [s, versions] : take.origin->later_) {
            auto& allowed = take.volume->later_[s];
            allowed.push_back({.seq = take.origin->floor_[s]});
            for (const auto& v : versions) allowed.push_back({.seq = v.seq});
        }
    }
}

// Drops what cannot be there any more, neither now nor after a crash.
void Model::prune(Volume& volume, std::uint64_t sector) {
    const auto it = volume.later_.find(sector);
    if (it == volume.later_.end()) return;
    auto& versions = it->second;
    for (std::size_t i = versions.size(); i-- > 0;) {
        const auto& v = versions[i];
        if (v.acknowledged == 0 || (!v.durable && v.acknowledged > volume.durable_up_to_)) continue;
        volume.floor_[sector] = v.seq;
        versions.erase(versions.begin(), versions.begin() + static_cast<std::ptrdiff_t>(i) + 1);
        break;
    }
    if (versions.empty()) volume.later_.erase(it);
}

std::span<const Volume::Version> Model::open_versions(const Volume::Versions& versions,
                                                      bool& with_floor) const {
    for (std::size_t i = versions.size(); i-- > 0;) {
        if (versions[i].epoch != epoch_) continue;
        with_floor = false;
        return std::span{versions}.subspan(i);
    }
    with_floor = true;
    return versions;
}

void Model::take_begins(const std::string& snapshot, Volume& origin) {
    auto volume = std::make_unique<Volume>(snapshot, origin.sectors());
    volume->floor_ = origin.floor_;
    for (const auto& [s, versions] : origin.later_) {
        bool with_floor = false;
        auto open = open_versions(versions, with_floor);
        if (!with_floor) {
            volume->floor_[s] =
                open.front().seq;  // acknowledged before the take began: nothing older will do
            open = open.subspan(1);
        }
        for (const auto& v : open) volume->later_[s].push_back({.seq = v.seq});
    }
    ASSERT(!takes_.contains(snapshot) && !volumes_.contains(snapshot));
    takes_.emplace(snapshot, Take{&origin, std::move(volume)});
}

Volume& Model::take_ends(const std::string& snapshot) {
    const auto it = takes_.find(snapshot);
    ASSERT(it != takes_.end());
    auto& place = volumes_[snapshot];
    place = std::move(it->second.volume);
    takes_.erase(it);
    return *place;
}

void Model::take_failed(const std::string& snapshot) { takes_.erase(snapshot); }

Model::Revert* Model::reverting(const Volume& volume) {
    for (auto& [name, revert] : reverts_)
        if (revert.volume == &volume) return &revert;
    return nullptr;
}

void Model::revert_begins(const std::string& snapshot, Volume& volume) {
    ASSERT(volumes_.contains(snapshot) && reverting(volume) == nullptr);
    Revert revert{&volume, volumes_.at(snapshot).get(), {}};
    for (const auto& [s, versions] : volume.later_) {  // what is in flight may reach either
        const auto& last = versions.back();
        if (last.epoch == 0 && last.sent_in == epoch_) revert.meanwhile[s].push_back(last.seq);
    }
    reverts_.emplace(snapshot, std::move(revert));
}

std::vector<Seq> Model::seen_after(const Revert& revert, std::uint64_t sector) const {
    const Volume& shown = *revert.shown;
    std::vector<Seq> seen;
    bool with_floor = true;
    if (const auto it = shown.later_.find(sector); it != shown.later_.end())
        for (const auto& v : open_versions(it->second, with_floor)) seen.push_back(v.seq);
    if (with_floor) seen.push_back(shown.floor_[sector]);
    if (const auto it = revert.meanwhile.find(sector); it != revert.meanwhile.end())
        seen.insert(seen.end(), it->second.begin(), it->second.end());
    return seen;
}

void Model::revert_ends(const std::string& snapshot) {
    const auto it = reverts_.find(snapshot);
    ASSERT(it != reverts_.end());
    Volume& volume = *it->second.volume;
    const Volume& shown = *it->second.shown;
    volume.floor_ = shown.floor_;
    volume.later_.clear();
    for (const auto& [s, versions] : shown.later_) {
        bool with_floor = false;
        auto open = open_versions(versions, with_floor);
        if (!with_floor) {
            volume.floor_[s] = open.front().seq;
            open = open.subspan(1);
        }
        for (const auto& v : open) volume.later_[s].push_back({.seq = v.seq});
    }
    for (const auto& [s, writes] : it->second.meanwhile)
        for (const Seq seq : writes) volume.later_[s].push_back({.seq = seq});
    std::erase_if(volume.later_, [](const auto& entry) { return entry.second.empty(); });
    reverts_.erase(it);
    volumes_.erase(snapshot);
}

void Model::revert_failed(const std::string& snapshot) { reverts_.erase(snapshot); }

void Model::drop(const std::string& name) { volumes_.erase(name); }

void Model::settle(Volume& volume, std::uint64_t sector, Seq seq) {
    volume.floor_[sector] = seq;
    volume.later_.erase(sector);
}

Model::Found Model::check_sector(Volume& volume, std::uint64_t sector, const unsigned char* data,
                                 Seq& found) {
    prune(volume, sector);
    const auto it = volume.later_.find(sector);
    bool with_floor = true;
    std::span<const Volume::Version> open;
    if (it != volume.later_.end()) open = open_versions(it->second, with_floor);
    const Seq floor = volume.floor_[sector];

    const auto named = named_write(data);
    const bool zero = is_zero(data);
    const auto fits = [&](Seq seq) {
        return (seq & kZero) ? zero : named == seq && first_difference(data, seq, sector) == kSectorSize;
    };
    bool known = false;
    for (std::size_t i = open.size(); i-- > 0 && !known;)
        if (fits(open[i].seq)) found = open[i].seq, known = true;
    if (!known && with_floor && fits(floor)) found = floor, known = true;
    // While it may go back, and may not have yet, a read settles nothing.
    std::vector<Seq> reverted;
    if (const Revert* revert = reverting(volume)) {
        if (known) return Found::expected;
        reverted = seen_after(*revert, sector);
        if (std::ranges::any_of(reverted, fits)) return Found::expected;
    }
    if (known) {
        const bool was_open = with_floor && !open.empty();
        if (was_open) settle(volume, sector, found);
        return was_open ? Found::settled : Found::expected;
    }

    std::string text =
        fmt::format("{}: sector {} (byte {}): found ", volume.name_, sector, sector * kSectorSize);
    if (zero)
        text += "zeroes";
    else if (!named)
        text += fmt::format("what nobody wrote, starting {}", bytes_at(data, 0));
    else {
        text += described(*named);
        if (const auto at = first_difference(data, *named, sector); at != kSectorSize) {
            std::uint64_t told = 0;
            std::memcpy(&told, data + 16, 8);
            if (told != sector)
                text += fmt::format(", which belongs to sector {}", told);
            else
                text += fmt::format(", damaged from its byte {} on ({})", at,
                                    bytes_at(data, std::min<std::size_t>(at, 496)));
        }
    }
    text += "; allowed:";
    if (with_floor) text += " " + described(floor) + (open.empty() ? "" : ",");
    for (std::size_t i = 0; i < open.size(); ++i)
        text += fmt::format(" {}{}", described(open[i].seq), i + 1 < open.size() ? "," : "");
    if (with_floor && !open.empty())
        text += " (the first cannot be lost, the others were not flushed or not acknowledged)";
    if (!reverted.empty()) {
        text += "; or, as it goes back to its snapshot:";
        for (const Seq seq : reverted) text += " " + described(seq);
    }
    throw Violation{text};
}

}  // namespace crash
