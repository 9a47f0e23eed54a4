// Words for people: sizes, columns, times.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace udm::app {

// Columns of text, each as wide as its widest word; columns whose head ends in '>' are set to the right.
class Columns {
  public:
    explicit Columns(std::vector<std::string> heads);
    void add(std::vector<std::string> row) { rows_.push_back(std::move(row)); }
    bool empty() const { return rows_.empty(); }
    // A line each, the heads first; no white space at the ends.
    std::vector<std::string> lines() const;
    std::string text() const;

  private:
    std::vector<std::string> heads_;
    std::vector<bool> right_;
    std::vector<std::vector<std::string>> rows_;
};

std::string human_size(std::uint64_t bytes);             // "32.0 MiB", "512 B"
std::string human_sectors(std::uint64_t sectors);        // of 512 bytes
std::string human_time(std::chrono::milliseconds span);  // "3 s", "2 h 5 min", "12 d 3 h"
std::string clock_time();                                // "10:03:59", local
std::size_t display_width(std::string_view text);        // columns of UTF-8 text

}  // namespace udm::app
