// What is the story "scrub"'s of MirrorRun: sectors of a leg that change behind everybody's back, checks and repairs, and what they
// must say.
#include <fmt/format.h>

#include <algorithm>
#include <sstream>

#include "sim/mirror_run.hpp"

namespace udm {
namespace {

constexpr std::uint64_t kRot = std::uint64_t{1} << 31;    // the first of the "writes" that nobody made
constexpr std::uint64_t kScrubPatience = 200'000;          // events

}  // namespace

// state=… mode=… …, then for each place FIRST+LENGTH … repaired=yes|no.
MirrorRun::ScrubWords MirrorRun::scrub_words() const {
    ScrubWords words;
    std::istringstream lines{kept_scrub_};
    for (std::string line; std::getline(lines, line);) {
        std::istringstream in{line};
        std::uint64_t first = 0, length = 0;
        bool repaired = false;
        for (std::string word; in >> word;) {
            const std::size_t at = word.find('=');
            const std::string key = word.substr(0, at), value = at == word.npos ? "" : word.substr(at + 1);
            if (key == "mode") words.mode = value;
            else if (key == "state") words.state = value;
            else if (key == "unrepaired") words.unrepaired = std::stoull(value);
            else if (key == "left") words.left = std::stoull(value);
            else if (key == "unlisted") words.unlisted = std::stoull(value);
            else if (key == "repaired" && length != 0) repaired = value == "yes";
            else if (at == word.npos && std::sscanf(word.c_str(), "%lu+%lu", &first, &length) == 2) first -= setup_.front;
        }
        for (std::uint64_t s = first; s < first + length; ++s) (repaired ? words.repaired : words.places).insert(s);
    }
    words.places.insert(words.repaired.begin(), words.repaired.end());
    return words;
}

bool MirrorRun::legs_differ(std::uint64_t sector) const {
    std::array<std::byte, kSectorSize> first, other;
    legs_[members_[0]]->read_now({{setup_.offsets[members_[0]] + sector}, {1}}, first.data());
    for (const std::size_t i : members_) {
        legs_[i]->read_now({{setup_.offsets[i] + sector}, {1}}, other.data());
        if (first != other) return true;
    }
    return false;
}

void MirrorRun::rot(const Step& step) {
    // Whole blocks: no less can be told, or repaired.
    const std::uint64_t block = std::max<std::uint64_t>(setup_.block, 1), of_leg = members_[step.a % members_.size()];
    const std::uint64_t first = step.c % setup_.sectors / block * block, number = kRot + rots_++;
    const std::uint64_t length = std::min((step.b + block - 1) / block * block, setup_.sectors - first);
    std::vector<std::byte> bytes(to_bytes(Sectors{length}));
    ShadowDisk::fill({{setup_.front + first}, {length}}, number, bytes.data());
    legs_[of_leg]->write_now({{setup_.offsets[of_leg] + first}, {length}}, bytes.data());
    for (std::uint64_t s = first; s < first + length; ++s) {
        volume_->shadow().tolerate({setup_.front + s}, ShadowDisk::tag(number, setup_.front + s));
        rotten_.insert(s);
        rotten_since_.insert(s);
        may_be_found_.insert(s);
    }
    rot_may_count_ |= of_leg == members_[0];
    world_.note(step.kind, [&] { return fmt::format("sectors {}+{} of leg {} rot", first, length, of_leg); });
}

// --- checks and repairs ---------------------------------------------------------------------------------------------

void MirrorRun::scrub_begins() {
    scrub_judged_ = false;
    kept_scrub_.clear();
    rotten_since_.clear();
    may_be_found_.clear();
    for (const std::uint64_t sector : rotten_) {
        if (legs_differ(sector)) may_be_found_.insert(sector);
    }
    must_be_found_ = may_be_found_;
}

Job<void> MirrorRun::scrub(steps::ScrubWord word) {
    const std::string text = steps::words_of(word);
    auto telling = tell(&text);
    const bool told = co_await telling;
    if (told && word <= steps::ScrubWord::repair) {
        scrub_begins();
        auto keeping = keep_scrub_now();
        co_await keeping;
    }
    admin_.busy = false;
}

Job<void> MirrorRun::keep_scrub_now() {
    const std::vector<std::string> words{"scrub_status"};
    auto asking = mapped_->device->message({setup_.front}, &words);
    auto text = co_await asking;
    if (!text || *text == "state=none") co_return;
    kept_scrub_ = std::move(*text);
    world_.note(0x5c4b, [&] { return kept_scrub_; });
    // From here on a crash must not bring back what was wrong.
    for (const std::uint64_t sector : scrub_words().repaired) {
        if (!rotten_since_.contains(sector)) rotten_.erase(sector);
    }
}

Job<void> MirrorRun::keep_scrub() {
    auto keeping = keep_scrub_now();
    co_await keeping;
    admin_.busy = false;
}

Job<void> MirrorRun::restore_scrub() {
    if (kept_scrub_.empty()) {
        scrub_judged_ = true;    // nobody knows of it
        co_return;
    }
    const std::vector<std::string> ask{"scrub_status"};
    auto asking = mapped_->device->message({setup_.front}, &ask);
    const auto text = co_await asking;
    if (!text || *text != "state=none") co_return;    // the same target as before
    const std::vector<std::string> words{"scrub_restore", kept_scrub_};
    auto telling = tell_words(&words);
    const bool told = co_await telling;
    if (!told) clients_.violate("the mirror does not take what it said of its scrub");
}

void MirrorRun::look_at_scrub(std::uint64_t events) {
    for (std::uint64_t n = 0;; ++n) {
        admin_.start(keep_scrub());
        if (!admin_.wait()) return;
        if (scrub_words().state == "done" || n >= events) break;
        clients_.let(8);
        if (!admin_.wait()) return;
    }
    if (scrub_words().state == "done") judge_scrub();
}

void MirrorRun::judge_scrub() {
    const ScrubWords found = scrub_words();
    if (std::exchange(scrub_judged_, true)) return;
    for (const std::uint64_t sector : found.places) {
        if (may_be_found_.contains(sector)) continue;
        clients_.violate(fmt::format("a {} tells of sector {}, where nothing was wrong", found.mode, sector));
        return;
    }
    const auto now = words();
    if (!at_rest() || !now || !now->all_well() || found.left != 0 || found.unlisted != 0) return;
    for (const std::uint64_t sector : must_be_found_) {
        if (rotten_since_.contains(sector) || !legs_differ(sector)) continue;
        if (found.mode == "check" && found.places.contains(sector)) continue;
        if (found.mode == "repair" && found.unrepaired != 0) continue;
        clients_.violate(fmt::format("a {} is done, and sector {}, where the legs differ, was left as it is", found.mode, sector));
        return;
    }
}

// All disks are well, and all is in sync: after a repair the legs must be equal, and hold what clients wrote, unless the leg that
// counts was what was changed, or came to count when others failed.
void MirrorRun::repair_all() {
    const auto until_done = [this](const char* what) {
        for (std::uint64_t n = 0; n < kScrubPatience; ++n) {
            admin_.start(keep_scrub());
            if (!clients_.until([this] { return !admin_.busy; })) break;
            const std::string state = scrub_words().state;
            if (state != "running") return true;
            clients_.let(8);
        }
        clients_.violate(fmt::format("{} does not end, though all disks are well", what));
        return false;
    };
    for (const auto word : {steps::ScrubWord::fast, steps::ScrubWord::go_on}) {
        admin_.start(scrub(word));
        if (!clients_.until([this] { return !admin_.busy; })) return;
    }
    if (!until_done("what was under way")) return;
    if (scrub_words().state == "done") judge_scrub();
    // A leg that missed nothing is away for a while all the same.
    const auto away = [this] {
        const auto now = words();
        return !now || now->health.find_first_of("SDF") != std::string::npos;
    };
    for (std::uint64_t n = 0; away() && n < kScrubPatience && world_.timeline().step(); ++n) {
    }
    for (scrub_judged_ = true; scrub_judged_ && !outcome_.failed();) {    // one that was stopped may be ending still
        admin_.start(scrub(steps::ScrubWord::repair));
        if (!clients_.until([this] { return !admin_.busy; }) || (!clients_.let(8) && scrub_judged_)) clients_.violate("no repair begins, though all disks are well");
    }
    if (outcome_.failed() || !until_done("the last repair")) return;
    const ScrubWords found = scrub_words();
    if (found.state != "done" || found.unrepaired != 0 || found.left != 0) {
        clients_.violate(fmt::format("the last repair is {}, with {} sectors not repaired and {} not compared, though all disks are well", found.state,
                                     found.unrepaired, found.left));
    }
    judge_scrub();
    for (std::uint64_t sector = 0; sector < setup_.sectors && !outcome_.failed(); ++sector) {
        if (legs_differ(sector)) clients_.violate(fmt::format("all was repaired, and sector {} differs on the legs", sector));
    }
    rotten_.clear();
    if (!rot_may_count_ && leg_faults() == 0) volume_->shadow().tolerate_no_more();
}

}  // namespace udm
