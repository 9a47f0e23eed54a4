#include "targets/snapshot/snapshot_target.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace udm::snapshot {

// --- snapshot -------------------------------------------------------------------------------------------------------

Mapped SnapshotTarget::map(Io& io) noexcept {
    if (!snapshot()) [[unlikely]] {    // its store has gone to another table
        env().reactor.complete_later(io, IoStatus::io_error);
        return Mapped::taken();
    }
    Disk* disk = snapshot()->route(io);
    return disk ? Mapped::to(*disk) : Mapped::taken();
}

Job<Result<void>> SnapshotTarget::begin() {
    snapshot()->store().recount(snapshot()->table());    // a merge that it comes from has not
    auto activating = group().activate(snapshot());
    co_await activating;
    co_return Result<void>{};
}

void SnapshotTarget::end() noexcept {
    if (snapshot()->active) group().deactivate(*snapshot());
}

// "discard_zeroes_cow" is a promise: a store's device that cannot be told to zero cannot keep it.
bool SnapshotTarget::takes_discards() const {
    return config().discard_zeroes_cow && config().cow->disk().limits().write_zeroes;
}

TargetTraits SnapshotTarget::traits() const {
    TargetTraits traits;
    traits.discard_copies = !takes_discards() ? 0 : config().discard_passdown ? 2 : 1;
    return traits;
}

void SnapshotTarget::adjust_limits(Limits& limits) const {
    limits.discard = takes_discards();
    if (limits.discard) limits.discard_granularity = static_cast<std::uint32_t>(expected()->chunk().bytes());
    limits.fast_zeroes = false;    // the first write to a chunk of zeroes is written
}

// --- snapshot-origin ------------------------------------------------------------------------------------------------

OriginTarget::~OriginTarget() {
    if (group_ && !Abandoning::now()) origins_.leave(origin_->id());
}

Job<Result<void>> OriginTarget::load() {
    group_ = &origins_.join(origin_->id());
    co_return Result<void>{};
}

Sectors OriginTarget::fits(const Io& io) noexcept {
    if (!io.is_write() || !group_->looks_at_writes()) return io.extent.length;
    // Bounds what is looked at, and copied, for one request.
    static constexpr Sectors kMost{1024};
    const Sectors to_boundary{kMost.v - io.extent.first.v % kMost.v};
    return std::min(io.extent.length, to_boundary);
}

Mapped OriginTarget::map(Io& io) noexcept {
    if (!io.is_write()) return Mapped::to(origin_->disk());
    Disk* disk = group_->route(io, origin_->disk(), *this);
    return disk ? Mapped::to(*disk) : Mapped::taken();
}

std::vector<TargetDevice> OriginTarget::devices() const { return {{origin_.get(), extent_.first, extent_.length}}; }

}  // namespace udm::snapshot
