#include "sim/administrator.hpp"

#include <utility>

#include "sim/machine.hpp"

namespace udm {
namespace {
constexpr std::uint64_t kAdminPatience = 3'000;    // events
}  // namespace

void Administrator::start(Job<void> job) {
    ASSERT(!busy);
    busy = true;
    SimReactor& reactor = world_.machine().reactor();
    reactor.enter();
    reactor.jobs().spawn(std::move(job));
}

bool Administrator::wait() {
    for (std::uint64_t n = 0; busy && n < kAdminPatience; ++n) {
        if (!world_.timeline().step()) break;
    }
    return !busy;
}

}  // namespace udm
