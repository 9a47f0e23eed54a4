// delay: requests arrive later, those of each kind in their order.
#pragma once

#include <memory>

#include "core/target_type.hpp"

namespace udm {

std::unique_ptr<TargetType> delay_type();

}  // namespace udm
