// Where a striped device's sectors are. Pure arithmetic, tested against a model that counts one by one.
//
// Example, 3 stripes of chunks of 4: sectors 0-3 are sectors 0-3 of stripe 0, 4-7 are 0-3 of stripe 1, 8-11 are 0-3 of
// stripe 2, 12-15 are 4-7 of stripe 0.
#pragma once

#include <bit>
#include <cstdint>

#include "base/units.hpp"

namespace udm {

class StripedLayout {
  public:
    struct Place {
        std::uint32_t stripe;
        Sectors offset;    // within the stripe
    };

    StripedLayout(std::uint32_t stripes, std::uint32_t chunk) noexcept
        : stripes_{stripes}, chunk_{chunk}, shift_{std::has_single_bit(chunk) ? std::countr_zero(chunk) : -1} {
        ASSERT(stripes > 0 && chunk > 0);
    }
    std::uint32_t stripes() const noexcept { return stripes_; }
    std::uint32_t chunk() const noexcept { return chunk_; }

    // `at` counts from the target's start, here and below.
    Place place(Sectors at) const noexcept {
        const std::uint64_t number = chunk_of(at);
        const std::uint64_t row = number / stripes_;
        return {static_cast<std::uint32_t>(number - row * stripes_), {row * chunk_ + (at.v - number * chunk_)}};
    }
    // How many sectors lie together from there on: 1 .. chunk.
    Sectors run(Sectors at) const noexcept { return {(chunk_of(at) + 1) * chunk_ - at.v}; }
    // How many of the sectors before `at` are on that stripe. So [on(a), on(b)) is what a stripe has of [a, b).
    Sectors on(std::uint32_t stripe, Sectors at) const noexcept {
        const Place here = place(at);
        if (here.stripe == stripe) return here.offset;
        const Sectors row_start{here.offset.v / chunk_ * chunk_};
        return here.stripe < stripe ? row_start : row_start + Sectors{chunk_};
    }

  private:
    std::uint64_t chunk_of(Sectors at) const noexcept { return shift_ >= 0 ? at.v >> shift_ : at.v / chunk_; }

    std::uint32_t stripes_;
    std::uint32_t chunk_;
    int shift_;
};

}  // namespace udm
