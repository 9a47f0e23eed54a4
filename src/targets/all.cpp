#include "targets/all.hpp"

#include "targets/delay/delay.hpp"
#include "targets/error/error.hpp"
#include "targets/flakey/flakey.hpp"
#include "targets/linear/linear.hpp"
#include "targets/mirror/type.hpp"
#include "targets/snapshot/type.hpp"
#include "targets/striped/striped.hpp"
#include "targets/zero/zero.hpp"

namespace udm {

void add_all_targets(TargetTypes& types, Env& env) {
    types.add(error_type());
    types.add(linear_type());
    types.add(striped_type());
    types.add(zero_type());
    types.add(delay_type());
    types.add(flakey_type());
    snapshot::add_types(types, env);
    types.add(mirror::type());
}

}  // namespace udm
