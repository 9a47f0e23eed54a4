// udm create, remove, show, ls, resize, set.
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fcntl.h>
#include <filesystem>
#include <iostream>

#include "base/parse.hpp"
#include "apps/udm/commands.hpp"

namespace udm::app {
namespace {

void make_file(const std::string& path, std::uint64_t bytes) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) throw Refusal(fmt::format("{}: {}", path, std::strerror(errno)));
    const int failed = ::ftruncate(fd, static_cast<off_t>(bytes)) == 0 ? 0 : errno;
    ::close(fd);
    if (failed) {
        ::unlink(path.c_str());
        throw Refusal(fmt::format("{}: {}", path, std::strerror(failed)));
    }
}

bool is_memory(const std::string& word) { return word.starts_with("ram:"); }

struct Create {
    std::string name, file, table, size, uuid;
    bool read_only = false;

    void run(Context& context) const {
        if (file.empty() == table.empty()) throw Refusal("say FILE, or --table with the lines of a table", "udm create disk0 disk0.img");
        Json params{{"name", name}, {"read_only", read_only}};
        if (!uuid.empty()) params["uuid"] = uuid;
        if (!table.empty()) {
            params["table"] = table == "-" ? std::string{std::istreambuf_iterator<char>{std::cin}, {}} : table;
        } else {
            params["table"] = table_for_file();
        }
        const Json info = context.call("device.create", std::move(params));
        context.print(info, fmt::format("{} is there: {}", name, human_sectors(info["size"])));
    }

    std::string table_for_file() const {
        if (is_memory(file)) {
            if (size.empty()) throw Refusal("memory needs --size", fmt::format("udm create {} ram:{} --size 1G", name, name));
            const std::uint64_t bytes = size_argument(size, "--size");
            return fmt::format("0 {} linear {}:{} 0", bytes / 512, file, bytes);
        }
        const std::string path = absolute(file);
        std::uint64_t bytes = size_of(path);
        if (!size.empty()) {
            const std::uint64_t wanted = size_argument(size, "--size");
            if (!std::filesystem::exists(path)) {
                make_file(path, wanted);
                bytes = wanted;
            }
            if (wanted > bytes) throw Refusal(fmt::format("{} has {}, less than --size {}", path, human_size(bytes), size));
            bytes = wanted;
        }
        if (bytes < 512) {
            throw Refusal(std::filesystem::exists(path) ? fmt::format("{} is smaller than a sector", path) : fmt::format("{} does not exist", path),
                          "--size 10G makes a new, sparse file");
        }
        return fmt::format("0 {} linear {} 0", bytes / 512, quote_word(path));
    }
};

std::string state_word(const Json& info) {
    if (info["held_because"].is_string()) return "held";
    return info["state"].get<std::string>();
}

std::string exports_word(const Json& info) {
    return info.contains("exports") && !info["exports"].empty() ? std::to_string(info["exports"].size()) : "-";
}

void list(Context& context) {
    const Json devices = context.call("device.list");
    if (devices.empty()) {
        context.print(devices, "No devices. `udm create NAME FILE` makes one, `udm serve FILE` serves an image at once.");
        return;
    }
    Columns columns{{"NAME", "SIZE>", "STATE", "ACCESS", "USED BY>", "EXPORTS>", "TARGETS"}};
    for (const Json& info : devices) {
        std::string targets;
        if (info["live_table"].get<bool>()) {
            for (const Json& line : context.call("table.status", {{"device", info["name"]}, {"noflush", true}})) {
                const std::string type = line["type"];
                if (targets.find(type) == std::string::npos) targets += (targets.empty() ? "" : ",") + type;
            }
        }
        columns.add({info["name"], human_sectors(info["size"]), state_word(info), info["read_only"].get<bool>() ? "ro" : "rw",
                     std::to_string(info["open_count"].get<int>()), exports_word(info), targets});
    }
    context.print(devices, columns.text());
}

void show(Context& context, const std::string& name) {
    Json info = context.call("device.info", {{"device", name}});
    const Json table = info["live_table"].get<bool>() ? context.call("table.get", {{"device", name}}) : Json::array();
    const Json status = info["live_table"].get<bool>() ? context.call("table.status", {{"device", name}, {"noflush", true}}) : Json::array();
    const Json counters = context.call("device.counters", {{"device", name}}).at(0);
    const Json exports = context.call("export.list", {{"device", name}});
    std::string text = fmt::format("{}  {}  {}{}\n", name, human_sectors(info["size"]), state_word(info), info["read_only"].get<bool>() ? ", read-only" : "");
    if (info["held_because"].is_string()) text += fmt::format("  held because: {}\n", info["held_because"].get<std::string>());
    if (!info["uuid"].get<std::string>().empty()) text += fmt::format("  uuid: {}\n", info["uuid"].get<std::string>());
    text += fmt::format("  number {}:{}, event {}, used by {}\n", info["major"].get<int>(), info["minor"].get<int>(), info["event_number"].get<int>(),
                        info["open_count"].get<int>());
    for (std::size_t i = 0; i < table.size(); ++i) {
        text += fmt::format("  table   {} {} {} {}\n", table[i]["start"].get<std::uint64_t>(), table[i]["length"].get<std::uint64_t>(),
                            table[i]["type"].get<std::string>(), table[i]["text"].get<std::string>());
        if (i < status.size() && !status[i]["text"].get<std::string>().empty()) text += fmt::format("  status  {}\n", status[i]["text"].get<std::string>());
    }
    for (const Json& e : exports) text += fmt::format("  export  {} ({} connections)\n", e["uri"].get<std::string>(), e["connections"].get<int>());
    for (const char* op : {"read", "write", "flush", "discard", "write_zeroes"}) {
        const Json& c = counters[op];
        if (c["requests"].get<std::uint64_t>() == 0) continue;
        text += fmt::format("  {:12} {} requests, {}{}\n", op, c["requests"].get<std::uint64_t>(), human_sectors(c["sectors"]),
                            c["errors"].get<std::uint64_t>() ? fmt::format(", {} failed", c["errors"].get<std::uint64_t>()) : "");
    }
    info["table"] = table;
    info["status"] = status;
    info["counters"] = counters;
    info["exports"] = exports;
    context.print(info, text);
}

void remove(Context& context, const std::vector<std::string>& names, bool force, bool deferred, bool unexport) {
    Json removed = Json::array();
    for (const std::string& name : names) {
        if (unexport) context.call("export.remove", {{"device", name}});
        removed.push_back(context.call("device.remove", {{"device", name}, {"force", force}, {"deferred", deferred}}));
        removed.back()["device"] = name;
        if (!context.json) {
            context.print({}, removed.back()["deferred"].get<bool>() ? fmt::format("{} goes when nobody uses it any more", name)
                                                                    : fmt::format("{} removed", name));
        }
    }
    if (context.json) context.print(removed, {});
}

// The table again, with another length: of a device that is one line over one device from its start.
void resize(Context& context, const std::string& name, const std::string& size, bool shrink) {
    const Json table = context.call("table.get", {{"device", name}});
    const auto params = table.size() == 1 ? table[0]["text"].get<std::string>() : std::string{};
    const std::string type = table.size() == 1 ? table[0]["type"].get<std::string>() : std::string{};
    if (type != "linear" && type != "snapshot-origin") {
        throw Refusal(fmt::format("{} is not one linear or snapshot-origin line; its table must be changed by hand", name),
                      fmt::format("udmsetup load {} …; udmsetup resume {}", name, name));
    }
    const std::string path = params.substr(0, params.find(' '));
    const bool is_file = path.starts_with('/') && !path.starts_with("/dev/mapper/");
    std::uint64_t bytes = 0;
    if (!size.empty()) bytes = size_argument(size, "SIZE");
    if (is_file) {
        const std::uint64_t there = size_of(path);
        if (bytes == 0) bytes = there - there % 512;
        if (bytes > there) {
            struct stat about{};
            if (::stat(path.c_str(), &about) != 0 || !S_ISREG(about.st_mode)) {
                throw Refusal(fmt::format("{} has {}, and is no file that could grow", path, human_size(there)));
            }
            if (::truncate(path.c_str(), static_cast<off_t>(bytes)) != 0) throw Refusal(fmt::format("{}: {}", path, std::strerror(errno)));
        }
    } else if (bytes == 0) {
        throw Refusal("say SIZE: there is no file whose size could be taken");
    }
    const std::uint64_t before = table[0]["length"].get<std::uint64_t>() * 512;
    if (bytes < before && !shrink) {
        throw Refusal(fmt::format("{} has {}; {} would cut off its end", name, human_size(before), human_size(bytes)), "--shrink if that is meant");
    }
    context.call("table.load", {{"device", name}, {"table", fmt::format("0 {} {} {}", bytes / 512, type, params)}});
    const Json info = context.call("device.resume", {{"device", name}});
    context.print(info, fmt::format("{}: {} -> {}. Clients see it when they connect again.", name, human_size(before), human_size(bytes)));
}

void set(Context& context, const std::string& name, const std::vector<std::string>& assignments) {
    Json settings = context.call("device.info", {{"device", name}}).value("settings", Json::object());
    for (const std::string& assignment : assignments) {
        const auto equals = assignment.find('=');
        if (equals == std::string::npos || equals == 0) throw Refusal(fmt::format("'{}' is not KEY=VALUE", assignment), "KEY= goes back to the default");
        const std::string value = assignment.substr(equals + 1);
        settings = context.call("device.set", {{"device", name}, {"key", assignment.substr(0, equals)},
                                               {"value", value.empty() ? Json() : Json(value)}})["settings"];
    }
    std::string text;
    for (const auto& [key, value] : settings.items()) text += fmt::format("{}={}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    context.print({{"settings", settings}}, text.empty() ? fmt::format("{} has no settings of its own", name) : text);
}

}  // namespace

void add_device_commands(CLI::App& app, Context& context) {
    auto* create = app.add_subcommand("create", "Make a device of an image, a disk, memory, or the lines of a table");
    auto options = std::make_shared<Create>();
    create->add_option("NAME", options->name, "What it is called")->required();
    create->add_option("FILE", options->file, "Image, block device, or ram:WORD");
    create->add_option("--size", options->size, "Of a new file (made sparse) or of memory; of an old file, how much of it is used");
    create->add_option("--table", options->table, "Lines of a table, as dmsetup takes them; - reads standard input");
    create->add_option("--uuid", options->uuid, "At most 128 characters");
    create->add_flag("--read-only", options->read_only, "Writes fail");
    create->callback([options, &context] { options->run(context); });

    auto* gone = app.add_subcommand("remove", "Remove devices");
    auto names = std::make_shared<std::vector<std::string>>();
    auto flags = std::make_shared<std::array<bool, 3>>();
    gone->add_option("NAME", *names)->required();
    gone->add_flag("--force", (*flags)[0], "Even when in use: what uses it gets errors");
    gone->add_flag("--deferred", (*flags)[1], "When nobody uses it any more");
    gone->add_flag("--unexport", (*flags)[2], "End its exports first");
    gone->callback([names, flags, &context] { remove(context, *names, (*flags)[0], (*flags)[1], (*flags)[2]); });

    auto name = std::make_shared<std::string>();
    auto* shown = app.add_subcommand("show", "All about one device");
    shown->add_option("NAME", *name)->required();
    shown->callback([name, &context] { show(context, *name); });

    app.add_subcommand("ls", "List the devices")->callback([&context] { list(context); });

    auto* resized = app.add_subcommand("resize", "Give a device another size while it is in use");
    auto size = std::make_shared<std::string>();
    auto shrink = std::make_shared<bool>(false);
    resized->add_option("NAME", *name)->required();
    resized->add_option("SIZE", *size, "10G; without it, the size its file has now. A file grows to it");
    resized->add_flag("--shrink", *shrink, "Cut off the end");
    resized->callback([name, size, shrink, &context] { resize(context, *name, *size, *shrink); });

    auto* settings = app.add_subcommand("set", "Change settings of a device, or show them");
    auto assignments = std::make_shared<std::vector<std::string>>();
    settings->add_option("NAME", *name)->required();
    settings->add_option("KEY=VALUE", *assignments);
    settings->callback([name, assignments, &context] { set(context, *name, *assignments); });
}

}  // namespace udm::app
