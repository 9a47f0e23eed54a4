// What happens when a store fills up before it is full: events when it passes thresholds, and making its file larger.
//
// An event is raised once for each threshold that is passed, and again when it is passed after the device has grown. A
// file grows by a step when a mark is passed, and requests that find the store full meanwhile wait for that. The new
// size is durable before it counts, so what is written there is found after a crash; a crash before it costs nothing.
#pragma once

#include <string>
#include <vector>

#include "core/target.hpp"
#include "targets/snapshot/store.hpp"

namespace udm::snapshot {

class Snapshot;

// Settings (decision 23), by name:
//   thresholds       50,80,95 or none: percent of the COW device at which events are raised
//   auto_extend      STEP[,MAX] or none: bytes (1G) or percent of what it has (20%) by which a file grows, up to MAX bytes
//   auto_extend_at   percent of the COW device at which it grows
struct FullnessSettings {
    std::vector<unsigned> thresholds{80, 95};    // ascending
    std::uint64_t step = 0;                      // 0: does not grow
    bool step_in_percent = false;
    std::uint64_t most = 0;                      // bytes; 0: what can be of use
    unsigned extend_at = 80;

    // False: no setting of this name. The value "default" is as it was made.
    Result<bool> set(const std::string& name, const std::string& value);
};

class Fullness final : DeviceGrowth {
  public:
    Fullness(Env& env, Snapshot& snapshot) noexcept : env_{env}, snapshot_{snapshot} {}

    // Refuses to extend what cannot be extended.
    Result<void> check(const FullnessSettings& settings) const;
    Result<void> set(FullnessSettings settings);
    // The size or the settings may have changed: thresholds passed before raise nothing.
    void settle() noexcept { look(false); }
    void allocated() noexcept {
        if (full_as_of(snapshot_)) look(true);
    }
    // Wakes `waiter` when there is room, or will not be. False: there will be none.
    bool wait_for_space(Waiter& waiter) noexcept;
    bool growing() const noexcept { return growing_; }

  private:
    bool full_as_of(Snapshot& snapshot) const noexcept;
    void look(bool raises) noexcept;
    bool grow(Sectors total) noexcept;
    void tell_most(Sectors total) noexcept;
    Sectors most() const noexcept;
    void grown(Result<void> result) noexcept override;

    Env& env_;
    Snapshot& snapshot_;
    FullnessSettings settings_;
    Sectors mark_{};         // allocated sectors from which on there is something to look at
    unsigned passed_ = 0;    // the highest threshold that is passed
    bool growing_ = false;
    bool cannot_grow_ = false;    // until the settings are given again
    bool told_most_ = false;      // that MAX is reached
    Sectors growing_to_{};
    List<Waiter> waiters_;
};

}  // namespace udm::snapshot
