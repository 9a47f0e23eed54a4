// udm completion: shell completion, made from the tree of commands itself, so that it cannot fall behind.
#include <fmt/format.h>

#include "apps/udm/commands.hpp"

namespace udm::app {
namespace {

// "path:words" for each command: the subcommands and options one may type there.
void collect(const CLI::App& app, const std::string& path, std::vector<std::pair<std::string, std::string>>& out) {
    std::string words;
    const auto add = [&](const std::string& word) { words += (words.empty() ? "" : " ") + word; };
    for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) add(sub->get_name());
    for (const CLI::Option* option : app.get_options()) {
        for (const std::string& name : option->get_lnames()) add("--" + name);
    }
    out.emplace_back(path, words);
    for (const CLI::App* sub : app.get_subcommands([](const CLI::App*) { return true; })) {
        collect(*sub, path + (path.empty() ? "" : " ") + sub->get_name(), out);
    }
}

std::string for_bash(const std::vector<std::pair<std::string, std::string>>& tree) {
    std::string cases;
    for (const auto& [path, words] : tree) cases += fmt::format("        '{}') words='{}' ;;\n", path, words);
    return fmt::format(
        "# bash completion of udm: source it, or put it into /usr/share/bash-completion/completions/udm\n"
        "_udm() {{\n"
        "    local current=${{COMP_WORDS[COMP_CWORD]}} path= words= word i\n"
        "    for ((i = 1; i < COMP_CWORD; i++)); do\n"
        "        word=${{COMP_WORDS[i]}}\n"
        "        case \"$path${{path:+ }}$word\" in\n"
        "            {}) path=\"$path${{path:+ }}$word\" ;;\n"
        "        esac\n"
        "    done\n"
        "    case $path in\n{}    esac\n"
        "    case $current in\n"
        "        -*) ;;\n"
        "        *) case $path in\n"
        "               show|remove|resize|set|export|unexport|events|'snapshot take'|'snapshot drop'|'snapshot list')\n"
        "                   words=\"$words $(udmsetup info -c --noheadings -o name 2>/dev/null)\" ;;\n"
        "           esac ;;\n"
        "    esac\n"
        "    mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$current\")\n"
        "    [ ${{#COMPREPLY[@]}} -gt 0 ] || mapfile -t COMPREPLY < <(compgen -f -- \"$current\")\n"
        "}}\n"
        "complete -o filenames -F _udm udm\n",
        [&] {
            std::string paths;
            for (const auto& [path, words] : tree) {
                if (!path.empty()) paths += (paths.empty() ? "'" : "|'") + path + "'";
            }
            return paths;
        }(),
        cases);
}

std::string for_fish(const std::vector<std::pair<std::string, std::string>>& tree) {
    std::string text = "# fish completion of udm: put it into ~/.config/fish/completions/udm.fish\n";
    for (const auto& [path, words] : tree) {
        const std::string condition = path.empty() ? "__fish_use_subcommand" : "__fish_seen_subcommand_from " + path.substr(path.rfind(' ') + 1);
        std::string plain, rest = words + " ";
        for (std::size_t at; (at = rest.find(' ')) != std::string::npos; rest.erase(0, at + 1)) {
            const std::string word = rest.substr(0, at);
            if (word.starts_with("--")) {
                text += fmt::format("complete -c udm -n '{}' -l {}\n", condition, word.substr(2));
            } else if (!word.empty()) {
                plain += word + " ";
            }
        }
        if (!plain.empty()) text += fmt::format("complete -c udm -n '{}' -a '{}'\n", condition, plain);
    }
    return text;
}

}  // namespace

void add_completion_command(CLI::App& app, Context& context) {
    auto* command = app.add_subcommand("completion", "Print the completion script of a shell");
    auto shell = std::make_shared<std::string>();
    command->add_option("SHELL", *shell, "bash, zsh or fish")->required()->check(CLI::IsMember({"bash", "zsh", "fish"}));
    command->callback([shell, &app, &context] {
        std::vector<std::pair<std::string, std::string>> tree;
        collect(app, "", tree);
        std::string text = *shell == "fish" ? for_fish(tree) : for_bash(tree);
        if (*shell == "zsh") text = "#compdef udm\nautoload -U +X bashcompinit && bashcompinit\n" + text;
        context.print({{"shell", *shell}, {"script", text}}, text);
    });
}

}  // namespace udm::app
