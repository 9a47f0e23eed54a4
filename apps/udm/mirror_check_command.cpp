// udm mirror check, udm mirror repair.
#include <fmt/format.h>

#include <chrono>

#include "apps/udm/commands.hpp"
#include "apps/udm/progress.hpp"
#include "apps/udm/signals.hpp"
#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

constexpr std::chrono::milliseconds kBetweenScrubLooks{100};

std::uint64_t number_in(const Json& object, const char* key) { return object.value(key, std::uint64_t{0}); }
std::string word_in(const Json& object, const char* key) { return object.value(key, std::string{}); }
bool scrub_goes_on(const Json& status) { return word_in(status, "state") == "running" || word_in(status, "state") == "paused"; }

// "leg 1 /srv/b.img (zeroes)", of all legs of the place that are `what`.
std::string legs_that_are(const Json& place, std::initializer_list<std::string_view> what) {
    std::string text;
    for (const Json& leg : place.at("legs")) {
        const std::string is = word_in(leg, "is");
        if (std::find(what.begin(), what.end(), is) == what.end()) continue;
        text += fmt::format("{}leg {} {}", text.empty() ? "" : ", ", number_in(leg, "leg"), word_in(leg, "device"));
        if (is == "unreadable") text += " (unreadable)";
        if (leg.value("zeroes", false)) text += " (zeroes)";
    }
    return text;
}

std::string why_of(const Json& place) {
    const std::string why = word_in(place, "why");
    return why == "majority" ? "most legs hold that" : why == "source" ? "the source leg" : "it can be read";
}

std::string scrub_summary(const Json& status) {
    const std::string mode = word_in(status, "mode"), state = word_in(status, "state");
    if (state == "none") return "nothing was checked or repaired yet\n";
    const std::uint64_t whole = number_in(status, "end") - number_in(status, "from"), differing = number_in(status, "differing_bytes");
    std::string text = fmt::format("{}: {}, {} of {} compared", mode, state, human_size(std::min(number_in(status, "compared_bytes"), whole)), human_size(whole));
    text += differing == 0 ? ", the legs are equal" : fmt::format(", {} differ{}", human_size(differing), mode == "repair" ? "ed" : "");
    if (mode == "repair" && differing != 0) text += fmt::format(", {} repaired", human_size(number_in(status, "repaired_bytes")));
    text += '\n';
    if (const auto bytes = number_in(status, "unrepaired_bytes"); bytes != 0)
        text += fmt::format("{} could not be repaired: `udm show` and the daemon's log say which leg fails\n", human_size(bytes));
    if (const auto bytes = number_in(status, "mended_bytes"); bytes != 0)
        text += fmt::format("{} that a leg could not read were written anew from another leg\n", human_size(bytes));
    if (const auto bytes = number_in(status, "left_bytes"); bytes != 0)
        text += fmt::format("{} were not compared: they are out of sync and are being copied, or only one leg is there\n", human_size(bytes));
    return text;
}

std::string scrub_text(const std::string& volume, const Json& status) {
    std::string text = scrub_summary(status);
    Columns columns{{"OFFSET>", "LENGTH>", "BELIEVED", "BECAUSE", "DIFFERENT"}};
    for (const Json& place : status.value("places", Json::array())) {
        columns.add({std::to_string(number_in(place, "offset")), human_size(number_in(place, "length")), legs_that_are(place, {"believed"}), why_of(place),
                     legs_that_are(place, {"wrong", "unreadable"}) + (place.value("repaired", false) ? "; repaired" : "")});
    }
    if (!columns.empty()) text += columns.text();
    if (const auto more = number_in(status, "unlisted"); more != 0) text += fmt::format("and {} more places\n", more);
    if (word_in(status, "state") == "done" && word_in(status, "mode") == "check" && number_in(status, "differing_bytes") != 0)
        text += fmt::format("`udm mirror repair {}` writes what is believed over what is different\n", volume);
    return text;
}

// 0: all was compared, and is equal now.
int scrub_exit_code(const Json& status) {
    const bool equal = number_in(status, "differing_bytes") == number_in(status, "repaired_bytes") && number_in(status, "left_bytes") == 0;
    return scrub_goes_on(status) || (word_in(status, "state") == "done" && equal) ? kOk : kFailed;
}

struct ScrubCommand {
    std::string mode, volume, rate, from;
    bool background = false, status = false, stop = false, pause = false, resume = false;

    void run(Context& context) const {
        const Json device{{"device", volume}};
        if (status) return report(context, context.call("mirror.scrub_status", device));
        if (stop) return report(context, context.call("mirror.scrub_stop", device));
        if (pause) return report(context, context.call("mirror.scrub_pause", device));
        if (resume) return report(context, context.call("mirror.scrub_resume", device));
        Json now = context.call("mirror.scrub_status", device);
        if (!rate.empty()) context.call("device.set", {{"device", now["device"]}, {"key", "scrub_rate"}, {"value", rate}});
        if (scrub_goes_on(now)) {
            if (word_in(now, "mode") != mode || !from.empty())
                throw Refusal{fmt::format("a {} of {} is under way", word_in(now, "mode"), volume), fmt::format("`udm mirror {} {} --stop` ends it", mode, volume)};
            context.note(fmt::format("a {} of {} was under way already", mode, volume));
        } else {
            Json wanted{{"device", volume}, {"mode", mode}};
            if (!from.empty()) wanted["from"] = size_argument(from, "--from");
            now = context.call("mirror.scrub_start", std::move(wanted));
        }
        if (!background) now = wait_for_end(context, std::move(now));
        if (scrub_goes_on(now)) context.note(fmt::format("it goes on behind the scenes; `udm mirror {0} {1} --status` says how far it is, --stop ends it", mode, volume));
        report(context, now);
    }

  private:
    // As it is when it has ended, or at Ctrl-C, which leaves it under way.
    Json wait_for_end(Context& context, Json now) const {
        catch_signals();
        Progress progress{context.json ? "" : fmt::format("{}ing {}", mode, volume)};
        while (scrub_goes_on(now)) {
            const std::uint64_t from = number_in(now, "from");
            progress.update(number_in(now, "at") - from, number_in(now, "end") - from);
            if (!sleep_unless_stopped(kBetweenScrubLooks)) break;
            now = context.call("mirror.scrub_status", {{"device", volume}});
        }
        return now;
    }

    void report(Context& context, const Json& now) const {
        context.print(now, scrub_text(volume, now));
        context.exit_code = scrub_exit_code(now);
    }
};

void add_scrub_command(CLI::App& mirror, Context& context, const char* mode, const char* about) {
    auto scrub = std::make_shared<ScrubCommand>();
    scrub->mode = mode;
    auto* command = mirror.add_subcommand(mode, about);
    command->add_option("NAME", scrub->volume, "The volume; a mirror under its snapshots will be found")->required();
    command->add_option("--rate", scrub->rate, "Bytes a second at most: 50M; kept for later ones, too (setting scrub_rate)");
    command->add_option("--from", scrub->from, "Begin at this offset: 10G");
    auto* background = command->add_flag("--background", scrub->background, "Do not wait for its end");
    for (const auto& [flag, to, words] : {std::tuple{"--status", &scrub->status, "How far it is, and what it has found so far, or the last one"},
                                          {"--stop", &scrub->stop, "End the one that is under way"},
                                          {"--pause", &scrub->pause, "Let the one that is under way rest"},
                                          {"--resume", &scrub->resume, "Let it go on"}}) {
        command->add_flag(flag, *to, words)->excludes(background);
    }
    command->footer("Exit status: 0 all was compared and the legs are equal now (or it is under way), 1 they differ somewhere, not all could be compared, or it failed.");
    command->callback([scrub, &context] { scrub->run(context); });
}

}  // namespace

void add_mirror_check_commands(CLI::App& mirror, Context& context) {
    add_scrub_command(mirror, context, "check", "Compare the legs of a mirror in use, and say where they differ");
    add_scrub_command(mirror, context, "repair", "Compare them, and write what is believed over what is different");
}

}  // namespace udm::app
