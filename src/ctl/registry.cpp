#include "ctl/registry.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>

#include "ctl/failure.hpp"

namespace udm::ctl {

Registry::Registry() : free_minors_{kMinorMax} {}

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
    // Snapshots know their origin by its number: while one is there, nobody else gets it.
    if (!minor) minor = free_minors_.lowest([this](std::uint32_t number) { return snapshots_.contains(number); });
    if (!minor) throw Failure{Errc::busy, "all minor numbers are in use", name};
    auto record = std::make_shared<Record>(next_serial_++, *minor);
    record->name = name;
    record->uuid = uuid;
    by_name_[name] = record;
    if (!uuid.empty()) by_uuid_[uuid] = record;
    by_minor_[*minor] = record;
    free_minors_.take(*minor);
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

std::vector<RecordPtr> Registry::some(const std::optional<std::string>& after, std::size_t most) const {
    const std::lock_guard lock{mutex};
    std::vector<RecordPtr> records;
    for (auto at = after ? by_name_.upper_bound(*after) : by_name_.begin();
         at != by_name_.end() && records.size() < most; ++at) {
        if (!at->second->gone) records.push_back(at->second);
    }
    return records;
}

std::size_t Registry::size() const {
    const std::lock_guard lock{mutex};
    return by_minor_.size() - going_;
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

void Registry::unset_uuid(Record& record) {
    const std::lock_guard lock{mutex};
    by_uuid_.erase(record.uuid);
    record.uuid.clear();
}

std::vector<std::string> Registry::users_locked(const Record& lower, std::size_t most) const {
    std::vector<std::string> users;
    for (const auto& [serial, upper] : lower.used_by) {
        if (users.size() >= most) break;
        if (!upper->gone) users.push_back(upper->name);
    }
    return users;
}

std::vector<std::string> Registry::users_of(const Record& lower, std::size_t most) const {
    const std::lock_guard lock{mutex};
    return users_locked(lower, most);
}

std::string Registry::users_text_locked(const Record& lower) const {
    constexpr std::size_t kNamed = 8;
    std::string text = fmt::format("{}", fmt::join(users_locked(lower, kNamed), ", "));
    if (lower.used_by.size() > kNamed) text += fmt::format(" and {} more", lower.used_by.size() - kNamed);
    return text;
}

void Registry::check_unused_locked(const Record& record, const std::set<const Record*>& but_by) const {
    if (record.gone) throw Failure{Errc::not_found, fmt::format("no device {}", record.name), record.name};
    const bool by_tables = std::any_of(record.used_by.begin(), record.used_by.end(),
                                       [&](const auto& use) { return !but_by.contains(use.second); });
    if (by_tables || record.exports != 0) {
        std::string by;
        if (by_tables) by = "used by " + users_text_locked(record);
        if (record.exports != 0)
            by += fmt::format("{}exported ({})", by.empty() ? "" : " and ", record.exports);
        throw Failure{Errc::busy, fmt::format("{} is in use: {}", record.name, by), record.name};
    }
}

void Registry::check_unused(const Record& record) const {
    const std::lock_guard lock{mutex};
    check_unused_locked(record, {});
}

void Registry::begin_removal(Record& record) {
    const std::lock_guard lock{mutex};
    check_unused_locked(record, {});
    record.gone = true;
    ++going_;
}

void Registry::begin_removal(const std::vector<RecordPtr>& together) {
    const std::lock_guard lock{mutex};
    std::set<const Record*> all;
    for (const RecordPtr& record : together) all.insert(record.get());
    for (const RecordPtr& record : together) check_unused_locked(*record, all);
    for (const RecordPtr& record : together) record->gone = true;
    going_ += together.size();
}

void Registry::undo_removal(Record& record) {
    const std::lock_guard lock{mutex};
    record.gone = false;
    --going_;
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
    free_minors_.give(record.minor);
    --going_;
    by_serial_.erase(record.serial);
    held_.erase(record.serial);
    troubled_.erase(record.serial);
    note_snapshot_locked(record, nullptr);
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

// How many devices the longest way from here has, itself among them: down to what it stands on, or up to who stands on it.
unsigned Registry::height_locked(const Record& record, bool up) const {
    std::map<const Record*, unsigned> known;    // each once, as above
    const std::function<unsigned(const Record&)> walk = [&](const Record& at) {
        if (const auto found = known.find(&at); found != known.end()) return found->second;
        unsigned most = 0;
        if (up) {
            for (const auto& [serial, upper] : at.used_by) most = std::max(most, walk(*upper));
        } else {
            for (const auto& [lower, count] : at.uses) most = std::max(most, walk(*lower));
        }
        return known[&at] = most + 1;
    };
    return walk(record);
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
    if (const unsigned levels = height_locked(upper, true) + height_locked(*lower, false); levels > Table::kLevelsMax) {
        throw Failure{Errc::bad_argument, fmt::format("too many mapped devices on top of each other: {}, at most {}; {} is on the way",
                                                      levels, Table::kLevelsMax, upper.name)};
    }
    if (++upper.uses[lower.get()] == 1) lower->used_by[upper.serial] = &upper;
    ++lower->table_opens;
}

bool Registry::unused_and_deferred(const Record& record) {
    return (record.deferred_remove || record.internal) && !record.gone && record.table_opens == 0 &&
           record.exports == 0;
}

bool Registry::close(Record& upper, Record& lower) {
    const std::lock_guard lock{mutex};
    const auto edge = upper.uses.find(&lower);
    if (--edge->second == 0) {
        upper.uses.erase(edge);
        lower.used_by.erase(upper.serial);
    }
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

void Registry::Uses::add(Counts& counts, const Use& use, unsigned difference) {
    counts.all += difference;
    if (use.writes) counts.writers += difference;
    if (use.snapshot) counts.snapshots += difference;
    if (use.origin) counts.origins += difference;
}

void Registry::change_use(const DiskId& id, Record& record, const Use& use, unsigned difference) {
    const std::lock_guard lock{mutex};
    Uses& uses = uses_[id];
    if (uses.by_home.size() <= use.home) uses.by_home.resize(use.home + 1);
    Uses::add(uses.by_home[use.home], use, difference);
    const auto mine = uses.by_serial.try_emplace(record.serial).first;
    Uses::add(mine->second, use, difference);
    if (mine->second.all == 0) uses.by_serial.erase(mine);
    if (uses.by_serial.empty()) uses_.erase(id);
    if ((record.disks[id] += difference) == 0) record.disks.erase(id);
}

void Registry::note_use(const DiskId& id, Record& record, const Use& use) { change_use(id, record, use, 1); }
void Registry::forget_use(const DiskId& id, Record& record, const Use& use) { change_use(id, record, use, ~0u); }

void Registry::note_file(const OpenFile& file) {
    const std::lock_guard lock{mutex};
    const auto uses = uses_.find(file.id);
    if (uses == uses_.end() || !uses->second.path.empty()) return;
    uses->second.path = file.path;
    uses->second.bytes = file.bytes;
}

std::vector<Registry::OpenFile> Registry::files_after(const DiskId& after, std::size_t most) const {
    const std::lock_guard lock{mutex};
    std::vector<OpenFile> files;
    for (auto at = uses_.upper_bound(after); at != uses_.end() && files.size() < most; ++at) {
        if (!at->second.path.empty()) files.push_back({at->first, at->second.path, at->second.bytes});
    }
    return files;
}

// The first home of which `counts` says so.
template <class Says>
std::optional<unsigned> Registry::Uses::home(Says says) const {
    for (unsigned home = 0; home < by_home.size(); ++home) {
        if (says(by_home[home])) return home;
    }
    return std::nullopt;
}

std::optional<unsigned> Registry::home_of_users(const DiskId& id) const {
    const std::lock_guard lock{mutex};
    const auto found = uses_.find(id);
    if (found == uses_.end()) return std::nullopt;
    return found->second.home([](const Uses::Counts& counts) { return counts.all != 0; });
}

std::optional<unsigned> Registry::home_of_base(const DiskId& id, bool for_origin, bool expect_origin) const {
    const std::lock_guard lock{mutex};
    const auto found = uses_.find(id);
    if (found == uses_.end()) return std::nullopt;
    const Uses& uses = found->second;
    if (const auto home = uses.home([](const Uses::Counts& counts) { return counts.origins != 0; })) return home;
    unsigned snapshots = 0;
    for (const Uses::Counts& counts : uses.by_home) snapshots += counts.snapshots;
    const bool together = for_origin || expect_origin || snapshots < kFewSnapshots;
    if (together && snapshots != 0)
        return uses.home([](const Uses::Counts& counts) { return counts.snapshots != 0; });
    return uses.home([](const Uses::Counts& counts) { return counts.writers != 0; });
}

Registry::Elsewhere Registry::family_elsewhere(const DiskId& base, const Use& use) const {
    const std::lock_guard lock{mutex};
    Elsewhere elsewhere;
    const auto found = uses_.find(base);
    if (found == uses_.end()) return elsewhere;
    const auto in_the_way = [&](const Uses::Counts& counts) {
        return counts.origins != 0 || (use.origin && counts.snapshots != 0);
    };
    const auto& homes = found->second.by_home;
    bool any = false;
    for (unsigned home = 0; home < homes.size(); ++home) any = any || (home != use.home && in_the_way(homes[home]));
    if (!any) return elsewhere;
    constexpr std::size_t kNamed = 8;
    for (const auto& [serial, counts] : found->second.by_serial) {
        if (!in_the_way(counts)) continue;
        const auto at = by_serial_.find(serial);
        const RecordPtr record = at == by_serial_.end() ? nullptr : at->second.lock();
        if (!record || record->home == use.home) continue;
        ++elsewhere.count;
        if (elsewhere.names.size() < kNamed) elsewhere.names.push_back(record->name);
    }
    return elsewhere;
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
        for (const auto& [serial, count] : users->second.by_serial) {
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

template <class Says>
std::vector<RecordPtr> Registry::users_who(const DiskId& id, Says says) const {
    const std::lock_guard lock{mutex};
    std::vector<RecordPtr> records;
    if (const auto users = uses_.find(id); users != uses_.end()) {
        for (const auto& [serial, counts] : users->second.by_serial) {
            const auto at = by_serial_.find(serial);
            if (at == by_serial_.end() || !says(counts)) continue;
            if (auto record = at->second.lock()) records.push_back(std::move(record));
        }
    }
    return records;
}

std::vector<RecordPtr> Registry::users_of(const DiskId& id) const {
    return users_who(id, [](const Uses::Counts&) { return true; });
}

std::vector<RecordPtr> Registry::writers_of(const DiskId& id) const {
    return users_who(id, [](const Uses::Counts& counts) { return counts.writers != 0 && counts.snapshots == 0 && counts.origins == 0; });
}

std::vector<RecordPtr> Registry::origins_of(const DiskId& base) const {
    return users_who(base, [](const Uses::Counts& counts) { return counts.origins != 0; });
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
    remotes_by_lower_[&lower].insert(&disk);
}

void Registry::forget_remote(RemoteDisk& disk) {
    const std::lock_guard lock{mutex};
    const auto remote = remotes_.find(&disk);
    const auto of_lower = remotes_by_lower_.find(remote->second.lower);
    of_lower->second.erase(&disk);
    if (of_lower->second.empty()) remotes_by_lower_.erase(of_lower);
    remotes_.erase(remote);
}

std::vector<std::pair<RemoteDisk*, unsigned>> Registry::remotes_of(const Record& lower) const {
    const std::lock_guard lock{mutex};
    std::vector<std::pair<RemoteDisk*, unsigned>> found;
    if (const auto remotes = remotes_by_lower_.find(&lower); remotes != remotes_by_lower_.end()) {
        for (RemoteDisk* disk : remotes->second) found.emplace_back(disk, remotes_.at(disk).home);
    }
    return found;
}

void Registry::set_device_locked(Record& record, Device* device, unsigned home) {
    if (record.device) --per_home_[record.home];
    record.device = device;
    if (!device) return;
    record.home = home;
    if (per_home_.size() <= home) per_home_.resize(home + 1);
    ++per_home_[home];
}

std::vector<unsigned> Registry::devices_per_home(unsigned homes) const {
    const std::lock_guard lock{mutex};
    std::vector<unsigned> counts = per_home_;
    counts.resize(homes);
    return counts;
}

void Registry::note_held_locked(Record& record) {
    if (record.kept || !record.held_because.empty()) {
        held_[record.serial] = &record;
    } else {
        held_.erase(record.serial);
    }
}

std::vector<RecordPtr> Registry::held() const {
    const std::lock_guard lock{mutex};
    std::vector<RecordPtr> records;
    for (const auto& [serial, record] : held_) {
        if (!record->gone) records.push_back(by_serial_.at(serial).lock());
    }
    return records;
}

void Registry::set_trouble_locked(Record& record, std::string trouble) {
    if (trouble.empty()) {
        troubled_.erase(record.serial);
    } else {
        troubled_[record.serial] = &record;
    }
    record.trouble = std::move(trouble);
}

std::vector<RecordPtr> Registry::troubled() const {
    const std::lock_guard lock{mutex};
    std::vector<RecordPtr> records;
    for (const auto& [serial, record] : troubled_) {
        if (!record->gone) records.push_back(by_serial_.at(serial).lock());
    }
    return records;
}

bool Registry::any_held() const {
    const std::lock_guard lock{mutex};
    return !held_.empty();
}

void Registry::note_snapshot_locked(Record& record, Json what) {
    if (record.snapshot_of) {
        const auto of_origin = snapshots_.find(*record.snapshot_of);
        of_origin->second.erase(record.serial);
        if (of_origin->second.empty()) snapshots_.erase(of_origin);
        record.snapshot_of.reset();
    }
    record.snapshot = std::move(what);
    if (!record.snapshot.is_object() || !record.snapshot.contains("origin")) return;
    record.snapshot_of = record.snapshot["origin"].get<std::uint32_t>();
    snapshots_[*record.snapshot_of].insert(record.serial);
}

std::vector<RecordPtr> Registry::snapshots_of(const Record& origin) const {
    const std::lock_guard lock{mutex};
    std::vector<RecordPtr> records;
    if (const auto found = snapshots_.find(origin.minor); found != snapshots_.end()) {
        for (const std::uint64_t serial : found->second) {
            RecordPtr record = by_serial_.at(serial).lock();
            if (record && !record->gone) records.push_back(std::move(record));
        }
    }
    std::sort(records.begin(), records.end(), [](const auto& a, const auto& b) { return a->name < b->name; });
    return records;
}

}  // namespace udm::ctl
