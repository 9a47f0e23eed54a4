// The targets `snapshot` and `snapshot-origin` as device mapper sees them: words of the table, life, routing.
#pragma once

#include "core/target_args.hpp"
#include "targets/snapshot/store_target.hpp"

namespace udm::snapshot {

class SnapshotTarget final : public StoreTarget {
  public:
    using StoreTarget::StoreTarget;

    Sectors fits(const Io& io) noexcept override { return snapshot() ? snapshot()->fits(io) : io.extent.length; }
    Mapped map(Io& io) noexcept override;
    void on_complete(Io& io, Frame& frame) noexcept override { snapshot()->on_complete(io, frame); }
    void expect(Sector at) const noexcept override {
        if (snapshot()) snapshot()->expect(at);
    }

    TargetTraits traits() const override;
    void adjust_limits(Limits& limits) const override;

  private:
    Job<Result<void>> begin() override;
    void end() noexcept override;
    bool merges() const noexcept override { return false; }
    bool takes_discards() const;
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
    void expect(Sector at) const noexcept override { group_->expect(at); }
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
