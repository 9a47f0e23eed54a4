#include "targets/mirror/scrub_judge.hpp"

#include <algorithm>
#include <cstring>

#include "base/crc32c.hpp"

namespace udm::mirror {
namespace {

bool all_equal(const Judged& judged, std::size_t offset, std::size_t bytes) noexcept {
    const unsigned first = lowest(judged.read);
    bool equal = true;
    for_each_leg(without(judged.read, leg_bit(first)), [&](unsigned leg) {
        equal = equal && std::memcmp(judged.data[first] + offset, judged.data[leg] + offset, bytes) == 0;
    });
    return equal;
}

bool all_zero(const std::byte* data, std::size_t bytes) noexcept {
    return data[0] == std::byte{0} && std::memcmp(data, data + 1, bytes - 1) == 0;
}

Place judge_block(const Judged& judged, std::size_t offset, const Extent& block) {
    const std::size_t bytes = to_bytes(block.length);
    Place place;
    place.extent = block;
    place.read = judged.read;
    LegMask best = 0;    // the largest group of legs that hold the same
    LegMask left = judged.read;
    while (left != 0) {
        const unsigned first = lowest(left);
        LegMask same = 0;
        for_each_leg(left, [&](unsigned leg) {
            if (std::memcmp(judged.data[first] + offset, judged.data[leg] + offset, bytes) == 0) same |= leg_bit(leg);
        });
        if (std::popcount(same) > std::popcount(best)) best = same;
        left = without(left, same);
    }
    for_each_leg(judged.read, [&](unsigned leg) {
        place.sums[leg] = crc32c_bytes(judged.data[leg] + offset, bytes);
        if (all_zero(judged.data[leg] + offset, bytes)) place.zeroes |= leg_bit(leg);
    });
    unsigned believed = lowest(judged.read);
    if (2 * std::popcount(best) > std::popcount(judged.read)) {
        place.why = Why::majority;
        believed = (best & leg_bit(judged.source)) != 0 ? judged.source : lowest(best);
    } else if ((judged.read & leg_bit(judged.source)) != 0) {
        place.why = Why::source;
        believed = judged.source;
    } else {
        place.why = Why::readable;
    }
    place.believed = static_cast<std::uint8_t>(believed);
    place.wrong = judged.unreadable;
    for_each_leg(judged.read, [&](unsigned leg) {
        if (std::memcmp(judged.data[believed] + offset, judged.data[leg] + offset, bytes) != 0) place.wrong |= leg_bit(leg);
    });
    return place;
}

}  // namespace

Extent differing_part(const Judged& judged, Sectors block) noexcept {
    Extent part{judged.extent.first, {0}};
    if (all_equal(judged, 0, to_bytes(judged.extent.length))) return part;
    const std::size_t bytes = to_bytes(block);
    std::uint64_t first = 0, last = judged.extent.length.v / block.v - 1;
    while (first < last && all_equal(judged, first * bytes, bytes)) ++first;
    while (last > first && all_equal(judged, last * bytes, bytes)) --last;
    return {judged.extent.first + Sectors{first * block.v}, {(last - first + 1) * block.v}};
}

void find_places(const Judged& judged, Sectors block, std::vector<Place>& places) {
    const std::size_t bytes = to_bytes(block);
    const std::size_t before = places.size();
    for (std::size_t offset = 0; offset < to_bytes(judged.extent.length); offset += bytes) {
        if (all_equal(judged, offset, bytes)) continue;
        const Place place = judge_block(judged, offset, {judged.extent.first + whole_sectors(offset), block});
        if (places.size() > before && places.back().continues_as(place)) places.back().append(place);
        else places.push_back(place);
    }
}

}  // namespace udm::mirror
