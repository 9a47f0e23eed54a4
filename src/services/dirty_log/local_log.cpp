#include "services/dirty_log/local_log.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace udm::dirty_log {

LocalLog::LocalLog(Env& env, RegionSize region_size, Regions regions, SyncWord word, std::unique_ptr<LogDisk> disk)
    : env_{env}, region_size_{region_size}, regions_{regions}, word_{word}, disk_{std::move(disk)}, layout_{regions, kSectorSize},
      ended_{env.reactor} {}

LocalLog::~LocalLog() {
    ASSERT((waiting_.empty() && !in_turn_ && !ticking_ && !linked()) || Abandoning::now());
    if (armed()) env_.reactor.cancel(*this);
}

// --- life -----------------------------------------------------------------------------------------------------------

Job<Result<void>> LocalLog::load(Owner* owner) {
    owner_ = owner;
    if (disk_) {
        if (auto checked = disk_->check(); !checked) co_return fail(checked);
        layout_ = disk_->layout();
        device_clean_ = Bitmap{regions_.v};
        device_clean_.set_all();
        late_ = Bitmap{regions_.v};
    }
    for (Bitmap* bits : {&sync_, &clean_, &young_, &old_, &handed_, &failed_}) *bits = Bitmap{regions_.v};
    for (Bitmap* bits : {&touched_, &writing_, &with_rests_}) *bits = Bitmap{layout_.blocks()};
    if (!disk_ && word_ == SyncWord::nosync) {
        sync_.set_all();
        clean_.set_all();
        sync_count_ = regions_;
    }
    co_return Result<void>{};
}

Job<Result<Found>> LocalLog::resume() {
    ASSERT(waiting_.empty() && !in_turn_ && !ticking_);
    stopped_ = doubted_ = false;
    handed_.reset_all();
    failed_.reset_all();
    failed_count_ = {0};
    resync_from_ = 0;
    if (!disk_) co_return Found{Found::Kind::trusted, {}};

    forget_rests();
    health_ = Health::alive;
    broken_ = false;
    durable_ = noted_;
    touched_.reset_all();
    auto reading = disk_->read(&clean_);
    LogDisk::Read read = co_await reading;
    legs_ = device_legs_ = env_.chaos.keeps("dirty_log.source_record") ? read.legs : std::nullopt;
    record_on_device_ = legs_.has_value();
    distrusted_ = read.found.kind == Found::Kind::distrusted || read.found.kind == Found::Kind::unreadable;
    if (!env_.chaos.keeps("dirty_log.nosync_once") && word_ == SyncWord::nosync && !distrusted_) read.grown_from = 0;
    // What isn't known to be so on the device counts as clean there until it is written.
    if (distrusted_ || read.rewrite) {
        device_clean_.set_all();
    } else {
        device_clean_ = clean_;
    }
    whole_ = read.rewrite;
    IoStatus status = IoStatus::ok;
    if (distrusted_) {
        worsen(Health::failed, read.found.kind == Found::Kind::unreadable ? "log device failed" : "log not usable");
    } else if (whole_) {
        auto turn = write_turn();
        status = co_await turn;
    } else if (env_.chaos.keeps("dirty_log.flush_what_was_read")) {
        // What was read may be in the device's cache only, of a write that failed or of a daemon that was killed: a power cut
        // would bring back older bits, and an older record.
        auto flushing = disk_->flush();
        status = co_await flushing;
        if (status != IoStatus::ok) {
            worsen(Health::flush_failed, "log device flush failed");
            device_clean_.set_all();
            touched_.set_all();
        }
    }
    if (status == IoStatus::ok && !distrusted_ && read.grown_from < regions_.v) {
        // What is new counts as in sync only after there is a log that says what is not: a crash before costs a copy.
        clean_.set_from(read.grown_from);
        device_clean_.set_from(read.grown_from);
        for (std::uint64_t b = layout_.block_of({read.grown_from}); b < layout_.blocks(); ++b) touched_.set(b);
        auto turn = write_turn();
        status = co_await turn;
    }
    sync_ = clean_;
    sync_count_ = {sync_.count()};
    if (status != IoStatus::ok) {
        ++noted_;    // what the device says may be better than what is so: not settled until it is written
        co_return cannot_write(status);
    }
    co_return std::move(read.found);
}

std::unexpected<Error> LocalLog::cannot_write(IoStatus status) const {
    return fail(Errc::io, fmt::format("log device {}: cannot write it: {}", disk_->words(), to_string(status)));
}

Job<void> LocalLog::presuspend() {
    stopped_ = true;
    co_return;
}

Job<void> LocalLog::idle() {
    env_.reactor.cancel(*this);
    while (in_turn_ || ticking_ || linked()) {
        auto wait = ended_.wait();
        co_await wait;
        env_.reactor.cancel(*this);
    }
}

Job<Result<void>> LocalLog::postsuspend() {
    stopped_ = true;
    ASSERT(waiting_.empty());
    auto idling = idle();
    co_await idling;
    auto cleaning = clean_rested(true);
    const IoStatus legs = co_await cleaning;
    auto idling_again = idle();
    co_await idling_again;
    IoStatus status = IoStatus::ok;
    if (disk_ && !distrusted_) {
        auto turn = write_turn();
        status = co_await turn;
    }
    if (status != IoStatus::ok) co_return cannot_write(status);
    if (legs != IoStatus::ok) co_return fail(Errc::io, fmt::format("cannot flush the legs: {}; their regions stay dirty", to_string(legs)));
    co_return Result<void>{};
}

Job<Result<void>> LocalLog::start_anew() {
    env_.reactor.cancel(*this);
    auto idling = idle();
    co_await idling;
    forget_rests();
    for (Bitmap* bits : {&sync_, &clean_, &handed_, &failed_}) bits->reset_all();
    sync_count_ = failed_count_ = {0};
    resync_from_ = 0;
    if (disk_) {
        distrusted_ = false;
        device_clean_.set_all();
        device_legs_ = legs_;
        whole_ = true;
        auto turn = write_turn();
        if (const IoStatus status = co_await turn; status != IoStatus::ok) co_return cannot_write(status);
        health_ = Health::alive;
    }
    co_return Result<void>{};
}

// --- notes ----------------------------------------------------------------------------------------------------------

void LocalLog::become_dirty(Region region) noexcept {
    if (!clean_.test(region.v)) return;
    clean_.reset(region.v);
    if (!disk_) return;
    const std::uint64_t block = layout_.block_of(region);
    touched_.set(block);
    if (writing_.test(block)) late_.set(region.v);
    ++noted_;
}

void LocalLog::wake(Region region) noexcept {
    for (Bitmap* bits : {&young_, &old_}) {
        if (!bits->test(region.v)) continue;
        bits->reset(region.v);
        --resting_;
    }
}

bool LocalLog::mark(Region region) noexcept {
    ASSERT(region.v < regions_.v);
    marked_ = true;
    if (resting_ != 0) wake(region);
    become_dirty(region);
    return !disk_ || !device_clean_.test(region.v);
}

void LocalLog::clear(Region region) noexcept {
    ASSERT(region.v < regions_.v);
    if (!sync_.test(region.v) || clean_.test(region.v) || doubted_ || rests(region)) return;
    young_.set(region.v);
    with_rests_.set(layout_.block_of(region));
    ++resting_;
    arm_tick();
}

void LocalLog::set_sync(Region region, bool in_sync) noexcept {
    ASSERT(region.v < regions_.v);
    const bool was_handed = handed_.test(region.v), was_failed = failed_.test(region.v);
    handed_.reset(region.v);
    if (in_sync) {
        if (was_failed) {
            failed_.reset(region.v);
            failed_count_ -= Regions{1};
        }
        if (sync_.test(region.v)) return;
        sync_.set(region.v);
        sync_count_ += Regions{1};
        return;
    }
    if (sync_.test(region.v)) {
        sync_.reset(region.v);
        sync_count_ -= Regions{1};
        if (resting_ != 0) wake(region);
        become_dirty(region);
    } else if (was_handed && !was_failed) {
        failed_.set(region.v);
        failed_count_ += Regions{1};
        return;
    }
    if (env_.chaos.keeps("dirty_log.rewind")) resync_from_ = std::min(resync_from_, region.v);
}

void LocalLog::record(const std::optional<LegRecord>& legs) noexcept {
    ASSERT(!legs || legs->makes_sense());
    ASSERT(legs || sync_count_ == regions_);
    if (legs == legs_ && legs == device_legs_) return;
    legs_ = legs;
    if (legs) {
        device_legs_ = legs;
        touched_.set(0);
        if (disk_) {
            record_on_device_ = true;
            ++noted_;
        }
    } else {
        arm_tick();
    }
}

std::optional<Region> LocalLog::next_dirty(Region from) const noexcept {
    const std::uint64_t found = Bitmap::find_in(from.v, regions_.v, [this](std::uint64_t w) { return ~clean_.word(w); });
    if (found >= regions_.v) return {};
    return Region{found};
}

std::optional<Region> LocalLog::next_dirty_in_sync(Region from) const noexcept {
    const std::uint64_t found = Bitmap::find_in(from.v, regions_.v, [this](std::uint64_t w) { return sync_.word(w) & ~clean_.word(w); });
    if (found >= regions_.v) return {};
    return Region{found};
}

// --- other legs -----------------------------------------------------------------------------------------------------

Job<Result<void>> LocalLog::doubt(const LegRecord* legs) {
    if (!disk_) co_return Result<void>{};
    doubted_ = true;
    forget_rests();
    for (std::uint64_t w = 0; w < clean_.word_count(); ++w) become_dirty(w, clean_.word(w));
    record(*legs);
    FlushWait wait{*this};
    const IoStatus status = co_await wait;
    if (status != IoStatus::ok) co_return cannot_write(status);
    co_return Result<void>{};
}

// 64 regions at a time.
void LocalLog::become_dirty(std::uint64_t word, std::uint64_t regions) noexcept {
    if (regions == 0) return;
    clean_.words()[word] &= ~regions;
    if (!disk_) return;
    const std::uint64_t block = layout_.block_of({word * 64});
    touched_.set(block);
    if (writing_.test(block)) late_.words()[word] |= regions;
    ++noted_;
}

void LocalLog::know(const Bitmap& in_sync) noexcept {
    if (distrusted_) return;
    sync_ = in_sync;
    sync_count_ = {sync_.count()};
    for (std::uint64_t w = 0; w < clean_.word_count(); ++w) become_dirty(w, clean_.word(w) & ~sync_.word(w));
}

// --- resync ---------------------------------------------------------------------------------------------------------

Job<RegionRun> LocalLog::resync_work(Regions most) {
    const RegionRun run = next_work(most);
    if (!disk_ || device_clean_.find(run.first.v, run.end().v) == run.end().v) co_return run;
    FlushWait wait{*this};
    const IoStatus status = co_await wait;
    if (status == IoStatus::ok) co_return run;
    give_back(run);
    co_return RegionRun{};
}

RegionRun LocalLog::next_work(Regions most) noexcept {
    if (stopped_ || distrusted_ || sync_count_ == regions_ || most.v == 0) return {};
    if (env_.chaos.fires("dirty_log.short_run")) most = {1};
    const auto busy = [this](std::uint64_t w) { return sync_.word(w) | handed_.word(w) | failed_.word(w); };
    const std::uint64_t first = Bitmap::find_in(resync_from_, regions_.v, [&busy](std::uint64_t w) { return ~busy(w); });
    resync_from_ = first;
    if (first >= regions_.v) return {};
    const std::uint64_t end = Bitmap::find_in(first, std::min(regions_.v, first + std::min(most.v, regions_.v)), busy);
    for (std::uint64_t r = first; r < end; ++r) handed_.set(r);
    resync_from_ = end;
    return {{first}, {end - first}};
}

void LocalLog::give_back(RegionRun regions) noexcept {
    for (std::uint64_t r = regions.first.v; r < regions.end().v; ++r) handed_.reset(r);
    resync_from_ = std::min(resync_from_, regions.first.v);
}

void LocalLog::retry_failed() noexcept {
    if (!failed_count_) return;
    resync_from_ = std::min(resync_from_, failed_.find(0));
    failed_.reset_all();
    failed_count_ = {0};
}

// --- words ----------------------------------------------------------------------------------------------------------

std::string LocalLog::info() const {
    if (!disk_) return "1 core";
    return fmt::format("3 disk {} {}", disk_->words(), health_ == Health::alive ? 'A' : health_ == Health::failed ? 'D' : 'F');
}

std::string LocalLog::table() const {
    const char* word = word_ == SyncWord::sync ? "sync " : word_ == SyncWord::nosync ? "nosync " : "";
    const int words = word_ == SyncWord::none ? 1 : 2;
    if (!disk_) return fmt::format("core {} {} {}", words, region_size_.sectors().v, word);
    return fmt::format("disk {} {} {} {}", words + 1, disk_->words(), region_size_.sectors().v, word);
}

}  // namespace udm::dirty_log
