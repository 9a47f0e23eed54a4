#include "core/lifecycle.hpp"

#include "base/assert.hpp"

namespace udm {
namespace {
//   from \ to     suspended  resuming  live  suspending  detached
//   suspended                   x                            x
//   resuming         x                  x
//   live                                         x
//   suspending       x
//   detached
constexpr bool is_legal(Lifecycle::State from, Lifecycle::State to) {
    using State = Lifecycle::State;
    switch (from) {
        case State::suspended: return to == State::resuming || to == State::detached;
        case State::resuming: return to == State::live || to == State::suspended;
        case State::live: return to == State::suspending;
        case State::suspending: return to == State::suspended;
        case State::detached: return false;
    }
    return false;
}
}  // namespace

void Lifecycle::to(State next) noexcept {
    ASSERT(is_legal(state_, next));
    state_ = next;
}

void Lifecycle::unquiesce() noexcept {
    ASSERT(quiesce_depth_ > 0);
    --quiesce_depth_;
}

}  // namespace udm
