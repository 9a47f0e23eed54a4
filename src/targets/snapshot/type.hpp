// Table lines of the snapshot family.
#pragma once

#include "core/target_type.hpp"

namespace udm::snapshot {

// snapshot-origin and snapshot: they share the origins of their reactor.
void add_types(TargetTypes& types, Env& env);

}  // namespace udm::snapshot
