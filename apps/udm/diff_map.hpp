// A volume as a line of marks: where it has changed.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace udm::app {

class DiffMap {
  public:
    explicit DiffMap(std::uint64_t size);    // bytes
    void add(std::uint64_t offset, std::uint64_t length);    // each byte once at most
    // 64 marks: '.' nothing, ':' under a tenth, '+' under nine tenths, '#' more.
    std::string text() const;

  private:
    static constexpr std::size_t kCells = 64;
    std::uint64_t start_of(std::size_t cell) const;

    std::uint64_t size_;
    std::vector<std::uint64_t> changed_;    // bytes of each cell
};

}  // namespace udm::app
