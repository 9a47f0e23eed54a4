#include "targets/mirror/scrub_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "base/crc32c.hpp"
#include "base/parse.hpp"

namespace udm::mirror {
namespace {

constexpr std::string_view kModes[] = {"check", "repair"};
constexpr std::string_view kStates[] = {"none", "running", "paused", "done", "stopped"};
constexpr std::string_view kWhys[] = {"majority", "source", "readable"};

// "1,2"; none: "-"
std::string words_of(LegMask legs) {
    std::string text;
    for_each_leg(legs, [&](unsigned leg) { text += fmt::format("{}{}", text.empty() ? "" : ",", leg); });
    return text.empty() ? "-" : text;
}

std::string words_of(const Extent& extent) { return fmt::format("{}+{}", extent.first.v, extent.length.v); }

std::vector<std::string_view> parts_of(std::string_view text, char between) {
    std::vector<std::string_view> parts;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find(between), text.size());
        if (end != 0) parts.push_back(text.substr(0, end));
        text.remove_prefix(std::min(end + 1, text.size()));
    }
    return parts;
}

std::optional<std::uint64_t> hex(std::string_view text) {
    std::uint64_t number = 0;
    const auto read = std::from_chars(text.data(), text.data() + text.size(), number, 16);
    return read.ec == std::errc{} && read.ptr == text.data() + text.size() ? std::optional{number} : std::nullopt;
}

// The words KEY=VALUE of one line.
class Line {
  public:
    explicit Line(std::string_view line) : words_{parts_of(line, ' ')} {}
    bool ok() const noexcept { return ok_; }
    std::string_view text(std::string_view key) {
        for (const std::string_view word : words_) {
            if (word.size() > key.size() && word.starts_with(key) && word[key.size()] == '=') return word.substr(key.size() + 1);
        }
        ok_ = false;
        return {};
    }
    std::uint64_t number(std::string_view key) { return checked(parse_u64(text(key))); }
    std::uint64_t hex_number(std::string_view key) { return checked(hex(text(key))); }
    template <class Words>
    unsigned one_of(std::string_view key, const Words& words) {
        const auto found = std::find(std::begin(words), std::end(words), text(key));
        ok_ = ok_ && found != std::end(words);
        return ok_ ? static_cast<unsigned>(found - std::begin(words)) : 0;
    }
    LegMask legs(std::string_view key, unsigned count) {
        LegMask legs = 0;
        for (const std::string_view word : parts_of(text(key), ',')) {
            if (word == "-") continue;
            const auto leg = parse_u32(word);
            if (leg && *leg < count) legs |= leg_bit(*leg);
            else ok_ = false;
        }
        return legs;
    }
    Extent extent(std::string_view word, const Extent& within) {
        const std::size_t plus = word.find('+');
        const auto first = parse_u64(word.substr(0, plus));
        const auto length = plus == word.npos ? std::nullopt : parse_u64(word.substr(plus + 1));
        ok_ = ok_ && first && length && *length != 0 && *first >= within.first.v && *first < within.end().v && *length <= within.end().v - *first;
        return ok_ ? Extent{{*first}, {*length}} : Extent{within.first, {1}};
    }
    std::string_view first() const noexcept { return words_.empty() ? std::string_view{} : words_[0]; }

  private:
    std::uint64_t checked(const std::optional<std::uint64_t>& number) {
        ok_ = ok_ && number.has_value();
        return number.value_or(0);
    }
    std::vector<std::string_view> words_;
    bool ok_ = true;
};

}  // namespace

bool Place::continues_as(const Place& next) const noexcept {
    return extent.end() == next.extent.first && read == next.read && wrong == next.wrong && zeroes == next.zeroes && believed == next.believed &&
           why == next.why && repaired == next.repaired;
}

void Place::append(const Place& next) noexcept {
    for_each_leg(read, [&](unsigned leg) { sums[leg] = crc32c_joined(sums[leg], next.sums[leg], to_bytes(next.extent.length)); });
    extent.length += next.extent.length;
}

void ScrubReport::add(const Place& place) {
    const auto after = std::lower_bound(places.begin(), places.end(), place.extent.first,
                                        [](const Place& each, Sector first) { return each.extent.end() <= first; });
    if (after != places.end() && after->extent.overlaps(place.extent)) return;    // met again after a restart, or at the end
    differing += place.extent.length;
    if (place.repaired) repaired += place.extent.length;
    if (after != places.begin() && (after - 1)->continues_as(place)) {
        (after - 1)->append(place);
    } else if (places.size() < kPlacesMax) {
        places.insert(after, place);
    } else {
        ++unlisted;
    }
}

void ScrubReport::look_again_at(const Extent& extent) {
    const auto after = std::upper_bound(again.begin(), again.end(), extent.first, [](Sector first, const Extent& each) { return first < each.first; });
    if (after != again.begin() && (after - 1)->end() >= extent.first) {
        Extent& before = *(after - 1);
        if (before.end() < extent.end()) before.length = extent.end() - before.first;
    } else if (again.size() < kAgainMax || after == again.begin()) {
        again.insert(after, extent);
    } else {
        (after - 1)->length = extent.end() - (after - 1)->first;
    }
}

std::string ScrubReport::text(unsigned legs, std::uint64_t map) const {
    if (state == State::none) return "state=none";
    std::string text = fmt::format(
        "mode={} state={} from={} at={} end={} compared={} differing={} repaired={} unrepaired={} mended={} left={} unlisted={} legs={} map={:x} again=",
        kModes[static_cast<unsigned>(mode)], kStates[static_cast<unsigned>(state)], from.v, at.v, end.v, compared.v, differing.v, repaired.v, unrepaired.v,
        mended.v, left.v, unlisted, legs, map);
    for (const Extent& extent : again) text += fmt::format("{}{}", &extent == again.data() ? "" : ",", words_of(extent));
    if (again.empty()) text += "-";
    for (const Place& place : places) {
        text += fmt::format("\n{} believed={} why={} wrong={} zeroes={} sums=", words_of(place.extent), place.believed,
                            kWhys[static_cast<unsigned>(place.why)], words_of(place.wrong), words_of(place.zeroes));
        for (unsigned leg = 0; leg < legs; ++leg) {
            text += leg == 0 ? "" : ",";
            text += (place.read & leg_bit(leg)) != 0 ? fmt::format("{:08x}", place.sums[leg]) : "-";
        }
        text += place.repaired ? " repaired=yes" : " repaired=no";
    }
    return text;
}

Result<void> ScrubReport::restore(std::string_view text, unsigned legs, std::uint64_t map, const Extent& extent) {
    const std::vector<std::string_view> lines = parts_of(text, '\n');
    const auto wrong = [](std::string_view line) { return fail(Errc::bad_argument, fmt::format("this says nothing of a scrub: '{}'", line)); };
    if (lines.empty()) return wrong(text);
    Line words{lines[0]};
    ScrubReport found;
    found.state = static_cast<State>(words.one_of("state", kStates));
    if (words.ok() && found.state == State::none) {
        *this = {};
        return {};
    }
    found.mode = static_cast<Mode>(words.one_of("mode", kModes));
    found.from = {words.number("from")};
    found.at = {words.number("at")};
    found.end = {words.number("end")};
    for (const auto& [key, count] : {std::pair{"compared", &found.compared}, {"differing", &found.differing}, {"repaired", &found.repaired},
                                     {"unrepaired", &found.unrepaired}, {"mended", &found.mended}, {"left", &found.left}}) {
        *count = {words.number(key)};
    }
    found.unlisted = words.number("unlisted");
    const std::uint64_t of_legs = words.number("legs"), of_map = words.hex_number("map");
    if (!words.ok()) return wrong(lines[0]);
    if (found.from < extent.first || found.from >= extent.end()) return fail(Errc::bad_argument, "this is of another target of the table");
    if (of_legs != legs || of_map != map || found.end != extent.end() || found.from > found.at || found.at > found.end) {
        ScrubReport anew;
        if (found.state == State::running || found.state == State::paused) {
            anew.mode = found.mode;
            anew.state = found.state;
            anew.from = anew.at = extent.first;
            anew.end = extent.end();
        }
        *this = std::move(anew);
        return {};
    }
    for (const std::string_view word : parts_of(words.text("again"), ',')) {
        if (word != "-") found.again.push_back(words.extent(word, extent));
    }
    if (!words.ok() || found.again.size() > kAgainMax + 1 || lines.size() > kPlacesMax + 1) return wrong(lines[0]);
    for (std::size_t i = 1; i < lines.size(); ++i) {
        Line line{lines[i]};
        Place place;
        place.extent = line.extent(line.first(), extent);
        const std::uint64_t believed = line.number("believed");
        place.why = static_cast<Why>(line.one_of("why", kWhys));
        place.wrong = line.legs("wrong", legs);
        place.zeroes = line.legs("zeroes", legs);
        place.repaired = line.text("repaired") == "yes";
        const auto sums = parts_of(line.text("sums"), ',');
        if (!line.ok() || believed >= legs || sums.size() != legs || (i > 1 && found.places.back().extent.end() > place.extent.first)) return wrong(lines[i]);
        place.believed = static_cast<std::uint8_t>(believed);
        for (unsigned leg = 0; leg < legs; ++leg) {
            if (sums[leg] == "-") continue;
            const auto sum = hex(sums[leg]);
            if (!sum || *sum > 0xffff'ffff) return wrong(lines[i]);
            place.sums[leg] = static_cast<std::uint32_t>(*sum);
            place.read |= leg_bit(leg);
        }
        found.places.push_back(place);
    }
    *this = std::move(found);
    return {};
}

}  // namespace udm::mirror
