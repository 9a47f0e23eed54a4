// linear: a range of a device, moved.
#pragma once

#include <memory>

#include "core/target_type.hpp"

namespace udm {

std::unique_ptr<TargetType> linear_type();

}  // namespace udm
