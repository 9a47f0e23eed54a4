#include "sim/world.hpp"

#include "sim/machine.hpp"

namespace udm {

World::World(const Options& options)
    : options_{options},
      random_{options.seed},
      timeline_{&random_},
      chaos_{options.seed, options.without},
      lost_stores_{timeline_, options.seed ^ 0x10575703e5} {
    timeline_.trace().add(options.seed);
    timeline_.trace().keep_lines(options.keeps_trace_lines);
}

World::~World() { machine_.reset(); }

SimDisk& World::add_disk(SimDisk::Options options) {
    Trace seed;
    seed.add(options_.seed);
    seed.add(options.name);
    options.seed = seed.hash();
    options.tracks_cuts = true;
    options.wild = true;
    disks_.push_back(std::make_unique<SimDisk>(timeline_, options));
    return *disks_.back();
}

SimDisk& World::disk(std::string_view name) noexcept {
    for (const auto& disk : disks_) {
        if (disk->name() == name) return *disk;
    }
    UNREACHABLE();
}

Machine& World::power_on(unsigned reactors) {
    ASSERT(machine_ == nullptr);
    machine_ = std::make_unique<Machine>(*this, reactors);
    note(0x9011, [] { return std::string{"power on"}; });
    return *machine_;
}

void World::cut_power() {
    ASSERT(machine_ != nullptr);
    ++cuts_;
    note(0xc07, [] { return std::string{"power cut"}; });
    // The disks first: the memory of what is under way belongs to the machine.
    for (const auto& disk : disks_) disk->power_cut();
    lost_stores_.power_cut();
    machine_.reset();
}

std::uint64_t World::faults() const noexcept {
    std::uint64_t faults = 0;
    for (const auto& disk : disks_) faults += disk->counters().faults;
    return faults;
}

}  // namespace udm
