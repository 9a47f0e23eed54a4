#include "targets/snapshot/merge_target.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "base/parse.hpp"

namespace udm::snapshot {

MergeTarget::~MergeTarget() {
    if (Abandoning::now()) return;
    if (joined()) std::erase(group().merging, this);
}

// --- life -----------------------------------------------------------------------------------------------------------

Result<void> MergeTarget::check(const Snapshot& snapshot) {
    if (!snapshot.config().persistent) return fail(Errc::bad_argument, "Snapshot exception store does not support snapshot-merge.");
    for (const StoreTarget* other : group().merging) {
        if (static_cast<const MergeTarget*>(other)->cow_id() == cow_id()) continue;    // one hands over to the other
        return fail(Errc::bad_argument, fmt::format("A snapshot is already merging. {} can be merged into {} when that is done, and its "
                                                    "table replaced", config().cow->words(), config().origin->words()));
    }
    group().merging.push_back(this);
    return {};
}

Job<Result<void>> MergeTarget::begin() {
    // What fails before the merge has begun makes the snapshot invalid, as ever: the origin is untouched.
    if (snapshot()->store().any_volatile()) {
        auto committing = snapshot()->commit();
        static_cast<void>(co_await committing);
    }
    co_return Result<void>{};
}

void MergeTarget::end() noexcept {
    if (!merge_) return;
    snapshot()->set_merge(nullptr);
    merge_.reset();
}

void MergeTarget::resume() noexcept {
    StoreTarget::resume();
    if (!has_exceptions()) return;
    if (!merge_) {
        merge_.emplace(env(), *snapshot(), static_cast<Merge::Observer&>(*this));
        snapshot()->set_merge(&*merge_);
        merge_->set_rate(rate_);
        merge_->set_paused(paused_);
    }
    if (!finished_) merge_->start();
}

Job<void> MergeTarget::presuspend(SuspendFlags) {
    if (!merge_) co_return;
    auto stopping = merge_->stop();
    co_await stopping;
}

void MergeTarget::merge_failed(const std::string& why) noexcept {
    failed_ = true;
    merged_at_failure_ = merge_->bytes_merged();
    why_failed_ = why;
    events().raise(EventKind::target, "snapshot merge failed: " + why);
}

void MergeTarget::merge_finished() noexcept {
    finished_ = true;
    failed_ = false;
    events().raise(EventKind::progress, "snapshot merge finished");
}

void MergeTarget::merge_released(Io& write, bool failed) noexcept {
    if (failed) {
        env().reactor.complete_later(write, IoStatus::io_error);
    } else if (Disk* disk = route_write(write)) {
        disk->submit(write);
    }
}

// --- requests -------------------------------------------------------------------------------------------------------

// A request is cut where its chunks stop going one way: to one run on the COW device, to the origin, or to wait.
Sectors MergeTarget::fits(const Io& io) noexcept {
    if (!snapshot() || io.op == Op::discard) return io.extent.length;
    Extent extent = io.extent;
    if (io.is_write()) {    // bounds what is looked at, and copied, for one request
        static constexpr Sectors kMost{1024};
        extent.length = std::min(extent.length, Sectors{kMost.v - extent.first.v % kMost.v});
    }
    if (!has_exceptions()) return extent.length;
    const ChunkSize size = snapshot()->chunk();
    const Chunk first = size.of(extent.first), end = size.of(extent.end() - Sectors{1}) + Chunks{1};
    Chunk stop = end;
    if (const auto run = snapshot()->table().find(first)) {
        stop = std::min(end, first + run->count);
        if (io.is_write() && merge_) {
            const unsigned batch = merge_->blocking(run->new_first);
            Chunk at = first + Chunks{1};
            while (at < stop && merge_->blocking(run->new_first + (at - first)) == batch) at += Chunks{1};
            stop = at;
        }
    } else if (const auto mapped = snapshot()->table().next_mapped(first)) {
        stop = std::min(end, *mapped);
    }
    return stop >= end ? extent.length : size.start(stop) - extent.first;
}

Mapped MergeTarget::map(Io& io) noexcept {
    Disk* disk = route(io);
    return disk ? Mapped::to(*disk) : Mapped::taken();
}

Disk* MergeTarget::route(Io& io) noexcept {
    Reactor& reactor = env().reactor;
    if (!snapshot()) [[unlikely]] {    // its store has gone to another table
        reactor.complete_later(io, IoStatus::io_error);
        return nullptr;
    }
    switch (io.op) {
        case Op::discard:
            reactor.complete_later(io, IoStatus::ok);
            return nullptr;
        case Op::flush:
            if (io.copy == 0) return &snapshot()->origin().disk();
            if (has_exceptions() && !snapshot()->store().any_volatile()) return &snapshot()->cow().disk();
            if (has_exceptions()) snapshot()->flush(io);    // a clearing has failed
            else reactor.complete_later(io, IoStatus::ok);
            return nullptr;
        case Op::read:
        case Op::extent_status: {
            const ChunkSize size = snapshot()->chunk();
            const auto run = has_exceptions() ? snapshot()->table().find(size.of(io.extent.first)) : std::nullopt;
            if (!run) return &snapshot()->origin().disk();
            io.extent.first = size.start(run->new_first) + size.offset(io.extent.first);
            return &snapshot()->cow().disk();
        }
        case Op::write:
        case Op::write_zeroes: return route_write(io);
    }
    UNREACHABLE();
}

Disk* MergeTarget::route_write(Io& io) noexcept {
    const ChunkSize size = snapshot()->chunk();
    const auto run = has_exceptions() ? snapshot()->table().find(size.of(io.extent.first)) : std::nullopt;
    if (!run) return group().route(io, snapshot()->origin().disk(), *this);
    ASSERT(merge_.has_value());
    if (merge_->blocking(run->new_first) != 0 && env().chaos.keeps("merge.writes_wait")) {
        merge_->wait(io);
        return nullptr;
    }
    const Extent cow{size.start(run->new_first) + size.offset(io.extent.first), io.extent.length};
    Merge::Write& write = merge_->track(cow);
    io.push(*this, static_cast<std::uint64_t>(io.flags.fua ? Kind::fua_cow_write : Kind::cow_write),
            reinterpret_cast<std::uintptr_t>(&write));
    io.extent = cow;
    return &snapshot()->cow().disk();
}

void MergeTarget::on_complete(Io& io, Frame& frame) noexcept {
    switch (static_cast<Kind>(frame.a)) {
        case Kind::origin_write:
            group().write_done();
            io.complete(io.status);
            return;
        case Kind::cow_write:
            merge_->untrack(*reinterpret_cast<Merge::Write*>(frame.b));
            io.complete(io.status);
            return;
        case Kind::fua_cow_write:
            merge_->untrack(*reinterpret_cast<Merge::Write*>(frame.b));
            snapshot()->end_fua_write(io);
            return;
    }
    UNREACHABLE();
}

// --- words ----------------------------------------------------------------------------------------------------------

TargetTraits MergeTarget::traits() const {
    TargetTraits traits;
    traits.flush_copies = 2;
    return traits;
}

// Discards end as if they were done, since the chunks that are still to come must not be lost; nobody is told to send any.
void MergeTarget::adjust_limits(Limits& limits) const { limits.discard = false; }

std::string MergeTarget::status() const {
    return stands_failed() ? "Merge failed" : StoreTarget::status();
}

std::string MergeTarget::trouble() const { return stands_failed() ? why_failed_ : StoreTarget::trouble(); }

std::vector<TargetDetail> MergeTarget::details() const {
    if (!has_exceptions()) return {};
    const std::uint64_t left = snapshot()->store().listed() * snapshot()->chunk().bytes();
    std::vector<TargetDetail> details{{"merged_bytes", merge_ ? merge_->bytes_merged() : 0},
                                      {"merge_left_bytes", left},
                                      {"merge_bytes_per_second", merge_ ? merge_->bytes_per_second() : 0}};
    if (paused_) details.push_back({"merge_paused", 1});
    return details;
}

Job<Result<std::string>> MergeTarget::message(const std::vector<std::string>* words) {
    if (auto obeyed = obey(*words); !obeyed) co_return fail(obeyed);
    co_return std::string{};
}

Result<void> MergeTarget::obey(const std::vector<std::string>& words) {
    const std::string& verb = words[0];
    if ((verb == "set" || verb == "check") && words.size() == 3 && words[1] == "merge_rate") {
        const auto rate = words[2] == "default" ? 0 : parse_size(words[2]);
        if (!rate) return fail(Errc::bad_argument, fmt::format("merge_rate '{}' is not a number of bytes per second (10M, 1G; 0: no limit)", words[2]));
        if (verb == "check") return {};
        rate_ = *rate;
        if (merge_) merge_->set_rate(rate_);
        return {};
    }
    if (words.size() == 1 && (verb == "merge_pause" || verb == "merge_resume")) {
        paused_ = verb == "merge_pause";
        if (merge_) merge_->set_paused(paused_);
        return {};
    }
    if (words.size() == 1 && verb == "merge_retry") {
        if (!merge_ || !running()) return fail(Errc::bad_argument, "there is no merge to be tried again: the device is suspended, or the snapshot is lost");
        if (!finished_) merge_->start();
        return {};
    }
    return fail(Errc::bad_argument, "Unrecognised message received.: a merge takes merge_pause, merge_resume, merge_retry and "
                                    "set merge_rate BYTES_PER_SECOND");
}

}  // namespace udm::snapshot
