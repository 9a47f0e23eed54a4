#include "apps/udmsetup/verbs.hpp"

#include <algorithm>

#include "apps/udmsetup/device_fields.hpp"
#include "apps/udmsetup/selection.hpp"

namespace udm::udmsetup {
namespace {

// By the alphabet.
constexpr Verb kVerbs[] = {
    {"clear", 0, kAnyNumber, verb_clear, "clear DEVICE..."},
    {"create", 0, 2, verb_create,
     "create NAME [-u UUID] [-r] [-j MAJOR -m MINOR] [-n|--notable | --table TABLE | FILE]   (else the table "
     "is read from standard "
     "input)\ncreate --concise [NAME,UUID,MINOR,FLAGS,LINE[,LINE...][;...]]"},
    {"deps", 0, kAnyNumber, verb_deps, "deps [-o devno|devname|blkdevname] [DEVICE...]"},
    {"help", 0, 0, verb_help, "help [-c]"},
    {"info", 0, kAnyNumber, verb_info,
     "info [DEVICE...]\ninfo -c [-o FIELDS] [-O FIELDS] [-S SELECTION] [--noheadings] [--separator TEXT] "
     "[--nameprefixes [--unquoted]] "
     "[--rows] [--count N] [--interval SECONDS] [DEVICE...]"},
    {"load", 0, 2, verb_load, "load DEVICE [-r] [--table TABLE | FILE]"},
    {"ls", 0, 0, verb_ls,
     "ls [--target TYPE] [--exec COMMAND] [-o devno|devname|blkdevname]\nls --tree [-o "
     "[no]device,blkdevname,active,open,rw,uuid,ascii,utf,vt100,compact,inverted,notrunc]"},
    {"mangle", 0, kAnyNumber, verb_mangle, "mangle [DEVICE...]"},
    {"measure", 0, kAnyNumber, verb_measure, "measure [DEVICE...]"},
    {"message", 1, kAnyNumber, verb_message, "message DEVICE SECTOR MESSAGE..."},
    {"mknodes", 0, kAnyNumber, verb_mknodes, "mknodes [DEVICE...]"},
    {"reload", 0, 2, verb_load, "reload DEVICE [-r] [--table TABLE | FILE]"},
    {"remove", 0, kAnyNumber, verb_remove, "remove [-f|--force] [--deferred] [--retry] DEVICE..."},
    {"remove_all", 0, 0, verb_remove_all, "remove_all [-f|--force] [--deferred]"},
    {"rename", 1, 2, verb_rename, "rename DEVICE NEW_NAME\nrename DEVICE --setuuid UUID"},
    {"resume", 0, kAnyNumber, verb_resume, "resume [--noflush] [--nolockfs] DEVICE..."},
    {"setgeometry", 4, 5, verb_setgeometry, "setgeometry DEVICE CYLINDERS HEADS SECTORS START"},
    {"splitname", 1, 2, verb_splitname, "splitname NAME [SUBSYSTEM]"},
    {"stats", 0, kAnyNumber, verb_stats, "stats ..."},
    {"status", 0, kAnyNumber, verb_status, "status [--target TYPE] [--noflush] [DEVICE...]"},
    {"suspend", 0, kAnyNumber, verb_suspend, "suspend [--noflush] [--nolockfs] DEVICE..."},
    {"table", 0, kAnyNumber, verb_table,
     "table [--concise] [--target TYPE] [--inactive] [--showkeys] [DEVICE...]"},
    {"target-version", 1, kAnyNumber, verb_target_version, "target-version TYPE..."},
    {"targets", 0, 0, verb_targets, "targets"},
    {"udevcomplete", 1, 1, verb_nothing, "udevcomplete COOKIE"},
    {"udevcomplete_all", 0, 1, verb_nothing, "udevcomplete_all [MINUTES]"},
    {"udevcookie", 0, 0, verb_nothing, "udevcookie"},
    {"udevcookies", 0, 0, verb_nothing, "udevcookies"},
    {"udevcreatecookie", 0, 0, verb_nothing, "udevcreatecookie"},
    {"udevflags", 1, 1, verb_nothing, "udevflags COOKIE"},
    {"udevreleasecookie", 0, 1, verb_nothing, "udevreleasecookie [COOKIE]"},
    {"version", 0, 0, verb_version, "version"},
    {"wait", 0, 2, verb_wait, "wait [--noflush] DEVICE [EVENT_NUMBER]"},
    {"wipe_table", 0, kAnyNumber, verb_wipe_table,
     "wipe_table [-f|--force] [--noflush] [--nolockfs] DEVICE..."},
};

}  // namespace

std::span<const Verb> verbs() { return kVerbs; }

const Verb* find_verb(std::string_view name) {
    const auto* found =
        std::find_if(std::begin(kVerbs), std::end(kVerbs), [&](const Verb& v) { return v.name == name; });
    return found == std::end(kVerbs) ? nullptr : found;
}

std::string usage_text() {
    std::string text = "Usage: udmsetup [OPTIONS] VERB [WORDS]\n\nVerbs, as those of dmsetup:\n";
    for (const Verb& verb : kVerbs) {
        std::string_view rest = verb.usage;
        while (!rest.empty()) {
            const auto end = std::min(rest.find('\n'), rest.size());
            text += fmt::format("  {}\n", rest.substr(0, end));
            rest.remove_prefix(std::min(end + 1, rest.size()));
        }
    }
    text +=
        "\nDEVICE is a name; one device may also be given as -u UUID or -j MAJOR -m MINOR, and several by -S "
        "SELECTION\n"
        "(`udmsetup info -c -S help`). Any verb: -v for more output, --json for results as JSON, --socket "
        "PATH for\n"
        "another daemon. Options that concern udev, nodes in /dev and read-ahead are accepted and do "
        "nothing.\n";
    return text;
}

void for_each_device(Session& session, bool all_by_default, const std::function<void(const Chosen&)>& act,
                     const char* lines) {
    const Options& options = session.options;
    std::optional<Selection> selection;
    if (options.selection) selection.emplace(device_fields(), *options.selection);
    DeviceRows rows{session};
    const auto selected = [&](const DeviceRef& device, const Json* info) {
        if (!selection) return true;
        if (info != nullptr) return selection->matches(rows.row(*info));
        const auto found = session.find(device);
        return !found || selection->matches(rows.row(*found));  // one that isn't there: act() says so
    };

    std::vector<DeviceRef> named;
    if (!options.words.empty()) {
        for (const std::string& word : options.words) {
            const DeviceRef device = session.device_named(word);
            if (selected(device, nullptr)) act({device, nullptr, options.words.size() > 1});
        }
        return;
    }
    if (options.uuid || options.major) {
        const DeviceRef device = session.device_by_options();
        if (selected(device, nullptr)) act({device, nullptr, false});
        return;
    }
    if (!all_by_default && !selection) session.fail("No device specified.");
    Json params = Json::object();
    if (lines != nullptr) params[lines] = true;
    if (lines != nullptr && options.inactive) params["inactive"] = true;
    const Json all = session.list(std::move(params));
    if (all.empty() && all_by_default) {
        if (session.json()) {
            session.result = Json::array();
        } else {
            session.print("{}\n", kNoDevices);
        }
    }
    for (const Json& info : all) {
        const DeviceRef device = DeviceRef::named(info.value("name", ""));
        if (selected(device, &info)) act({device, &info, true});
    }
}

void print_info(Session& session, const Json& info) {
    if (session.json()) {
        session.add(info);
        return;
    }
    const bool live = info.value("live_table", false), inactive = info.value("inactive_table", false);
    session.print("Name:              {}\n", info.value("name", ""));
    session.print("State:             {}{}{}\n",
                  info.value("state", "") == "suspended" ? "SUSPENDED" : "ACTIVE",
                  info.value("read_only", false) ? " (READ-ONLY)" : "",
                  info.value("deferred_remove", false) ? " (DEFERRED REMOVE)" : "");
    if (live || inactive) session.print("Read Ahead:        0\n");
    session.print("Tables present:    {}\n", live && inactive ? "LIVE & INACTIVE"
                                             : live           ? "LIVE"
                                             : inactive       ? "INACTIVE"
                                                              : "None");
    session.print("Open count:        {}\n", info.value("open_count", 0u));
    session.print("Event number:      {}\n", info.value("event_number", 0u));
    session.print("Major, minor:      {}, {}\n", info.value("major", 0u), info.value("minor", 0u));
    session.print("Number of targets: {}\n", info.value("targets", 0u));
    if (const std::string uuid = info.value("uuid", ""); !uuid.empty()) session.print("UUID: {}\n", uuid);
    session.print("\n");
}

void print_info_if_verbose(Session& session, const DeviceRef& device) {
    if (session.options.verbose == 0 && !session.json()) return;
    if (const auto info = session.find(device)) print_info(session, *info);
}

}  // namespace udm::udmsetup
