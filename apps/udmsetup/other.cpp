// Verbs with little or nothing to do here: help, and those that concern the kernel or udev.
#include "apps/udmsetup/device_fields.hpp"
#include "apps/udmsetup/names.hpp"
#include "apps/udmsetup/verbs.hpp"

namespace udm::udmsetup {

void verb_help(Session& session) {
    std::string text = usage_text();
    if (session.options.columns) text += "\n" + fields_help(device_fields(), false);
    session.print("{}", text);
}

void verb_mangle(Session& session) {
    // The daemon keeps names as they are, so there is nothing to rename.
    for_each_device(session, true, [&](const Chosen& chosen) {
        const auto info = chosen.info != nullptr ? std::optional{*chosen.info} : session.find(chosen.device);
        if (!info) throw VerbFailed{};
        const std::string uuid = info->value("uuid", "");
        if (session.json()) {
            session.add({{"name", info->at("name")}, {"uuid", uuid}});
        } else {
            session.print("{}: {}: name {}already in correct form\n", mangled(info->value("name", "")),
                          uuid.empty() ? "[no UUID]" : mangled(uuid), uuid.empty() ? "" : "and UUID ");
        }
    });
}

// There are no nodes in /dev/mapper; docs/udmsetup.md says what takes their place.
void verb_mknodes(Session&) {}

// Nothing here waits for udev.
void verb_nothing(Session&) {}

void verb_measure(Session& session) {
    session.fail(
        "measure is not there: it shows what the kernel's integrity subsystem would be told, and there is "
        "none here.");
}

void verb_stats(Session& session) {
    session.fail("stats is not there yet: `udm top` shows requests, rates and errors of each device.");
}

}  // namespace udm::udmsetup
