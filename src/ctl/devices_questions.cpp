// What one may ask about devices. Nothing here waits for the operation lock: one can look at a device that is
// stuck.
#include <fmt/format.h>

#include <algorithm>

#include "ctl/call_on.hpp"
#include "ctl/devices.hpp"
#include "ctl/failure.hpp"

namespace udm::ctl {

Json Devices::info(const Record& record) const {
    const std::lock_guard lock{registry_.mutex};
    Json info = {{"name", record.name},
                 {"uuid", record.uuid},
                 {"major", kMajor},
                 {"minor", record.minor},
                 {"state", record.suspended ? "suspended" : "active"},
                 {"read_only", record.still || (record.live && record.live->read_only)},
                 {"live_table", record.live.has_value()},
                 {"inactive_table", record.inactive.has_value()},
                 {"open_count", record.table_opens + record.exports},
                 {"event_number", record.event_number},
                 {"targets", record.live ? record.live->lines.size() : 0},
                 {"deferred_remove", record.deferred_remove},
                 {"internal_suspend", false},
                 {"size", record.size.v},
                 {"home", nullptr},
                 {"held_because", nullptr},
                 {"settings", record.settings},
                 {"internal", record.internal}};
    Json types = Json::array();  // each once, in the order of the lines
    if (record.live) {
        for (const TableLine& line : record.live->lines) {
            if (std::find(types.begin(), types.end(), line.type) == types.end()) types.push_back(line.type);
        }
    }
    info["target_types"] = std::move(types);
    if (record.device) info["home"] = record.home;
    if (!record.held_because.empty()) {
        info["held_because"] = record.held_because;
        info["held_advice"] = advice_for_held_locked(record);
    }
    if (!record.trouble.empty()) info["trouble"] = record.trouble;
    return info;
}

// On the reactor `home`: the device, if it is still there. While it is asked nothing can take it away, since that is done
// on its home too; but it may have found another home since somebody looked.
Device* Devices::device_at(const Record& record, unsigned home) const {
    const Located at = locate(record);
    return at.home == home ? at.device : nullptr;
}

namespace {
struct ShownLine {
    Extent extent;
    std::string_view type;
    std::string text;
    std::vector<TargetDetail> details{};
    std::string trouble{};
};

// On the home reactor; `device` is null if it was removed meanwhile.
void look_at_lines(Device* device, bool inactive, bool arguments, std::vector<ShownLine>& found) {
    if (!device) return;
    Table* table = inactive ? device->inactive() : device->live();
    if (!table) return;
    found.reserve(table->entries().size());
    for (const Table::Entry& entry : table->entries()) {
        found.push_back({entry.extent, entry.type->name(),
                         arguments ? entry.target->table() : entry.target->status(),
                         arguments ? std::vector<TargetDetail>{} : entry.target->details(),
                         arguments ? std::string{} : entry.target->trouble()});
    }
}

Json json_of_shown(std::vector<ShownLine>& found) {
    Json lines = Json::array();
    for (ShownLine& line : found) {
        lines.push_back({{"start", line.extent.first.v},
                         {"length", line.extent.length.v},
                         {"type", line.type},
                         {"text", std::move(line.text)}});
        if (!line.trouble.empty()) lines.back()["trouble"] = std::move(line.trouble);
        for (const TargetDetail& detail : line.details) lines.back()["details"][std::string{detail.name}] = detail.value;
    }
    return lines;
}
}  // namespace

// One slot's lines of each device, with what the targets say of themselves; one visit to each reactor.
std::vector<Json> Devices::lines_of(const std::vector<RecordPtr>& records, bool inactive, bool arguments) const {
    std::vector<std::vector<ShownLine>> found(records.size());
    std::vector<std::vector<std::size_t>> at_home(host_.reactor_count());
    for (std::size_t i = 0; i < records.size(); ++i) {
        if (const Located at = locate(*records[i]); at.device) at_home[at.home].push_back(i);
    }
    for (unsigned home = 0; home < at_home.size(); ++home) {
        // A reactor is kept from its requests for a few dozen devices at a time.
        constexpr std::size_t kAtATime = 64;
        for (std::size_t from = 0; from < at_home[home].size(); from += kAtATime) {
            const std::size_t to = std::min(from + kAtATime, at_home[home].size());
            run_on(host_.env(home).reactor, [&] {
                for (std::size_t i = from; i < to; ++i) {
                    const std::size_t which = at_home[home][i];
                    look_at_lines(device_at(*records[which], home), inactive, arguments, found[which]);
                }
            });
        }
    }
    std::vector<Json> lines;
    lines.reserve(records.size());
    for (auto& of_one : found) lines.push_back(json_of_shown(of_one));
    return lines;
}

namespace {
// On the home reactor.
void look_at_targets(Device* device, std::vector<Devices::FileUse>& uses) {
    using Role = Devices::FileUse::Role;
    if (!device || !device->live()) return;
    for (const Table::Entry& entry : device->live()->entries()) {
        entry.target->look_at_devices();
        const bool merges = entry.type->name() == "snapshot-merge", has_store = merges || entry.type->name() == "snapshot";
        bool second = false;
        for (const TargetDevice& below : entry.target->devices()) {
            const bool store = has_store && second;
            second = true;
            const std::string& words = below.device->words();
            if (below.device->id().kind != DiskId::Kind::file || !words.starts_with('/')) continue;
            uses.push_back({store ? merges ? Role::merging : Role::store : Role::data, words, below.device->id(),
                            store ? 0 : to_bytes(below.length) + below.start.v * kSectorSize});
        }
    }
}
}  // namespace

std::vector<std::vector<Devices::FileUse>> Devices::look_at_files(const std::vector<RecordPtr>& records) const {
    std::vector<std::vector<FileUse>> uses(records.size());
    for (unsigned home = 0; home < host_.reactor_count(); ++home) {
        std::vector<std::size_t> here;
        for (std::size_t i = 0; i < records.size(); ++i) {
            if (const Located at = locate(*records[i]); at.device && at.home == home) here.push_back(i);
        }
        if (here.empty()) continue;
        run_on(host_.env(home).reactor, [&] {
            for (const std::size_t i : here) look_at_targets(device_at(*records[i], home), uses[i]);
        });
    }
    // The layer of a redirected volume has what was written to it: nobody can do without that.
    const std::lock_guard lock{registry_.mutex};
    for (std::size_t i = 0; i < records.size(); ++i) {
        if (!records[i]->internal) continue;
        for (FileUse& use : uses[i]) use.role = use.role == FileUse::Role::store ? FileUse::Role::data : use.role;
    }
    return uses;
}

void Devices::raise(const Record& record, EventKind kind, const std::string& what) const {
    const Located at = locate(record);
    if (!at.device) return;
    run_on(host_.env(at.home).reactor, [&] {
        if (Device* there = device_at(record, at.home)) there->raise(kind, what);
    });
}

Json Devices::slot_lines(const DeviceKey& key, bool inactive, bool arguments) const {
    return std::move(lines_of({registry_.find(key)}, inactive, arguments).front());
}

Json Devices::status(const DeviceKey& key, bool inactive) const { return slot_lines(key, inactive, false); }
Json Devices::table(const DeviceKey& key, bool inactive) const { return slot_lines(key, inactive, true); }

Json Devices::dependencies(const DeviceKey& key, bool inactive) const {
    const RecordPtr record = registry_.find(key);
    Json list = Json::array();
    const Located at = locate(*record);
    if (!at.device) return list;
    struct Used {
        std::uint32_t major, minor;
        std::string words;
        DiskId id;
    };
    std::vector<Used> found;
    run_on(host_.env(at.home).reactor, [&] {
        Device* there = device_at(*record, at.home);
        if (!there) return;
        Table* table = inactive ? there->inactive() : there->live();
        if (!table) return;
        for (OpenDevice* device : table->devices()) {
            found.push_back({device->major(), device->minor(), device->words(), device->id()});
        }
    });
    for (const Used& used : found) {
        Json entry = {{"major", used.major}, {"minor", used.minor}, {"words", used.words}, {"name", nullptr}};
        if (used.id.kind == DiskId::Kind::mapped) {
            DeviceKey lower;
            lower.minor = used.minor;
            if (const RecordPtr below = registry_.try_find(lower)) entry["name"] = name_of(*below);
        }
        list.push_back(std::move(entry));
    }
    return list;
}

Json Devices::counters(const std::vector<RecordPtr>& records) const {
    std::vector<DeviceCounters> counters(records.size());
    for (unsigned home = 0; home < host_.reactor_count(); ++home) {
        std::vector<std::size_t> here;  // one visit for each reactor
        for (std::size_t i = 0; i < records.size(); ++i) {
            if (const Located at = locate(*records[i]); at.device && at.home == home) here.push_back(i);
        }
        if (here.empty()) continue;
        run_on(host_.env(home).reactor, [&] {
            for (const std::size_t i : here) {
                if (Device* there = device_at(*records[i], home)) counters[i] = there->counters();
            }
        });
    }
    static constexpr std::pair<Op, const char*> kOps[] = {{Op::read, "read"},
                                                          {Op::write, "write"},
                                                          {Op::flush, "flush"},
                                                          {Op::discard, "discard"},
                                                          {Op::write_zeroes, "write_zeroes"}};
    Json list = Json::array();
    for (std::size_t i = 0; i < records.size(); ++i) {
        Json entry = {{"device", name_of(*records[i])},
                      {"in_flight", counters[i].in_flight},
                      {"held_back", counters[i].held_back}};
        for (const auto& [op, name] : kOps) {
            const DeviceCounters::PerOp& of_op = counters[i].by_op[static_cast<std::size_t>(op)];
            entry[name] = {
                {"requests", of_op.requests}, {"sectors", of_op.sectors}, {"errors", of_op.errors}};
        }
        list.push_back(std::move(entry));
    }
    return list;
}

std::unique_ptr<Pending> Devices::wait(const DeviceKey& key, std::uint32_t event_number,
                                       std::optional<std::uint64_t> timeout_ms) const {
    const RecordPtr record = registry_.find(key);
    const std::string name = name_of(*record);
    auto pending = std::make_unique<Pending>();
    pending->serial = record->serial;
    pending->check = [this, record, event_number]() -> std::optional<Json> {
        {
            const std::lock_guard lock{registry_.mutex};
            if (record->gone)
                throw Failure{Errc::not_found, fmt::format("{} was removed", record->name), record->name};
            if (record->event_number == event_number) return std::nullopt;
        }
        return info(*record);
    };
    if (timeout_ms) {
        // An hour more or less doesn't matter beyond a year.
        const std::uint64_t bounded =
            std::min<std::uint64_t>(*timeout_ms, std::uint64_t{366} * 24 * 3600 * 1000);
        pending->deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds{bounded};
        pending->at_deadline = [name, event_number]() -> Json {
            throw Failure{Errc::timed_out, fmt::format("no event of {} after number {}", name, event_number),
                          name};
        };
    }
    return pending;
}

}  // namespace udm::ctl
