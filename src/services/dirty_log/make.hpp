// From the words of a mirror's table line to a log.
#pragma once

#include <memory>
#include <span>
#include <string>

#include "core/target_type.hpp"
#include "services/dirty_log/dirty_log.hpp"

namespace udm::dirty_log {

// `type` is "core" or "disk", `words` what follows the number of words: "core: REGION_SECTORS [sync|nosync]", "disk: DEVICE
// REGION_SECTORS [sync|nosync]". Opens the log's device. `args` is the mirror's line: its length gives the number of regions.
// Control plane, as TargetType::make. Errors begin with the kernel's words, "Error creating mirror dirty log: …".
Result<std::unique_ptr<DirtyLog>> make(const TargetArgs& args, std::string_view type, std::span<const std::string> words);

}  // namespace udm::dirty_log
