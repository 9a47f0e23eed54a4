#pragma once

#include <string>

#include "apps/udm/context.hpp"

namespace udm::app {

// Until `device` merges no more, with a progress bar; false on Ctrl-C, which leaves the merge under way. Throws Refusal when it failed.
bool wait_for_merge(Context& context, const std::string& name, const std::string& device, bool of_layer);

struct MergeOptions {
    bool unexport = false;
    bool background = false;
    bool force = false;    // also under clients of the volume
};
void merge_snapshot(Context& context, const std::string& name, const MergeOptions& options);

}  // namespace udm::app
