// error: every request fails.
#pragma once

#include <memory>

#include "core/target_type.hpp"

namespace udm {

std::unique_ptr<TargetType> error_type();

}  // namespace udm
