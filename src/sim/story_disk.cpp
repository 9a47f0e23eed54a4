// The story "disk": clients on simulated disks themselves, without a target between. It shows that the world agrees with
// the shadow: any violation here is a bug of the simulation.
#include <fmt/format.h>

#include <algorithm>

#include "sim/machine.hpp"
#include "sim/request_steps.hpp"
#include "sim/stories.hpp"

namespace udm {
namespace {

class DiskVolume final : public Volume {
  public:
    DiskVolume(std::string name, SimDisk& disk) : Volume{std::move(name), ShadowDisk{disk.limits().size}}, disk_{disk} {}
    std::uint64_t causes() const override {
        return disk_.counters().faulted;
    }
    SimDisk& sim_disk() noexcept { return disk_; }

  private:
    SimDisk& disk_;
};

class DiskStory final : public Story {
  public:
    std::string_view name() const override { return "disk"; }
    std::string_view about() const override { return "simulated disks alone: cache, faults, cuts"; }
    History generate(Prng& random) const override;
    void run(World& world, const History& history, Outcome& outcome) const override;
    std::string describe(const History& history) const override {
        return fmt::format("two disks of {} sectors, volatile cache {}", history.setup[0], history.setup[1] ? "yes" : "no");
    }
    std::string describe(const Step& step) const override { return steps::describe(step); }
};

History DiskStory::generate(Prng& random) const {
    History history;
    const std::uint64_t sectors = random.between(16, 256);
    history.setup = {sectors, random.chance(7, 8), random.chance(1, 2)};
    steps::Shape shape{.sectors = sectors, .chunks = {8, 16}, .longest = 32, .volumes = {1, 1}};
    shape.draw_mood(random);
    const std::uint64_t count = random.between(100, 130);
    const std::uint64_t cut_at = random.below(count);
    for (std::uint64_t i = 0; i < count; ++i) {
        if (i == cut_at || random.chance(1, 60)) history.steps.push_back({.kind = steps::kCut, .pause = steps::draw_pause(random)});
        if (random.chance(1, 50)) history.steps.push_back(steps::draw_fault(random, random.below(2), sectors));
        if (random.chance(1, 25)) history.steps.push_back({.kind = steps::kHeal, .pause = 0, .a = random.below(2)});
        history.steps.push_back(steps::draw_request(random, shape));
    }
    return history;
}

void DiskStory::run(World& world, const History& history, Outcome& outcome) const {
    Clients clients{world, outcome};
    std::vector<std::unique_ptr<DiskVolume>> volumes;
    for (const char* name : {"one", "two"}) {
        SimDisk::Options options;
        options.limits.size = {history.setup[0]};
        options.limits.discard = true;
        options.limits.volatile_cache = history.setup[1] != 0;
        options.latency_max = 4 * options.latency_min;
        options.lazy_discard = history.setup[2] != 0;
        options.name = name;
        volumes.push_back(std::make_unique<DiskVolume>(name, world.add_disk(options)));
    }
    const std::vector<Volume*> all{volumes[0].get(), volumes[1].get()};
    const auto boot = [&] {
        Machine& machine = world.power_on();
        for (auto& volume : volumes) volume->attach(volume->sim_disk(), machine.reactor());
        for (auto& volume : volumes) clients.compare(*volume);
    };
    boot();
    for (const Step& step : history.steps) {
        clients.let(step.pause);
        if (steps::is_request(step)) {
            steps::submit(clients, *volumes[step.a], step);
        } else if (step.kind == steps::kFault) {
            steps::apply_fault(volumes[step.a]->sim_disk(), step);
        } else if (step.kind == steps::kHeal) {
            steps::heal(volumes[step.a]->sim_disk());
        } else if (step.kind == steps::kCut) {
            world.cut_power();
            clients.power_cut(all);
            for (auto& volume : volumes) steps::heal(volume->sim_disk());
            boot();
        }
    }
    for (auto& volume : volumes) steps::heal(volume->sim_disk());
    if (!clients.settle()) clients.violate(fmt::format("{} requests do not end", clients.in_flight()));
    for (auto& volume : volumes) {
        if (!clients.compare(*volume)) clients.violate("reads do not end");
    }
}

}  // namespace

std::unique_ptr<Story> disk_story() { return std::make_unique<DiskStory>(); }

}  // namespace udm
