// The target `snapshot-merge`: the origin as its snapshot has it, while the snapshot's chunks go back into the origin.
//
// A chunk that has an exception is on the COW device, any other in the origin; writes there go the way of all writes to the
// origin, so that its other snapshots keep what they have. See merge.hpp for the merge itself.
#pragma once

#include <optional>

#include "targets/snapshot/merge.hpp"
#include "targets/snapshot/store_target.hpp"

namespace udm::snapshot {

class MergeTarget final : public StoreTarget, Merge::Observer {
  public:
    using StoreTarget::StoreTarget;
    ~MergeTarget() override;

    Sectors fits(const Io& io) noexcept override;
    Mapped map(Io& io) noexcept override;
    void on_complete(Io& io, Frame& frame) noexcept override;

    void resume() noexcept override;
    Job<void> presuspend(SuspendFlags flags) override;

    TargetTraits traits() const override;
    void adjust_limits(Limits& limits) const override;
    std::string status() const override;
    std::vector<TargetDetail> details() const override;
    std::string trouble() const override;
    std::vector<std::string_view> settings() const override { return {"merge_rate"}; }
    // merge_pause, merge_resume, merge_retry; set merge_rate BYTES_PER_SECOND (0 or "default": no limit).
    Job<Result<std::string>> message(const std::vector<std::string>* words) override;

  private:
    enum class Kind : std::uint64_t { origin_write = 0, cow_write, fua_cow_write };    // of our frames; OriginGroup pushes 0

    bool merges() const noexcept override { return true; }
    Result<void> check(const Snapshot& snapshot) override;
    Job<Result<void>> begin() override;
    void end() noexcept override;

    bool stands_failed() const noexcept { return snapshot() && snapshot()->valid() && failed_ && !(merge_ && merge_->bytes_merged() > merged_at_failure_); }
    bool has_exceptions() const noexcept { return snapshot() && snapshot()->valid(); }
    Disk* route(Io& io) noexcept;
    Disk* route_write(Io& io) noexcept;
    Result<void> obey(const std::vector<std::string>& words);

    void merge_failed(const std::string& why) noexcept override;
    void merge_finished() noexcept override;
    void merge_released(Io& write, bool failed) noexcept override;

    std::optional<Merge> merge_;
    std::uint64_t rate_ = 0;
    bool paused_ = false;
    bool failed_ = false;       // until a retry gets something done
    std::string why_failed_;
    bool finished_ = false;     // and that was said
    std::uint64_t merged_at_failure_ = 0;
};

}  // namespace udm::snapshot
