// The logs `core` and `disk`: the bits of all regions in memory, and with a disk those that are clean on it.
//
// Writing. flush() posts a task; it runs when the completions of this round have run, so all who came meanwhile share what
// it starts: the touched blocks are written, then the device is flushed, then the waiters go on. What is noted meanwhile is
// of the next turn. A region's bit on the device is taken to be clean from the moment it is made clean in memory until a turn
// that wrote it dirty has been flushed: whatever became of writes that failed or are under way, that errs to the safe side.
//
// Making clean. A clear() puts the region among the young; at the end of each rest period the old are made clean, if the legs
// could be flushed, and the young become the old. A mark takes a region out of both. When nothing was marked for a fifth of
// the period, all go at once (M21).
//
// Cares (port/chaos.hpp): dirty_log.flush, dirty_log.flush_legs, dirty_log.nosync_once, dirty_log.source_record,
// dirty_log.bits_before_header, dirty_log.rewind, dirty_log.flush_what_was_read. Sites: dirty_log.no_rest, dirty_log.short_run.
#pragma once

#include <memory>

#include "services/dirty_log/log_disk.hpp"

namespace udm::dirty_log {

class LocalLog final : public DirtyLog, Task, Timer {
  public:
    // Without a disk it is a core log.
    LocalLog(Env& env, RegionSize region_size, Regions regions, SyncWord word, std::unique_ptr<LogDisk> disk);
    ~LocalLog() override;

    Job<Result<void>> load(Owner* owner) override;
    Job<Result<Found>> resume() override;
    Job<void> presuspend() override;
    Job<Result<void>> postsuspend() override;

    RegionSize region_size() const noexcept override { return region_size_; }
    Regions region_count() const noexcept override { return regions_; }
    Answer in_sync(Region region) const noexcept override { return sync_.test(region.v) ? Answer::yes : Answer::no; }
    Regions sync_count() const noexcept override { return sync_count_; }
    Known count(RegionRun run) const noexcept override { return {{sync_.count(run.first.v, run.end().v)}, {clean_.count(run.first.v, run.end().v)}}; }
    std::optional<Region> next_dirty(Region from) const noexcept override;
    std::optional<Region> next_dirty_in_sync(Region from) const noexcept override;

    bool mark(Region region) noexcept override;
    void clear(Region region) noexcept override;
    void set_sync(Region region, bool in_sync) noexcept override;
    void record(const std::optional<LegRecord>& legs) noexcept override;
    const std::optional<LegRecord>& leg_record() const noexcept override { return legs_; }
    bool record_may_be_found() const noexcept override { return legs_ || record_on_device_; }

    bool settled() const noexcept override { return noted_ == durable_; }
    void flush(Waiter& waiter) noexcept override;

    Job<RegionRun> resync_work(Regions most) override;
    void give_back(RegionRun regions) noexcept override;
    void retry_failed() noexcept override;
    Regions failed_count() const noexcept override { return failed_count_; }

    Job<Result<void>> doubt(const LegRecord* legs) override;
    void trust() noexcept override { doubted_ = false; }
    bool in_doubt() const noexcept override { return doubted_; }
    void know(const Bitmap& in_sync) noexcept override;
    bool copies_all() const noexcept override { return word_ == SyncWord::sync; }

    Health health() const noexcept override { return health_; }
    std::string info() const override;
    std::string table() const override;
    OpenDevice* device() noexcept override { return disk_ ? &disk_->device() : nullptr; }
    Job<Result<void>> start_anew() override;
    void set_rest(Nanoseconds rest) noexcept override { rest_ = rest; }

  private:
    static constexpr unsigned kTicks = 5;    // of a rest period

    void run() noexcept override;        // of flush()
    void expired() noexcept override;    // of a tick
    Job<void> write_loop();
    Job<IoStatus> write_turn();
    Job<void> tick_job(bool all);
    // Makes clean what has rested, or all that rests.
    Job<IoStatus> clean_rested(bool all);
    Job<void> idle();    // nothing runs any more

    RegionRun next_work(Regions most) noexcept;
    void become_dirty(Region region) noexcept;
    void become_dirty(std::uint64_t word, std::uint64_t regions) noexcept;
    void wake(Region region) noexcept;
    void forget_rests() noexcept;
    bool rests(Region region) const noexcept { return young_.test(region.v) || old_.test(region.v); }
    void arm_tick() noexcept;
    void kick() noexcept;
    void release(std::uint64_t upto, IoStatus status) noexcept;
    std::unexpected<Error> cannot_write(IoStatus status) const;
    void worsen(Health health, const char* what) noexcept;
    void became_known(std::uint64_t block) noexcept;
    template <class F>
    void for_each_block(const Bitmap& blocks, F&& f) noexcept;

    Env& env_;
    Owner* owner_ = nullptr;
    RegionSize region_size_;
    Regions regions_;
    SyncWord word_;
    std::unique_ptr<LogDisk> disk_;
    Layout layout_;                // core: as if there were a disk
    Health health_ = Health::alive;
    bool distrusted_ = false;      // nothing may be written to the device

    // One bit a region.
    Bitmap sync_;
    Bitmap clean_;                 // only what is in sync
    Bitmap device_clean_;          // the device may say so; all of clean_, and more. Disk logs only
    Bitmap late_;                  // became dirty while its block was being written. Disk logs only
    Bitmap young_, old_;           // dirty, in sync, without writes: at rest
    Bitmap handed_;                // out of sync, handed out by resync_work()
    Bitmap failed_;                // out of sync, and so was its copying
    Regions sync_count_{0}, failed_count_{0};
    std::uint64_t resting_ = 0;    // bits in young_ and old_
    std::uint64_t resync_from_ = 0;    // no work below

    // One bit a block.
    Bitmap touched_;               // to be written
    Bitmap writing_;               // under way
    Bitmap with_rests_;            // may have bits in young_ or old_

    std::optional<LegRecord> legs_;         // as noted
    std::optional<LegRecord> device_legs_;  // as written: dropped later than noted
    bool record_on_device_ = false;         // perhaps: until it was dropped durably. Disk logs only

    std::uint64_t noted_ = 0;      // marks and the like, counted
    std::uint64_t durable_ = 0;
    List<Waiter> waiting_;
    bool whole_ = false;           // all is to be written, in order (LogDisk::write_all)
    bool broken_ = false;          // the last write or flush failed
    bool in_turn_ = false;         // write_loop() runs
    bool to_clean_ = false;        // what became clean waits for nobody, but should be written
    bool ticking_ = false;         // tick_job() runs
    bool stopped_ = true;          // no resync work
    bool doubted_ = false;         // nothing becomes clean
    bool marked_ = false;          // since the last tick
    unsigned ticks_ = 0;
    Nanoseconds rest_ = kRest;
    Signal ended_;
};

}  // namespace udm::dirty_log
