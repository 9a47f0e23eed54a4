#include "targets/mirror/succession.hpp"

#include <fmt/format.h>

#include <utility>

namespace udm::mirror {
namespace {

bool same_device(OpenDevice& a, OpenDevice& b) {
    return a.id().kind != DiskId::Kind::none ? a.id() == b.id() : a.words() == b.words();
}

bool same_log(dirty_log::DirtyLog& a, dirty_log::DirtyLog& b) {
    if (a.region_size() != b.region_size() || a.region_count() != b.region_count()) return false;
    if (!a.device() || !b.device()) return !a.device() && !b.device();
    return same_device(*a.device(), *b.device());
}

}  // namespace

Succession* Successions::in_use(const DeviceEvents& device, const Extent& extent) const noexcept {
    for (Succession* mirror : mirrors_) {
        if (mirror->in_use() && &mirror->set().events == &device && mirror->set().extent == extent) return mirror;
    }
    return nullptr;
}

Succession* Successions::not_started(const DeviceEvents& device, const Extent& extent) const noexcept {
    Succession* last = nullptr;
    for (Succession* mirror : mirrors_) {
        if (mirror->was_tried() && !mirror->in_use() && &mirror->set().events == &device && mirror->set().extent == extent) last = mirror;
    }
    return last;
}

Succession::~Succession() {
    if (Abandoning::now()) return;
    all_.leave(*this);
    for (Succession* heir : heirs_) heir->before_ = nullptr;
    if (!before_) return;
    std::erase(before_->heirs_, this);
    if (doubts_) before_->no_doubt();
}

// --- load -----------------------------------------------------------------------------------------------------------

bool Succession::same_leg(unsigned leg, unsigned theirs) const noexcept {
    const Leg &a = set_.legs[leg], &b = before_->set_.legs[theirs];
    return a.start == b.start && same_device(*a.device, *b.device);
}

LegMask Succession::kept() const noexcept {
    LegMask legs = 0;
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        if (from_[leg] != kNew) legs |= leg_bit(from_[leg]);
    }
    return legs;
}

LegMask Succession::fresh() const noexcept {
    LegMask legs = 0;
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        if (from_[leg] == kNew) legs |= leg_bit(leg);
    }
    return legs;
}

bool Succession::reordered() const noexcept { return (kept() & leg_bit(0)) != 0 && from_[0] != 0; }

Job<Result<void>> Succession::load() {
    all_.join(*this);
    before_ = all_.in_use(set_.events, set_.extent);
    logged_ = own_legs();
    if (!before_) {
        const Succession* failed = all_.not_started(set_.events, set_.extent);
        co_return failed ? come_after(*failed) : Result<void>{};
    }
    before_->heirs_.push_back(this);
    if (auto good = match(); !good) co_return good;
    if (takes_) logged_ = before_->own_legs();    // until this one starts
    const LegMask new_legs = fresh();
    if (!takes_ || (new_legs == 0 && !reordered()) || !set_.env.chaos.keeps("mirror.new_leg_is_in_doubt")) co_return Result<void>{};
    auto doubting = doubt(new_legs);
    auto doubted = co_await doubting;
    co_return doubted;
}

std::vector<Succession::KnownLeg> Succession::own_legs() const {
    std::vector<KnownLeg> legs;
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        const Leg& one = set_.legs[leg];
        legs.push_back({one.device->id(), one.device->words(), one.start});
    }
    return legs;
}

Result<void> Succession::come_after(const Succession& not_started) {
    if (!same_log(*set_.log, *not_started.set_.log)) return {};
    LegMask known = 0;
    const std::vector<KnownLeg> legs = own_legs();
    for (unsigned leg = 0; leg < legs.size(); ++leg) {
        for (const KnownLeg& other : not_started.logged_) {
            const bool same = legs[leg].id.kind != DiskId::Kind::none ? legs[leg].id == other.id : legs[leg].words == other.words;
            if (same && legs[leg].start == other.start) known |= leg_bit(leg);
        }
    }
    if (known == 0) return {};
    logged_ = not_started.logged_;
    nothing_clean_ = not_started.nothing_clean_;
    const LegMask new_legs = without(set_.legs.all(), known);
    if (new_legs == 0) return {};
    if (new_legs & leg_bit(0)) return new_first_leg();
    if (!set_.log->device() || set_.log->copies_all() || nothing_clean_) return {};
    return fail(Errc::bad_argument, fmt::format("{} is new, and the log of the mirror, which did not start, would call it in sync: give the log the word sync, "
                                                "and it is copied to",
                                                set_.leg_name(lowest(new_legs))));
}

std::unexpected<Error> Succession::new_first_leg() const {
    return fail(Errc::bad_argument, fmt::format("{} is new, and what a mirror's first leg has is taken for its data: list it behind those that were there",
                                                set_.leg_name(0)));
}

Result<void> Succession::match() {
    const Set& theirs = before_->set_;
    from_.fill(kNew);
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        for (unsigned other = 0; other < theirs.legs.count(); ++other) {
            if (same_leg(leg, other)) from_[leg] = other;
        }
    }
    const LegMask stay = kept();
    takes_ = stay != 0 && same_log(*set_.log, *theirs.log);
    if (!takes_) return {};
    if (fresh() & leg_bit(0)) return new_first_leg();
    if (auto known = match_names(); !known) return known;
    const LegMask good = stay & theirs.legs.alive();
    if ((good & leg_bit(theirs.legs.source())) == 0 && !before_->failures_.next_source(good)) {
        return fail(Errc::bad_argument, fmt::format("no leg that stays has all regions: {} must stay until another has them", theirs.leg_name(theirs.legs.source())));
    }
    // A log in memory forgets which leg counts: after a restart it is the first one.
    if (!set_.log->device() && !theirs.map.has_all(from_[0])) {
        return fail(Errc::bad_argument, fmt::format("{} does not have all regions: with a log in memory only one that has is to come first", set_.leg_name(0)));
    }
    return {};
}

// Where there is a record, or will be, whoever reads it is to find the legs in either table.
Result<void> Succession::match_names() const {
    const Set& theirs = before_->set_;
    if (!theirs.log->device()) return {};
    const bool same_if_unrecorded = fresh() == 0 && from_[0] == 0;
    if (same_if_unrecorded && !theirs.log->leg_record()) return {};
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        if (from_[leg] == kNew || set_.legs[leg].device->words() == theirs.legs[from_[leg]].device->words()) continue;
        return fail(Errc::bad_argument, fmt::format("{} is {} to the log, which is to say who has the data: list it under these words, and under others when all is in sync",
                                                    set_.leg_name(leg), theirs.legs[from_[leg]].device->words()));
    }
    return {};
}

Job<Result<void>> Succession::doubt(LegMask new_legs) {
    Set& theirs = before_->set_;
    doubts_ = true;
    const dirty_log::LegRecord record = before_->failures_.record_now();
    theirs.jobs.begin();
    auto doubting = theirs.log->doubt(&record);
    auto doubted = co_await doubting;
    theirs.jobs.end();
    if (doubted) {
        nothing_clean_ = true;
        co_return Result<void>{};
    }
    if (new_legs == 0) {
        co_return fail(Errc::io, fmt::format("the legs cannot be in another order now, since the log is to say first which one counts: {}", doubted.error().message));
    }
    co_return fail(Errc::io, fmt::format("{} cannot be a leg now, since the log is to say first that it has nothing: {}",
                                         set_.leg_name(lowest(new_legs)), doubted.error().message));
}

void Succession::no_doubt() noexcept {
    for (const Succession* heir : heirs_) {
        if (heir->doubts_) return;
    }
    if (set_.stopping) return;    // its resume sees to that
    set_.log->trust();
    for (auto region = set_.log->next_dirty_in_sync({}); region; region = set_.log->next_dirty_in_sync(*region + Regions{1})) {
        const RegionEntry* entry = set_.regions.find(*region);
        if (!entry || entry->writes == 0) set_.log->clear(*region);
    }
    failures_.drop_record();
}

// --- the change -----------------------------------------------------------------------------------------------------

bool Succession::postsuspend() noexcept {
    const Succession* heir = heirs_.empty() ? nullptr : heirs_.back();
    if (!heir || !heir->takes_) return false;
    const LegMask stay = heir->kept() & set_.legs.alive();
    if ((stay & leg_bit(set_.legs.source())) == 0) {
        if (const auto next = failures_.next_source(stay)) failures_.hand_source(*next);
    }
    return true;
}

std::unexpected<Error> Succession::refuse(std::string why) {
    refused_ = std::move(why);
    return fail(Errc::bad_argument, refused_);
}

Result<void> Succession::before_resume() {
    tried_ = true;
    if (!refused_.empty()) return fail(Errc::bad_argument, refused_);
    if (in_use_) {
        // What its log was to say for another table's sake is not all that is known.
        if (set_.log->in_doubt()) keep(*this);
        return {};
    }
    if (all_.in_use(set_.events, set_.extent) != before_) return refuse("another table was resumed since this one was loaded: load it again");
    if (!before_ || !takes_) return {};
    if ((kept() & leg_bit(before_->set_.legs.source())) == 0) {
        return refuse(fmt::format("no leg of this table has all regions; load one with {}, which has them",
                                  before_->set_.leg_name(before_->set_.legs.source())));
    }
    keep(*before_);
    return {};
}

void Succession::keep(const Succession& from) {
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        const unsigned theirs = &from == this ? leg : from_[leg];
        const bool source = theirs == from.set_.legs.source();
        const bool nothing = theirs == kNew || (set_.log->copies_all() && !source);
        known_.push_back(nothing ? dirty_log::Bitmap{set_.log->region_count().v} : from.set_.map.regions_of(theirs));
        if (source) source_ = leg;
    }
}

void Succession::resumed() {
    if (before_) before_->in_use_ = false;
    in_use_ = true;
    logged_ = own_legs();
    nothing_clean_ = false;
    if (known_.empty()) return;
    set_.map.start_with(std::exchange(known_, {}));
    failures_.start_with_source(source_);
    for (auto region = set_.log->next_dirty_in_sync({}); region; region = set_.log->next_dirty_in_sync(*region + Regions{1})) set_.log->clear(*region);
    failures_.drop_record();
}

}  // namespace udm::mirror
