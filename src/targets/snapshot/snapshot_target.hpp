// The targets `snapshot` and `snapshot-origin` as device mapper sees them: words of the table, life, routing.
#pragma once

#include "core/target_args.hpp"
#include "targets/snapshot/origin_group.hpp"
#include "targets/snapshot/snapshot.hpp"

namespace udm::snapshot {

class SnapshotTarget final : public Target {
  public:
    SnapshotTarget(Env& env, Origins& origins, Snapshot::Config config, const TargetArgs& args)
        : env_{env}, origins_{origins}, config_{std::move(config)}, events_{args.events}, lost_stores_{args.lost_stores} {}
    ~SnapshotTarget();

    Sectors fits(const Io& io) noexcept override { return snapshot_->fits(io); }
    Mapped map(Io& io) noexcept override {
        Disk* disk = snapshot_->route(io);
        return disk ? Mapped::to(*disk) : Mapped::taken();
    }
    void on_complete(Io& io, Frame& frame) noexcept override { snapshot_->on_complete(io, frame); }

    Job<Result<void>> load() override;
    Job<Result<void>> preresume() override;
    Job<void> postsuspend(SuspendFlags flags) override;
    Job<void> close() override;

    TargetTraits traits() const override;
    std::vector<TargetDevice> devices() const override;
    void adjust_limits(Limits& limits) const override;
    std::string status() const override { return snapshot_->status(); }
    std::string table() const override { return snapshot_->table_words(); }

  private:
    Result<void> check_chunk() const;
    bool takes_discards() const;
    const Snapshot::Config& config() const noexcept { return snapshot_ ? snapshot_->config() : config_; }

    Env& env_;
    Origins& origins_;
    Snapshot::Config config_;    // until load()
    DeviceEvents& events_;
    LostStores* lost_stores_;
    std::unique_ptr<Snapshot> snapshot_;
    bool claimed_ = false;
    bool started_ = false;
    bool uncommitted_ = false;    // suspended without flush
};

class OriginTarget final : public Target {
  public:
    OriginTarget(Origins& origins, std::unique_ptr<OpenDevice> origin, Extent extent) noexcept
        : origins_{origins}, origin_{std::move(origin)}, extent_{extent} {}
    ~OriginTarget();

    Sectors fits(const Io& io) noexcept override;
    Mapped map(Io& io) noexcept override;
    void on_complete(Io& io, Frame&) noexcept override {
        group_->write_done();
        io.complete(io.status);
    }
    Job<Result<void>> load() override;
    std::vector<TargetDevice> devices() const override;
    std::string table() const override { return device_words(*origin_); }

  private:
    Origins& origins_;
    std::unique_ptr<OpenDevice> origin_;
    Extent extent_;
    OriginGroup* group_ = nullptr;
};

}  // namespace udm::snapshot
