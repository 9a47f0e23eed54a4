// striped: chunks over several devices in turn.
#pragma once

#include <memory>

#include "core/target_type.hpp"

namespace udm {

std::unique_ptr<TargetType> striped_type();

}  // namespace udm
