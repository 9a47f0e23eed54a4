#include "targets/mirror/scrub.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace udm::mirror {

using Mode = ScrubReport::Mode;
using State = ScrubReport::State;

Scrub::Scrub(Set& set, Writes& writes, Reads& reads, Failures& failures, Resync& resync, const std::uint64_t& throttle, bool read_only)
    : set_{set}, writes_{writes}, reads_{reads}, failures_{failures}, resync_{resync}, read_only_{read_only}, pace_{throttle}, changed_{set.env.reactor} {}

Scrub::~Scrub() {
    ASSERT(!running_ || Abandoning::now());
    if (!Abandoning::now()) set_.env.reactor.cancel(turn_timer_);
}

// --- life -----------------------------------------------------------------------------------------------------------

void Scrub::resume() noexcept {
    if (running_ || !under_way()) return;
    running_ = true;
    block_ = {1};
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) block_ = std::max(block_, whole_sectors(set_.legs.disk(leg).limits().logical_block));
    last_pass_ = report_.at == report_.end;
    next_ = last_pass_ ? report_.from : report_.at;
    pace_.restart(set_.env.reactor.now());
    set_.jobs.begin();
    set_.env.reactor.jobs().spawn(run());
}

Job<void> Scrub::suspend() {
    ASSERT(set_.stopping);
    while (running_) {
        changed_.notify_all();
        auto wait = changed_.wait();
        co_await wait;
    }
    set_.env.reactor.cancel(turn_timer_);
}

// --- messages -------------------------------------------------------------------------------------------------------

Result<void> Scrub::start(Mode mode, Sector from) {
    const char* const what = report_.mode == Mode::check ? "check" : "repair";
    if (under_way()) return fail(Errc::busy, fmt::format("a {} is under way: scrub_stop ends it", what));
    if (running_) return fail(Errc::busy, fmt::format("the last {} is still ending: try again", what));
    if (mode == Mode::repair && read_only_) return fail(Errc::bad_argument, "the mirror is read-only: it can be checked, and not repaired");
    if (from < set_.extent.first || from >= set_.extent.end()) {
        return fail(Errc::bad_argument, fmt::format("sector {} is none of the mirror's, {} to {}", from.v, set_.extent.first.v, set_.extent.end().v - 1));
    }
    report_ = {};
    report_.mode = mode;
    report_.state = State::running;
    report_.from = report_.at = set_.extent_of({set_.region_of(from), {1}}).first;
    report_.end = set_.extent.end();
    if (!set_.stopping) resume();
    return {};
}

Result<void> Scrub::stop() {
    if (!under_way()) return fail(Errc::bad_argument, "no check or repair is under way");
    report_.state = State::stopped;
    changed_.notify_all();
    return {};
}

Result<void> Scrub::set_paused(bool paused) {
    if (!under_way()) return fail(Errc::bad_argument, "no check or repair is under way");
    report_.state = paused ? State::paused : State::running;
    changed_.notify_all();
    return {};
}

namespace {
// By which the legs are known again, in their order.
std::uint64_t map_of(const Set& set, const Failures& failures) noexcept {
    std::uint64_t map = 0;
    for (unsigned leg = 0; leg < set.legs.count(); ++leg) map = map * 0x9e3779b97f4a7c15U + failures.tag(leg);
    return map;
}
}  // namespace

std::string Scrub::text() const { return report_.text(set_.legs.count(), map_of(set_, failures_)); }

Result<void> Scrub::restore(std::string_view text) {
    if (running_) return fail(Errc::busy, "a check or repair is under way");
    auto restored = report_.restore(text, set_.legs.count(), map_of(set_, failures_), set_.extent);
    if (restored && !set_.stopping) resume();
    return restored;
}

Sectors Scrub::left() const noexcept {
    if (!under_way()) return {};
    Sectors left = report_.end - report_.at;
    for (const Extent& extent : report_.again) left += extent.length;
    return left;
}

std::uint64_t Scrub::bytes_per_second() const noexcept {
    return running_ && report_.state == State::running ? pace_.bytes_per_second(set_.env.reactor.now()) : 0;
}

// --- the walk -------------------------------------------------------------------------------------------------------

Job<void> Scrub::run() {
    while (under_way() && !set_.stopping) {
        auto turn = wait_turn();
        co_await turn;
        if (!going()) continue;
        const Extent extent = next_piece();
        if (extent.length) {
            Piece& piece = pieces_.take();
            piece.extent = extent;
            piece.legs = set_.legs.alive();
            under_way_.push_back(piece);
            ++piece_count_;
            set_.env.reactor.jobs().spawn(piece_run(&piece));
        } else if (note_position(); !all_looked_at_) {
            Sleep nap{set_.env.reactor, set_.env.reactor.now()};
            co_await nap;
        } else if (!under_way_.empty()) {
            auto wait = changed_.wait();
            co_await wait;
        } else if (!last_pass_ && !report_.again.empty() && resync_goes_on()) {
            set_.env.reactor.arm(turn_timer_, set_.env.reactor.now() + kResyncLook);
            auto wait = changed_.wait();
            co_await wait;
        } else if (!last_pass_) {
            last_pass_ = true;
            next_ = report_.from;
        } else {
            auto finishing = finish();
            co_await finishing;
        }
    }
    while (!under_way_.empty()) {
        auto wait = changed_.wait();
        co_await wait;
    }
    running_ = false;
    changed_.notify_all();
    set_.jobs.end();
}

// Until the next piece may begin; or the scrub is to stop.
Job<void> Scrub::wait_turn() {
    while (under_way() && !set_.stopping) {
        const Nanoseconds now = set_.env.reactor.now();
        const bool room = piece_count_ == 0 || piece_count_ * set_.legs.count() < kBuffers;
        const Nanoseconds at = going() && room ? pace_.may_begin(now, piece_count_, set_.foreground != 0) : ~Nanoseconds{0};
        if (at == 0) break;
        if (at != ~Nanoseconds{0} && !turn_timer_.armed()) set_.env.reactor.arm(turn_timer_, at);
        auto wait = changed_.wait();
        co_await wait;
    }
}

// What is out of sync will not stay so for long.
bool Scrub::resync_goes_on() const noexcept {
    return !read_only_ && !resync_.paused() && set_.legs.away() == 0 && !set_.map.all_in_sync() && !set_.log->failed_count() &&
           set_.log->health() == dirty_log::Health::alive;
}

std::optional<Extent> Scrub::rest_of_pass() const noexcept {
    if (!last_pass_) return next_ < report_.end ? std::optional{Extent{next_, report_.end - next_}} : std::nullopt;
    for (const Extent& run : report_.again) {
        if (run.end() <= next_) continue;
        const Sector first = std::max(run.first, next_);
        return Extent{first, run.end() - first};
    }
    return std::nullopt;
}

// Length 0: nothing is left of this pass, or there was so much to skip that others should have a turn.
Extent Scrub::next_piece() {
    all_looked_at_ = false;
    for (unsigned skipped = 0; skipped < kSkipped; ++skipped) {
        const auto rest = rest_of_pass();
        if (!rest) {
            all_looked_at_ = true;
            break;
        }
        const auto end_of_region = [&](Sector at) { return std::min(set_.extent_of({set_.region_of(at), {1}}).end(), rest->end()); };
        const Sector first = rest->first;
        const Sectors most = set_.env.chaos.fires("mirror.small_scrubs") ? block_ : set_.piece;
        next_ = end_of_region(first);
        if (!comparable(set_.region_of(first))) {
            put_off({first, next_ - first});
            continue;
        }
        while (next_ < rest->end() && next_ - first < most && comparable(set_.region_of(next_))) next_ = end_of_region(next_);
        next_ = std::min(next_, first + most);
        return {first, next_ - first};
    }
    return {next_, {0}};
}

void Scrub::put_off(const Extent& extent) {
    if (last_pass_) {
        report_.left += extent.length;
    } else {
        report_.look_again_at(extent);
    }
}

// All before it needs no look any more, in whatever life.
void Scrub::note_position() noexcept {
    const Sector at = under_way_.empty() ? next_ : under_way_.front().extent.first;
    if (!last_pass_) {
        report_.at = at;
        return;
    }
    auto& again = report_.again;
    const auto done = std::find_if(again.begin(), again.end(), [at](const Extent& run) { return run.end() > at; });
    again.erase(again.begin(), done);
    if (!again.empty() && again[0].first < at) again[0] = {at, again[0].end() - at};
}

Job<void> Scrub::finish() {
    if (report_.repaired) {
        auto flushing = failures_.flush_legs();
        static_cast<void>(co_await flushing);
    }
    if (!going()) co_return;
    report_.state = State::done;
    std::string text = report_.mode == Mode::check ? "check is done: " : "repair is done: ";
    if (!report_.differing) {
        text += "the legs are equal";
    } else {
        text += fmt::format("{} sectors differed", report_.differing.v);
        if (report_.mode == Mode::repair) text += fmt::format(", {} are repaired", report_.repaired.v);
    }
    if (report_.mended) text += fmt::format("; {} sectors that could not be read were written anew", report_.mended.v);
    if (report_.left) text += fmt::format("; {} sectors were not compared", report_.left.v);
    const bool well = report_.differing == report_.repaired && !report_.left;
    set_.events.raise(well ? EventKind::progress : EventKind::target, text);
}

// --- a piece --------------------------------------------------------------------------------------------------------

Job<void> Scrub::piece_run(Piece* piece) {
    BufferPool& buffers = set_.env.reactor.buffers();
    const std::size_t bytes = to_bytes(piece->extent.length);
    const LegMask legs = piece->legs;
    for_each_leg(legs, [&](unsigned leg) { piece->data[leg] = buffers.take(bytes); });
    const Nanoseconds began = set_.env.reactor.now();
    pace_.begins(began, bytes);
    auto comparing = compare(piece);
    co_await comparing;
    const Nanoseconds now = set_.env.reactor.now();
    pace_.ends(now, now - began, bytes, set_.foreground != 0);
    for_each_leg(legs, [&](unsigned leg) { buffers.give(piece->data[leg], bytes); });
    List<Piece>::remove(*piece);
    pieces_.give(*piece);
    --piece_count_;
    note_position();
    changed_.notify_all();
}

RegionRun Scrub::regions_of(const Extent& extent) const noexcept {
    const Region first = set_.region_of(extent.first), last = set_.region_of(extent.end() - Sectors{1});
    return {first, last - first + Regions{1}};
}

bool Scrub::comparable(Region region) const noexcept { return set_.map.in_sync(region) && std::popcount(set_.legs.alive()) > 1; }

bool Scrub::comparable(const Extent& extent, LegMask legs) const noexcept {
    if (legs != set_.legs.alive()) return false;
    const RegionRun run = regions_of(extent);
    for (Region region = run.first; region < run.end(); region += Regions{1}) {
        if (!comparable(region)) return false;
    }
    return true;
}

Judged Scrub::judged(const Piece& piece, const Extent& extent, LegMask failed) const noexcept {
    return {extent, without(piece.legs, failed), failed, set_.legs.source(), piece.data};
}

Job<Scrub::Glance> Scrub::glance(Piece* piece, Extent extent) {
    Glance seen;
    if (!comparable(extent, piece->legs)) co_return seen;
    LegIo read{set_, piece->legs, Op::read, extent, piece->data};
    const LegResult result = co_await read;
    seen.counts = comparable(extent, piece->legs);
    seen.failed = result.failed;
    for_each_leg(seen.failed, [&](unsigned leg) { failures_.read_failed(leg, result.status); });
    if (seen.counts && seen.failed == 0) seen.differs = differing_part(judged(*piece, extent, 0), block_);
    co_return seen;
}

// Twice without a claim: of what is being written most is equal when it is read again, and writes need not wait.
Job<void> Scrub::compare(Piece* piece) {
    Extent extent = piece->extent;
    for (unsigned looks = 0; looks < 2; ++looks) {
        auto glancing = glance(piece, extent);
        const Glance seen = co_await glancing;
        if (!seen.counts) {
            put_off(extent);
            co_return;
        }
        if (seen.failed != 0) {
            auto examining = examine_units(piece, extent);
            co_await examining;
            co_return;
        }
        report_.compared += extent.length - seen.differs.length;
        if (!seen.differs.length) co_return;
        extent = seen.differs;
    }
    auto examining = examine(piece, extent);
    co_await examining;
}

Job<void> Scrub::examine_units(Piece* piece, Extent extent) {
    const Sectors unit = std::max(kUnit, block_);
    for (Sector at = extent.first; at < extent.end(); at = std::min(at + unit, extent.end())) {
        auto examining = examine(piece, {at, std::min(unit, extent.end() - at)});
        co_await examining;
    }
}

Job<void> Scrub::examine(Piece* piece, Extent extent) {
    Claim claim{writes_, extent};
    const bool claims = set_.env.chaos.keeps("mirror.scrub_claims_piece");
    if (claims) co_await claim;
    auto glancing = glance(piece, extent);
    const Glance seen = co_await glancing;
    std::vector<Place> places;
    const LegMask readable = without(piece->legs, seen.failed);
    const bool in_units = seen.failed != 0 && extent.length > std::max(kUnit, block_);
    if (seen.counts && !in_units && readable != 0) find_places(judged(*piece, extent, seen.failed), block_, places);
    if (claims) claim.release();
    if (!seen.counts) {
        put_off(extent);
    } else if (in_units) {
        auto examining = examine_units(piece, extent);
        co_await examining;
    } else if (readable == 0) {
        report_.left += extent.length;
    } else {
        report_.compared += extent.length;
        if (places.empty() && seen.failed != 0 && !read_only_) {
            auto mending = reads_.rewrite(extent, seen.failed);
            const bool mended = co_await mending;
            if (mended) report_.mended += extent.length;
        }
        for (Place& place : places) {
            if (report_.mode == Mode::repair) {
                auto repairing = repair(piece, &place);
                place.repaired = co_await repairing;
                if (!place.repaired) report_.unrepaired += place.extent.length;
            }
            found(place);
        }
    }
}

void Scrub::found(const Place& place) {
    const bool first = !report_.differing;
    report_.add(place);
    if (!first) return;
    static constexpr const char* kBecause[] = {"most legs hold that", "it is the source", "it can be read"};
    std::string wrong;
    for_each_leg(place.wrong, [&](unsigned leg) { wrong += (wrong.empty() ? "" : ", ") + set_.leg_name(leg); });
    set_.events.raise(EventKind::target,
                      fmt::format("legs differ from sector {} on: {} is believed, since {}; otherwise there: {}; `scrub_status` lists all places", place.extent.first.v,
                                  set_.leg_name(place.believed), kBecause[static_cast<unsigned>(place.why)], wrong));
}

}  // namespace udm::mirror
