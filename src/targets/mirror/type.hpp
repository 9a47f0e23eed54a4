// The target type `mirror`.
#pragma once

#include <memory>

#include "core/target_type.hpp"

namespace udm::mirror {

std::unique_ptr<TargetType> type();

}  // namespace udm::mirror
