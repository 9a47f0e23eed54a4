// Compares what was read from several legs, and says which is believed where they differ.
#pragma once

#include <vector>

#include "targets/mirror/leg_io.hpp"
#include "targets/mirror/scrub_report.hpp"

namespace udm::mirror {

struct Judged {
    Extent extent;
    LegMask read = 0;          // legs whose content is in `data`; not none
    LegMask unreadable = 0;
    unsigned source = 0;       // the leg that counts where nothing else decides
    const LegBuffers& data;
};

// From the first block that differs to the last; length 0: all are equal. Blocks are of so many sectors, and the extent is whole blocks.
Extent differing_part(const Judged& judged, Sectors block) noexcept;

// Puts the places where what was read differs behind `places`, blocks that are alike in all but content as one. Which is
// believed: what more legs hold than anything else together, of three and more that were read; else the source, if it could be read;
// else the first that could.
void find_places(const Judged& judged, Sectors block, std::vector<Place>& places);

}  // namespace udm::mirror
