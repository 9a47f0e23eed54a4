// udm ls, show, remove, set.
#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <functional>
#include <map>
#include <set>

#include "apps/udm/commands.hpp"
#include "apps/udm/mirror_text.hpp"
#include "apps/udm/stores.hpp"
#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

std::string state_word(const Json& info) {
    if (info.contains("held_because") && info["held_because"].is_string()) return "held";
    return info.value("state", "");
}

std::uint64_t number(const Json& object, const char* key) { return object.value(key, std::uint64_t{0}); }

std::string uses_word(const Json& info) {
    const std::uint64_t exports = info.contains("exports") ? info["exports"].size() : 0;
    const std::uint64_t opens = number(info, "open_count");
    std::vector<std::string> parts;
    if (opens > exports)
        parts.push_back(fmt::format("{} table{}", opens - exports, opens - exports == 1 ? "" : "s"));
    if (exports > 0) parts.push_back(fmt::format("{} export{}", exports, exports == 1 ? "" : "s"));
    return parts.empty() ? "-" : fmt::format("{}", fmt::join(parts, ", "));
}

std::string target_types(const Json& info) {
    std::vector<std::string> types;
    for (const Json& type : info.value("target_types", Json::array())) types.push_back(type);
    return fmt::format("{}", fmt::join(types, ","));
}

void list(Context& context, bool names_only) {
    const Json devices = context.list("device.list", "name");
    if (names_only) {
        std::string text;
        Json names = Json::array();
        for (const Json& info : devices) {
            names.push_back(info["name"]);
            text += info.value("name", "") + "\n";
        }
        context.print(names, text);
        return;
    }
    if (context.json || devices.empty()) {
        context.print(
            devices,
            "No devices. `udm create NAME FILE` makes one, `udm serve FILE` serves an image at once.");
        return;
    }
    Columns columns{{"NAME", "SIZE>", "STATE", "ACCESS", "TARGETS", "USED BY"}};
    std::string held;
    const auto troubled = troubled_stores(context);
    for (const auto& [name, store] : troubled) held += store.words + "\n";
    for (const Json& info : devices) {
        const auto trouble = troubled.find(info.value("name", ""));
        const bool active = trouble != troubled.end() && state_word(info) == "active";
        columns.add({info.value("name", ""), human_sectors(number(info, "size")), active ? trouble->second.state : state_word(info),
                     info.value("read_only", false) ? "ro" : "rw", target_types(info),
                     uses_word(info)});
        if (const std::string why = held_words(info); !why.empty()) held += fmt::format("{} is held: {}\n", info.value("name", ""), why);
        if (const std::string trouble = info.value("trouble", ""); !trouble.empty()) held += fmt::format("{}: {}\n", info.value("name", ""), trouble);
    }
    context.print(devices, columns.text() + held);
}

// Each device with what its table stands on below it, as often as it is used.
void tree(Context& context) {
    std::map<std::string, Json> uses;
    std::set<std::string> below;
    Json all = Json::array();
    for (const Json& info : context.list("device.list", "name")) {
        const std::string name = info.value("name", "");
        Json list = Json::array();
        for (const Json& one : context.call("device.deps", {{"device", name}})) {
            const bool mapped = one["name"].is_string();
            list.push_back(mapped ? Json{{"device", one["name"]}} : Json{{"file", one["words"]}});
            if (mapped) below.insert(one["name"].get<std::string>());
        }
        all.push_back({{"name", name}, {"uses", list}});
        uses[name] = std::move(list);
    }
    std::string text;
    const std::function<void(const std::string&, std::size_t)> draw = [&](const std::string& name, std::size_t depth) {
        text += std::string(2 * depth, ' ') + name + "\n";
        for (const Json& one : uses[name]) {
            if (one.contains("device")) draw(one["device"], depth + 1);
            else text += std::string(2 * depth + 2, ' ') + one.value("file", "") + "\n";
        }
    };
    for (const Json& one : all) {
        if (const std::string name = one.value("name", ""); !below.contains(name)) draw(name, 0);
    }
    context.print(all, text.empty() ? "No devices. `udm create NAME FILE` makes one." : text);
}

// "merge_left_bytes": 4096 as "merge left 4.0 KiB": the names say the unit.
std::string detail_lines(const Json& details, bool of_mirror) {
    std::string text;
    for (const auto& [key, value] : details.items()) {
        if (of_mirror && is_in_mirror_lines(key)) continue;
        std::string name = key;
        const bool rate = name.ends_with("_bytes_per_second");
        std::string words = value.dump();
        if (rate || name.ends_with("_bytes")) {
            words = human_size(value.get<std::uint64_t>()) + (rate ? "/s" : "");
            name.resize(name.rfind("_bytes"));
            if (rate) name += " rate";
        }
        std::replace(name.begin(), name.end(), '_', ' ');
        text += fmt::format("           {} {}\n", name, words);
    }
    return text;
}

// Of the mirror that begins at this sector.
std::string mirror_text(const Json& mirrors, std::uint64_t start) {
    std::string text;
    for (const Json& mirror : mirrors) {
        if (number(mirror, "start") != start) continue;
        for (const std::string& line : mirror_lines(mirror)) text += fmt::format("           {}\n", line);
    }
    return text;
}

// Of a snapshot's store, from its status: USED/TOTAL METADATA.
std::string fullness(const std::string& type, const std::string& status) {
    unsigned long long used = 0, total = 0;
    if (!type.starts_with("snapshot") || std::sscanf(status.c_str(), "%llu/%llu", &used, &total) != 2 || total == 0) return {};
    return fmt::format(" ({} of {}: {}% full)", human_sectors(used), human_sectors(total), percent_full(used, total));
}

void show(Context& context, const std::string& name) {
    Json info = context.call("device.info", {{"device", name}, {"users", true}});
    const bool live = info.value("live_table", false);
    const Json table = live ? context.call("table.get", {{"device", name}}) : Json::array();
    const Json status =
        live ? context.call("table.status", {{"device", name}, {"noflush", true}}) : Json::array();
    const auto is_mirror = [](const Json& line) { return line.value("type", "") == "mirror"; };
    const Json mirrors = std::any_of(status.begin(), status.end(), is_mirror) ? context.call("table.regions", {{"device", name}, {"cells", 1}}) : Json::array();
    const Json counters = context.call("device.counters", {{"device", name}}).at(0);
    const Json exports = context.call("export.list", {{"device", name}});
    const auto users = info.value("users", std::vector<std::string>{});

    std::string text =
        fmt::format("{}: {}, {}{}{}\n", name, human_sectors(number(info, "size")), state_word(info),
                    info.value("read_only", false) ? ", read-only" : "",
                    info.value("deferred_remove", false) ? ", goes when nobody uses it any more" : "");
    if (const std::string why = held_words(info); !why.empty()) text += fmt::format("  held because {}\n", why);
    if (const std::string trouble = info.value("trouble", ""); !trouble.empty()) text += fmt::format("  trouble  {}\n", trouble);
    for (const char* const of : {"origin", "snapshot"}) {
        const auto troubled = troubled_stores(context, {{of, name}});
        if (const auto found = troubled.find(name); found != troubled.end()) text += "  " + found->second.words + "\n";
    }
    text += fmt::format("  number   {}:{}, event {}\n", number(info, "major"), number(info, "minor"),
                        number(info, "event_number"));
    if (const std::string uuid = info.value("uuid", ""); !uuid.empty())
        text += fmt::format("  uuid     {}\n", uuid);
    for (std::size_t i = 0; i < table.size(); ++i) {
        const auto words = [](const Json& line) { return line.value("text", ""); };
        text += fmt::format("  table    {} {} {} {}\n", number(table[i], "start"), number(table[i], "length"),
                            table[i].value("type", ""), words(table[i]));
        if (i < status.size() && !words(status[i]).empty())
            text += fmt::format("  status   {}{}\n", words(status[i]), fullness(table[i].value("type", ""), words(status[i])));
        if (i < status.size() && status[i].contains("trouble"))
            text += fmt::format("  because  {}\n", status[i]["trouble"].get<std::string>());
        if (i >= status.size()) continue;
        if (is_mirror(status[i])) text += mirror_text(mirrors, number(status[i], "start"));
        text += detail_lines(status[i].value("details", Json::object()), is_mirror(status[i]));
    }
    const bool mirror = !table.empty() && table[0].value("type", "") == "mirror";
    for (const Json& move : mirror ? context.call("move.list", {{"device", name}}) : Json::array()) {
        text += fmt::format("  moves    to {}: {}, {} left; `udm move {}` waits for it\n", move.value("to", ""), move.value("state", ""),
                            human_size(number(move, "left_bytes")), name);
        info["moves"] = move;
    }
    if (info.value("inactive_table", false)) text += "  another table waits for a resume\n";
    if (!users.empty()) text += fmt::format("  used by  {}\n", fmt::join(users, ", "));
    for (const Json& one : exports) {
        const std::uint64_t clients = number(one, "connections");
        text += fmt::format("  export   {}{}, {} connection{}\n", one.value("uri", ""),
                            one.value("read_only", false) ? " (read-only)" : "", clients,
                            clients == 1 ? "" : "s");
    }
    const Json settings = info.value("settings", Json::object());    // lives as long as the loop over its items
    for (const auto& [key, value] : settings.items()) {
        text += fmt::format("  setting  {}={}\n", key,
                            value.is_string() ? value.get<std::string>() : value.dump());
    }
    for (const auto& [key, word] : {std::pair{"read", "reads"},
                                    {"write", "writes"},
                                    {"flush", "flushes"},
                                    {"discard", "discards"},
                                    {"write_zeroes", "zeroes"}}) {
        const Json one = counters.value(key, Json::object());
        if (number(one, "requests") == 0) continue;
        text += fmt::format("  {:<8} {}", word, number(one, "requests"));
        if (number(one, "sectors") != 0) text += ", " + human_sectors(number(one, "sectors"));
        if (number(one, "errors") != 0) text += fmt::format(", {} failed", number(one, "errors"));
        text += '\n';
    }
    if (const auto held = number(counters, "held_back"); held != 0)
        text += fmt::format("  {} requests wait for a resume\n", held);
    info["table"] = table;
    info["status"] = status;
    info["counters"] = counters;
    info["exports"] = exports;
    context.print(info, text);
}

struct Remove {
    std::vector<std::string> names;
    bool force = false, deferred = false, unexport = false;

    void run(Context& context) const {
        Json removed = Json::array();
        for (const std::string& name : names) {
            if (!force) refuse_with_snapshots(context, name);
            if (unexport) context.end_exports(name);
            Json answer = remove(context, name);
            const bool later = answer.value("deferred", false);
            answer["device"] = name;
            if (const std::string kept = answer.value("kept", ""); !kept.empty())
                context.note(fmt::format("what was written to {} since its last still image is in {}, which stays there", name, kept));
            removed.push_back(std::move(answer));
            if (!context.json) {
                context.print({}, name + (later ? " goes when nobody uses it any more" : " removed"));
            }
        }
        if (context.json) context.print(removed, "");
    }

  private:
    Json remove(Context& context, const std::string& name) const {
        Json params{{"device", name}};
        if (force) params["force"] = params["careful"] = true;
        if (deferred) params["deferred"] = true;
        try {
            return context.call("device.remove", std::move(params), "removing " + name);
        } catch (const Refusal& refusal) {
            if (refusal.details.value("errno", 0) != EBUSY) throw;
            Refusal with_advice{refusal.what(), what_is_in_the_way(context, name)};
            with_advice.details = refusal.details;
            throw with_advice;
        }
    }

    static std::string what_is_in_the_way(Context& context, const std::string& name) {
        const Json info = context.call("device.info", {{"device", name}, {"users", true}});
        std::string advice;
        if (const auto users = info.value("users", std::vector<std::string>{}); !users.empty())
            advice = fmt::format("remove {} first", fmt::join(users, ", "));
        if (const auto uris = info.value("exports", std::vector<std::string>{}); !uris.empty())
            advice += fmt::format("{}`udm unexport {}` or --unexport ends {}", advice.empty() ? "" : "; ", name, fmt::join(uris, ", "));
        return advice;
    }

    // Without its origin a snapshot misses what is written to the file from then on.
    static void refuse_with_snapshots(Context& context, const std::string& name) {
        std::vector<std::string> snapshots;
        for (const Json& one : context.call("snapshot.list", {{"origin", name}, {"limit", 8}}))
            snapshots.push_back(one.value("snapshot", ""));
        if (snapshots.empty()) return;
        throw Refusal{fmt::format("{} has snapshots, which rely on it: {}", name, fmt::join(snapshots, ", ")),
                      "`udm snapshot drop` them first; --force removes it all the same"};
    }
};

// `device` empty: the daemon's. All are set, or none.
void set(Context& context, const std::string& device, const std::vector<std::string>& assignments) {
    Json wanted = Json::object();
    for (const std::string& assignment : assignments) {
        const auto equals = assignment.find('=');
        if (equals == std::string::npos || equals == 0)
            throw WrongWords{fmt::format("'{}' is not KEY=VALUE", assignment), "KEY= goes back to the default"};
        const std::string value = assignment.substr(equals + 1);
        wanted[assignment.substr(0, equals)] = value.empty() ? Json{} : Json(value);
    }
    Json params = Json::object();
    if (!device.empty()) params["device"] = device;
    const char* method = device.empty() ? "daemon.status" : "device.info";
    if (!wanted.empty()) {
        method = device.empty() ? "daemon.set" : "device.set";
        params["settings"] = wanted;
    }
    const Json answer = context.call(method, std::move(params));
    const Json settings = answer.value("settings", Json::object());
    std::string text;
    for (const auto& [key, value] : settings.items()) {
        text += fmt::format("{}={}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
    }
    context.print({{"settings", settings}},
                  text.empty() ? fmt::format("{} has no settings of its own", device) : text);
}

}  // namespace

void add_device_commands(CLI::App& app, Context& context) {
    auto names_only = std::make_shared<bool>(false);
    auto* listing = app.add_subcommand("ls", "List the devices");
    listing->add_flag("--names", *names_only, "Only their names, a line each");
    auto as_tree = std::make_shared<bool>(false);
    listing->add_flag("--tree", *as_tree, "What stands on what, down to the files");
    listing->callback([=, &context] { *as_tree ? tree(context) : list(context, *names_only); });

    auto name = std::make_shared<std::string>();
    auto* shown = app.add_subcommand("show", "All about one device");
    shown->add_option("NAME", *name)->required();
    shown->callback([name, &context] { show(context, *name); });

    auto remove = std::make_shared<Remove>();
    auto* gone = app.add_subcommand("remove", "Remove devices");
    gone->add_option("NAME", remove->names)->required();
    gone->add_flag("--unexport", remove->unexport, "End its exports first");
    gone->add_flag("--deferred", remove->deferred, "If it is in use, when nobody uses it any more");
    gone->add_flag("--force", remove->force,
                   "Although it has snapshots, which miss what comes; requests that wait get errors");
    gone->callback([remove, &context] { remove->run(context); });

    auto* settings = app.add_subcommand("set", "Change settings of a device or of the daemon, or show them");
    auto of_daemon = std::make_shared<bool>(false);
    auto words = std::make_shared<std::vector<std::string>>();
    settings->add_flag("--daemon", *of_daemon, "Of the daemon: no NAME");
    settings->add_option("NAME KEY=VALUE", *words, "Device and settings; KEY= goes back to the default");
    settings->callback([of_daemon, words, &context] {
        if (*of_daemon) return set(context, "", *words);
        if (words->empty()) throw WrongWords{"which device?", "`udm set NAME KEY=VALUE`, or `udm set --daemon KEY=VALUE`"};
        set(context, words->front(), {words->begin() + 1, words->end()});
    });
}

}  // namespace udm::app
