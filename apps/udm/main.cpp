// udm, the device mapper in user space, for people. Scripts that know dmsetup use udmsetup.
#include <fmt/format.h>

#include <algorithm>
#include <clocale>
#include <cstdio>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "apps/udm/commands.hpp"
#include "ctl/version.hpp"

namespace {

using namespace udm::app;

int report(const Context& context, const Refusal& refusal) {
    if (context.json) context.print(refusal.object(), {});
    fmt::print(stderr, "udm: {}\n", refusal.what());
    if (!refusal.advice().empty()) fmt::print(stderr, "  {}\n", refusal.advice());
    return refusal.code();
}

std::string path_of(const CLI::App& app) {
    std::string path = "udm";
    for (const CLI::App* at = &app; !at->get_subcommands().empty();) {
        at = at->get_subcommands().front();
        path += " " + at->get_name();
    }
    return path;
}

// What other programs call it.
constexpr std::pair<std::string_view, const char*> kMeant[] = {
    {"list", "ls"},          {"rm", "remove"},   {"delete", "remove"},          {"info", "show"},
    {"revert", "snapshot merge"}, {"rollback", "snapshot merge"}, {"restore", "snapshot merge"}, {"commit", "snapshot merge"},
    {"extend", "resize"},    {"grow", "resize"}, {"start", "serve"},            {"log", "events"},
};

// `udm take` is meant to be `udm snapshot take`.
WrongWords no_command(const CLI::App& app, const std::string& word, const std::string& path) {
    const auto* meant = std::find_if(std::begin(kMeant), std::end(kMeant), [&](const auto& one) { return one.first == word; });
    if (meant != std::end(kMeant) && path == "udm") return WrongWords{fmt::format("there is no command '{}'", word), fmt::format("`udm {}`?", meant->second)};
    for (const CLI::App* group : app.get_subcommands([](const CLI::App*) { return true; })) {
        if (!group->get_subcommands([&](const CLI::App* sub) { return sub->get_name() == word; }).empty())
            return WrongWords{fmt::format("there is no command '{}'", word),
                              fmt::format("`udm {} {}`? ({})", group->get_name(), word, group->get_subcommand(word)->get_description())};
    }
    return WrongWords{fmt::format("there is no command '{}'", word), fmt::format("`{} --help` lists them", path)};
}

// What the parser found wrong, and where its help is.
WrongWords wrong_words(const CLI::App& app, const CLI::ParseError& error) {
    const CLI::App* at = &app;
    while (!at->get_subcommands().empty()) at = at->get_subcommands().front();
    std::string commands;    // of a group that was given alone
    for (const CLI::App* sub : at->get_subcommands([](const CLI::App*) { return true; })) commands += (commands.empty() ? "" : ", ") + sub->get_name();
    if (!commands.empty() && error.get_exit_code() == static_cast<int>(CLI::ExitCodes::RequiredError))
        return WrongWords{fmt::format("{}what? There are {}", at == &app ? "" : at->get_name() + " ", commands), fmt::format("`{} --help` says what they do", path_of(app))};
    return WrongWords{error.what(), fmt::format("`{} --help` says what it takes", path_of(app))};
}

// `udm help create` is `udm create --help`. Refusal where there is no such command.
std::vector<std::string> words_of(int argc, char** argv, const CLI::App& app) {
    std::vector<std::string> words(argv + 1, argv + argc);
    const auto help = std::find_if(words.begin(), words.end(), [](const std::string& word) { return !word.starts_with('-'); });
    if (help == words.end() || *help != "help") return words;
    const CLI::App* at = &app;
    std::string path = "udm";
    for (auto word = help + 1; word != words.end() && !word->starts_with('-'); ++word) {
        const auto named = at->get_subcommands([&](const CLI::App* sub) { return sub->get_name() == *word; });
        if (named.empty()) throw no_command(app, *word, path);
        at = named.front();
        path += " " + *word;
    }
    words.erase(help);
    words.push_back("--help");
    return words;
}

int run(int argc, char** argv) {
    Context context;
    CLI::App app{"Live volumes and their snapshots: the device mapper in user space", "udm"};
    app.require_subcommand(1);
    app.fallthrough();
    app.set_version_flag("--version", std::string{"udm "} + udm::ctl::kVersion);
    app.add_option("--socket", context.socket,
                   "The daemon's control socket (else $UDM_SOCKET, else the usual place)");
    app.add_flag("--json", context.json, "Print JSON, for scripts");
    app.footer(
        "Exit status: 0 done, 1 failed, 2 wrong words. `udm COMMAND --help` says more; so does udm(1).");
    add_serve_command(app, context);
    add_create_command(app, context);
    add_device_commands(app, context);
    add_resize_command(app, context);
    add_move_command(app, context);
    add_snapshot_commands(app, context);
    add_mirror_commands(app, context);
    add_cow_commands(app, context);
    add_export_commands(app, context);
    add_watch_commands(app, context);
    add_status_command(app, context);
    add_completion_command(app, context);
    std::vector<std::string> topic;
    app.add_subcommand("help", "What a command is for, and its options")->add_option("COMMAND...", topic, "Such as: snapshot take");
    try {
        std::vector<std::string> words = words_of(argc, argv, app);
        std::reverse(words.begin(), words.end());  // so the parser wants them
        app.parse(std::move(words));
        return context.exit_code;
    } catch (const CLI::RequiredError& error) {
        const auto unknown = app.remaining(true);  // a word in the command's place is more to the point
        if (unknown.empty()) return report(context, wrong_words(app, error));
        return report(context, no_command(app, unknown.front(), path_of(app)));
    } catch (const CLI::ParseError& error) {
        if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
        return report(context, wrong_words(app, error));
    } catch (const Refusal& refusal) {
        return report(context, refusal);
    } catch (const udm::ctl::NoDaemon& none) {
        return report(context, Refusal{none.what(), context.socket.empty() ? "or `udm serve FILE`, which brings its own" : "or is --socket another path?"});
    } catch (const std::exception& error) {  // what no one thought of
        return report(context, Refusal{error.what()});
    }
}

}  // namespace

int main(int argc, char** argv) {
    std::setlocale(LC_CTYPE, "");
    return run(argc, argv);
}
