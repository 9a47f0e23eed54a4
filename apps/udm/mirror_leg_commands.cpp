// udm mirror add-leg, drop-leg, replace-leg, readd.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "apps/udm/commands.hpp"
#include "apps/udm/progress.hpp"
#include "apps/udm/signals.hpp"
#include "apps/udm/text.hpp"
#include "base/parse.hpp"
#include "ctl/client_table.hpp"
#include "port/nbd_uri.hpp"

namespace udm::app {
namespace {

struct Legs {
    std::string volume, leg, device, log;
    bool overwrite = false, background = false;

    void add(Context& context) const {
        Json params = new_leg(device);
        if (!log.empty()) params["log"] = log == "core" ? log : device_word(log);
        begin(context, "mirror.add_leg", std::move(params), fmt::format("{} has a copy on {}", volume, device));
    }

    void replace(Context& context) const {
        Json params = new_leg(device);
        params["leg"] = leg_word(leg);
        begin(context, "mirror.replace_leg", std::move(params), fmt::format("{} has {} in place of {}", volume, device, leg));
    }

    void drop(Context& context) const {
        const Json left = context.call("mirror.drop_leg", {{"device", volume}, {"leg", leg_word(leg)}}, "waiting for requests under way");
        const std::string gone = left.value("dropped", leg);
        context.print(left, left["legs"].size() > 1 ? fmt::format("{} is no leg of {} any more; {} are left", gone, volume, left["legs"].size())
                                                    : fmt::format("{} is no mirror any more: it is on {} alone; {} is free", volume, left["legs"][0].get<std::string>(), gone));
    }

    void readd(Context& context) const {
        Json params{{"device", volume}};
        if (!leg.empty()) params["leg"] = leg_word(leg);
        wait(context, context.call("mirror.readd", std::move(params), "asking for it"), fmt::format("{} has all its legs again", volume));
    }

  private:
    static constexpr std::chrono::milliseconds kBetweenLooks{100};

    static std::string device_word(const std::string& word) { return is_nbd_uri(word) ? with_absolute_socket(word) : ctl::absolute_path(word); }

    // A leg as it is named on the command line: a number stays one.
    static std::string leg_word(const std::string& word) { return parse_u32(word) ? word : device_word(word); }

    // DEVICE or DEVICE:OFFSET, in bytes.
    static Json new_leg(const std::string& word) {
        const std::size_t colon = word.rfind(':');
        if (is_nbd_uri(word) || colon == std::string::npos || colon == 0 || std::filesystem::exists(word)) return {{"new", device_word(word)}};
        const auto offset = parse_size(word.substr(colon + 1));
        if (!offset || word.substr(0, colon) == "udm") return {{"new", device_word(word)}};
        if (*offset % 512 != 0) throw WrongWords{fmt::format("{}: an offset is a multiple of 512 bytes", word)};
        return {{"new", device_word(word.substr(0, colon))}, {"offset", *offset / 512}};
    }

    void begin(Context& context, const char* method, Json params, const std::string& done) const {
        params["device"] = volume;
        if (overwrite) params["overwrite"] = true;
        Json begun;
        try {
            begun = context.call(method, std::move(params), "waiting for requests under way");
        } catch (const Refusal& refusal) {
            if (refusal.details.value("errno", 0) != EEXIST || std::string{refusal.what()}.find("would be lost") == std::string::npos) throw;
            Refusal advised{refusal.what(), "--overwrite if that is meant"};
            advised.details = refusal.details;
            throw advised;
        }
        wait(context, std::move(begun), done);
    }

    // Bytes left to copy; nothing once it is done. A leg that is to be replaced goes at the end.
    static std::optional<std::uint64_t> left(Context& context, const std::string& carrier, const std::string& goes, std::uint64_t& total, bool& away) {
        const Json lines = context.call("table.status", {{"device", carrier}});
        if (lines.size() != 1 || lines[0].value("type", "") != "mirror") return std::nullopt;
        const Json details = lines[0].value("details", Json::object());
        const std::uint64_t bytes = details.value("resync_left_bytes", std::uint64_t{0});
        away = details.contains("legs_away");
        total = lines[0].value("length", std::uint64_t{0}) * 512;
        if (bytes != 0 || away) return bytes;
        if (goes.empty()) return std::nullopt;
        for (const Json& used : context.call("device.deps", {{"device", carrier}})) {
            if (used.value("words", "") == goes) return bytes;
        }
        return std::nullopt;
    }

    void wait(Context& context, Json begun, const std::string& done) const {
        const std::string carrier = begun.value("device", volume), goes = begun.value("replacing", "");
        bool finished = false, told = false;
        if (!background) {
            catch_signals();
            Progress progress{context.json ? "" : fmt::format("copying {}", volume)};
            do {
                std::uint64_t total = 0;
                bool away = false;
                const auto bytes = left(context, carrier, goes, total, away);
                finished = !bytes;
                if (finished) break;
                progress.update(total - std::min(total, *bytes), total);
                if (away && !told && !context.json) context.note(fmt::format("{}: a leg is away; what it misses is copied when it is back (`udm mirror readd {}` asks it now)", volume, volume));
                told = told || away;
            } while (sleep_unless_stopped(kBetweenLooks));
        }
        begun["in_sync"] = finished;
        context.print(begun, finished ? done
                                      : fmt::format("{} is used as before, and copied behind the scenes; `udm show {}` says how far it is", volume, carrier));
    }
};

}  // namespace

void add_mirror_leg_commands(CLI::App& mirror, Context& context) {
    const auto make = [&](const char* name, const char* about, void (Legs::*run)(Context&) const) {
        auto legs = std::make_shared<Legs>();
        auto* command = mirror.add_subcommand(name, about);
        command->add_option("VOLUME", legs->volume)->required();
        command->callback([legs, run, &context] { (legs.get()->*run)(context); });
        return std::pair{command, legs};
    };
    const auto takes_new = [](CLI::App* command, Legs& legs, const char* name) {
        command->add_option(name, legs.device,
                            "File (made, if there is none), block device, udm:NAME or NBD URI; OFFSET: bytes before the leg's data, such as 1M")->required();
        command->add_flag("--overwrite", legs.overwrite, "Also if it holds something, which is lost");
    };
    const auto waits = [](CLI::App* command, Legs& legs) { command->add_flag("--background", legs.background, "Do not wait until it is in sync"); };
    {
        const auto [command, legs] = make("add-leg", "One more copy; a plain volume becomes a mirror of two", &Legs::add);
        takes_new(command, *legs, "DEVICE[:OFFSET]");
        command->add_option("--log", legs->log, "Of a plain volume: where the log is to be kept, a new file or a disk of zeroes; core: in memory");
        waits(command, *legs);
    }
    {
        const auto [command, legs] = make("drop-leg", "One copy less; with one left it is a plain volume again", &Legs::drop);
        command->add_option("LEG|DEVICE", legs->leg, "Its number in the table, from 0, or its name there")->required();
    }
    {
        const auto [command, legs] = make("replace-leg", "Another device in the place of a leg, which goes when the new one has everything, or at once if it is away",
                                          &Legs::replace);
        command->add_option("OLD", legs->leg, "Its number in the table, from 0, or its name there")->required();
        takes_new(command, *legs, "NEW[:OFFSET]");
        waits(command, *legs);
    }
    {
        const auto [command, legs] = make("readd", "Legs that are away are tried now, and get what they missed", &Legs::readd);
        command->add_option("LEG|DEVICE", legs->leg, "This one; without it, all that are away");
        waits(command, *legs);
    }
}

}  // namespace udm::app
