#include "apps/udmsetup/device_fields.hpp"

#include <algorithm>

#include "apps/udmsetup/names.hpp"

namespace udm::udmsetup {
namespace {

enum Index : std::size_t {
    kName,
    kMangledName,
    kUnmangledName,
    kUuid,
    kMangledUuid,
    kUnmangledUuid,
    kReadAhead,
    kBlkDevName,
    kAttr,
    kTablesLoaded,
    kSuspended,
    kReadOnly,
    kDevNo,
    kMajor,
    kMinor,
    kOpen,
    kSegments,
    kEvents,
    kDeviceCount,
    kDevsUsed,
    kDevNosUsed,
    kBlkDevsUsed,
    kRefCount,
    kNamesUsing,
    kDevNosUsing,
    kSubsystem,
    kVgName,
    kLvName,
    kLvLayer,
};

constexpr auto kText = FieldType::text;
constexpr auto kNumber = FieldType::number;
constexpr auto kList = FieldType::list;

// In the order of Index.
constexpr Field kFields[] = {
    {"name", "Name", 16, kText, "name", "Name of the device."},
    {"mangled_name", "MangledName", 16, kText, "name",
     "The name, with characters udev doesn't take as \\xNN."},
    {"unmangled_name", "UnmangledName", 16, kText, "name", "The name as it is."},
    {"uuid", "UUID", 32, kText, "name", "Its uuid, if it was given one."},
    {"mangled_uuid", "MangledUUID", 32, kText, "name",
     "The uuid, with characters udev doesn't take as \\xNN."},
    {"unmangled_uuid", "UnmangledUUID", 32, kText, "name", "The uuid as it is."},
    {"read_ahead", "RAhead", 6, kNumber, "name", "Sectors read ahead: always 0 here."},
    {"blkdevname", "BlkDevName", 16, kText, "info", "dm-MINOR; there is no such node."},
    {"attr", "Stat", 4, kText, "info", "Live table, Inactive table, suspended, read-only or writeable."},
    {"tables_loaded", "Tables", 6, kText, "info", "Which tables there are: Live, Inactive, Both, None."},
    {"suspended", "Suspended", 9, kText, "info", "Suspended or Active."},
    {"readonly", "Read-only", 9, kText, "info", "Read-only or Writeable."},
    {"devno", "DevNo", 5, kText, "info", "MAJOR:MINOR."},
    {"major", "Maj", 3, kNumber, "info", "Major number."},
    {"minor", "Min", 3, kNumber, "info", "Minor number."},
    {"open", "Open", 4, kNumber, "info", "Tables and exports that use it."},
    {"segments", "Targ", 4, kNumber, "info", "Targets of its live table."},
    {"events", "Event", 6, kNumber, "info", "Number of its last event."},
    {"device_count", "#Devs", 5, kNumber, "deps", "How many devices its table uses."},
    {"devs_used", "DevNamesUsed", 16, kList, "deps", "Names of the mapped ones among them."},
    {"devnos_used", "DevNosUsed", 16, kList, "deps", "Their numbers."},
    {"blkdevs_used", "BlkDevNamesUsed", 16, kList, "deps",
     "Their block device names, of files the file names."},
    {"device_ref_count", "#Refs", 5, kNumber, "deps", "How many mapped devices use it."},
    {"names_using_dev", "RefNames", 8, kList, "deps", "Their names."},
    {"devnos_using_dev", "RefDevNos", 9, kList, "deps", "Their numbers."},
    {"subsystem", "Subsys", 6, kText, "splitname", "The part of the uuid that says whose device it is."},
    {"vg_name", "VG", 4, kText, "splitname", "LVM's volume group."},
    {"lv_name", "LV", 4, kText, "splitname", "LVM's logical volume."},
    {"lv_layer", "LVLayer", 7, kText, "splitname", "LVM's layer."},
    {"selected", "Selected", 8, kNumber, "special", "1 if -S selects it, else 0; with it all are shown."},
    {"help", "", 0, kText, "special", "This list."},
};
static_assert(std::size(kFields) == kLvLayer + 3);

std::string number_of(const Json& info) {
    return fmt::format("{}:{}", info.value("major", 0u), info.value("minor", 0u));
}

Cell split_name_value(std::size_t field, std::string_view name, const std::string& subsystem) {
    if (field == kSubsystem) return Cell::of(subsystem);
    NameParts parts = split_name(name, subsystem);
    if (field == kVgName) return Cell::of(std::move(parts.vg));
    if (field == kLvName) return Cell::of(std::move(parts.lv));
    return Cell::of(std::move(parts.layer));
}

}  // namespace

std::span<const Field> device_fields() { return kFields; }

std::string Dependency::block_name() const {
    if (!name.empty()) return "dm-" + std::to_string(minor);
    const auto slash = words.starts_with('/') ? words.rfind('/') : std::string::npos;
    return slash == std::string::npos ? words : words.substr(slash + 1);
}

std::vector<Dependency> dependencies_of(const Json& answer) {
    std::vector<Dependency> found;
    for (const Json& one : answer) {
        const Json& name = one.at("name");
        found.push_back({one.value("major", 0u), one.value("minor", 0u),
                         name.is_string() ? name.get<std::string>() : "", one.value("words", "")});
    }
    // Linux lists what a table opened last first.
    std::reverse(found.begin(), found.end());
    return found;
}

std::string attributes(const Json& info) {
    std::string text;
    text += info.value("live_table", false) ? 'L' : '-';
    text += info.value("inactive_table", false) ? 'I' : '-';
    text += info.value("state", "") == "suspended" ? 's' : '-';
    text += info.value("read_only", false) ? 'r' : 'w';
    return text;
}

Row DeviceRows::row(const Json& info) {
    return [this, &info](std::size_t field) { return value(field, info); };
}

const std::vector<Dependency>& DeviceRows::dependencies(const std::string& name) {
    auto known = dependencies_.find(name);
    if (known == dependencies_.end()) {
        Json answer = session_.call("deps", DeviceRef::named(name), "device.deps");
        known = dependencies_.emplace(name, dependencies_of(answer)).first;
    }
    return known->second;
}

const std::vector<DeviceRows::User>& DeviceRows::users(const std::string& number) {
    if (!users_known_) {
        users_known_ = true;
        const Json all = session_.list();
        for (const Json& info : all) {
            const std::string name = info.value("name", "");
            for (const Dependency& used : dependencies(name)) {
                users_[used.device_number()].push_back({name, number_of(info)});
            }
        }
    }
    return users_[number];
}

Cell DeviceRows::value(std::size_t field, const Json& info) {
    const std::string name = info.value("name", "");
    const std::string uuid = info.value("uuid", "");
    const auto number = [&](const char* key) { return Cell::of(info.value(key, std::uint64_t{0})); };
    const auto list = [](const auto& from, auto&& text_of) {
        std::vector<std::string> items;
        for (const auto& one : from) {
            if (std::string text = text_of(one); !text.empty()) items.push_back(std::move(text));
        }
        return Cell::of(std::move(items));
    };
    switch (field) {
        case kName:
        case kUnmangledName:
            return Cell::of(name);
        case kMangledName:
            return Cell::of(mangled(name));
        case kUuid:
        case kUnmangledUuid:
            return Cell::of(uuid);
        case kMangledUuid:
            return Cell::of(mangled(uuid));
        case kReadAhead:
            return Cell::of(std::uint64_t{0});
        case kBlkDevName:
            return Cell::of(fmt::format("dm-{}", info.value("minor", 0u)));
        case kAttr:
            return Cell::of(attributes(info));
        case kTablesLoaded: {
            const bool live = info.value("live_table", false), inactive = info.value("inactive_table", false);
            return Cell::of(
                std::string{live ? (inactive ? "Both" : "Live") : (inactive ? "Inactive" : "None")});
        }
        case kSuspended:
            return Cell::of(std::string{info.value("state", "") == "suspended" ? "Suspended" : "Active"});
        case kReadOnly:
            return Cell::of(std::string{info.value("read_only", false) ? "Read-only" : "Writeable"});
        case kDevNo:
            return Cell::of(number_of(info));
        case kMajor:
            return number("major");
        case kMinor:
            return number("minor");
        case kOpen:
            return number("open_count");
        case kSegments:
            return number("targets");
        case kEvents:
            return number("event_number");
        case kDeviceCount:
            return Cell::of(std::uint64_t{dependencies(name).size()});
        case kDevsUsed:
            return list(dependencies(name), [](const Dependency& d) { return d.name; });
        case kDevNosUsed:
            return list(dependencies(name), [](const Dependency& d) { return d.device_number(); });
        case kBlkDevsUsed:
            return list(dependencies(name), [](const Dependency& d) { return d.block_name(); });
        case kRefCount:
            return Cell::of(std::uint64_t{users(number_of(info)).size()});
        case kNamesUsing:
            return list(users(number_of(info)), [](const User& user) { return user.name; });
        case kDevNosUsing:
            return list(users(number_of(info)), [](const User& user) { return user.number; });
        default:
            return split_name_value(field, name, subsystem_of(uuid));
    }
}

Row split_name_row(const std::string& name, const std::string& subsystem) {
    return [name, subsystem](std::size_t field) {
        if (field < kSubsystem) {
            throw BadReport{
                fmt::format("_do_report_object: no data assigned to field {}", kFields[field].id)};
        }
        return split_name_value(field, name, subsystem);
    };
}

}  // namespace udm::udmsetup
