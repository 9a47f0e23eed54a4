// A run of regions on its way from the source leg to others.
#pragma once

#include "targets/mirror/legs.hpp"
#include "targets/mirror/regions.hpp"

namespace udm::mirror {

struct Copy : ListHook {
    RegionRun run;
    LegMask to = 0;           // less those that failed meanwhile
    bool spoiled = false;     // what was copied is worth nothing: the legs differ again
};

}  // namespace udm::mirror
