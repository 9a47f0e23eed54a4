// What a mirror can be told while it runs.
#include <fmt/format.h>

#include "base/parse.hpp"
#include "targets/mirror/mirror.hpp"

namespace udm::mirror {
namespace {

constexpr const char* kVerbs = "a mirror takes legs, leg_return LEG, leg_source LEG, resync_pause, resync_resume, resync_retry, log_start_anew, "
                               "scrub_start check|repair [FROM], scrub_stop, scrub_pause, scrub_resume, scrub_status, and set "
                               "resync_rate|resync_share|scrub_rate|scrub_share|leg_retry|hold_timeout|log_rest VALUE|default";

Result<Nanoseconds> parse_time(const std::string& name, const std::string& value) {
    const auto ms = parse_u32(value);
    if (!ms) return fail(Errc::bad_argument, fmt::format("{} '{}' is not a number of milliseconds", name, value));
    return Nanoseconds{*ms} * kMillisecond;
}

}  // namespace

Job<Result<std::string>> Mirror::message(const std::vector<std::string>* words) {
    const std::string& verb = (*words)[0];
    if ((verb == "leg_return" || verb == "leg_source") && words->size() == 2) {
        const auto leg = parse_u32((*words)[1]);
        if (!leg || *leg >= set_.legs.count()) {
            co_return fail(Errc::bad_argument, fmt::format("there is no leg '{}': they are 0 to {}", (*words)[1], set_.legs.count() - 1));
        }
        if (verb == "leg_return") {
            CO_CHECK(failures_.bring_back(*leg));
        } else {
            CO_CHECK(failures_.make_source(*leg));
        }
        co_return std::string{};
    }
    if (verb == "legs" && words->size() == 1) co_return legs_in_words();
    if (verb == "log_start_anew" && words->size() == 1) {
        if (set_.stopping) co_return fail(Errc::bad_argument, "the mirror is suspended: resume it first");
        if (set_.regions.count() != 0) co_return fail(Errc::busy, "regions are being written or copied: try again when they rest");
        CO_CHECK(set_.log->start_anew());
        set_.map.trust_source_only();
        resync_.look_again();
        co_return std::string{};
    }
    if (verb.starts_with("scrub_")) co_return scrub(*words);
    if (auto obeyed = obey(*words); !obeyed) co_return fail(obeyed);
    co_return std::string{};
}

// A word for each leg.
std::string Mirror::legs_in_words() const {
    std::string text;
    for (unsigned leg = 0; leg < set_.legs.count(); ++leg) {
        if (leg != 0) text += ' ';
        text += leg == set_.legs.source() ? "source" : set_.legs[leg].away ? "away" : set_.map.has_all(leg) ? "complete" : "behind";
    }
    return text;
}

Result<std::string> Mirror::scrub(const std::vector<std::string>& words) {
    const std::string& verb = words[0];
    const auto reply = [](Result<void> done) -> Result<std::string> {
        if (!done) return fail(done);
        return std::string{};
    };
    if (verb == "scrub_start" && (words.size() == 2 || words.size() == 3) && (words[1] == "check" || words[1] == "repair")) {
        const auto from = words.size() == 3 ? parse_u64(words[2]) : std::optional{set_.extent.first.v};
        if (!from) return fail(Errc::bad_argument, fmt::format("'{}' is not a sector to begin at", words[2]));
        return reply(scrub_.start(words[1] == "check" ? ScrubReport::Mode::check : ScrubReport::Mode::repair, {*from}));
    }
    if (verb == "scrub_restore" && words.size() == 2) return reply(scrub_.restore(words[1]));
    if (words.size() == 1) {
        if (verb == "scrub_status") return scrub_.text();
        if (verb == "scrub_stop") return reply(scrub_.stop());
        if (verb == "scrub_pause" || verb == "scrub_resume") return reply(scrub_.set_paused(verb == "scrub_pause"));
    }
    return fail(Errc::bad_argument, fmt::format("Unrecognised message received.: {}", kVerbs));
}

Result<void> Mirror::obey(const std::vector<std::string>& words) {
    const std::string& verb = words[0];
    if ((verb == "set" || verb == "check") && words.size() == 3) return set_to(words[1], words[2], verb == "set");
    if (words.size() == 1 && (verb == "resync_pause" || verb == "resync_resume")) {
        resync_.set_paused(verb == "resync_pause");
        return {};
    }
    if (words.size() == 1 && verb == "resync_retry") {
        resync_.retry();
        return {};
    }
    return fail(Errc::bad_argument, fmt::format("Unrecognised message received.: {}", kVerbs));
}

std::vector<std::string_view> Mirror::settings() const { return {"resync_rate", "resync_share", "scrub_rate", "scrub_share", "leg_retry", "hold_timeout", "log_rest"}; }

Result<void> Mirror::set_to(const std::string& name, const std::string& value, bool apply) {
    const bool standard = value == "default";
    Pace& pace = name.starts_with("scrub") ? scrub_.pace() : resync_.pace();
    if (name == "resync_rate" || name == "scrub_rate") {
        const auto rate = standard ? 0 : parse_size(value);
        if (!rate) return fail(Errc::bad_argument, fmt::format("{} '{}' is not a number of bytes per second (10M, 1G; 0: no limit)", name, value));
        if (!apply) return {};
        pace.rate = *rate;
        pace.restart(set_.env.reactor.now());
    } else if (name == "resync_share" || name == "scrub_share") {
        const auto share = standard ? Pace::kShare : parse_u32(value);
        if (!share || *share < 1 || *share > 100) return fail(Errc::bad_argument, fmt::format("{} '{}' is none of 1 .. 100 percent", name, value));
        if (!apply) return {};
        pace.share = *share;
    } else if (name == "leg_retry") {
        std::optional<Nanoseconds> first;
        if (!standard) {
            TRY(first, parse_time(name, value));
        }
        if (!apply) return {};
        failures_.set_leg_retry(first);
    } else if (name == "hold_timeout") {
        Nanoseconds timeout = 0;
        if (!standard) {
            TRY(timeout, parse_time(name, value));
        }
        if (!apply) return {};
        failures_.set_hold_timeout(timeout);
    } else if (name == "log_rest") {
        Nanoseconds rest = dirty_log::DirtyLog::kRest;
        if (!standard) {
            TRY(rest, parse_time(name, value));
        }
        if (!apply) return {};
        set_.log->set_rest(rest);
    } else {
        return fail(Errc::bad_argument, fmt::format("a mirror has no setting '{}': {}", name, kVerbs));
    }
    resync_.look_again();
    scrub_.look_again();
    return {};
}

}  // namespace udm::mirror
