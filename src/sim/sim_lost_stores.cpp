#include "sim/sim_lost_stores.hpp"

#include <algorithm>

namespace udm {

SimLostStores::~SimLostStores() {
    for (Recording* recording : under_way_) timeline_.cancel(*recording);
}

void SimLostStores::keep(const DiskId& store) {
    if (!is_lost(store)) lost_.push_back(store);
}

void SimLostStores::record(const DiskId& store, const std::string&, Recorded& done) noexcept {
    ASSERT(Reactor::current() != nullptr);
    Recording& recording = recordings_.take(*this, store, done, *Reactor::current());
    under_way_.push_back(&recording);
    timeline_.schedule(recording, timeline_.now() + kLatency);
}

void SimLostStores::Recording::happen() noexcept {
    owner_.keep(store_);
    std::erase(owner_.under_way_, this);
    reactor_.post(*this);
}

void SimLostStores::Recording::run() noexcept {
    Recorded& done = done_;
    owner_.recordings_.give(*this);
    done.recorded(IoStatus::ok);
}

bool SimLostStores::is_lost(const DiskId& store) const noexcept {
    return std::find(lost_.begin(), lost_.end(), store) != lost_.end();
}

void SimLostStores::forget(const DiskId& store) noexcept { std::erase(lost_, store); }

void SimLostStores::power_cut() noexcept {
    for (Recording* recording : under_way_) {
        timeline_.cancel(*recording);
        if (random_.chance(1, 2)) keep(recording->store_);
        const Abandoning abandoning;
        recordings_.give(*recording);
    }
    under_way_.clear();
}

}  // namespace udm
