// The machinery as the control plane asks for it: the engine's reactors, each with its targets.
#pragma once

#include <memory>
#include <vector>

#include "base/prng.hpp"
#include "ctl/host.hpp"
#include "engine/engine.hpp"
#include "port/chaos.hpp"

namespace udm::daemon {

class EngineHost : public ctl::Host {    // tests see what is asked of it
  public:
    explicit EngineHost(std::unique_ptr<Engine> engine);
    ~EngineHost() override;  // after the devices are gone: stops the reactors

    unsigned reactor_count() const override { return engine_->size(); }
    Env& env(unsigned reactor) override { return homes_[reactor]->env; }
    const TargetTypes& types(unsigned reactor) override { return homes_[reactor]->types; }
    DeviceOpener& opener(unsigned reactor) override { return engine_->opener(reactor); }
    DiskId identify(std::string_view words) override;
    std::vector<Parameter> parameters() const override;
    bool set_parameter(std::string_view name, std::uint64_t value) override;
    void stop_connecting() override { engine_->stop_connecting(); }
    std::string engine_name() const override { return engine_->kind_name(); }
    std::vector<std::string> warnings() const override { return engine_->warnings(); }
    std::vector<std::uint64_t> cpu_ns() const override { return engine_->cpu_ns(); }

    OpenFiles open_files() const override {
        const Engine::OpenFiles files = engine_->open_files();
        return {files.open, files.limit};
    }

    Network& network(unsigned reactor) { return engine_->network(reactor); }

  private:
    struct Home {
        Home(Reactor& reactor, std::uint64_t seed) : random{seed}, env{reactor, random, chaos} {}
        Prng random;
        Chaos chaos;
        Env env;
        TargetTypes types;
    };
    std::unique_ptr<Engine> engine_;
    std::vector<std::unique_ptr<Home>> homes_;
};

}  // namespace udm::daemon
