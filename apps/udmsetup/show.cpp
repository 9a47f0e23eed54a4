// Verbs that show: info, status, table, deps, targets, version.
#include <algorithm>

#include "apps/udmsetup/device_fields.hpp"
#include "apps/udmsetup/names.hpp"
#include "apps/udmsetup/selection.hpp"
#include "apps/udmsetup/concise.hpp"
#include "apps/udmsetup/verbs.hpp"

namespace udm::udmsetup {
namespace {

constexpr std::string_view kLibraryVersion = "1.02.185 (2022-05-18)";  // of the dmsetup whose ways these are

// With --inactive the number of targets is that of the inactive table.
Json as_asked(Session& session, Json info) {
    if (session.options.inactive) {
        const bool there = info.value("inactive_table", false);
        info["targets"] =
            there ? session.ask("table.get", {{"device", info.at("name")}, {"inactive", true}}).size() : 0;
    }
    return info;
}

ReportOptions report_options(const Options& options) {
    return {!options.noheadings, options.nameprefixes, !options.unquoted, options.rows, options.separator};
}

void report_columns(Session& session) {
    const Options& options = session.options;
    std::optional<Selection> selection;
    if (options.selection) selection.emplace(device_fields(), *options.selection);
    Report report{device_fields(), options.fields.value_or(std::string{kInfoColumns}), kInfoColumns,
                  options.sort.value_or(""), report_options(options)};
    DeviceRows rows{session};
    std::vector<Json> infos;
    bool missing = false;
    if (!options.words.empty() || options.uuid || options.major) {
        std::vector<DeviceRef> devices;
        for (const std::string& word : options.words) devices.push_back(session.device_named(word));
        if (options.words.empty()) devices.push_back(session.device_by_options());
        for (const DeviceRef& device : devices) {
            auto info = session.find(device);
            if (!info) {
                missing = true;
                break;
            }
            infos.push_back(std::move(*info));
        }
    } else {
        Json all = session.list();
        for (Json& info : all) infos.push_back(std::move(info));
        if (infos.empty() && !session.json()) session.print("{}\n", kNoDevices);
    }
    if (session.json()) session.result = Json::array();
    for (Json& info : infos) {
        info = as_asked(session, std::move(info));
        const Row row = rows.row(info);
        if (session.json()) {
            if (!selection || selection->matches(row)) session.add(info);
        } else {
            report.add(row, selection ? &*selection : nullptr);
        }
    }
    report.print(session.out());
    if (missing) session.fail("Device does not exist.");
}

std::string line_of(const Json& target) {
    return fmt::format("{} {} {} {}", target.value("start", std::uint64_t{0}),
                       target.value("length", std::uint64_t{0}), target.value("type", ""),
                       target.value("text", ""));
}

constexpr const char* lines_word(bool table) { return table ? "table" : "status"; }

// The targets of a device as the daemon gives them, without those of other types than --target says.
Json targets_of(Session& session, const Chosen& chosen, bool table) {
    Json targets;
    if (chosen.info != nullptr && chosen.info->contains(lines_word(table))) {
        targets = chosen.info->at(lines_word(table));
    } else {
        Json params = Json::object();
        if (session.options.inactive) params["inactive"] = true;
        if (session.options.noflush && !table) params["noflush"] = true;
        targets = session.call("table", chosen.device, table ? "table.get" : "table.status", std::move(params));
    }
    if (const auto& wanted = session.options.target) {
        std::erase_if(*targets.get_ptr<Json::array_t*>(),
                      [&](const Json& t) { return t.value("type", "") != *wanted; });
    }
    return targets;
}

void show_lines(Session& session, const Chosen& chosen, bool table) {
    std::optional<Json> info;
    if (!table) {  // dmsetup asks for the device first here, and says so in other words
        info = chosen.info != nullptr ? std::optional{*chosen.info} : session.find(chosen.device);
        if (!info) session.fail("Device does not exist.");
    }
    const Json targets = targets_of(session, chosen, table);
    if (session.options.target && targets.empty()) return;
    const bool verbose = session.options.verbose > 0;
    std::string name = chosen.device.name;
    if (verbose || session.json() || (name.empty() && chosen.many)) {
        if (!info) info = session.find(chosen.device);
        if (info) name = info->value("name", "");
    }
    if (session.json()) {
        Json lines = Json::array();
        for (const Json& target : targets) {
            lines.push_back({{"start", target.at("start")},
                             {"length", target.at("length")},
                             {"type", target.at("type")},
                             {table ? "params" : "status", target.at("text")}});
        }
        session.add({{"name", name}, {"targets", std::move(lines)}});
        return;
    }
    if (verbose && info) print_info(session, *info);
    const std::string prefix = chosen.many && !verbose ? name + ": " : "";
    for (const Json& target : targets) session.print("{}{}\n", prefix, line_of(target));
    if (targets.empty()) session.print("{}\n", prefix);
    if (chosen.many && verbose) session.print("\n");
}

void show_concise(Session& session) {
    std::string text;
    for_each_device(session, true, [&](const Chosen& chosen) {
        const Json targets = targets_of(session, chosen, true);
        if (session.options.target && targets.empty()) return;
        const auto info = chosen.info != nullptr ? std::optional{*chosen.info} : session.find(chosen.device);
        if (!info) session.fail("Device does not exist.");
        if (!text.empty()) text += ';';
        text += fmt::format("{},{},{},{}", quote_concise(info->value("name", "")),
                            quote_concise(info->value("uuid", "")), info->value("minor", 0u),
                            info->value("read_only", false) ? "ro" : "rw");
        for (const Json& target : targets) text += "," + quote_concise(line_of(target));
    }, lines_word(true));
    if (session.json()) {
        session.result = {{"concise", text}};
    } else if (!text.empty()) {
        session.print("{}\n", text);
    }
}

}  // namespace

void verb_info(Session& session) {
    if (session.options.columns) {
        report_columns(session);
        return;
    }
    for_each_device(session, true, [&](const Chosen& chosen) {
        auto info = chosen.info != nullptr ? std::optional{*chosen.info} : session.find(chosen.device);
        if (!info) session.fail("Device does not exist.");
        print_info(session, as_asked(session, std::move(*info)));
    });
}

void verb_status(Session& session) {
    for_each_device(session, true, [&](const Chosen& chosen) { show_lines(session, chosen, false); }, lines_word(false));
}

void verb_table(Session& session) {
    if (session.options.concise) {
        show_concise(session);
        return;
    }
    for_each_device(session, true, [&](const Chosen& chosen) { show_lines(session, chosen, true); }, lines_word(true));
}

void verb_deps(Session& session) {
    const std::string_view style =
        session.options.fields ? std::string_view{*session.options.fields} : "devno";
    const std::string_view last = style.substr(style.rfind(',') + 1);  // the last one said counts
    for_each_device(session, true, [&](const Chosen& chosen) {
        const auto used = dependencies_of(session.call("deps", chosen.device, "device.deps"));
        std::string name = chosen.device.name;
        std::optional<Json> info;
        if (session.options.verbose > 0 || session.json()) {
            info = chosen.info != nullptr ? std::optional{*chosen.info} : session.find(chosen.device);
            if (info) name = info->value("name", "");
        }
        if (session.json()) {
            Json list = Json::array();
            for (const Dependency& one : used) {
                list.push_back({{"major", one.major},
                                {"minor", one.minor},
                                {"name", one.name.empty() ? Json{} : Json(one.name)},
                                {"words", one.words}});
            }
            session.add({{"name", name}, {"deps", std::move(list)}});
            return;
        }
        if (session.options.verbose > 0 && info) {
            print_info(session, *info);
        } else if (chosen.many) {
            session.print("{}: ", name);
        }
        session.print("{} dependencies\t:", used.size());
        for (const Dependency& one : used) {
            if (last == "devname") {
                session.print(" ({})", one.any_name());
            } else if (last == "blkdevname") {
                session.print(" ({})", one.block_name());
            } else {
                session.print(" ({}, {})", one.major, one.minor);
            }
        }
        session.print("\n");
        if (chosen.many && session.options.verbose > 0) session.print("\n");
    });
}

namespace {

void print_target(Session& session, const Json& target) {
    if (session.json()) {
        session.add(target);
        return;
    }
    const Json& version = target.at("version");
    session.print("{:<16} v{}.{}.{}\n", target.value("name", ""), version.at(0).get<unsigned>(),
                  version.at(1).get<unsigned>(), version.at(2).get<unsigned>());
}

}  // namespace

void verb_targets(Session& session) {
    const Json targets = session.ask("target.list");
    // The kernel shows what was registered last first.
    for (auto target = targets.rbegin(); target != targets.rend(); ++target) print_target(session, *target);
}

void verb_target_version(Session& session) {
    const Json targets = session.ask("target.list");
    for (const std::string& word : session.options.words) {
        const auto target = std::find_if(targets.begin(), targets.end(),
                                         [&](const Json& t) { return t.value("name", "") == word; });
        if (target == targets.end()) {
            session.fail("device-mapper: target-version ioctl on {}  failed: Invalid argument", word);
        }
        print_target(session, *target);
    }
}

void verb_version(Session& session) {
    if (!session.json()) session.print("Library version:   {}\n", kLibraryVersion);
    const Json version = session.ask("version");
    if (session.json()) {
        session.result = version;
        return;
    }
    const Json& driver = version.at("driver");
    session.print("Driver version:    {}.{}.{}\n", driver.at(0).get<unsigned>(), driver.at(1).get<unsigned>(),
                  driver.at(2).get<unsigned>());
}

void verb_splitname(Session& session) {
    const Options& options = session.options;
    const std::string subsystem = options.words.size() > 1 ? options.words[1] : "LVM";
    std::optional<Selection> selection;
    if (options.selection) selection.emplace(device_fields(), *options.selection);
    Report report{device_fields(), options.fields.value_or(std::string{kSplitNameColumns}), kSplitNameColumns,
                  options.sort.value_or(""), report_options(options)};
    if (session.json()) {
        const NameParts parts = split_name(options.words[0], subsystem);
        session.result = {{"subsystem", subsystem},
                          {"vg_name", parts.vg},
                          {"lv_name", parts.lv},
                          {"lv_layer", parts.layer}};
        return;
    }
    try {
        report.add(split_name_row(options.words[0], subsystem), selection ? &*selection : nullptr);
    } catch (const BadReport& bad) {
        session.fail("{}", bad.message);
    }
    report.print(session.out());
}

}  // namespace udm::udmsetup
