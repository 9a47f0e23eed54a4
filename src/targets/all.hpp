// The one list of target types. No registration by static constructors.
#pragma once

#include "core/target_type.hpp"

namespace udm {

// Adds every target there is to the list of one reactor.
void add_all_targets(TargetTypes& types, Env& env);

}  // namespace udm
