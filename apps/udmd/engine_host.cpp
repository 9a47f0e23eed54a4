#include "apps/udmd/engine_host.hpp"

#include <random>

#include "ctl/call_on.hpp"
#include "targets/all.hpp"

namespace udm::daemon {

EngineHost::EngineHost(std::unique_ptr<Engine> engine) : engine_{std::move(engine)} {
    std::random_device seed;
    for (unsigned i = 0; i < engine_->size(); ++i) {
        homes_.push_back(std::make_unique<Home>(engine_->reactor(i), std::uint64_t{seed()} << 32 | seed()));
        Home& home = *homes_.back();
        ctl::run_on(home.env.reactor, [&] { add_all_targets(home.types, home.env); });
    }
}

EngineHost::~EngineHost() {
    // What the types share belongs to their reactors.
    for (const auto& home : homes_) {
        ctl::run_on(home->env.reactor, [&] { home->types = TargetTypes{}; });
    }
    engine_->stop();
}

DiskId EngineHost::identify(std::string_view words) {
    auto id = engine_->identify(words);
    return id ? *id : DiskId{};
}

}  // namespace udm::daemon
