// Which device has the mirror that a volume stands on, and what its table says.
#pragma once

#include <string>
#include <vector>

#include "ctl/devices.hpp"

namespace udm::ctl {

struct MirrorOf {
    struct Leg {
        std::string words;
        std::string offset;
    };
    RecordPtr record;          // whose table has it
    TableLine line;
    std::vector<Leg> legs;     // in the order of the table
};

// Of a line with a mirror: LOG_TYPE #ARGS ARGS… #LEGS (DEVICE OFFSET)…; none where it is not like that.
std::vector<MirrorOf::Leg> legs_of(const TableLine& line);

// The volume itself, or what it stands on by a table of one line `linear` or `snapshot-origin`. Throws Failure (bad_argument) where there is
// no mirror, or more than one line with one.
MirrorOf find_mirror(Devices& devices, const DeviceKey& key);

}  // namespace udm::ctl
