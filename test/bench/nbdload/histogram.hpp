// Latencies in buckets of under 2 % width: constant memory, no sorting.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>

namespace load {

class Histogram {
  public:
    void add(std::uint64_t ns) noexcept {
        ++counts_[bucket(ns)];
        ++total_;
        most_ = std::max(most_, ns);
    }
    // The time that `share` (0..1) of the requests did not exceed, in nanoseconds; 0 if there are none.
    std::uint64_t percentile(double share) const noexcept {
        if (total_ == 0) return 0;
        const auto rank = static_cast<std::uint64_t>(share * static_cast<double>(total_ - 1)) + 1;
        std::uint64_t seen = 0;
        for (std::size_t i = 0; i < counts_.size(); ++i)
            if ((seen += counts_[i]) >= rank) return std::min(upper_bound(i), most_);
        return most_;
    }
    std::uint64_t most() const noexcept { return most_; }
    void clear() noexcept { *this = Histogram{}; }

  private:
    static constexpr unsigned kBits = 6;  // 64 buckets for each power of two
    static std::size_t bucket(std::uint64_t v) noexcept {
        if (v < (1u << kBits)) return v;
        const unsigned shift = static_cast<unsigned>(std::bit_width(v)) - kBits - 1;
        return (std::size_t{shift} << kBits) + (v >> shift);
    }
    static std::uint64_t upper_bound(std::size_t i) noexcept {
        if (i < (2u << kBits)) return i;
        const std::size_t shift = (i >> kBits) - 1;
        return (((i & ((1u << kBits) - 1)) + (1u << kBits) + 1) << shift) - 1;
    }
    std::array<std::uint64_t, (64 - kBits + 1) << kBits> counts_{};
    std::uint64_t total_ = 0, most_ = 0;
};

}  // namespace load
