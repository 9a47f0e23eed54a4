// A bit for each region. Bit i is bit i % 64 of word i / 64, which on little-endian machines is byte i / 8, bit i % 8: as on
// a log's disk. Bits of the last word beyond the size are 0.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

#include "base/assert.hpp"

namespace udm::dirty_log {

class Bitmap {
  public:
    Bitmap() = default;
    explicit Bitmap(std::uint64_t size) : words_((size + 63) / 64), size_{size} {}

    std::uint64_t size() const noexcept { return size_; }
    bool test(std::uint64_t i) const noexcept { return (words_[i / 64] >> (i % 64) & 1) != 0; }
    void set(std::uint64_t i) noexcept { words_[i / 64] |= std::uint64_t{1} << (i % 64); }
    void reset(std::uint64_t i) noexcept { words_[i / 64] &= ~(std::uint64_t{1} << (i % 64)); }
    void reset_all() noexcept { std::fill(words_.begin(), words_.end(), 0); }
    void set_all() noexcept { set_from(0); }
    // All from bit `first` on; the size may be less.
    void set_from(std::uint64_t first) noexcept {
        while (first < size_ && first % 64 != 0) set(first++);
        if (first >= size_) return;
        std::fill(words_.begin() + static_cast<std::ptrdiff_t>(first / 64), words_.end(), ~std::uint64_t{0});
        trim();
    }
    void reset_from(std::uint64_t first) noexcept {
        while (first < size_ && first % 64 != 0) reset(first++);
        if (first < size_) std::fill(words_.begin() + static_cast<std::ptrdiff_t>(first / 64), words_.end(), 0);
    }
    std::uint64_t count() const noexcept {
        std::uint64_t n = 0;
        for (const std::uint64_t word : words_) n += static_cast<std::uint64_t>(std::popcount(word));
        return n;
    }
    std::uint64_t count(std::uint64_t first, std::uint64_t end) const noexcept {
        return count_in(first, end, [this](std::uint64_t w) { return words_[w]; });
    }
    bool none() const noexcept {
        for (const std::uint64_t word : words_) {
            if (word != 0) return false;
        }
        return true;
    }
    // The first bit from `first` on that is set; `end` if none is before that.
    std::uint64_t find(std::uint64_t first, std::uint64_t end) const noexcept {
        return find_in(first, end, [this](std::uint64_t w) { return words_[w]; });
    }
    std::uint64_t find(std::uint64_t first) const noexcept { return find(first, size_); }

    std::uint64_t word(std::uint64_t w) const noexcept { return words_[w]; }
    std::uint64_t* words() noexcept { return words_.data(); }
    const std::uint64_t* words() const noexcept { return words_.data(); }
    std::uint64_t word_count() const noexcept { return words_.size(); }
    void trim() noexcept {
        if (size_ % 64 != 0) words_.back() &= (std::uint64_t{1} << (size_ % 64)) - 1;
    }

    // The same for bits that are computed: word_of(w) gives 64 of them.
    template <class F>
    static std::uint64_t find_in(std::uint64_t first, std::uint64_t end, F&& word_of) noexcept {
        if (first >= end) return end;
        std::uint64_t w = first / 64;
        std::uint64_t word = word_of(w) & ~std::uint64_t{0} << (first % 64);
        while (word == 0) {
            if (++w * 64 >= end) return end;
            word = word_of(w);
        }
        const std::uint64_t found = w * 64 + static_cast<std::uint64_t>(std::countr_zero(word));
        return found < end ? found : end;
    }
    // How many from `first` on, before `end`.
    template <class F>
    static std::uint64_t count_in(std::uint64_t first, std::uint64_t end, F&& word_of) noexcept {
        if (first >= end) return 0;
        std::uint64_t n = 0;
        for (std::uint64_t w = first / 64; w * 64 < end; ++w) {
            std::uint64_t word = word_of(w);
            if (w == first / 64) word &= ~std::uint64_t{0} << (first % 64);
            if (end - w * 64 < 64) word &= (std::uint64_t{1} << (end % 64)) - 1;
            n += static_cast<std::uint64_t>(std::popcount(word));
        }
        return n;
    }

  private:
    std::vector<std::uint64_t> words_;
    std::uint64_t size_ = 0;
};

}  // namespace udm::dirty_log
