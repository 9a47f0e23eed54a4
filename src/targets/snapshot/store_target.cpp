#include "targets/snapshot/store_target.hpp"

#include <fmt/format.h>

namespace udm::snapshot {

StoreTarget::StoreTarget(Env& env, Origins& origins, Snapshot::Config config, const TargetArgs& args)
    : env_{env}, origins_{origins}, config_{std::move(config)}, origin_id_{config_.origin->id()},
      cow_id_{config_.cow->id()}, events_{args.events},
      lost_stores_{args.lost_stores}, handed_over_{env.reactor} {}

StoreTarget::~StoreTarget() {
    if (Abandoning::now()) {
        if (snapshot_) origins_.retire(std::move(snapshot_), claimed_);
        return;
    }
    if (source_) source_->heir_ = nullptr;    // it keeps its store
    if (heir_) {
        heir_->source_ = nullptr;
        heir_->orphaned_ = true;
    }
    if (snapshot_) {
        origins_.retire(std::move(snapshot_), claimed_);
    } else if (group_) {
        origins_.leave(origin_id_);
    }
}

// --- load -----------------------------------------------------------------------------------------------------------

// A part of the constructor's checks: limits of mapped devices change on their home reactor.
Result<void> StoreTarget::check_chunk() const {
    for (OpenDevice* device : {config_.origin.get(), config_.cow.get()}) {
        const std::uint32_t block = device->disk().limits().logical_block;
        if (to_bytes(config_.chunk) % block != 0) {
            return fail(Errc::bad_argument,
                        fmt::format("Couldn't create exception store: chunk size {} is no multiple of the logical block of {}, {} bytes",
                                    config_.chunk.v, device->words(), block));
        }
    }
    return {};
}

Job<Result<void>> StoreTarget::load() {
    if (auto good = check_chunk(); !good) co_return fail(good);
    group_ = &origins_.join(origin_id_);
    auto claiming = origins_.claim_cow(cow_id_, this);
    StoreTarget* const other = co_await claiming;
    if (other) co_return pair_with(*other);
    claimed_ = true;
    auto reading = read_in();
    auto read = co_await reading;
    co_return read;
}

Job<Result<void>> StoreTarget::read_in() {
    snapshot_ = std::make_unique<Snapshot>(env_, *group_, std::move(config_), lost_stores_);
    snapshot_->set_layer(this);
    snapshot_->set_events(&events_);
    if (auto good = check(*snapshot_); !good) co_return good;
    auto loading = snapshot_->load();
    auto loaded = co_await loading;
    if (!loaded) co_return fail(loaded.error().code == Errc::no_memory ? Errc::no_memory : Errc::bad_argument,
                                "Failed to read snapshot metadata: " + loaded.error().message);
    co_return Result<void>{};
}

// As in Linux: one heir, of a snapshot that has been in use, of the same origin (elsewhere Linux would have two owners: N27).
Result<void> StoreTarget::pair_with(StoreTarget& other) {
    const auto refused = [this](const char* why) {
        return fail(Errc::bad_argument, fmt::format("Snapshot cow pairing for exception table handover failed: {} {}",
                                                    config_.cow->words(), why));
    };
    if (other.origin_id_ != origin_id_) return refused("is the store of a snapshot of another origin");
    if (!other.started_) return refused("is the store of a snapshot that was not resumed yet");
    if (other.heir_) return refused("is already to be handed over to another table; clear that one first");
    CHECK(check(*other.snapshot_));
    CHECK(other.snapshot_->fits_extent(config_.extent));
    source_ = &other;
    other.heir_ = this;
    return {};
}

// --- resume ---------------------------------------------------------------------------------------------------------

Job<Result<void>> StoreTarget::preresume() {
    if (heir_ && env_.chaos.keeps("handover.source_waits")) {
        co_return fail(Errc::bad_argument, "Unable to resume snapshot source until handover completes.");
    }
    if (orphaned_) {
        co_return fail(Errc::bad_argument, fmt::format("the snapshot whose store {} was to be handed over is gone; load the table again, "
                                                       "and the store is read", config_.cow->words()));
    }
    if (source_) {
        if (source_->resumed_ && env_.chaos.keeps("handover.source_is_quiet")) {
            co_return fail(Errc::bad_argument, "Unable to perform snapshot handover until source is suspended.");
        }
        started_ = true;
        auto taking = take_over();
        const bool goes_on = co_await taking;
        if (goes_on) snapshot_->release();
        if (goes_on) co_return Result<void>{};
    } else if (snapshot_ && !started_) {
        started_ = true;
        snapshot_->start();
        apply_settings();
    } else {
        co_return Result<void>{};    // it goes on, or has given its store away
    }
    auto beginning = begin();
    auto begun = co_await beginning;
    snapshot_->release();
    co_return begun;
}

// True: from a target of the same kind.
Job<bool> StoreTarget::take_over() {
    StoreTarget& source = *source_;
    source.handing_over_ = true;
    Snapshot& moving = *source.snapshot_;
    moving.hold();    // until the new target has taken up the work
    auto finishing = moving.finish();
    co_await finishing;
    const bool same_work = merges() == source.merges();
    if (!same_work) source.end();
    source.config_ = moving.adopt(std::move(config_));
    snapshot_ = std::move(source.snapshot_);
    snapshot_->set_layer(this);
    snapshot_->set_events(&events_);
    origins_.hand_cow(cow_id_, this);
    claimed_ = std::exchange(source.claimed_, false);
    uncommitted_ = std::exchange(source.uncommitted_, false);
    source.heir_ = nullptr;
    source_ = nullptr;
    source.handing_over_ = false;
    source.handed_over_.notify_all();
    snapshot_->start();
    apply_settings();
    co_return same_work;
}

// --- settings -------------------------------------------------------------------------------------------------------

// What was set for a store on a file may be kept for one that cannot grow: then it has no effect, and an event says so.
void StoreTarget::apply_settings() noexcept {
    FullnessSettings settings = settings_;
    if (auto set = snapshot_->fullness().set(settings); set) return;
    settings.step = 0;
    static_cast<void>(snapshot_->fullness().set(settings));
    events_.raise(EventKind::target, "snapshot cannot be extended: its COW device is no file");
}

Result<void> StoreTarget::obey(const std::vector<std::string>& words) {
    FullnessSettings settings = settings_;
    bool known = false;
    const bool check = words[0] == "check";
    if (words.size() == 3 && (check || words[0] == "set")) {
        auto set = settings.set(words[1], words[2]);
        if (!set) return fail(set);
        known = *set;
    }
    if (!known) {
        return fail(Errc::bad_argument, fmt::format("Unrecognised message received.: {} takes set thresholds, set auto_extend and set "
                                                    "auto_extend_at, and a value", merges() ? "a merge" : "a snapshot"));
    }
    if (snapshot_ && started_) CHECK(check ? snapshot_->fullness().check(settings) : snapshot_->fullness().set(settings));
    if (check) return {};
    settings_ = std::move(settings);
    return {};
}

std::vector<std::string_view> StoreTarget::settings() const { return {"thresholds", "auto_extend", "auto_extend_at"}; }

Job<Result<std::string>> StoreTarget::message(const std::vector<std::string>* words) {
    if (auto obeyed = obey(*words); !obeyed) co_return fail(obeyed);
    co_return std::string{};
}

// --- suspend and the end --------------------------------------------------------------------------------------------

Job<void> StoreTarget::postsuspend(SuspendFlags flags) {
    if (started_ && snapshot_) {
        uncommitted_ = flags.noflush;    // the store's device may hang: that is what noflush is for
        if (!uncommitted_) {
            auto committing = snapshot_->commit();
            static_cast<void>(co_await committing);    // a failure has made the snapshot invalid and raised its event
            auto giving = snapshot_->give_space_back();
            co_await giving;
        }
    }
    resumed_ = false;
}

Job<void> StoreTarget::close() {
    while (handing_over_) {
        auto wait = handed_over_.wait();
        co_await wait;
    }
    if (!snapshot_) co_return;
    end();
    if (uncommitted_) {
        auto committing = snapshot_->commit();
        static_cast<void>(co_await committing);
    }
    auto finishing = snapshot_->finish();
    co_await finishing;
    auto giving = snapshot_->give_space_back();
    co_await giving;
}

// --- words ----------------------------------------------------------------------------------------------------------

std::vector<TargetDevice> StoreTarget::devices() const {
    const Snapshot::Config& c = config();
    const Sectors store = group_ ? c.cow->disk().limits().size : Sectors{};    // not before load()
    return {{c.origin.get(), c.extent.first, c.extent.length}, {c.cow.get(), {0}, store}};
}

// One that has no store yet, or no longer, says what Linux's says.
std::string StoreTarget::status() const {
    if (snapshot_) return snapshot_->status();
    if (!source_) return "Invalid";
    return fmt::format("0/{} 0", config_.cow->disk().limits().size.v);
}

std::string StoreTarget::table() const {
    return snapshot_ ? snapshot_->table_words() : Snapshot::words_of(config_, Sectors{0});
}

}  // namespace udm::snapshot
