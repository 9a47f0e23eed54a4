// ls: names, a command for each, or the tree of what stands on what.
#include <langinfo.h>
#include <spawn.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>

#include "apps/udmsetup/device_fields.hpp"
#include "apps/udmsetup/tree.hpp"
#include "apps/udmsetup/verbs.hpp"

namespace udm::udmsetup {
namespace {

std::vector<std::string> split(std::string_view text, std::string_view separators) {
    std::vector<std::string> words;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t start = text.find_first_not_of(separators, at);
        if (start == std::string_view::npos) break;
        const std::size_t end = std::min(text.find_first_of(separators, start), text.size());
        words.emplace_back(text.substr(start, end - start));
        at = end;
    }
    return words;
}

// What the tree shows; options were checked when the command line was read.
struct TreeOptions {
    bool device = true, block_name = false, active = false, open = false, rw = false, uuid = false;
    bool inverted = false, truncate = true;
    TreeStyle style;

    TreeOptions(const std::string& words, std::FILE* out) {
        // Into a pipe dmsetup was seen to draw in ASCII, whatever the locale.
        const bool utf = ::isatty(::fileno(out)) != 0 && std::string_view{::nl_langinfo(CODESET)} == "UTF-8";
        style.lines = utf ? TreeLines::utf : TreeLines::ascii;
        for (const std::string& word : split(words, ",")) {
            if (word == "device") device = true;
            if (word == "nodevice") device = false;
            if (word == "blkdevname") block_name = true;
            if (word == "active") active = true;
            if (word == "open") open = true;
            if (word == "rw") rw = true;
            if (word == "uuid") uuid = true;
            if (word == "ascii") style.lines = TreeLines::ascii;
            if (word == "utf") style.lines = TreeLines::utf;
            if (word == "vt100") style.lines = TreeLines::vt100;
            if (word == "compact") style.compact = true;
            if (word == "inverted") inverted = true;
            if (word == "notrunc") truncate = false;
        }
        if (active || open || rw || uuid) style.compact = false;  // too wide
    }
};

class DeviceTree {
  public:
    DeviceTree(Session& session, const TreeOptions& options, const Json& all)
        : session_{session}, options_{options}, rows_{session} {
        for (const Json& info : all) add(info);
    }

    void print() {
        std::vector<std::size_t> roots;
        for (std::size_t i = 0; i < nodes_.size(); ++i) {
            if (!hidden_[i] && nodes_[i].parents == 0) roots.push_back(i);
        }
        std::vector<TreeNode> drawn;
        for (Node& node : nodes_) drawn.push_back(std::move(node.tree));
        print_tree(session_.out(), drawn, roots, options_.style);
    }

  private:
    struct Node {
        TreeNode tree;
        std::size_t parents = 0;
    };

    // A mapped device, and what it uses below it.
    void add(const Json& info) {
        const std::string number = fmt::format("{}:{}", info.value("major", 0u), info.value("minor", 0u));
        const std::string name = info.value("name", "");
        const std::size_t self = node(number);
        nodes_[self].tree.label = label(name, fmt::format("dm-{}", info.value("minor", 0u)), number, &info);
        hidden_[self] = false;
        for (const Dependency& used : rows_.dependencies(name)) {
            const std::size_t below = node(used.device_number());
            if (used.name.empty()) {
                nodes_[below].tree.label = label("", used.block_name(), used.device_number(), nullptr);
                hidden_[below] = !options_.device && !options_.block_name;  // nothing would be shown of it
            }
            if (hidden_[below] && used.name.empty()) continue;
            const std::size_t upper = options_.inverted ? below : self,
                              lower = options_.inverted ? self : below;
            nodes_[upper].tree.children.push_back(lower);
            ++nodes_[lower].parents;
        }
    }

    std::size_t node(const std::string& number) {
        const auto [at, added] = index_.emplace(number, nodes_.size());
        if (added) {
            nodes_.emplace_back();
            hidden_.push_back(true);
        }
        return at->second;
    }

    std::string label(const std::string& name, const std::string& block_name, const std::string& number,
                      const Json* info) const {
        std::string text = name;
        if (options_.block_name) text += fmt::format(" <{}>", block_name);
        if (options_.device) text += fmt::format(" ({})", number);
        std::vector<std::string> more;
        if (info != nullptr) {
            if (options_.active)
                more.emplace_back(info->value("state", "") == "suspended" ? "SUSPENDED" : "ACTIVE");
            if (options_.rw) more.emplace_back(info->value("read_only", false) ? "RO" : "RW");
            if (options_.open) more.push_back(std::to_string(info->value("open_count", 0u)));
            if (options_.uuid) more.push_back(info->value("uuid", ""));
        }
        if (!more.empty()) text += fmt::format(" [{}]", fmt::join(more, ", "));
        return text;
    }

    Session& session_;
    const TreeOptions& options_;
    DeviceRows rows_;
    std::vector<Node> nodes_;
    std::vector<bool> hidden_;
    std::map<std::string, std::size_t> index_;  // by device number
};

void show_tree(Session& session) {
    TreeOptions options{session.options.fields.value_or(""), session.out()};
    if (options.truncate) {
        winsize size{};
        options.style.is_terminal =
            ::ioctl(::fileno(session.out()), TIOCGWINSZ, &size) == 0 && size.ws_col != 0;
        options.style.width = options.style.is_terminal ? size.ws_col : 80;
    }
    if (session.json()) {
        DeviceRows rows{session};
        session.result = Json::array();
        Json all = session.list();
        for (Json& info : all) {
            info["uses"] = Json::array();
            for (const Dependency& used : rows.dependencies(info.value("name", ""))) {
                info["uses"].push_back({{"device", used.device_number()},
                                        {"name", used.name.empty() ? Json{} : Json(used.name)},
                                        {"words", used.words}});
            }
            session.add(std::move(info));
        }
        return;
    }
    const Json all = session.list();
    if (all.empty()) session.print("{}\n", kNoDevices);
    DeviceTree{session, options, all}.print();
}

// Runs the command with the device's path as the last word; how it ends doesn't matter.
void run_for(Session& session, const std::vector<std::string>& command, const std::string& name) {
    std::vector<std::string> words = command;
    words.push_back("/dev/mapper/" + name);
    std::vector<char*> arguments;
    for (std::string& word : words) arguments.push_back(word.data());
    arguments.push_back(nullptr);
    std::fflush(session.out());
    pid_t child = 0;
    if (const int error = ::posix_spawnp(&child, arguments[0], nullptr, nullptr, arguments.data(), environ);
        error != 0) {
        session.error("{}: {}", command[0], std::strerror(error));
        return;
    }
    int status = 0;
    while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
    }
}

bool has_target(Session& session, const std::string& name, const std::string& type) {
    const Json targets = session.call("table", DeviceRef::named(name), "table.get");
    return std::any_of(targets.begin(), targets.end(),
                       [&](const Json& t) { return t.value("type", "") == type; });
}

}  // namespace

void verb_ls(Session& session) {
    const Options& options = session.options;
    if (options.tree && !options.exec && !options.target) {
        show_tree(session);
        return;
    }
    std::vector<std::string> command;
    if (options.exec) {
        command = split(*options.exec, " \t");
        if (command.empty()) throw VerbFailed{};
    }
    const std::string_view style = options.fields ? std::string_view{*options.fields} : "devno";
    const std::string_view last = style.substr(style.rfind(',') + 1);
    for_each_device(session, true, [&](const Chosen& chosen) {
        const Json& info = *chosen.info;
        const std::string name = info.value("name", "");
        const unsigned major = info.value("major", 0u), minor = info.value("minor", 0u);
        if (options.target && !has_target(session, name, *options.target)) return;
        if (options.exec) {
            run_for(session, command, name);
        } else if (session.json()) {
            session.add({{"name", name}, {"major", major}, {"minor", minor}});
        } else if (options.target) {
            session.print("{}\t({}, {})\n", name, major, minor);
        } else if (last == "devname") {
            session.print("{}\t({})\n", name, name);
        } else if (last == "blkdevname") {
            session.print("{}\t(dm-{})\n", name, minor);
        } else {
            session.print("{}\t({}:{})\n", name, major, minor);
        }
    });
    if (session.json() && session.result.is_null()) session.result = Json::array();
}

}  // namespace udm::udmsetup
