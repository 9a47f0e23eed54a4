// What the verbs are made of: one device, its operation lock held by the caller.
#include <fmt/format.h>

#include <algorithm>

#include "port/remote_disk.hpp"
#include "ctl/call_on.hpp"
#include "ctl/devices.hpp"
#include "ctl/failure.hpp"
#include "ctl/log.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

// On the home reactor: a built table is read in and put into the inactive slot, or not.
Job<Result<void>> load_into(Device* device, std::unique_ptr<Table>* table) {
    auto loading = (*table)->load();
    auto loaded = co_await loading;
    if (loaded) device->set_inactive(std::move(*table));
    table->reset();  // its devices are let go here, where they are at home
    co_return loaded;
}

Job<Result<void>> flush_device(Device* device) {
    IoWait flush{device->env().reactor, *device, Op::flush, Extent{}};
    const IoStatus status = co_await flush;
    if (status == IoStatus::ok) co_return Result<void>{};
    co_return fail(static_cast<Errc>(to_errno(status)), std::string{"flush: "} + to_string(status));
}

bool is_snapshot_line(const TableLine& line) { return line.type == "snapshot" || writes_base(line); }

TableOpener::Bases bases_of(const std::vector<TableLine>& lines) {
    TableOpener::Bases bases;
    for (const TableLine& line : lines) {
        const std::string base = snapshot_base(line);
        if (!base.empty()) (writes_base(line) ? bases[base].origin : bases[base].snapshot) = true;
    }
    return bases;
}

// On the home reactor: a message to all targets of the inactive table; a setting also to the devices it uses.
Job<Result<void>> tell_targets(Device* device, const std::vector<std::string>* words) {
    Table* const table = device->inactive();
    for (std::size_t i = 0; table && table == device->inactive() && i < table->entries().size(); ++i) {
        auto telling = table->entries()[i].target->message(words);
        static_cast<void>(co_await telling);
    }
    if (table && table == device->inactive() && words->size() == 3) {
        for (OpenDevice* below : table->devices()) static_cast<void>(below->set((*words)[1], (*words)[2]));
    }
    co_return Result<void>{};
}

}  // namespace

bool may_be_device(const std::string& word) { return word.starts_with('/') || word.find(':') != std::string::npos; }

std::string snapshot_base(const TableLine& line) {
    if (!is_snapshot_line(line)) return {};
    const auto words = words_of(line);
    return words.empty() ? std::string{} : words[0];
}

bool writes_base(const TableLine& line) { return line.type == "snapshot-origin" || line.type == "snapshot-merge"; }

std::string snapshot_cow(const TableLine& line) {
    if (line.type != "snapshot" && line.type != "snapshot-merge") return {};
    const auto words = words_of(line);
    return words.size() < 2 ? std::string{} : words[1];
}

// Events of the device, on its home reactor.
class Devices::Observer final : public Device::Observer {
  public:
    Observer(Devices& devices, const RecordPtr& record) : devices_{devices}, record_{record} {}

  private:
    void device_event(Device&, std::uint32_t number, EventKind kind,
                      std::string_view what) noexcept override {
        const RecordPtr record = record_.lock();
        if (!record) return;
        {
            const std::lock_guard lock{devices_.registry_.mutex};
            record->event_number = number;
        }
        devices_.publish(*record, kind == EventKind::table ? "table" : "target", what);
        if (kind == EventKind::table) return;
        log_line(kind == EventKind::target ? LogLevel::warning : LogLevel::info, devices_.name_of(*record),
                 fmt::format("event {}: {}", number, what));
    }
    Devices& devices_;
    std::weak_ptr<Record> record_;
};

Devices::Devices(Host& host, EventHub& hub, State& state)
    : host_{host}, hub_{hub}, state_{state}, lost_{state, recorder_} {}

Devices::~Devices() {
    worker_.stop();
    recorder_.stop();
}

std::string Devices::name_of(const Record& record) const {
    const std::lock_guard lock{registry_.mutex};
    return record.name;
}

Devices::Located Devices::locate(const Record& record) const {
    const std::lock_guard lock{registry_.mutex};
    return {record.device, record.home};
}

void Devices::publish(const Record& record, std::string_view kind, std::string_view what) const {
    std::string name;
    Event event;
    {
        const std::lock_guard lock{registry_.mutex};
        name = record.name;
        event.event_number = record.event_number;
    }
    event.kind = kind;
    event.device = name;
    event.serial = record.serial;
    event.what = what;
    hub_.publish(event);
}

void Devices::commit(const std::vector<State::Change>& changes) const {
    if (auto committed = state_.commit(changes); !committed) {
        throw Failure{committed.error().code, "the state directory: " + committed.error().message};
    }
}

State::Change Devices::removal_of(const Record& record) {
    return {fmt::format("device/{}", record.minor), std::nullopt};
}

State::Change Devices::change_of(const Record& record, bool resumed) const {
    const std::lock_guard lock{registry_.mutex};
    Json value = {{"name", record.name}};
    if (!record.uuid.empty()) value["uuid"] = record.uuid;
    const auto& slot = resumed && record.inactive ? record.inactive : record.live ? record.live : record.kept;
    if (slot && &slot == &record.live && record.gave_store) {
        Sectors size;
        for (const TableLine& line : slot->lines) size += line.length;
        value["table"] = json_of_lines({{Sector{0}, size, "error", ""}});
    } else if (slot) {
        value["table"] = json_of_lines(slot->lines);
        if (slot->read_only) value["read_only"] = true;
        if (!slot->minors.empty()) value["minors"] = slot->minors;
    }
    if (!record.settings.empty()) value["settings"] = record.settings;
    if (!record.snapshot.is_null()) value["snapshot"] = record.snapshot;
    if (!record.merging.is_null()) value["merging"] = record.merging;
    if (!record.moving.is_null()) value["moving"] = record.moving;
    if (!record.scrub.empty()) value["scrub"] = record.scrub;
    if (!record.mirroring.is_null()) value["mirroring"] = record.mirroring;
    if (record.internal) value["internal"] = true;
    if (record.still) value["still"] = true;
    if (record.deferred_remove) value["deferred"] = true;
    if (!record.stale_because.empty()) value["stale"] = record.stale_because;
    return {fmt::format("device/{}", record.minor), std::move(value)};
}

RecordPtr Devices::make(const std::string& name, const std::string& uuid,
                        std::optional<std::uint32_t> minor) {
    return registry_.create(name, uuid, minor);
}

unsigned Devices::least_loaded() const {
    const auto counts = devices_per_reactor();
    if (counts.empty()) throw Failure{Errc::no_device, "this daemon has no reactor"};
    return static_cast<unsigned>(std::min_element(counts.begin(), counts.end()) - counts.begin());
}

std::vector<unsigned> Devices::devices_per_reactor() const {
    return registry_.devices_per_home(host_.reactor_count());
}

Device& Devices::ensure_device(const RecordPtr& record, unsigned home) {
    const std::lock_guard making{making_};
    if (const Located at = locate(*record); at.device) return *at.device;
    const std::string name = name_of(*record);
    std::shared_ptr<Device::Observer> observer = std::make_shared<Observer>(*this, record);
    Device* device = nullptr;
    run_on(host_.env(home).reactor, [&] {
        record->owned = std::make_unique<Device>(host_.env(home), name, record->id(), observer.get());
        device = record->owned.get();
    });
    const std::lock_guard lock{registry_.mutex};
    record->observer = std::move(observer);
    registry_.set_device_locked(*record, device, home);
    return *device;
}

// A device that never got a table may find another home.
void Devices::drop_idle_device(Record& record) {
    const std::lock_guard making{making_};
    unsigned home = 0;
    {
        const std::lock_guard lock{registry_.mutex};
        if (!record.device || record.live || record.inactive || record.table_opens != 0 ||
            record.exports != 0)
            return;
        home = record.home;
        registry_.set_device_locked(record, nullptr);
    }
    Reactor& reactor = host_.env(home).reactor;
    call_on(reactor, [&] { return record.owned->detach(); });
    run_on(reactor, [&] { record.owned.reset(); });
    record.observer.reset();
}

// Where what the lines stand on lives: what the snapshot family demands (decision 18), then mapped devices, then
// files and disks that others have open.
std::optional<unsigned> Devices::home_below(const std::vector<TableLine>& lines) const {
    for (const TableLine& line : lines) {
        const std::string base = snapshot_base(line);
        if (base.empty()) continue;
        const DiskId id = identity_of(base);
        bool expected = false;
        {
            const std::lock_guard lock{registry_.mutex};
            expected = expected_origins_.contains(id);
        }
        if (const auto home = registry_.home_of_base(id, writes_base(line), expected)) return home;
    }
    std::vector<std::pair<std::string, bool>> words;  // and whether they may be shared by homes
    for (const TableLine& line : lines) {
        bool is_still = line.type == "snapshot";  // the base comes first
        for (std::string& word : words_of(line)) {
            if (may_be_device(word)) words.emplace_back(std::move(word), is_still);
            is_still = false;
        }
    }
    for (const auto& [word, is_still] : words) {
        if (const RecordPtr lower = find_mapped(registry_, word)) {
            if (const Located at = locate(*lower); at.device) return at.home;
        }
    }
    std::optional<unsigned> elsewhere;
    for (const auto& [word, is_still] : words) {
        if (is_still || find_mapped(registry_, word)) continue;
        const DiskId id = host_.identify(word);
        if (id.kind == DiskId::Kind::none) continue;
        if (const auto home = registry_.home_of_users(id)) return home;
        if (id.kind == DiskId::Kind::remote && !elsewhere) elsewhere = home_of_export(id);
    }
    return elsewhere;
}

// Where its connections are; without any yet, always the same place: who looks whether the server is there opens it there, too.
unsigned Devices::home_of_export(const DiskId& id) const {
    const auto used = registry_.home_of_users(id);
    return used ? *used : static_cast<unsigned>(id.inode % host_.reactor_count());
}

unsigned Devices::choose_home(const RecordPtr& record, const std::vector<TableLine>& lines,
                              std::optional<unsigned> wanted) {
    const std::optional<unsigned> below = wanted ? wanted : home_below(lines);
    Located at = locate(*record);
    if (at.device && below && *below != at.home) {
        drop_idle_device(*record);
        at = locate(*record);
    }
    const unsigned home = at.device ? at.home : below ? *below : least_loaded();
    for (const TableLine& line : lines) check_store(*record, home, line);
    return home;
}

// The lines of both its tables, unless it lives here.
std::vector<TableLine> Devices::lines_elsewhere(const Record& user, unsigned home, std::string& name) const {
    std::vector<TableLine> lines;
    const std::lock_guard lock{registry_.mutex};
    if (!user.device || user.home == home) return lines;
    name = user.name;
    for (const auto* slot : {&user.live, &user.inactive}) {
        if (*slot) lines.insert(lines.end(), (*slot)->lines.begin(), (*slot)->lines.end());
    }
    return lines;
}

// A store has one owner. Those of one home are known there (targets/snapshot); here are the others (defect N27).
void Devices::check_store(const Record& record, unsigned home, const TableLine& line) const {
    const std::string cow = snapshot_cow(line);
    if (cow.empty()) return;
    const DiskId id = identity_of(cow);
    if (id.kind == DiskId::Kind::none) return;
    for (const RecordPtr& user : registry_.users_of(id)) {
        if (user.get() == &record) continue;
        std::string name;
        for (const TableLine& other : lines_elsewhere(*user, home, name)) {
            const std::string other_cow = snapshot_cow(other);
            if (other_cow.empty() || identity_of(other_cow) != id) continue;
            throw Failure{Errc::bad_argument,
                          fmt::format("table: {}:{}: {}: Snapshot cow pairing for exception table handover failed: {} is "
                                      "the store of {}",
                                      kMajor, record.minor, line.type, cow, name),
                          name_of(record)};
        }
    }
}

std::vector<RecordPtr> Devices::others_with_store(const Record& record, const std::string& cow) const {
    std::vector<RecordPtr> others;
    const DiskId id = identity_of(cow);
    if (id.kind == DiskId::Kind::none) return others;
    for (const RecordPtr& user : registry_.users_of(id)) {
        if (user.get() == &record) continue;
        std::vector<TableLine> lines;
        {
            const std::lock_guard lock{registry_.mutex};
            if (user->live) lines = user->live->lines;
        }
        const bool names_it = std::any_of(lines.begin(), lines.end(), [&](const TableLine& line) {
            const std::string theirs = snapshot_cow(line);
            return !theirs.empty() && identity_of(theirs) == id;
        });
        if (names_it) others.push_back(user);
    }
    return others;
}

// After a crash one table alone may name the store: the one that it went to.
std::vector<RecordPtr> Devices::note_givers(const Record& record) {
    std::vector<TableLine> coming;
    {
        const std::lock_guard lock{registry_.mutex};
        if (record.inactive) coming = record.inactive->lines;
        else if (record.live && record.suspended && !record.gave_store) coming = record.live->lines;
    }
    std::vector<RecordPtr> givers;
    for (const TableLine& line : coming) {
        const std::string cow = snapshot_cow(line);
        if (cow.empty()) continue;
        for (const RecordPtr& other : others_with_store(record, cow)) {
            const std::lock_guard lock{registry_.mutex};
            if (!other->suspended || other->gave_store) continue;    // a running one gives nothing away
            other->gave_store = true;
            givers.push_back(other);
        }
    }
    return givers;
}

std::vector<State::Change> Devices::changes_of(const Record& record, const std::vector<RecordPtr>& givers) const {
    std::vector<State::Change> changes{change_of(record, true)};
    for (const RecordPtr& giver : givers) changes.push_back(change_of(*giver));
    return changes;
}

void Devices::forget_givers(const std::vector<RecordPtr>& givers) {
    const std::lock_guard lock{registry_.mutex};
    for (const RecordPtr& giver : givers) giver->gave_store = false;
}

DiskId Devices::identity_of(const std::string& word) const {
    const RecordPtr lower = find_mapped(registry_, word);
    return lower ? lower->id() : host_.identify(word);
}

void Devices::load_step(const RecordPtr& record, const std::vector<TableLine>& lines, bool read_only,
                        const std::map<std::string, std::uint32_t>& known_minors,
                        std::optional<unsigned> wanted_home, const Away& away) {
    const std::string name = name_of(*record);
    const unsigned home = choose_home(record, lines, wanted_home);
    Device& device = ensure_device(record, home);
    Env& env = host_.env(home);
    TableOpener opener{{.registry = registry_,
                        .host = host_,
                        .record = record,
                        .home = home,
                        .known = known_minors,
                        .bases = bases_of(lines),
                        .away = away,
                        .lost_stores = &lost_,
                        .notify_unused = [this](RecordPtr unused) { remove_later(std::move(unused)); },
                        .ensure_device = [this](const RecordPtr& lower, unsigned at) -> Device& {
                            return ensure_device(lower, at);
                        }}};
    const Table::Context context{.env = env,
                                 .types = host_.types(home),
                                 .opener = opener,
                                 .events = device,
                                 .lost_stores = &lost_,
                                 .device_name = name,
                                 .self = record->id(),
                                 .major = kMajor,
                                 .minor = record->minor};
    auto table =
        must(Table::build(lines, read_only ? TableMode::read_only : TableMode::read_write, context), name);
    must(call_on(env.reactor, [&] { return load_into(&device, &table); }), name);
    {
        const std::lock_guard lock{registry_.mutex};
        record->inactive = SlotText{lines, read_only, opener.minors()};
    }
    // Again, now that others see it: another load may have passed the check at the same time.
    try {
        for (const TableLine& line : lines) check_store(*record, home, line);
    } catch (const Failure&) {
        clear_step(*record);
        throw;
    }
}

void Devices::rename_step(Record& record, const std::string& name) {
    registry_.rename(record, name);
    const Located at = locate(record);
    if (at.device) run_on(host_.env(at.home).reactor, [&] { at.device->rename(name); });
}

void Devices::clear_step(Record& record) {
    const Located at = locate(record);
    if (at.device) run_on(host_.env(at.home).reactor, [&] { at.device->clear_inactive(); });
    const std::lock_guard lock{registry_.mutex};
    record.inactive.reset();
}

void Devices::suspend_step(Record& record, SuspendFlags flags) {
    const Located at = locate(record);
    if (at.device)
        must(call_on(host_.env(at.home).reactor, [&] { return at.device->suspend(flags); }), name_of(record));
    const std::lock_guard lock{registry_.mutex};
    record.suspended = true;
}

// What was set for the device holds for the table that comes, too. Targets that do not know a setting say so, and nobody minds.
void Devices::tell_settings(const Record& record, Device& device, unsigned home) const {
    Json settings;
    {
        const std::lock_guard lock{registry_.mutex};
        settings = record.settings;
    }
    for (const auto& [key, value] : settings.items()) {
        const std::vector<std::string> words = {"set", key, value.is_string() ? value.get<std::string>() : to_line(value)};
        static_cast<void>(call_on(host_.env(home).reactor, [&] { return tell_targets(&device, &words); }));
    }
}

// A check or repair of a mirror goes on in the table that comes.
void Devices::tell_scrub(Record& record, Device& device, unsigned home) const {
    std::string text;
    Sector start;
    bool live = false;
    {
        const std::lock_guard lock{registry_.mutex};
        text = record.scrub;
        for (const TableLine& line : record.live ? record.live->lines : std::vector<TableLine>{}) {
            if (line.type == "mirror" && !live) start = line.begin, live = true;
        }
    }
    if (text.empty()) return;
    if (live) {    // what was kept is some seconds old
        const std::vector<std::string> ask = {"scrub_status"};
        if (auto now = call_on(host_.env(home).reactor, [&] { return device.message(start, &ask); })) text = std::move(*now);
    }
    const std::vector<std::string> words = {"scrub_restore", text};
    static_cast<void>(call_on(host_.env(home).reactor, [&] { return tell_targets(&device, &words); }));
}

void Devices::resume_step(const RecordPtr& record) {
    const std::string name = name_of(*record);
    std::vector<TableLine> coming;
    bool suspended = false;
    {
        const std::lock_guard lock{registry_.mutex};
        if (record->inactive) coming = record->inactive->lines;
        suspended = record->suspended;
    }
    const Located at = locate(*record);
    if (!at.device) {
        if (suspended)
            throw Failure{Errc::bad_argument,
                          fmt::format("{} has no table to resume with: load one first", name), name};
        return;
    }
    if (registry_.any_held()) mark_snapshots_stale(*record, coming);
    if (!coming.empty()) {
        tell_settings(*record, *at.device, at.home);
        tell_scrub(*record, *at.device, at.home);
    }
    auto resumed = call_on(host_.env(at.home).reactor, [&] { return at.device->resume(); });
    update_after_resume(record);
    must(std::move(resumed), name);
}

void Devices::update_after_resume(const RecordPtr& record) {
    const Located at = locate(*record);
    Limits limits;
    bool has_inactive = false, has_live = false, suspended = false;
    run_on(host_.env(at.home).reactor, [&] {
        limits = at.device->limits();
        has_inactive = at.device->inactive() != nullptr;
        has_live = at.device->live() != nullptr;
        suspended = at.device->suspended();
    });
    {
        const std::lock_guard lock{registry_.mutex};
        record->suspended = suspended;
        record->size = limits.size;
        if (record->inactive && !has_inactive) {
            if (has_live) record->live = std::move(record->inactive);
            record->gave_store = false;
            record->inactive.reset();
            record->kept.reset();  // a table of its own again
            if (record->stale_because.empty()) record->held_because.clear();
            registry_.note_held_locked(*record);
        }
    }
    for (const auto& [remote, home] : registry_.remotes_of(*record)) {
        run_on(host_.env(home).reactor, [&, disk = remote] {
            const std::lock_guard lock{registry_.mutex};
            if (registry_.has_remote_locked(disk)) disk->set_limits(limits);
        });
    }
}

void Devices::flush_step(Record& record) {
    const Located at = locate(record);
    if (at.device)
        must(call_on(host_.env(at.home).reactor, [&] { return flush_device(at.device); }), name_of(record));
}

void Devices::destroy_step(Record& record) {
    const Located at = locate(record);
    if (at.device) {
        Reactor& reactor = host_.env(at.home).reactor;
        call_on(reactor, [&] { return at.device->detach(); });
        {
            const std::lock_guard lock{registry_.mutex};
            registry_.set_device_locked(record, nullptr);
        }
        run_on(reactor, [&] { record.owned.reset(); });
    }
    registry_.end_removal(record);
}

// What tables stand on is left as it is: a request of theirs that failed here might cost a snapshot its store.
void Devices::let_go_held_back() {
    const auto located = [this](const Record& record) {
        const std::lock_guard lock{registry_.mutex};
        const bool holds_back = record.suspended && record.exports != 0 && record.table_opens == 0;
        return holds_back ? Located{record.device, record.home} : Located{};
    };
    for (const RecordPtr& record : registry_.all()) {
        if (!located(*record).device) continue;  // nor waited for: another may be in the middle of a suspend that hangs
        const std::lock_guard operation{record->operation};
        const Located at = located(*record);
        if (!at.device) continue;
        log_info(name_of(*record), "is suspended: what it holds back ends with its clients' connections");
        call_on(host_.env(at.home).reactor, [&] { return at.device->detach(); });
    }
}

std::vector<std::string> Devices::suspended_below() const {
    std::vector<std::string> names;
    for (const RecordPtr& record : registry_.all()) {
        const std::lock_guard lock{registry_.mutex};
        if (record->suspended && record->table_opens != 0) names.push_back(record->name);
    }
    return names;
}

void Devices::stop() {
    stopping_ = true;
    for (const RecordPtr& record : registry_.top_down()) {
        const std::lock_guard operation{record->operation};
        const Located at = locate(*record);
        if (!at.device) continue;
        log_debug(name_of(*record), "suspending");
        auto suspended = call_on(host_.env(at.home).reactor, [&] { return at.device->suspend({}); });
        if (!suspended) log_error(name_of(*record), "suspend: {}", suspended.error().message);
        Reactor& reactor = host_.env(at.home).reactor;
        call_on(reactor, [&] { return at.device->detach(); });
        {
            const std::lock_guard lock{registry_.mutex};
            registry_.set_device_locked(*record, nullptr);
        }
        run_on(reactor, [&] { record->owned.reset(); });
    }
    worker_.stop();
    recorder_.stop();
}

std::vector<std::string> Devices::warnings() const {
    std::vector<std::string> all;
    if (!state_.warning().empty()) all.push_back(state_.warning());
    {
        const std::lock_guard lock{warnings_mutex_};
        all.insert(all.end(), warnings_.begin(), warnings_.end());
    }
    for (const RecordPtr& record : registry_.held()) {
        const std::lock_guard lock{registry_.mutex};
        if (!record->held_because.empty())
            all.push_back(fmt::format("{}: {}; {}", record->name, record->held_because, advice_for_held_locked(*record)));
    }
    for (const RecordPtr& record : registry_.troubled()) {
        const std::lock_guard lock{registry_.mutex};
        all.push_back(fmt::format("{}: {}", record->name, record->trouble));
    }
    return all;
}

}  // namespace udm::ctl
