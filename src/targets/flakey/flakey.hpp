// flakey: a device that works for some seconds and doesn't for some others, again and again.
#pragma once

#include <memory>

#include "core/target_type.hpp"

namespace udm {

std::unique_ptr<TargetType> flakey_type();

}  // namespace udm
