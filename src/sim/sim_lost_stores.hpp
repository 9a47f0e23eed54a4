// The record of stores that must never be trusted again. Like a disk it belongs to the world and outlives a power cut.
#pragma once

#include <vector>

#include "base/pool.hpp"
#include "base/prng.hpp"
#include "port/disk.hpp"
#include "port/reactor.hpp"
#include "sim/timeline.hpp"

namespace udm {

class SimLostStores final : public LostStores {
  public:
    explicit SimLostStores(Timeline& timeline, std::uint64_t seed = 1) : timeline_{timeline}, random_{seed} {}
    ~SimLostStores() override;

    void record(const DiskId& store, const std::string& words, Recorded& done) noexcept override;
    bool is_lost(const DiskId& store) const noexcept override;
    void forget(const DiskId& store) noexcept override;

    // What is being recorded may be kept or not; nobody is told.
    void power_cut() noexcept;
    std::size_t size() const noexcept { return lost_.size(); }

  private:
    static constexpr Nanoseconds kLatency = 500'000;
    class Recording final : public SimEvent, public Task {
      public:
        Recording(SimLostStores& owner, const DiskId& store, Recorded& done, Reactor& reactor) noexcept
            : owner_{owner}, store_{store}, done_{done}, reactor_{reactor} {}
        void happen() noexcept override;
        void run() noexcept override;
        SimLostStores& owner_;
        DiskId store_;
        Recorded& done_;
        Reactor& reactor_;
    };
    void keep(const DiskId& store);

    Timeline& timeline_;
    Prng random_;
    Pool<Recording> recordings_{8};
    std::vector<Recording*> under_way_;
    std::vector<DiskId> lost_;
};

}  // namespace udm
