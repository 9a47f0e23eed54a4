// What the targets with a store have in common: words, reading the store in, and taking it over from another table.
//
// Handover. A table that names the origin and the COW device of a snapshot that has been resumed reads nothing when it is
// loaded: the table in use goes on changing the store. At its resume, the other being suspended, the Snapshot itself
// (exceptions, store, all it knows) moves across, with the new table's devices put in place of the old ones once
// nothing is under way for it; meanwhile writes to the origin that it has a say in wait. So a store has one owner at
// every instant. The table that gave it away answers with errors from then on.
#pragma once

#include "core/target_args.hpp"
#include "targets/snapshot/origin_group.hpp"
#include "targets/snapshot/snapshot.hpp"

namespace udm::snapshot {

class StoreTarget : public Target {
  public:
    StoreTarget(Env& env, Origins& origins, Snapshot::Config config, const TargetArgs& args);
    ~StoreTarget() override;

    Job<Result<void>> load() override;
    Job<Result<void>> preresume() override;
    void resume() noexcept override { resumed_ = true; }
    Job<void> postsuspend(SuspendFlags flags) override;
    Job<void> close() override;
    // "set NAME VALUE" and "check NAME VALUE", see FullnessSettings.
    Job<Result<std::string>> message(const std::vector<std::string>* words) override;

    std::vector<TargetDevice> devices() const override;
    std::string status() const override;
    std::string table() const override;
    std::string trouble() const override { return snapshot_ ? snapshot_->trouble() : ""; }
    std::vector<std::string_view> settings() const override;
    void look_at_devices() noexcept override {
        if (snapshot_ && started_) snapshot_->look_at_store();
    }

  protected:
    // Whether the target may have this snapshot (one that is to be read in, or to be taken over).
    virtual Result<void> check(const Snapshot& snapshot) {
        static_cast<void>(snapshot);
        return {};
    }
    virtual bool merges() const noexcept = 0;
    // The snapshot is here, with nothing under way, and takes up its work (not after a handover from the same kind of
    // target, where it never laid it down).
    virtual Job<Result<void>> begin() = 0;
    // It goes to a target of the other kind, or away: nothing is under way from this one's device.
    virtual void end() noexcept = 0;

    const DiskId& cow_id() const noexcept { return cow_id_; }
    OriginGroup* joined() const noexcept { return group_; }    // null before load()
    Snapshot* snapshot() const noexcept { return snapshot_.get(); }    // null: not there yet, or handed over
    // As it is, or as it will be taken over; null when neither.
    const Snapshot* expected() const noexcept { return snapshot_ ? snapshot_.get() : source_ ? source_->snapshot_.get() : nullptr; }
    const Snapshot::Config& config() const noexcept { return snapshot_ ? snapshot_->config() : config_; }
    OriginGroup& group() const noexcept { return *group_; }
    DeviceEvents& events() const noexcept { return events_; }
    Env& env() const noexcept { return env_; }
    bool running() const noexcept { return resumed_; }

  private:
    Result<void> check_chunk() const;
    Result<void> pair_with(StoreTarget& other);
    Job<Result<void>> read_in();
    Job<bool> take_over();
    void apply_settings() noexcept;
    Result<void> obey(const std::vector<std::string>& words);

    Env& env_;
    Origins& origins_;
    Snapshot::Config config_;    // while there is no snapshot
    const DiskId origin_id_, cow_id_;
    DeviceEvents& events_;
    LostStores* lost_stores_;
    OriginGroup* group_ = nullptr;
    std::unique_ptr<Snapshot> snapshot_;
    FullnessSettings settings_;
    StoreTarget* source_ = nullptr;    // whose store comes here at resume
    StoreTarget* heir_ = nullptr;      // who is to get the store
    bool claimed_ = false;
    bool started_ = false;
    bool resumed_ = false;
    bool orphaned_ = false;       // the source went away before it handed its store over
    bool handing_over_ = false;   // the store is on its way to the heir
    bool uncommitted_ = false;    // suspended without flush
    Signal handed_over_;
};

}  // namespace udm::snapshot
