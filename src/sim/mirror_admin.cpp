// The administrator of the story "mirror": what the daemon's control plane and its owner would do.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "sim/mirror_run.hpp"

namespace udm {
namespace {
bool says_sync(const std::string& table) { return table.find(" sync ") != std::string::npos; }
}  // namespace

std::string MirrorRun::table(const std::vector<std::size_t>& members) const {
    static constexpr const char* kWords[] = {"", " sync", " nosync"};
    // `nosync` with a core log is a promise that only its maker can give, and not after a crash.
    const bool promise = !has_log() && setup_.word == static_cast<std::uint64_t>(MirrorSetup::Word::nosync);
    const char* word = kWords[was_made_ && (setup_.word_stays == 0 || promise) ? 0 : setup_.word];
    const unsigned count = *word ? 2 : 1;
    std::string text;
    if (setup_.front != 0) text = fmt::format("0 {} linear sim:front 0\n", setup_.front);
    text += fmt::format("{} {} mirror ", setup_.front, setup_.sectors);
    text += has_log() ? fmt::format("disk {} sim:log {}{}", count + 1, setup_.region, word)
                      : fmt::format("core {} {}{}", count, setup_.region, word);
    text += fmt::format(" {}", members.size());
    for (const std::size_t i : members) text += fmt::format(" sim:leg{} {}", i, setup_.offsets[i]);
    const std::uint64_t features = (setup_.handle_errors != 0) + (setup_.handle_errors != 0 && setup_.keep_log != 0);
    if (features != 0) text += fmt::format(" {} handle_errors{}", features, features == 2 ? " keep_log" : "");
    return text;
}

void MirrorRun::everything_is_suspended(bool noflush, std::uint64_t causes_before) {
    if (noflush) return;
    // Where writes are held, so is the flush of the suspend: it fails for what failed before.
    if (!must_succeed() && (causes() != causes_before || (holds_writes() && causes() != causes_when_well_))) {
        owes_flush_error_ = true;
        return;
    }
    ShadowDisk& shadow = volume_->shadow();
    shadow.end_flush(shadow.begin_flush(), IoStatus::ok);
}

// A disk that fails may keep the mirror down; a well one may not.
Job<void> MirrorRun::boot() {
    Machine& machine = world_.machine();
    mapped_ = &machine.create("mirror");
    const std::string text = table();
    syncs_always_ = says_sync(text);
    for (bool again = false;; again = true) {
        const std::uint64_t before = causes();
        log_faults_at_load_ = has_log() ? faulted(*log_) : 0;
        auto swapping = machine.swap(*mapped_, text, TableMode::read_write);
        const auto swapped = co_await swapping;
        if (swapped) break;
        world_.note(0xb007, [&] { return "the mirror does not come up: " + swapped.error().message; });
        if (causes() == before || again) {
            clients_.violate("the mirror cannot be loaded: " + swapped.error().message);
            break;
        }
        heal_all();
    }
    was_made_ = true;
    auto settings = set_up();
    co_await settings;
    auto restoring = restore_scrub();
    co_await restoring;
    volume_->attach(*mapped_->device, machine.reactor());
    admin_.busy = false;
    booted_ = true;
}

Job<void> MirrorRun::cycle(bool noflush, Nanoseconds stay) {
    const std::uint64_t before = causes();
    auto suspending = mapped_->device->suspend({.noflush = noflush});
    const auto suspended = co_await suspending;
    if (!suspended) clients_.violate("the mirror cannot be suspended: " + suspended.error().message);
    everything_is_suspended(noflush, before);
    world_.note(0x5059, [] { return std::string{"suspended"}; });
    // What could not be flushed is out of sync afterwards, and the source alone counts there.
    if (syncs_always_ || causes() != before) not_known_to_be_well();
    if (stay != 0) {
        Reactor& reactor = world_.machine().reactor();
        Sleep nap{reactor, reactor.now() + stay};
        co_await nap;
    }
    const std::uint64_t before_resume = causes();
    for (bool again = false;; again = true) {
        auto resuming = mapped_->device->resume();
        const auto resumed = co_await resuming;
        if (resumed) break;
        if (causes() == before_resume || again) {
            clients_.violate("the mirror cannot be resumed: " + resumed.error().message);
            break;
        }
        heal_all();
    }
    ++outcome_.swaps;
    admin_.busy = false;
}

Job<void> MirrorRun::reload() {
    const std::string text = table();
    // A new table begins with what its log says, and a core log says nothing.
    syncs_always_ = says_sync(text);
    if (!has_log() || syncs_always_) not_known_to_be_well();
    if (!has_log()) {
        // What failed on the way here would be forgotten: such a mirror keeps its table.
        auto suspending = mapped_->device->suspend({});
        const auto suspended = co_await suspending;
        if (!suspended) clients_.violate("the mirror cannot be suspended: " + suspended.error().message);
        if (would_forget()) {
            auto resuming = mapped_->device->resume();
            const auto resumed = co_await resuming;
            if (!resumed) clients_.violate("the mirror cannot be resumed: " + resumed.error().message);
            owes_flush_error_ = true;
            admin_.busy = false;
            co_return;
        }
    }
    auto keeping = keep_scrub_now();
    co_await keeping;
    for (bool again = false;; again = true) {
        const std::uint64_t before = causes();
        const std::uint64_t log_faults = has_log() ? faulted(*log_) : 0;
        auto swapping = world_.machine().swap(*mapped_, text, TableMode::read_write);
        const auto swapped = co_await swapping;
        if (swapped) {
            owes_flush_error_ |= causes() != causes_when_well_ && !must_succeed();
            log_faults_at_load_ = log_faults;
            if (causes() != causes_when_well_) not_known_to_be_well();    // only the source's data are known to be all there
            auto settings = set_up();
            co_await settings;
            auto restoring = restore_scrub();
            co_await restoring;
            break;
        }
        if (causes() == before || again) {
            clients_.violate("the mirror's table cannot be swapped: " + swapped.error().message);
            break;
        }
        heal_all();
    }
    world_.note(0x5a4b, [] { return std::string{"a new table"}; });
    ++outcome_.swaps;
    admin_.busy = false;
}

// As the control plane does it: loaded, quiet, on record, resumed. Whichever table a crash leaves has the data.
Job<void> MirrorRun::change_legs(steps::LegChange how, std::uint64_t goes, std::uint64_t comes) {
    const std::vector<std::size_t> before = members_;
    std::vector<std::size_t> after = before;
    const bool possible = how != steps::LegChange::drop || before.size() > 2;
    if (how == steps::LegChange::reorder)
        std::rotate(after.begin(), after.begin() + static_cast<std::ptrdiff_t>(goes % before.size()), after.end());
    else if (how != steps::LegChange::add) after.erase(after.begin() + static_cast<std::ptrdiff_t>(goes % before.size()));
    const std::size_t spare = comes % legs_.size();
    const bool is_leg = std::find(before.begin(), before.end(), spare) != before.end();
    if ((how == steps::LegChange::add || how == steps::LegChange::replace) && !is_leg) after.push_back(spare);
    if (!possible || after.size() < 2 || after == before) {
        admin_.busy = false;
        co_return;
    }
    const std::string text = table(after), old_text = table(before);
    const auto now = words();
    const bool well = now && now->all_well();
    auto loading = world_.machine().load(*mapped_, text, TableMode::read_write);
    const auto loaded = co_await loading;
    if (!loaded) {
        world_.note(0x1e65, [&] { return "other legs are refused: " + loaded.error().message; });
        if (well && causes() == causes_when_well_) clients_.violate("other legs are refused though all is well: " + loaded.error().message);
        admin_.busy = false;
        co_return;
    }
    rot_may_count_ = true;
    auto keeping = keep_scrub_now();
    co_await keeping;
    const std::uint64_t causes_at_suspend = causes();
    auto suspending = mapped_->device->suspend({});
    const auto suspended = co_await suspending;
    if (!suspended) clients_.violate("the mirror cannot be suspended: " + suspended.error().message);
    everything_is_suspended(false, causes_at_suspend);
    // Where the new table cannot be resumed the old one is read again, and a log in memory would have forgotten.
    const bool goes_on = !would_forget();
    if (goes_on) members_ = after;
    else mapped_->device->clear_inactive();
    for (bool again = false;; again = true) {
        const std::uint64_t log_faults = has_log() ? faulted(*log_) : 0;
        auto resuming = mapped_->device->resume();
        const auto resumed = co_await resuming;
        if (resumed) {
            log_faults_at_load_ = log_faults;
            break;
        }
        world_.note(0x1e66, [&] { return "other legs cannot be used: " + resumed.error().message; });
        if (causes() == causes_when_well_ || again) {
            clients_.violate("other legs cannot be used: " + resumed.error().message);
            break;
        }
        heal_all();
        members_ = before;
        auto going_back = world_.machine().load(*mapped_, old_text, TableMode::read_write);
        const auto back = co_await going_back;
        if (!back) clients_.violate("the mirror's old table cannot be loaded: " + back.error().message);
    }
    syncs_always_ = says_sync(table());
    if (syncs_always_ || causes() != causes_when_well_) not_known_to_be_well();
    auto settings = set_up();
    co_await settings;
    auto restoring = restore_scrub();
    co_await restoring;
    world_.note(0x1e67, [&] { return "other legs: " + table(); });
    ++outcome_.swaps;
    admin_.busy = false;
}

Job<bool> MirrorRun::tell(const std::string* text) {
    std::vector<std::string> words{""};
    for (const char c : *text) {
        if (c == ' ') words.emplace_back();
        else words.back() += c;
    }
    auto telling = tell_words(&words);
    const bool told = co_await telling;
    co_return told;
}

Job<bool> MirrorRun::tell_words(const std::vector<std::string>* words) {
    auto telling = mapped_->device->message({setup_.front}, words);
    const auto told = co_await telling;
    world_.note(0x7e11, [&] { return fmt::format("{}: {}", fmt::join(*words, " "), told ? "done " + *told : told.error().message); });
    co_return told.has_value();
}

// What nobody keeps over a power cut or in another table.
Job<void> MirrorRun::set_up() {
    std::vector<std::string> settings;
    if (setup_.log_rest != 0) settings.push_back(fmt::format("set log_rest {}", setup_.log_rest));
    if (setup_.leg_retry != 0) settings.push_back(fmt::format("set leg_retry {}", setup_.leg_retry));
    if (setup_.hold_timeout != 0) settings.push_back(fmt::format("set hold_timeout {}", setup_.hold_timeout));
    for (const std::string& setting : settings) {
        auto telling = tell(&setting);
        const bool told = co_await telling;
        if (!told) clients_.violate("the mirror does not take: " + setting);
    }
}

Job<void> MirrorRun::say(steps::MirrorWord word, std::uint64_t number) {
    const std::string text = steps::words_of(word, number);
    auto telling = tell(&text);
    co_await telling;
    admin_.busy = false;
}

// What a person does once faults are over: where the table holds writes, no leg comes back unasked.
Job<void> MirrorRun::call_legs_back() {
    const std::string go_on = "resync_resume";
    auto going_on = tell(&go_on);
    co_await going_on;
    for (std::size_t i = 0; holds_writes() && i < members_.size(); ++i) {
        const std::string text = fmt::format("leg_return {}", i);
        auto telling = tell(&text);
        co_await telling;
    }
    admin_.busy = false;
}

Job<void> MirrorRun::remove_all() {
    auto removing = world_.machine().remove(*mapped_);
    co_await removing;
    mapped_ = nullptr;
    admin_.busy = false;
}

}  // namespace udm
