#include "apps/udm/diff_map.hpp"

#include <algorithm>

namespace udm::app {

DiffMap::DiffMap(std::uint64_t size) : size_{size}, changed_(kCells) {}

std::uint64_t DiffMap::start_of(std::size_t cell) const {
    return size_ / kCells * cell + size_ % kCells * cell / kCells;    // no overflow
}

void DiffMap::add(std::uint64_t offset, std::uint64_t length) {
    const std::uint64_t end = std::min(offset + length, size_);
    auto cell = static_cast<std::size_t>(size_ == 0 ? 0 : std::min<std::uint64_t>(kCells - 1, offset / std::max<std::uint64_t>(1, size_ / kCells)));
    while (cell > 0 && start_of(cell) > offset) --cell;
    for (; cell < kCells && start_of(cell) < end; ++cell) {
        const std::uint64_t first = std::max(offset, start_of(cell)), last = std::min(end, start_of(cell + 1));
        if (first < last) changed_[cell] += last - first;
    }
}

std::string DiffMap::text() const {
    std::string text;
    for (std::size_t i = 0; i < kCells; ++i) {
        const std::uint64_t all = start_of(i + 1) - start_of(i);
        text += changed_[i] == 0 ? '.' : changed_[i] < all / 10 ? ':' : changed_[i] < all / 10 * 9 ? '+' : '#';
    }
    return text;
}

}  // namespace udm::app
