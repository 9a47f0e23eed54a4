#include "ctl/registry.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "ctl/failure.hpp"

namespace udm::ctl {

RecordPtr Registry::create(const std::string& name, const std::string& uuid,
                           std::optional<std::uint32_t> minor) {
    check_name(name);
    check_uuid(uuid);
    if (minor && *minor > kMinorMax) {
        throw Failure{Errc::bad_argument,
                      fmt::format("minor {} is too large; the largest is {}", *minor, kMinorMax), name};
    }
    const std::lock_guard lock{mutex};
    if (by_name_.contains(name))
        throw Failure{Errc::busy, fmt::format("a device {} exists already", name), name};
    if (!uuid.empty() && by_uuid_.contains(uuid)) {
        throw Failure{Errc::busy,
                      fmt::format("the uuid {} is that of device {}", uuid, by_uuid_.at(uuid)->name), name};
    }
    if (minor && by_minor_.contains(*minor)) {
        throw Failure{Errc::busy,
                      fmt::format("minor {} is that of device {}", *minor, by_minor_.at(*minor)->name), name};
    }
    if (!minor) {
        minor = 0;  // the lowest free one
        for (const auto& [taken, record] : by_minor_) {
            if (taken != *minor) break;
            ++*minor;
        }
        if (*minor > kMinorMax) throw Failure{Errc::busy, "all minor numbers are in use", name};
    }
    auto record = std::make_shared<Record>(next_serial_++, *minor);
    record->name = name;
    record->uuid = uuid;
    by_name_[name] = record;
    if (!uuid.empty()) by_uuid_[uuid] = record;
    by_minor_[*minor] = record;
    by_serial_[record->serial] = record;
    return record;
}

namespace {
RecordPtr there(const RecordPtr& record) { return record->gone ? nullptr : record; }
}  // namespace

RecordPtr Registry::find_locked(const DeviceKey& key) const {
    if (key.name) {
        const auto at = by_name_.find(*key.name);
        return at == by_name_.end() ? nullptr : there(at->second);
    }
    if (key.uuid) {
        const auto at = by_uuid_.find(*key.uuid);
        return at == by_uuid_.end() ? nullptr : there(at->second);
    }
    if (!key.minor || key.major != kMajor) return nullptr;
    const auto at = by_minor_.find(*key.minor);
    return at == by_minor_.end() ? nullptr : there(at->second);
}

RecordPtr Registry::try_find(const DeviceKey& key) const {
    const std::lock_guard lock{mutex};
    return find_locked(key);
}

RecordPtr Registry::find(const DeviceKey& key) const {
    if (auto record = try_find(key)) return record;
    throw Failure{Errc::not_found, fmt::format("no device {}", key.text()), key.text()};
}

std::vector<RecordPtr> Registry::all() const {
    const std::lock_guard lock{mutex};
    std::vector<RecordPtr> records;
    records.reserve(by_name_.size());
    for (const auto& [name, record] : by_name_) {
        if (!record->gone) records.push_back(record);
    }
    return records;
}

std::size_t Registry::size() const {
    const std::lock_guard lock{mutex};
    return static_cast<std::size_t>(
        std::ranges::count_if(by_name_, [](const auto& named) { return !named.second->gone; }));
}

void Registry::rename(Record& record, const std::string& name) {
    check_name(name);
    const std::lock_guard lock{mutex};
    if (by_name_.contains(name)) {
        throw Failure{
            Errc::busy,
            fmt::format("ioctl: Unable to change name on mapped device {} to one that already exists: {}",
                        record.name, name),
            record.name};
    }
    auto node = by_name_.extract(record.name);
    node.key() = name;
    by_name_.insert(std::move(node));
    record.name = name;
}

void Registry::set_uuid(Record& record, const std::string& uuid) {
    check_uuid(uuid);
    const std::lock_guard lock{mutex};
    if (!record.uuid.empty()) {
        throw Failure{
            Errc::bad_argument,
            fmt::format(
                "ioctl: Unable to change uuid of mapped device {} to {} because uuid is already set to {}",
                record.name, uuid, record.uuid),
            record.name};
    }
    if (uuid.empty()) throw Failure{Errc::bad_argument, "the new uuid is empty", record.name};
    if (by_uuid_.contains(uuid)) {
        throw Failure{
            Errc::busy,
            fmt::format("ioctl: Unable to change uuid on mapped device {} to one that already exists: {}",
                        record.name, uuid),
            record.name};
    }
    by_uuid_[uuid] = by_name_.at(record.name);
    record.uuid = uuid;
}

std::vector<std::string> Registry::users_locked(const Record& lower) const {
    std::vector<std::string> users;
    for (const auto& [minor, upper] : by_minor_) {
        if (upper->uses.contains(const_cast<Record*>(&lower))) users.push_back(upper->name);
    }
    return users;
}

std::vector<std::string> Registry::users_of(const Record& lower) const {
    const std::lock_guard lock{mutex};
    return users_locked(lower);
}

void Registry::begin_removal(Record& record) {
    const std::lock_guard lock{mutex};
    if (record.gone) throw Failure{Errc::not_found, fmt::format("no device {}", record.name), record.name};
    if (record.table_opens != 0 || record.exports != 0) {
        std::string by;
        if (record.table_opens != 0) by = fmt::format("used by {}", fmt::join(users_locked(record), ", "));
        if (record.exports != 0)
            by += fmt::format("{}exported ({})", by.empty() ? "" : " and ", record.exports);
        throw Failure{Errc::busy, fmt::format("{} is in use: {}", record.name, by), record.name};
    }
    record.gone = true;
}

void Registry::undo_removal(Record& record) {
    const std::lock_guard lock{mutex};
    record.gone = false;
}

void Registry::free_names(Record& record) {
    const std::lock_guard lock{mutex};
    free_names_locked(record);
}

// They may be another's already.
void Registry::free_names_locked(const Record& record) {
    if (const auto at = by_name_.find(record.name); at != by_name_.end() && at->second.get() == &record)
        by_name_.erase(at);
    if (const auto at = by_uuid_.find(record.uuid); at != by_uuid_.end() && at->second.get() == &record)
        by_uuid_.erase(at);
}

void Registry::end_removal(Record& record) {
    const std::lock_guard lock{mutex};
    free_names_locked(record);
    by_minor_.erase(record.minor);
    by_serial_.erase(record.serial);
}

bool Registry::reaches_locked(const Record& from, const Record& to, std::vector<std::string>& way) const {
    // Each device once: tables can share what they stand on many times over.
    std::set<const Record*> seen;
    const std::function<bool(const Record&)> walk = [&](const Record& at) {
        if (&at == &to) return true;
        if (!seen.insert(&at).second) return false;
        for (const auto& [lower, count] : at.uses) {
            if (walk(*lower)) {
                way.push_back(lower->name);
                return true;
            }
        }
        return false;
    };
    return walk(from);
}

void Registry::open(Record& upper, const RecordPtr& lower) {
    const std::lock_guard lock{mutex};
    if (lower->gone) throw Failure{Errc::no_device, fmt::format("no device {}", lower->name)};
    std::vector<std::string> way;
    if (reaches_locked(*lower, upper, way)) {
        way.push_back(lower->name);
        std::reverse(way.begin(), way.end());
        if (way.back() != upper.name) way.push_back(upper.name);
        throw Failure{Errc::bad_argument, fmt::format("{} would stand on itself: {} -> {}", upper.name,
                                                      upper.name, fmt::join(way, " -> "))};
    }
    ++upper.uses[lower.get()];
    ++lower->table_opens;
}

bool Registry::unused_and_deferred(const Record& record) {
    return (record.deferred_remove || record.internal) && !record.gone && record.table_opens == 0 &&
           record.exports == 0;
}

bool Registry::close(Record& upper, Record& lower) {
    const std::lock_guard lock{mutex};
    const auto edge = upper.uses.find(&lower);
    if (--edge->second == 0) upper.uses.erase(edge);
    --lower.table_opens;
    return unused_and_deferred(lower);
}

bool Registry::export_opened(Record& record, int difference) {
    const std::lock_guard lock{mutex};
    if (difference > 0 && record.gone)
        throw Failure{Errc::not_found, fmt::format("no device {}", record.name), record.name};
    record.exports += static_cast<unsigned>(difference);
    return difference < 0 && unused_and_deferred(record);
}

void Registry::note_use(const DiskId& id, Record& record, int difference) {
    const std::lock_guard lock{mutex};
    auto& users = uses_[id];
    if ((users[record.serial] += static_cast<unsigned>(difference)) == 0) users.erase(record.serial);
    if (users.empty()) uses_.erase(id);
    if ((record.disks[id] += static_cast<unsigned>(difference)) == 0) record.disks.erase(id);
}

// What a device's data lie on in the end.
void Registry::bottom_locked(const Record& record, std::set<DiskId>& bottom) const {
    std::set<const Record*> seen;
    const std::function<void(const Record&)> walk = [&](const Record& at) {
        if (!seen.insert(&at).second) return;
        for (const auto& [id, count] : at.disks) {
            if (id.kind != DiskId::Kind::mapped) bottom.insert(id);
        }
        for (const auto& [lower, count] : at.uses) walk(*lower);
    };
    walk(record);
}

bool Registry::share_a_disk(const Record& one, const Record& other) const {
    const std::lock_guard lock{mutex};
    std::set<DiskId> of_one, of_other;
    bottom_locked(one, of_one);
    bottom_locked(other, of_other);
    return std::any_of(of_one.begin(), of_one.end(), [&](const DiskId& id) { return of_other.contains(id); });
}

std::vector<std::string> Registry::names_on_its_disks(const Record& record, std::size_t most) const {
    const std::lock_guard lock{mutex};
    std::set<DiskId> seen;
    bottom_locked(record, seen);
    std::vector<DiskId> ways(seen.begin(), seen.end());
    std::vector<std::string> names;
    while (!ways.empty() && names.size() < most) {
        const DiskId id = ways.back();
        ways.pop_back();
        const auto users = uses_.find(id);
        if (users == uses_.end()) continue;
        for (const auto& [serial, count] : users->second) {
            const auto at = by_serial_.find(serial);
            const RecordPtr upper = at == by_serial_.end() ? nullptr : at->second.lock();
            if (!upper || !seen.insert(upper->id()).second) continue;
            ways.push_back(upper->id());
            if (upper.get() == &record || upper->gone || upper->internal) continue;
            names.push_back(upper->name);
            if (names.size() == most) break;
        }
    }
    std::sort(names.begin(), names.end());
    return names;
}

std::vector<RecordPtr> Registry::users_of(const DiskId& id) const {
    const std::lock_guard lock{mutex};
    std::vector<RecordPtr> records;
    if (const auto users = uses_.find(id); users != uses_.end()) {
        for (const auto& [serial, count] : users->second) {
            const auto at = by_serial_.find(serial);
            if (at == by_serial_.end()) continue;
            if (auto record = at->second.lock()) records.push_back(std::move(record));
        }
    }
    return records;
}

std::vector<RecordPtr> Registry::top_down() const {
    const std::lock_guard lock{mutex};
    std::vector<RecordPtr> order;
    std::set<const Record*> seen;
    const std::function<void(const RecordPtr&)> visit = [&](const RecordPtr& record) {
        if (!seen.insert(record.get()).second) return;
        for (const auto& [lower, count] : record->uses) {
            const auto at = by_minor_.find(lower->minor);
            if (at != by_minor_.end() && at->second.get() == lower) visit(at->second);
        }
        order.push_back(record);  // after all it stands on
    };
    for (const auto& [minor, record] : by_minor_) visit(record);
    std::reverse(order.begin(), order.end());
    return order;
}

void Registry::note_remote(Record& lower, RemoteDisk& disk, unsigned home) {
    const std::lock_guard lock{mutex};
    remotes_[&disk] = {&lower, home};
}

void Registry::forget_remote(RemoteDisk& disk) {
    const std::lock_guard lock{mutex};
    remotes_.erase(&disk);
}

std::vector<std::pair<RemoteDisk*, unsigned>> Registry::remotes_of(const Record& lower) const {
    const std::lock_guard lock{mutex};
    std::vector<std::pair<RemoteDisk*, unsigned>> found;
    for (const auto& [disk, remote] : remotes_) {
        if (remote.lower == &lower) found.emplace_back(disk, remote.home);
    }
    return found;
}

}  // namespace udm::ctl
