// A mirror in words and as a picture, from an element of the answer of `table.regions` (docs/protocol.md).
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "ctl/json.hpp"

namespace udm::app {

// Legs, log, what is left to copy: lines for people. `head`: what comes first, or none.
std::vector<std::string> mirror_lines(const ctl::Json& mirror, const std::string& head = {});

// Whether one of the target's details is told by these lines.
bool is_in_mirror_lines(std::string_view detail);

// Nothing is out of sync, and no leg is away.
bool all_legs_have_all(const ctl::Json& mirror);

// How the picture's marks are drawn.
struct PictureStyle {
    bool colours = false;
    bool blocks = false;        // characters beyond ASCII
    std::size_t columns = 80;
};
// The regions, cell by cell, in rows as wide as there are columns; and the legend, with counts. A cell shows what most needs to be
// seen of its regions: being copied, out of sync, dirty, clean.
std::vector<std::string> draw_regions(const ctl::Json& mirror, const PictureStyle& style);

// The line's first `columns` columns; its colours stay whole.
std::string cut_to(std::string_view line, std::size_t columns);

}  // namespace udm::app
