// udm resize: another size for a device that is in use.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "apps/udm/commands.hpp"
#include "apps/udm/text.hpp"
#include "base/parse.hpp"

namespace udm::app {
namespace {

struct Resize {
    std::string name, size;
    bool shrink = false;

    void run(Context& context) const {
        const Json table = context.call("table.get", {{"device", name}});
        const std::string type = table.size() == 1 ? table[0].value("type", "") : "";
        const auto words = table.size() == 1 ? split_words(table[0].value("text", "")) : split_words("");
        if (type == "snapshot") refuse_snapshot(words && words->size() > 1 ? (*words)[1] : "");
        if ((type != "linear" && type != "snapshot-origin") || !words || words->empty()) {
            throw Refusal{
                fmt::format(
                    "{} is more than one line of linear or snapshot-origin: its table says what its size is",
                    name),
                fmt::format("udmsetup load {0} ...; udmsetup resume {0}", name)};
        }
        refuse_redirected(context);
        const std::string& below = (*words)[0];
        const std::uint64_t offset =
            type == "linear" && words->size() > 1 ? parse_u64((*words)[1]).value_or(0) * 512 : 0;
        const std::uint64_t before = table[0].value("length", std::uint64_t{0}) * 512;
        const std::uint64_t bytes = wanted(context, below, offset);
        if (bytes < before && !shrink) {
            throw Refusal{fmt::format("{} has {}; {} would cut off its end", name, human_size(before),
                                      human_size(bytes)),
                          "--shrink if that is meant"};
        }
        context.call("table.load", {{"device", name},
                                    {"table", Json::array({{{"start", 0},
                                                            {"length", bytes / 512},
                                                            {"type", type},
                                                            {"params", table[0].value("text", "")}}})}});
        Json info;
        try {
            info = context.call("device.resume", {{"device", name}}, "waiting for requests under way");
        } catch (const Refusal&) {
            go_back(context);
            throw;
        }
        context.print(info, fmt::format("{}: {} -> {}. Clients see it when they connect again.", name,
                                        human_size(before), human_size(bytes)));
    }

  private:
    // What it stands on are still images of another size.
    void refuse_redirected(Context& context) const {
        std::string stills;
        for (const Json& one : context.call("snapshot.list", {{"origin", name}})) {
            if (one.value("redirect", false)) stills += " " + one.value("snapshot", "");
        }
        if (stills.empty()) return;
        throw Refusal{fmt::format("{} is redirected, and keeps its size while it stands on still images", name),
                      fmt::format("`udm snapshot drop{}`, which keeps what {} has, then resize it", stills, name)};
    }

    [[noreturn]] void refuse_snapshot(const std::string& store) const {
        throw Refusal{fmt::format("{} is a snapshot, and stays as large as its volume was when it was taken", name),
                      store.starts_with('/') ? fmt::format("more room for its store: `truncate -s SIZE {}` now, or `udm set {} auto_extend=1G` when it fills up", store, name)
                                             : "more room for its store: make that device larger; it is used at once"};
    }
    void go_back(Context& context) const {
        try {
            context.call("table.clear", {{"device", name}});
            context.call("device.resume", {{"device", name}});
        } catch (const Refusal& worse) {
            context.note(fmt::format("{} could not be put back: {}", name, worse.what()));
        }
    }

    // The new size; what is below grows to it if it is a file.
    std::uint64_t wanted(Context& context, const std::string& below, std::uint64_t offset) const {
        const bool mapped = below.starts_with("udm:") || below.starts_with("/dev/mapper/");
        const std::uint64_t asked = size.empty() ? 0 : size_argument(size, "SIZE");
        std::uint64_t there = 0;
        if (mapped) {
            const std::string lower = below.substr(below.starts_with("udm:") ? 4 : 12);
            there = context.call("device.info", {{"device", lower}}).value("size", std::uint64_t{0}) * 512;
            if (asked + offset > there) {
                throw Refusal{fmt::format("{} is on {}, which has {}", name, lower, human_size(there)),
                              fmt::format("`udm resize {}` first", lower)};
            }
        } else if (below.starts_with('/')) {
            there = size_of(below);
            if (asked + offset > there) grow(below, there, asked + offset);
        } else if (asked == 0) {
            throw WrongWords{fmt::format("say SIZE: {} has no size that could be looked up", below)};
        }
        if (asked != 0) return asked;
        if (there < offset + 512)
            throw Refusal{fmt::format("{} has {}: nothing is left for {}", below, human_size(there), name)};
        return (there - offset) / 512 * 512;
    }

    static void grow(const std::string& path, std::uint64_t there, std::uint64_t bytes) {
        struct stat about {};
        if (::stat(path.c_str(), &about) != 0 || !S_ISREG(about.st_mode)) {
            throw Refusal{fmt::format("{} has {}, and is no file that could grow", path, human_size(there))};
        }
        if (::truncate(path.c_str(), static_cast<off_t>(bytes)) != 0)
            throw Refusal{fmt::format("{}: {}", path, std::strerror(errno))};
    }
};

}  // namespace

void add_resize_command(CLI::App& app, Context& context) {
    auto resize = std::make_shared<Resize>();
    auto* command = app.add_subcommand("resize", "Give a device another size while it is in use");
    command->add_option("NAME", resize->name)->required();
    command->add_option("SIZE", resize->size,
                        "10G; without it, the size its file has now. A file grows to it");
    command->add_flag("--shrink", resize->shrink, "Cut off the end");
    command->callback([resize, &context] { resize->run(context); });
}

}  // namespace udm::app
