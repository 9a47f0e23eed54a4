// Numbers 0 .. max that are not in use, as runs: the lowest one is found at once, however many are taken.
#pragma once

#include <cstdint>
#include <iterator>
#include <map>
#include <optional>

namespace udm::ctl {

class FreeNumbers {
  public:
    explicit FreeNumbers(std::uint32_t max) { runs_[0] = max; }
    // The lowest that `keep` does not want to be kept free.
    template <class Keep>
    std::optional<std::uint32_t> lowest(Keep keep) const {
        for (const auto& [first, last] : runs_) {
            for (std::uint64_t number = first; number <= last; ++number) {
                if (!keep(static_cast<std::uint32_t>(number))) return static_cast<std::uint32_t>(number);
            }
        }
        return std::nullopt;
    }
    bool contains(std::uint32_t number) const { return run_of(number) != runs_.end(); }
    // It is free, and isn't afterwards.
    void take(std::uint32_t number) {
        const auto run = run_of(number);
        const std::uint32_t first = run->first, last = run->second;
        runs_.erase(run);
        if (first < number) runs_[first] = number - 1;
        if (number < last) runs_[number + 1] = last;
    }
    // It was taken.
    void give(std::uint32_t number) {
        std::uint32_t first = number, last = number;
        const auto above = runs_.upper_bound(number);
        if (above != runs_.begin()) {
            const auto below = std::prev(above);
            if (below->second + 1 == number) {
                first = below->first;
                runs_.erase(below);
            }
        }
        if (above != runs_.end() && above->first == number + 1) {
            last = above->second;
            runs_.erase(above);
        }
        runs_[first] = last;
    }

  private:
    std::map<std::uint32_t, std::uint32_t>::const_iterator run_of(std::uint32_t number) const {
        const auto above = runs_.upper_bound(number);
        if (above == runs_.begin()) return runs_.end();
        const auto run = std::prev(above);
        return number <= run->second ? run : runs_.end();
    }
    std::map<std::uint32_t, std::uint32_t> runs_;  // first → last
};

}  // namespace udm::ctl
