// What happened, as a running hash, and as lines when somebody wants to read it. Nothing that differs between two
// runs of one seed may go in: no address, no real time.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace udm {

class Trace {
  public:
    void add(std::uint64_t word) noexcept {
        hash_ = (hash_ ^ word) * 0x9fb21c651e98df25;
        hash_ ^= hash_ >> 29;
    }
    void add(std::string_view text) noexcept {
        for (char c : text) add(static_cast<unsigned char>(c));
    }
    std::uint64_t hash() const noexcept { return hash_; }

    bool keeps_lines() const noexcept { return keeps_lines_; }
    void keep_lines(bool keep) noexcept { keeps_lines_ = keep; }
    // Lines are for people and do not go into the hash.
    void line(std::string text) { lines_.push_back(std::move(text)); }
    const std::vector<std::string>& lines() const noexcept { return lines_; }

  private:
    std::uint64_t hash_ = 0x2545f4914f6cdd1d;
    bool keeps_lines_ = false;
    std::vector<std::string> lines_;
};

}  // namespace udm
