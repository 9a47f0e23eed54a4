// udm move.
#include <fmt/format.h>

#include "apps/udm/commands.hpp"
#include "apps/udm/progress.hpp"
#include "apps/udm/signals.hpp"
#include "apps/udm/text.hpp"
#include "base/parse.hpp"
#include "ctl/client_table.hpp"
#include "port/nbd_uri.hpp"

namespace udm::app {
namespace {

struct Move {
    std::string name, to, rate;
    bool background = false, abort = false, pause = false, resume = false;

    void run(Context& context) const {
        const int verbs = static_cast<int>(abort) + static_cast<int>(pause) + static_cast<int>(resume);
        if (verbs > 1 || (verbs == 1 && (!to.empty() || !rate.empty())))
            throw WrongWords{"--abort, --pause and --resume are each for themselves", fmt::format("`udm move {} --abort`", name.empty() ? "VOLUME" : name)};
        if (name.empty()) {
            if (verbs != 0 || !rate.empty() || background) throw WrongWords{"say which volume", "`udm move` lists those that move"};
            return list(context);
        }
        if (abort) return take_back(context);
        if (pause || resume) return set_paused(context);
        if (to.empty()) return go_on(context);
        Json params{{"device", name}, {"to", device_word(to)}};
        if (!rate.empty()) params["rate"] = rate;
        wait(context, context.call("move.start", std::move(params), "beginning to move " + name));
    }

  private:
    static constexpr std::chrono::milliseconds kBetweenLooks{100};

    static std::uint64_t count(const Json& move, const char* key) { return move.value(key, std::uint64_t{0}); }

    static std::string device_word(const std::string& word) {
        if (is_nbd_uri(word)) return with_absolute_socket(word);
        return ctl::absolute_path(word);
    }

    // What moves already: with another rate, or only watched.
    void go_on(Context& context) const {
        const Json moves = context.call("move.list", {{"device", name}});
        if (moves.empty()) throw Refusal{fmt::format("{} does not move now", name), fmt::format("`udm move {} DEST` moves it", name)};
        if (!rate.empty()) context.call("device.set", {{"device", moves[0]["carrier"]}, {"key", "resync_rate"}, {"value", rate}});
        if (rate.empty() || !background) return wait(context, moves[0]);
        context.print(moves[0], fmt::format("{} moves at {} a second at most", name, rate));
    }

    void wait(Context& context, const Json& begun) const {
        const std::string to_word = begun.value("to", ""), carrier = begun.value("carrier", name);
        if (!background) {
            catch_signals();
            Progress progress{context.json ? "" : fmt::format("moving {} to {}", name, to_word)};
            std::string last;
            for (bool goes_on = true; goes_on; goes_on = sleep_unless_stopped(kBetweenLooks)) {
                const Json moves = context.call("move.list", {{"device", name}});
                if (moves.empty()) return arrived(context, begun, carrier);
                const Json& move = moves[0];
                if (move.contains("left_bytes")) progress.update(count(move, "bytes") - count(move, "left_bytes"), count(move, "bytes"));
                const std::string because = move.value("because", move.value("state", "") == "paused" ? "it is paused; --resume goes on" : "");
                if (!because.empty() && because != last && !context.json) context.note(fmt::format("{}: {}", name, because));
                last = because;
            }
        }
        Json answer = begun;
        answer["moved"] = false;
        context.print(answer, fmt::format("{} moves to {} behind the scenes; `udm move {}` waits for it, `udm move` says how far it is", name, to_word, name));
    }

    // Or somebody has taken it back.
    void arrived(Context& context, const Json& begun, const std::string& carrier) const {
        Json answer = begun;
        const Json uses = context.call("device.deps", {{"device", carrier}});
        answer["moved"] = uses.size() == 1 && uses[0].value("words", "") == begun.value("to", "");
        for (const char* const key : {"state", "because", "left_bytes", "bytes_per_second", "seconds_left"}) answer.erase(key);
        if (!answer["moved"].get<bool>()) {
            Refusal refusal{fmt::format("{} did not move to {}: somebody took it back, or loaded another table", name, begun.value("to", "")), {}};
            refusal.details = std::move(answer);
            throw refusal;
        }
        context.print(answer, fmt::format("{} is on {} now; {} is free", name, begun.value("to", ""), begun.value("from", "")));
    }

    void take_back(Context& context) const {
        const Json answer = context.call("move.abort", {{"device", name}}, "taking the move back");
        context.print(answer, fmt::format("{} is on {} as before; {}", name, answer.value("from", ""),
                                          answer.value("removed", false) ? answer.value("to", "") + ", which the move had made, is removed"
                                                                         : answer.value("to", "") + " has part of its data"));
    }

    void set_paused(Context& context) const {
        const Json move = context.call(pause ? "move.pause" : "move.resume", {{"device", name}});
        context.print(move, fmt::format("the move of {} {}, {} left", name, pause ? "rests" : "goes on", human_size(count(move, "left_bytes"))));
    }

    static void list(Context& context) {
        const Json moves = context.call("move.list", Json::object());
        Columns columns{{"VOLUME", "FROM", "TO", "STATE", "DONE>", "OF>", "RATE>"}};
        std::string why;
        for (const Json& move : moves) {
            const std::uint64_t bytes = count(move, "bytes"), left = count(move, "left_bytes"), speed = count(move, "bytes_per_second");
            columns.add({move.value("device", ""), move.value("from", ""), move.value("to", ""), move.value("state", ""),
                         bytes == 0 || !move.contains("left_bytes") ? "" : fmt::format("{}%", (bytes - left) * 100 / bytes), human_size(bytes), speed == 0 ? "" : human_size(speed) + "/s"});
            if (move.contains("because")) why += fmt::format("{}: {}\n", move.value("device", ""), move["because"].get<std::string>());
        }
        context.print(moves, moves.empty() ? "Nothing moves. `udm move VOLUME DEST` moves a volume while it is used." : columns.text() + why);
    }
};

}  // namespace

void add_move_command(CLI::App& app, Context& context) {
    auto move = std::make_shared<Move>();
    auto* command = app.add_subcommand("move", "Move a volume in use to another device or host; without words, what moves now");
    command->add_option("VOLUME", move->name, "Alone: waits for a move that is under way");
    command->add_option("DEST", move->to, "File (made, if there is none), block device or NBD URI; what is in it is overwritten");
    command->add_option("--rate", move->rate, "At most so many bytes a second: 50M; 0: no limit. Also of a move that is under way");
    command->add_flag("--background", move->background, "Do not wait");
    command->add_flag("--pause", move->pause, "Copy nothing until --resume; the volume is used on");
    command->add_flag("--resume", move->resume, "Go on copying");
    command->add_flag("--abort", move->abort, "Stay where it was; a file that the move has made is removed");
    command->callback([move, &context] { move->run(context); });
}

}  // namespace udm::app
