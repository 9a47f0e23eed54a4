#include "apps/udmd/engine_host.hpp"

#include <random>

#include "ctl/call_on.hpp"
#include "targets/all.hpp"

namespace udm::daemon {
namespace {

struct NbdParameter {
    std::string_view name;
    std::atomic<std::uint32_t> NbdSettings::*value;
    std::uint64_t standard, least, most;
    std::string_view about;
};
constexpr NbdParameter kNbdParameters[] = {
    {"nbd_timeout", &NbdSettings::timeout_s, 60, 0, 86'400, "seconds that requests wait for an NBD server that is away; 0: without end"},
    {"nbd_connections", &NbdSettings::connections, 4, 1, 16, "connections to an NBD server that allows several"},
    {"nbd_connect_timeout", &NbdSettings::connect_timeout_s, 10, 1, 300, "seconds that an attempt to connect to an NBD server may take"},
};

}  // namespace

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

std::vector<Parameter> EngineHost::parameters() const {
    std::vector<Parameter> all;
    for (const NbdParameter& one : kNbdParameters) {
        const std::uint64_t now = (engine_->nbd_settings().*one.value).load();
        all.push_back({one.name, now, one.standard, one.least, one.most, one.about, true});
    }
    return all;
}

bool EngineHost::set_parameter(std::string_view name, std::uint64_t value) {
    for (const NbdParameter& one : kNbdParameters) {
        if (one.name != name) continue;
        (engine_->nbd_settings().*one.value).store(static_cast<std::uint32_t>(value));
        return true;
    }
    return false;
}

DiskId EngineHost::identify(std::string_view words) {
    auto id = engine_->identify(words);
    return id ? *id : DiskId{};
}

}  // namespace udm::daemon
