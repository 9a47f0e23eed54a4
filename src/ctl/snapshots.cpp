#include "ctl/snapshots.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <set>

#include "base/parse.hpp"
#include "ctl/cow_file.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"
#include "ctl/opener.hpp"
#include "ctl/taking.hpp"

namespace udm::ctl {

Json Snapshots::take(const Request& request) {
    const std::lock_guard taking{one_at_a_time_};
    Taking story{devices_, request};
    return story.run();
}

// One snapshot's line of the list, and the device whose target has its store, if it is there.
struct Snapshots::Listed {
    Json entry;
    RecordPtr store;
    bool held = false;
};

namespace {
Json describe_status(const std::string& text) {
    Json entry = {{"allocated", nullptr}, {"total", nullptr}, {"metadata", nullptr}};
    if (text == "Invalid") {
        entry["state"] = "invalid";
    } else if (text == "Overflow") {
        entry["state"] = "overflow";
    } else {
        const std::size_t slash = text.find('/'), space = text.find(' ');
        const auto part = [&](std::size_t from, std::size_t to) -> Json {
            const auto number = parse_u64(std::string_view{text}.substr(from, to - from));
            return number ? Json(*number) : Json(nullptr);
        };
        entry["state"] = slash == std::string::npos ? "held" : "active";
        if (slash != std::string::npos && space != std::string::npos) {
            entry["allocated"] = part(0, slash);
            entry["total"] = part(slash + 1, space);
            entry["metadata"] = part(space + 1, text.size());
        }
    }
    return entry;
}
}  // namespace

// Of a snapshot made by hand: the volume that is the origin of what it stands on, else that, by our name for it if it has one.
std::string Snapshots::volume_over(const std::string& base) const {
    const RecordPtr below = find_mapped(devices_.registry(), base);
    const DiskId id = below ? below->id() : devices_.host().identify(base);
    if (id.kind != DiskId::Kind::none) {
        for (const RecordPtr& user : devices_.registry().origins_of(id)) return devices_.name_of(*user);
    }
    return below ? devices_.name_of(*below) : base;
}

// A volume that goes back to what its snapshot is: that is no device any more.
std::optional<Snapshots::Listed> Snapshots::listed_merge(const RecordPtr& volume) const {
    Listed listed;
    const std::lock_guard lock{devices_.registry().mutex};
    const Json& noted = volume->merging;
    if (volume->gone || !noted.is_object() || !noted.contains("then") || noted.contains("still")) return std::nullopt;
    listed.store = volume;
    const std::string cow = noted.value("cow", "");
    std::uint64_t chunk_sectors = 0;
    if (volume->live && volume->live->lines.size() == 1) {
        const auto words = words_of(volume->live->lines[0]);
        if (words.size() > 3) chunk_sectors = parse_u64(words[3]).value_or(0);
    }
    listed.entry = {{"snapshot", noted.value("snapshot", "")}, {"origin", volume->name},
                    {"cow", cow.empty() ? Json(nullptr) : Json(cow)}, {"chunk", to_bytes(Sectors{chunk_sectors})},
                    {"taken", noted.value("taken", Json{})}, {"redirect", false}};
    return listed;
}

// Nothing: the device is no snapshot.
std::optional<Snapshots::Listed> Snapshots::listed(const RecordPtr& record, Names& names) const {
    Registry& registry = devices_.registry();
    Json noted;
    std::string name, base, cow;
    Listed listed;
    std::uint64_t chunk_sectors = 0;
    {
        const std::lock_guard lock{registry.mutex};
        noted = record->snapshot;
        name = record->name;
        listed.held = !record->held_because.empty();
        const auto& slot = record->live ? record->live : record->kept;
        if (slot && slot->lines.size() == 1 && slot->lines[0].type == "snapshot") {
            base = snapshot_base(slot->lines[0]);
            cow = snapshot_cow(slot->lines[0]);
            const auto words = words_of(slot->lines[0]);
            if (words.size() > 3) chunk_sectors = parse_u64(words[3]).value_or(0);
        }
    }
    // A layer is listed under the name of the still image it stands on.
    if (noted.is_object() && noted.contains("layer_of")) return std::nullopt;
    const bool is_still = noted.is_object() && noted.value("redirect", false);
    if (!is_still && cow.empty() && noted.is_null()) return std::nullopt;
    listed.store = record;
    if (is_still) {
        DeviceKey layer;
        layer.minor = noted.value("layer", 0u);
        listed.store = registry.try_find(layer);
        Json layer_noted;
        if (listed.store) {
            const std::lock_guard lock{registry.mutex};
            layer_noted = listed.store->snapshot;
        }
        if (!layer_noted.is_object() || (!layer_noted.contains("layer_of") && !layer_noted.value("redirect", false)))
            listed.store = nullptr;    // the number is another's now
        cow = layer_noted.is_object() ? layer_noted.value("cow", "") : "";
    } else if (noted.is_object()) {
        cow = noted.value("cow", cow);
    }
    RecordPtr source;
    if (noted.is_object() && noted.contains("origin")) {
        DeviceKey key;
        key.minor = noted["origin"].get<std::uint32_t>();
        source = registry.try_find(key);
    }
    Json& entry = listed.entry;
    entry["snapshot"] = name;
    if (source) {
        entry["origin"] = devices_.name_of(*source);
    } else if (base.empty()) {
        entry["origin"] = nullptr;
    } else {
        const auto [known, is_new] = names.try_emplace(base);
        if (is_new) known->second = volume_over(base);
        entry["origin"] = known->second;
    }
    entry["cow"] = cow.empty() ? Json(nullptr) : Json(cow);
    entry["chunk"] = noted.is_object() && noted.contains("chunk") ? noted["chunk"]
                                                                  : Json(to_bytes(Sectors{chunk_sectors}));
    entry["taken"] = noted.is_object() ? noted.value("taken", Json{}) : Json{};
    entry["redirect"] = is_still;
    return listed;
}

Json Snapshots::list(const std::optional<DeviceKey>& origin, const std::optional<std::string>& after,
                     std::uint64_t most, const std::optional<DeviceKey>& only) const {
    constexpr std::size_t kAtATime = 1024;
    Registry& registry = devices_.registry();
    std::vector<Listed> found;
    Names names;
    const auto look_at = [&](const std::vector<RecordPtr>& records) {
        for (const RecordPtr& record : records) {
            if (found.size() >= most) return;
            if (auto one = listed(record, names)) found.push_back(std::move(*one));
        }
    };
    if (only) {
        look_at({registry.find(*only)});
    } else if (origin) {
        std::vector<RecordPtr> records = registry.snapshots_of(*registry.find(*origin));
        if (after)
            std::erase_if(records, [&](const RecordPtr& record) { return devices_.name_of(*record) <= *after; });
        look_at(records);
    } else {
        std::optional<std::string> from = after;
        while (found.size() < most) {
            const auto records = registry.some(from, kAtATime);
            look_at(records);
            if (records.size() < kAtATime) break;
            from = devices_.name_of(*records.back());
        }
    }
    for (const RecordPtr& merging : merging_.under_way()) {    // in among the others
        auto one = listed_merge(merging);
        if (!one || only || (after && one->entry["snapshot"].get<std::string>() <= *after) || (origin && merging != registry.find(*origin))) continue;
        found.push_back(std::move(*one));
    }
    std::stable_sort(found.begin(), found.end(), [](const Listed& a, const Listed& b) { return a.entry["snapshot"] < b.entry["snapshot"]; });
    if (found.size() > most) found.erase(found.begin() + static_cast<std::ptrdiff_t>(most), found.end());
    std::vector<RecordPtr> stores;
    for (const Listed& one : found) {
        if (one.store) stores.push_back(one.store);
    }
    std::vector<Json> statuses = devices_.lines_of(stores, false, false);
    Json list = Json::array();
    std::size_t next_status = 0;
    for (Listed& one : found) {
        std::string text;
        bool merges = false;    // into the still image of this entry, which goes then; or into its volume
        Json details = Json::object(), trouble;
        if (one.store) {
            const Json& lines = statuses[next_status++];
            if (!lines.empty() && (lines[0]["type"] == "snapshot" || lines[0]["type"] == "snapshot-merge")) text = lines[0]["text"].get<std::string>();
            merges = !lines.empty() && lines[0]["type"] == "snapshot-merge";
            if (!lines.empty()) {
                details = lines[0].value("details", Json::object());
                trouble = lines[0].value("trouble", Json{});
            }
        }
        one.entry.update(describe_status(text));
        if (!trouble.is_null()) one.entry["trouble"] = trouble;
        for (const char* const key : {"merged_bytes", "merge_left_bytes"}) {
            if (merges && details.contains(key)) one.entry[key] = details[key];
        }
        if (merges) one.entry["state"] = text == "Merge failed" ? "merge-failed" : "merging";
        if (one.held) one.entry["state"] = "held";
        if (!one.held && !one.store && one.entry.value("redirect", false)) one.entry["state"] = "unused";    // its volume was removed
        list.push_back(std::move(one.entry));
    }
    return list;
}

Json Snapshots::merge(const DeviceKey& key) {
    const std::lock_guard taking{one_at_a_time_};
    return merging_.merge(devices_.registry().find(key));
}

Json Snapshots::drop(const DeviceKey& key) {
    const std::lock_guard taking{one_at_a_time_};
    Registry& registry = devices_.registry();
    const RecordPtr record = registry.find(key);
    const std::string name = devices_.name_of(*record);
    Json noted;
    bool is_snapshot = false;
    {
        const std::lock_guard lock{registry.mutex};
        noted = record->snapshot;
        const auto& slot = record->live ? record->live : record->kept;
        is_snapshot = slot && std::any_of(slot->lines.begin(), slot->lines.end(),
                                          [](const TableLine& line) { return line.type == "snapshot"; });
    }
    if (noted.is_null() && !is_snapshot)
        throw Failure{Errc::bad_argument,
                      fmt::format("{} is no snapshot; `udm remove` removes devices", name), name};
    if (noted.is_object() && noted.contains("layer_of")) {
        throw Failure{Errc::bad_argument, fmt::format("{} is no snapshot: a redirected volume keeps there what was written since its still image; `udm snapshot drop` "
                                                      "that one", name), name};
    }
    if (noted.is_object() && noted.value("redirect", false)) {
        if (!registry.users_of(*record).empty()) {
            Json begun = merging_.merge_down(record);
            return {{"dropped", name}, {"cow", begun["cow"]}, {"merging", begun["device"]}};
        }
    }
    const std::string store = noted.is_object() ? noted.value("cow", "") : "";
    const bool handed_over = !store.empty() && !devices_.others_with_store(*record, store).empty();
    devices_.remove(record);
    Json cow = nullptr;
    if (noted.is_object() && noted.value("made", false)) {
        const std::string path = noted.value("cow", "");
        if (!handed_over && ::unlink(path.c_str()) == 0) cow = path;
        if (!handed_over) devices_.lost_stores().forget_words(path);
    }
    log_info(name, "snapshot dropped");
    return {{"dropped", name}, {"cow", cow}};
}

}  // namespace udm::ctl
