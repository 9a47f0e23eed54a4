// All that concerns one origin: its snapshots, and the writes that wait until those have what they need.
//
// A write to the origin goes down when, for each snapshot that is active and valid: every chunk it touches has a durable
// exception; no copy of such a chunk is under way; and no read of the snapshot that went to the origin is still out
// over these sectors. Until then it waits, and looks again each time something it waited for has happened: so a
// snapshot that comes, goes or breaks meanwhile needs no care of its own. Each snapshot is asked with its own
// chunk size every time (defect N28).
#pragma once

#include <map>
#include <memory>
#include <vector>

#include "core/target.hpp"
#include "targets/snapshot/copies.hpp"
#include "targets/snapshot/copy_job.hpp"
#include "targets/snapshot/snapshot.hpp"

namespace udm::snapshot {

class Origins;
class StoreTarget;

class OriginGroup {
  public:
    OriginGroup(Env& env, Copies& copies) noexcept : env_{env}, copies_{copies}, writes_done_{env.reactor} {}

    // --- writes, discards and zeroings of the origin ----------------------------------------------------------------
    // Null: taken. Else the caller submits it to `origin` (a frame of `layer` counts it until write_done()). `by`: a snapshot
    // that wants it so, and needs nothing of what was there.
    Disk* route(Io& io, Disk& origin, Layer& layer, const Snapshot* by = nullptr) noexcept;
    void write_done() noexcept;
    // As Disk::expect().
    void expect(Sector at) const noexcept {
        for (const Snapshot* snapshot : snapshots_) snapshot->expect(at);
    }
    // False: writes go down whatever they are. A snapshot on its way in counts, since writes are held back for it.
    bool looks_at_writes() const noexcept { return !snapshots_.empty() || barrier_ != 0; }

    // --- snapshots --------------------------------------------------------------------------------------------------
    // Waits for the writes that are on their way to the origin, holding back others, and adds the snapshot: what
    // completed before is in it, what comes after is not.
    Job<void> activate(Snapshot* snapshot);
    void deactivate(Snapshot& snapshot) noexcept;

    // --- for Snapshot and CopyJob -----------------------------------------------------------------------------------
    void track(Io& io, TrackedRead*& read) noexcept;
    void untrack(TrackedRead& read) noexcept;
    CopyJob& new_job(Disk& source, CopyJob::Data data, Io* io) noexcept {
        return jobs_.take(*this, source, data, io);
    }
    Part& new_part() noexcept { return parts_.take(); }
    void end(CopyJob& job) noexcept { jobs_.give(job); }
    void end(Part& part) noexcept { parts_.give(part); }
    Copies& copies() noexcept { return copies_; }
    Env& env() noexcept { return env_; }
    bool unused() const noexcept { return users == 0; }
    unsigned users = 0;    // targets and snapshots that refer to it
    std::vector<const StoreTarget*> merging;    // targets that merge into it, or will: all of one store

  private:
    struct OriginWrite final : ListHook {
        OriginGroup* group = nullptr;
        Io* io = nullptr;
        Disk* origin = nullptr;
        Layer* layer = nullptr;
        const Snapshot* by = nullptr;
        unsigned pending = 0;
    };
    struct Wait final : Waiter {
        OriginWrite* write = nullptr;
        void woken(IoStatus status) noexcept override;
    };

    // True: nothing to wait for. Else it starts what is missing, and waits.
    bool look(OriginWrite& write) noexcept;
    void look_at(Snapshot& snapshot, OriginWrite& write) noexcept;
    void start_copies(OriginWrite& write) noexcept;
    Wait& wait_of(OriginWrite& write) noexcept;
    void woken(Wait& wait) noexcept;
    void submit(OriginWrite& write) noexcept;

    Env& env_;
    Copies& copies_;
    std::vector<Snapshot*> snapshots_;    // largest chunks first
    List<TrackedRead> reads_;
    std::vector<Part*> found_;            // scratch of look()
    Pool<OriginWrite> writes_;
    Pool<Wait> waits_;
    Pool<CopyJob> jobs_;
    Pool<Part> parts_;
    Pool<TrackedRead> tracked_;
    List<OriginWrite> held_;
    std::uint64_t writes_out_ = 0;
    unsigned barrier_ = 0;
    Signal writes_done_;
};

// The origins of one reactor, by identity; and which COW device is whose.
class Origins {
  public:
    explicit Origins(Env& env) noexcept : env_{env}, copies_{env}, finished_{env.reactor} {}
    ~Origins();

    OriginGroup& join(const DiskId& origin);
    void leave(const DiskId& origin) noexcept;

    // Null: the COW device is the target's now. Else whose it is. A snapshot that is on its way out is waited for.
    Job<StoreTarget*> claim_cow(DiskId cow, StoreTarget* target);
    void hand_cow(const DiskId& cow, StoreTarget* to) noexcept { cows_[cow] = to; }

    // Takes over a snapshot whose target goes away, and drops it when nothing is under way for it any more.
    void retire(std::unique_ptr<Snapshot> snapshot, bool claimed) noexcept;
    Copies& copies() noexcept { return copies_; }
    Env& env() noexcept { return env_; }

  private:
    Job<void> finish(Snapshot* snapshot, bool claimed);

    Env& env_;
    Copies copies_;
    std::map<DiskId, std::unique_ptr<OriginGroup>> groups_;
    std::map<DiskId, StoreTarget*> cows_;    // of snapshots that have no target any more, too
    bool is_leaving(const DiskId& cow) const noexcept;    // its snapshot's last commits are under way

    std::vector<std::unique_ptr<Snapshot>> retired_;
    Signal finished_;
};

}  // namespace udm::snapshot
