#include "targets/snapshot/origin_group.hpp"

#include <algorithm>

namespace udm::snapshot {

// --- writes to the origin -------------------------------------------------------------------------------------------

Disk* OriginGroup::route(Io& io, Disk& origin, Layer& layer, const Snapshot* by) noexcept {
    if (snapshots_.empty() && barrier_ == 0) {
        io.push(layer);
        ++writes_out_;
        return &origin;
    }
    OriginWrite& write = writes_.take();
    write.group = this;
    write.io = &io;
    write.origin = &origin;
    write.layer = &layer;
    write.by = by;
    if (!look(write)) return nullptr;
    writes_.give(write);
    io.push(layer);
    ++writes_out_;
    return &origin;
}

void OriginGroup::submit(OriginWrite& write) noexcept {
    Io& io = *write.io;
    Disk& origin = *write.origin;
    io.push(*write.layer);
    ++writes_out_;
    writes_.give(write);
    origin.submit(io);
}

void OriginGroup::write_done() noexcept {
    ASSERT(writes_out_ > 0);
    if (--writes_out_ == 0 && barrier_ != 0) writes_done_.notify_all();
}

OriginGroup::Wait& OriginGroup::wait_of(OriginWrite& write) noexcept {
    Wait& wait = waits_.take();
    wait.write = &write;
    ++write.pending;
    return wait;
}

void OriginGroup::Wait::woken(IoStatus) noexcept { write->group->woken(*this); }

void OriginGroup::woken(Wait& wait) noexcept {
    OriginWrite& write = *wait.write;
    waits_.give(wait);
    ASSERT(write.pending > 0);
    if (--write.pending == 0 && look(write)) submit(write);
}

bool OriginGroup::look(OriginWrite& write) noexcept {
    ASSERT(write.pending == 0);
    write.pending = 1;    // so that nothing that happens meanwhile looks again
    found_.clear();
    for (Snapshot* snapshot : snapshots_) {
        if (snapshot == write.by) continue;
        if (snapshot->valid()) look_at(*snapshot, write);
        if (snapshot->valid()) continue;
        // A snapshot that is lost must be known as lost, durably, before the origin changes (decision 11).
        Wait& wait = wait_of(write);
        if (!snapshot->when_marked_invalid(wait)) {
            waits_.give(wait);
            --write.pending;
        }
    }
    if (!found_.empty()) start_copies(write);
    if (env_.chaos.keeps("snapshot.track_reads")) {
        for (TrackedRead& read : reads_) {
            if (read.extent.overlaps(write.io->extent)) read.waiters.push_back(wait_of(write));
        }
    }
    if (--write.pending != 0) return false;
    if (barrier_ != 0) {
        held_.push_back(write);
        return false;
    }
    return true;
}

// What the write needs of one snapshot: waits for what is under way, and notes the chunks to copy in found_.
void OriginGroup::look_at(Snapshot& snapshot, OriginWrite& write) noexcept {
    Chunk at;
    Chunks count;
    if (!snapshot.covers(write.io->extent, at, count)) return;
    if (snapshot.held()) {
        snapshot.wait_for_release(wait_of(write));
        return;
    }
    const Chunk end = at + count;
    while (at < end) {
        if (Part* part = snapshot.part_with(at)) {
            part->wait(wait_of(write));
            at = part->first + part->count;
            continue;
        }
        if (const auto run = snapshot.table().find(at)) {
            const Chunks n = std::min(run->count, end - at);
            if (snapshot.store().maybe_volatile(at, n) && env_.chaos.keeps("snapshot.commit_volatile_before_origin")) {
                Wait& wait = wait_of(write);
                if (!snapshot.store().when_durable(wait)) {
                    waits_.give(wait);
                    --write.pending;
                }
            }
            at += n;
            continue;
        }
        const auto mapped = snapshot.table().next_mapped(at);
        const Chunk missing_end = snapshot.next_in_copy(at, mapped ? std::min(*mapped, end) : end);
        while (at < missing_end) {
            const Store::Allocation given = snapshot.allocate(missing_end - at);
            if (!given.count) {
                Wait& wait = wait_of(write);
                if (snapshot.fullness().wait_for_space(wait)) return;
                waits_.give(wait);
                --write.pending;
                snapshot.invalidate("the COW device is full and the origin is written", true);
                return;
            }
            Part& part = new_part();
            part.snapshot = &snapshot;
            part.first = at;
            part.count = given.count;
            part.cow_first = given.first;
            part.source = snapshot.origin_extent(at, given.count);
            found_.push_back(&part);
            at += given.count;
        }
    }
}

// One job for parts that overlap or lie side by side: one read feeds every snapshot that needs it.
void OriginGroup::start_copies(OriginWrite& write) noexcept {
    std::erase_if(found_, [this](Part* part) {
        if (part->snapshot->valid()) return false;
        end(*part);    // lost while the others were looked at
        return true;
    });
    std::stable_sort(found_.begin(), found_.end(),
                     [](const Part* a, const Part* b) { return a->source.first < b->source.first; });
    for (Part* part : found_) part->wait(wait_of(write));
    CopyJob* job = nullptr;
    for (Part* part : found_) {
        if (job && job->takes(*part)) {
            const std::uint64_t memory = job->memory_with(*part);
            if (copies_.admits(part->snapshot->account(), memory, memory - job->memory(), true)) {
                job->add(*part);
                job->count(*part);
                continue;
            }
        }
        if (job) job->start();
        job = &new_job(*write.origin, CopyJob::Data::origin, nullptr);
        job->add(*part);
        const std::uint64_t memory = job->memory();
        if (copies_.admits(job->lead(), memory, memory, true)) {
            job->count(*part);
        } else {    // it waits in its store's line, for others may go on
            copies_.wait(*job);
            job = nullptr;
        }
    }
    if (job) job->start();
    found_.clear();
}

// --- snapshots come and go ------------------------------------------------------------------------------------------

Job<void> OriginGroup::activate(Snapshot* snapshot) {
    ++barrier_;
    while (writes_out_ != 0) {
        auto wait = writes_done_.wait();
        co_await wait;
    }
    // By halves: there may be thousands, each a cache miss or two away.
    const auto place = std::partition_point(snapshots_.begin(), snapshots_.end(),
                                            [&](Snapshot* s) { return s->chunk().sectors() >= snapshot->chunk().sectors(); });
    snapshots_.insert(place, snapshot);
    snapshot->active = true;
    if (--barrier_ == 0) {
        List<OriginWrite> held;
        held.take_all(held_);
        while (OriginWrite* write = held.pop_front_or_null()) {
            if (look(*write)) submit(*write);
        }
    }
}

void OriginGroup::deactivate(Snapshot& snapshot) noexcept {
    std::erase(snapshots_, &snapshot);
    snapshot.active = false;
}

// --- reads of snapshots that go to the origin -----------------------------------------------------------------------

void OriginGroup::track(Io& io, TrackedRead*& read) noexcept {
    read = &tracked_.take();
    read->extent = io.extent;
    reads_.push_back(*read);
}

void OriginGroup::untrack(TrackedRead& read) noexcept {
    read.unlink();
    List<Waiter> waiters;
    waiters.take_all(read.waiters);
    tracked_.give(read);
    while (Waiter* waiter = waiters.pop_front_or_null()) waiter->woken(IoStatus::ok);
}

// --- the origins of a reactor ---------------------------------------------------------------------------------------

Origins::~Origins() { ASSERT((groups_.empty() && retired_.empty()) || Abandoning::now()); }

OriginGroup& Origins::join(const DiskId& origin) {
    auto& group = groups_[origin];
    if (!group) group = std::make_unique<OriginGroup>(env_, copies_);
    ++group->users;
    return *group;
}

void Origins::leave(const DiskId& origin) noexcept {
    const auto found = groups_.find(origin);
    ASSERT(found != groups_.end() && found->second->users > 0);
    if (--found->second->users == 0) groups_.erase(found);
}

void Origins::retire(std::unique_ptr<Snapshot> snapshot, bool claimed) noexcept {
    if (Abandoning::now()) return;
    snapshot->set_events(nullptr);
    if (snapshot->active) snapshot->group().deactivate(*snapshot);
    retired_.push_back(std::move(snapshot));
    env_.reactor.jobs().spawn(finish(retired_.back().get(), claimed));
}

bool Origins::is_leaving(const DiskId& cow) const noexcept {
    return std::any_of(retired_.begin(), retired_.end(), [&](const auto& s) { return s->cow().id() == cow; });
}

Job<StoreTarget*> Origins::claim_cow(DiskId cow, StoreTarget* target) {
    while (is_leaving(cow)) {
        auto wait = finished_.wait();
        co_await wait;
    }
    const auto [place, free] = cows_.try_emplace(cow, target);
    co_return free ? nullptr : place->second;
}

Job<void> Origins::finish(Snapshot* snapshot, bool claimed) {
    auto finishing = snapshot->finish();
    co_await finishing;
    if (claimed) cows_.erase(snapshot->cow().id());
    const DiskId origin = snapshot->origin().id();
    std::erase_if(retired_, [&](const auto& s) { return s.get() == snapshot; });
    leave(origin);
    finished_.notify_all();
}

}  // namespace udm::snapshot
