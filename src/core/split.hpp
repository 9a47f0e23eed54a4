// Where a request is cut: at the end of its table line, where the target says so, and at the longest transfer the
// disks below take. Pure functions of numbers, so that they are tested alone.
#pragma once

#include "base/units.hpp"

namespace udm {

// From `at` to the next boundary: the multiples of `every` (> 0, any number) counted from `begin` (<= at). 1 .. every.
constexpr Sectors until_boundary(Sector at, Sector begin, Sectors every) {
    ASSERT(every.v > 0);
    return {every.v - (at - begin).v % every.v};
}

// The part of `request` that lies in `line`, from the request's first sector on, which must lie in it.
constexpr Extent clipped_to(const Extent& request, const Extent& line) {
    ASSERT(line.first <= request.first && request.first < line.end());
    const Sectors room = line.end() - request.first;
    return {request.first, request.length < room ? request.length : room};
}

// How many sectors of a request of `length`, which lies in one line, go down at once: what the target takes, and at
// most `longest` if that isn't 0. At least 1.
constexpr Sectors first_piece(Sectors length, Sectors taken, Sectors longest) {
    ASSERT(length.v > 0 && taken.v > 0);
    Sectors piece = taken < length ? taken : length;
    if (longest.v != 0 && longest < piece) piece = longest;
    return piece;
}

}  // namespace udm
