#include "targets/snapshot/snapshot_target.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace udm::snapshot {

// --- snapshot -------------------------------------------------------------------------------------------------------

SnapshotTarget::~SnapshotTarget() {
    if (snapshot_) origins_.retire(std::move(snapshot_), claimed_);
}

// A part of the constructor's checks: limits of mapped devices change on their home reactor.
Result<void> SnapshotTarget::check_chunk() const {
    for (OpenDevice* device : {config_.origin.get(), config_.cow.get()}) {
        const std::uint32_t block = device->disk().limits().logical_block;
        if (to_bytes(config_.chunk) % block != 0) {
            return fail(Errc::bad_argument,
                        fmt::format("Couldn't create exception store: chunk size {} is no multiple of the logical block of {}, {} bytes",
                                    config_.chunk.v, device->words(), block));
        }
    }
    return {};
}

Job<Result<void>> SnapshotTarget::load() {
    if (auto good = check_chunk(); !good) co_return fail(good);
    const std::string cow = config_.cow->words();
    OriginGroup& group = origins_.join(config_.origin->id());
    const DiskId cow_id = config_.cow->id();
    snapshot_ = std::make_unique<Snapshot>(env_, group, std::move(config_), lost_stores_);
    snapshot_->set_layer(this);
    snapshot_->set_events(&events_);
    auto claiming = origins_.claim_cow(cow_id);
    claimed_ = co_await claiming;
    if (!claimed_) {
        co_return fail(Errc::bad_argument, fmt::format("Snapshot cow pairing for exception table handover failed: {} is the store of "
                                                       "another snapshot", cow));
    }
    auto loading = snapshot_->load();
    auto loaded = co_await loading;
    if (!loaded) co_return fail(loaded.error().code == Errc::no_memory ? Errc::no_memory : Errc::bad_argument,
                                "Failed to read snapshot metadata: " + loaded.error().message);
    co_return Result<void>{};
}

Job<Result<void>> SnapshotTarget::preresume() {
    if (!started_) {
        started_ = true;
        snapshot_->start();
        auto activating = snapshot_->group().activate(snapshot_.get());
        co_await activating;
    }
    co_return Result<void>{};
}

Job<void> SnapshotTarget::postsuspend(SuspendFlags flags) {
    if (!started_) co_return;
    uncommitted_ = flags.noflush;    // the store's device may hang: that is what noflush is for
    if (uncommitted_) co_return;
    auto committing = snapshot_->commit();
    static_cast<void>(co_await committing);    // a failure has made the snapshot invalid and raised its event
}

Job<void> SnapshotTarget::close() {
    if (!snapshot_) co_return;
    if (snapshot_->active) snapshot_->group().deactivate(*snapshot_);
    if (uncommitted_) {
        auto committing = snapshot_->commit();
        static_cast<void>(co_await committing);
    }
    auto finishing = snapshot_->finish();
    co_await finishing;
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

std::vector<TargetDevice> SnapshotTarget::devices() const {
    const Snapshot::Config& c = config();
    const Sectors store = snapshot_ ? c.cow->disk().limits().size : Sectors{};    // not before load()
    return {{c.origin.get(), c.extent.first, c.extent.length}, {c.cow.get(), {0}, store}};
}

void SnapshotTarget::adjust_limits(Limits& limits) const {
    limits.discard = takes_discards();
    if (limits.discard) limits.discard_granularity = static_cast<std::uint32_t>(snapshot_->chunk().bytes());
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
