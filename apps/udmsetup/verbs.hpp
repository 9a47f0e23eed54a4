// The verbs: what each takes and the function that does it.
#pragma once

#include <functional>
#include <span>
#include <string_view>

#include "apps/udmsetup/session.hpp"

namespace udm::udmsetup {

inline constexpr std::size_t kAnyNumber = static_cast<std::size_t>(-1);

struct Verb {
    std::string_view name;
    std::size_t least, most;  // words after the verb
    void (*run)(Session&);    // throws VerbFailed, BadReport, ctl::CallError, ctl::NoDaemon
    std::string_view usage;
};

std::span<const Verb> verbs();
const Verb* find_verb(std::string_view name);
std::string usage_text();

// Which devices a verb means: those named, else that of -u or -j -m, else with -S or (`all_by_default`) all,
// by name; of these the ones -S selects. None: "No device specified." Stops at the first that fails. With all of them
// come their lines, as `lines` ("status" or "table") of their info: ten thousand are not asked one by one.
struct Chosen {
    DeviceRef device;
    const Json* info;  // when it is known already
    bool many;         // several were named, or all meant: lines say whose they are
};
void for_each_device(Session& session, bool all_by_default, const std::function<void(const Chosen&)>& act,
                     const char* lines = nullptr);

// "No devices found" when there are none at all.
inline constexpr std::string_view kNoDevices = "No devices found";

// dmsetup's block of lines about one device.
void print_info(Session& session, const Json& info);
// The same with -v only, for verbs that changed something.
void print_info_if_verbose(Session& session, const DeviceRef& device);

// change.cpp
void verb_load(Session&);
void verb_clear(Session&);
void verb_suspend(Session&);
void verb_resume(Session&);
void verb_rename(Session&);
void verb_message(Session&);
void verb_setgeometry(Session&);
void verb_wait(Session&);
// create.cpp
void verb_create(Session&);
Json read_table(Session& session, const std::string* file);  // --table, else the file, else standard input
// remove.cpp
void verb_remove(Session&);
void verb_remove_all(Session&);
void verb_wipe_table(Session&);
// show.cpp
void verb_info(Session&);
void verb_status(Session&);
void verb_table(Session&);
void verb_deps(Session&);
void verb_targets(Session&);
void verb_target_version(Session&);
void verb_version(Session&);
// ls.cpp
void verb_ls(Session&);
// other.cpp
void verb_help(Session&);
void verb_splitname(Session&);
void verb_mangle(Session&);
void verb_mknodes(Session&);
void verb_nothing(Session&);
void verb_measure(Session&);
void verb_stats(Session&);

}  // namespace udm::udmsetup
