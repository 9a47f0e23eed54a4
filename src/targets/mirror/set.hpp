// What the parts of a mirror share.
#pragma once

#include <memory>
#include <string>

#include "targets/mirror/legs.hpp"
#include "targets/mirror/regions.hpp"
#include "targets/mirror/sync_map.hpp"

namespace udm::mirror {

struct Features {
    bool handle_errors = false;
    bool keep_log = false;
};

// Jobs that are under way for a mirror, so that a suspend can wait for them.
class Jobs {
  public:
    explicit Jobs(Reactor& reactor) noexcept : ended_{reactor} {}
    void begin() noexcept { ++count_; }
    void end() noexcept {
        ASSERT(count_ > 0);
        if (--count_ == 0) ended_.notify_all();
    }
    Job<void> wait() {
        while (count_ != 0) {
            auto ended = ended_.wait();
            co_await ended;
        }
    }

  private:
    unsigned count_ = 0;
    Signal ended_;
};

struct Set {
    Set(Env& e, DeviceEvents& ev, const Extent& x, Features f, std::vector<Leg> l, std::unique_ptr<dirty_log::DirtyLog> log_made)
        : env{e}, events{ev}, extent{x}, features{f}, legs{std::move(l)}, log{std::move(log_made)}, jobs{e.reactor} {}

    Env& env;
    DeviceEvents& events;
    const Extent extent;
    const Features features;
    Legs legs;
    std::unique_ptr<dirty_log::DirtyLog> log;
    RegionTable regions;
    SyncMap map{legs, *log, regions};
    Jobs jobs;
    bool stopping = true;        // suspended, or about to be: nothing is begun that nobody asked for
    unsigned foreground = 0;     // requests from above that are under way
    Sectors piece{};             // the longest of what jobs read and write

    RegionSize size() const noexcept { return log->region_size(); }
    Sectors from_start(Sector sector) const noexcept { return sector - extent.first; }
    Region region_of(Sector sector) const noexcept { return size().of({from_start(sector).v}); }
    // Where the device's sectors are on a leg.
    Extent on_leg(unsigned leg, const Extent& of_device) const noexcept {
        return {legs[leg].start + from_start(of_device.first), of_device.length};
    }
    // In the device's sectors; the last region may be shorter than the others.
    Extent extent_of(RegionRun run) const noexcept {
        const Extent whole = size().extent(run);
        const Sector first = extent.first + Sectors{whole.first.v};
        return {first, std::min(whole.length, extent.end() - first)};
    }
    // 512 KiB (decision 19), or what all legs take at once.
    void settle_piece() noexcept {
        piece = {1024};
        for (unsigned leg = 0; leg < legs.count(); ++leg) {
            const Sectors takes = legs.disk(leg).limits().max_transfer;
            if (takes && takes < piece) piece = takes;
        }
    }
    // "leg 1 (/dev/sdb)", for events.
    std::string leg_name(unsigned leg) const { return "leg " + std::to_string(leg) + " (" + legs[leg].device->words() + ")"; }
};

}  // namespace udm::mirror
