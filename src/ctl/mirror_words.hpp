// The words of a mirror's table line, to be read, changed and put together again.
#pragma once

#include <string>
#include <vector>

#include "ctl/mirror_of.hpp"

namespace udm::ctl {

struct MirrorWords {
    std::vector<std::string> log;         // LOG_TYPE #ARGS ARGS…
    std::vector<MirrorOf::Leg> legs;
    std::vector<std::string> features;    // #FEATURES FEATURES…, or none

    explicit MirrorWords(const TableLine& line);
    MirrorWords() = default;
    std::string text() const;
    // The log's device, unquoted; empty: it is in memory.
    std::string log_device() const { return log.size() > 2 && log[0] == "disk" ? log[2] : std::string{}; }
};

}  // namespace udm::ctl
