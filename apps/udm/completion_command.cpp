// udm completion: shell completion, made from the tree of commands itself, so that it cannot fall behind.
#include <fmt/format.h>

#include "apps/udm/commands.hpp"

namespace udm::app {
namespace {

// What may be typed after some words: "snapshot take" -> its options.
struct Place {
    std::string path;
    std::string commands;  // subcommands
    std::string options;   // with dashes
    std::string names;     // what the first argument is: "devices", "snapshots" or nothing
};

std::string kind_of_argument(const CLI::App& command) {
    for (const CLI::Option* option : command.get_options()) {
        if (!option->get_positional()) continue;
        const std::string name = option->get_name(true);
        if (name == "SNAPSHOT") return "snapshots";
        if (command.get_name() != "create" &&
            (name == "NAME" || name.starts_with("NAME ") || name == "VOLUME" || name == "DEVICE" || name == "ORIGIN" || name == "ORIGIN[=SNAP]"))
            return "devices";
        return "";
    }
    return "";
}

void collect(const CLI::App& command, const std::string& path, std::vector<Place>& out) {
    Place place{path, {}, {}, kind_of_argument(command)};
    const auto add = [](std::string& words, const std::string& word) {
        words += (words.empty() ? "" : " ") + word;
    };
    const auto subcommands = command.get_subcommands([](const CLI::App*) { return true; });
    for (const CLI::App* sub : subcommands) add(place.commands, sub->get_name());
    if (path == "completion") place.commands = "bash zsh fish";
    for (const CLI::Option* option : command.get_options()) {
        for (const std::string& name : option->get_lnames()) add(place.options, "--" + name);
    }
    out.push_back(place);
    for (const CLI::App* sub : subcommands)
        collect(*sub, path + (path.empty() ? "" : " ") + sub->get_name(), out);
}

constexpr const char* kBashHead =
    "# bash completion of udm: source it, or put it into /usr/share/bash-completion/completions/udm\n"
    "_udm() {\n"
    "    local current=${COMP_WORDS[COMP_CWORD]} path= words= options= names= word i\n"
    "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
    "        word=${COMP_WORDS[i]}\n"
    "        [[ $word == help && -z $path ]] && continue\n"
    "        case \"$path${path:+ }$word\" in\n";
constexpr const char* kBashTail =
    "    esac\n"
    "    if [[ $current == -* ]]; then\n"
    "        words=\"$options --socket --json\"\n"
    "    else\n"
    "        case $names in\n"
    "            devices) words+=\" $(udm ls --names 2>/dev/null)\" ;;\n"
    "            snapshots) words+=\" $(udm snapshot list --names 2>/dev/null)\" ;;\n"
    "        esac\n"
    "    fi\n"
    "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
    "    [ ${#COMPREPLY[@]} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
    "}\n"
    "complete -o filenames -F _udm udm\n";

std::string for_bash(const std::vector<Place>& places) {
    std::string paths, cases;
    for (const Place& place : places) {
        if (!place.path.empty()) paths += (paths.empty() ? "'" : "|'") + place.path + "'";
        cases +=
            fmt::format("        '{}') words='{}' options='{}' names={} ;;\n", place.path, place.commands, place.path.empty() ? "--help --version" : place.options,
                        place.names);
    }
    return fmt::format(
        "{}            {}) path=\"$path${{path:+ }}$word\" ;;\n        esac\n    done\n    case $path "
        "in\n{}{}",
        kBashHead, paths, cases, kBashTail);
}

std::string for_fish(const std::vector<Place>& places) {
    std::string text = "# fish completion of udm: put it into ~/.config/fish/completions/udm.fish\n";
    for (const Place& place : places) {
        const std::string condition = place.path.empty() ? "__fish_use_subcommand"
                                                         : "__fish_seen_subcommand_from " +
                                                               place.path.substr(place.path.rfind(' ') + 1);
        std::string rest = place.options;
        while (!rest.empty()) {
            const auto end = std::min(rest.find(' '), rest.size());
            text += fmt::format("complete -c udm -n '{}' -l {}\n", condition, rest.substr(2, end - 2));
            rest.erase(0, std::min(end + 1, rest.size()));
        }
        if (!place.commands.empty())
            text += fmt::format("complete -c udm -n '{}' -f -a '{}'\n", condition, place.commands);
        if (place.names == "devices")
            text += fmt::format("complete -c udm -n '{}' -f -a '(udm ls --names 2>/dev/null)'\n", condition);
        if (place.names == "snapshots") {
            text += fmt::format("complete -c udm -n '{}' -f -a '(udm snapshot list --names 2>/dev/null)'\n",
                                condition);
        }
    }
    return text;
}

}  // namespace

void add_completion_command(CLI::App& app, Context& context) {
    auto* command = app.add_subcommand("completion", "Print the completion script of a shell");
    auto shell = std::make_shared<std::string>();
    command->add_option("SHELL", *shell, "bash, zsh or fish")
        ->required()
        ->check(CLI::IsMember({"bash", "zsh", "fish"}));
    command->callback([shell, &app, &context] {
        std::vector<Place> places;
        collect(app, "", places);
        std::string text = *shell == "fish" ? for_fish(places) : for_bash(places);
        if (*shell == "zsh") text = "#compdef udm\nautoload -U +X bashcompinit && bashcompinit\n" + text;
        context.print({{"shell", *shell}, {"script", text}}, text);
    });
}

}  // namespace udm::app
