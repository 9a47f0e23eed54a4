// zero: reads zeroes, forgets writes.
#pragma once

#include <memory>

#include "core/target_type.hpp"

namespace udm {

std::unique_ptr<TargetType> zero_type();

}  // namespace udm
