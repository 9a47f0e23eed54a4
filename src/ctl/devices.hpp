// The mapped devices of a daemon: what one can ask of them by name, and the steps it is made of.
//
// Verbs are called from clients' threads. Each takes the device's operation lock, so that changes of one
// device come one after the other while those of others go on, and does its work on the device's home
// reactor, waiting for it (call_on.hpp). The registry's mutex is only held for a look or a change of a few
// fields.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ctl/events.hpp"
#include "ctl/host.hpp"
#include "ctl/json.hpp"
#include "ctl/lost_stores.hpp"
#include "ctl/patience.hpp"
#include "ctl/registry.hpp"
#include "ctl/rpc.hpp"
#include "ctl/state.hpp"
#include "ctl/worker.hpp"

namespace udm::ctl {

// Has something in the state that goes with a device.
class RemovalWatcher {
  public:
    // What must leave the state with the device, in one commit; and when that is done.
    virtual std::vector<State::Change> changes_at_removal(const Record& record) const = 0;
    virtual void removed(const Record& record) = 0;

  protected:
    ~RemovalWatcher() = default;
};

class Devices {
  public:
    Devices(Host& host, EventHub& hub, State& state);
    ~Devices();  // stop() first, if there are devices

    // --- verbs: docs/protocol.md. All throw Failure
    // -------------------------------------------------------------
    struct Creation {
        std::string name, uuid;
        std::optional<std::uint32_t> minor;
        bool read_only = false;
        std::optional<std::vector<TableLine>> table;
        std::string of;    // instead of a table: an NBD URI, whose export it is all of
        bool careful = false;    // refuse to write past a volume's snapshots (devices_beside.cpp)
    };
    RecordPtr create(const Creation& creation);
    void remove(const RecordPtr& record);    // this one, whatever it is called by now
    struct Removal {
        bool deferred = false;
        bool force = false;      // an error table first, so that whoever waits is let go
        bool careful = false;    // force only where the device can go then: what is in use stays as it is
    };
    // True: will be, once nobody uses it. `kept`: the store of a redirected volume that goes, which stays on its disk.
    bool remove(const DeviceKey& key, const Removal& how, std::string* kept = nullptr);
    struct Removed {
        std::vector<std::string> removed, busy;
    };
    Removed remove_all(const Removal& how);
    RecordPtr rename(const DeviceKey& key, const std::string& new_name);
    RecordPtr set_uuid(const DeviceKey& key, const std::string& new_uuid);
    RecordPtr suspend(const DeviceKey& key, bool noflush);
    RecordPtr resume(const DeviceKey& key);
    RecordPtr load(const DeviceKey& key, const std::vector<TableLine>& lines, bool read_only);
    RecordPtr clear(const DeviceKey& key);
    std::optional<std::string> message(const DeviceKey& key, Sector sector, const std::string& text);
    // Of an object {key: value, ...}: all are checked before any counts. null: back to the default.
    Json set(const DeviceKey& key, const Json& wanted);

    // Parameters of the target types, which hold for the whole daemon and are read on every use (decision 16).
    struct DaemonSetting {
        Parameter parameter;
        std::uint64_t value;  // of all reactors together
    };
    std::vector<DaemonSetting> daemon_settings() const;
    // None: as usual. `kept`: in the state, over restarts.
    void check_daemon(const std::string& name, const std::optional<std::uint64_t>& value) const;
    void set_daemon(const std::string& name, const std::optional<std::uint64_t>& value, bool kept);

    Json info(const Record& record) const;
    Json status(const DeviceKey& key, bool inactive) const;  // of each target; `text` is INFO
    Json table(const DeviceKey& key, bool inactive) const;   // `text` has the arguments
    Json dependencies(const DeviceKey& key, bool inactive) const;
    // Of each target that has regions: how they are, as a picture of so many cells (devices_regions.cpp).
    Json regions(const Record& record, std::size_t cells) const;
    Json counters(const std::vector<RecordPtr>& records) const;
    // As status() or, with `arguments`, table(), of each.
    std::vector<Json> lines_of(const std::vector<RecordPtr>& records, bool inactive, bool arguments) const;
    // Has each target look at the devices below it, and says which files it has open; one visit to each reactor.
    struct FileUse {
        enum class Role { data, store, merging } role = Role::data;    // a store, and one that is being merged
        std::string path;
        DiskId id;
        std::uint64_t needed = 0;    // bytes from its begin that are in use; 0: not known here
    };
    std::vector<std::vector<FileUse>> look_at_files(const std::vector<RecordPtr>& records) const;
    // An event of the device, with a number of its own.
    void raise(const Record& record, EventKind kind, const std::string& what) const;
    std::unique_ptr<Pending> wait(const DeviceKey& key, std::uint32_t event_number,
                                  std::optional<std::uint64_t> timeout_ms) const;

    // At most one; before there are clients, and after them.
    void set_removal_watcher(RemovalWatcher* watcher) { removal_watcher_ = watcher; }

    // --- life of the daemon
    // ------------------------------------------------------------------------------------- Brings up what
    // the state has (devices_restore.cpp). What cannot come up is held; see warnings().
    void restore();
    // Then, when exports have opened theirs: removes those whose removal was deferred and that nobody uses now.
    void remove_unused();
    // Before stop(): suspended devices that are exported and that no table uses end the requests they hold back.
    void let_go_held_back();
    // Names of devices that are suspended while tables of others stand on them.
    std::vector<std::string> suspended_below() const;
    // Suspends all devices, those that use others first, and lets them go; the state stays as it is.
    void stop();
    // After restore(): the NBD exports that held devices wait for, and bringing up those whose exports are all `there`; true if
    // any came up. One thread.
    std::set<std::string> exports_awaited() const;
    bool bring_up_remote(const std::set<std::string>& there);
    bool any_remote() const { return !remote_.empty(); }
    std::vector<std::string> warnings() const;
    std::vector<unsigned> devices_per_reactor() const;

    // What a table need not find there, and the size it wants of it.
    using Away = std::map<std::string, Sectors, std::less<>>;

    // --- steps, for who holds `operation` of the record
    // --------------------------------------------------------- They change the device, not the state:
    // commit() what change_of() says.
    RecordPtr make(const std::string& name, const std::string& uuid, std::optional<std::uint32_t> minor);
    void load_step(const RecordPtr& record, const std::vector<TableLine>& lines, bool read_only,
                   const std::map<std::string, std::uint32_t>& known_minors = {},
                   std::optional<unsigned> wanted_home = {}, const Away& away = {});
    void clear_step(Record& record);
    void rename_step(Record& record, const std::string& name);
    void suspend_step(Record& record, SuspendFlags flags);
    // Swaps the tables if there is an inactive one; on an error the record says what came of it.
    void resume_step(const RecordPtr& record);
    void flush_step(Record& record);    // writes the device's caches out; errors are thrown
    void destroy_step(Record& record);  // after Registry::begin_removal()
    // What the state should say of it; `resumed`: as after a resume.
    State::Change change_of(const Record& record, bool resumed = false) const;
    static State::Change removal_of(const Record& record);
    // After Registry::begin_removal(): all that leaves the state with it; and, when that is committed, the rest.
    std::vector<State::Change> changes_at_removal(const Record& record) const;
    void finish_removal(Record& record);
    void commit(const std::vector<State::Change>& changes) const;
    void publish(const Record& record, std::string_view kind, std::string_view what = {}) const;
    Device& ensure_device(const RecordPtr& record, unsigned home);
    unsigned least_loaded() const;
    unsigned home_of_export(const DiskId& id) const;    // of a remote one
    // Bounded removal when the last user of a device with a deferred removal is gone. Any thread.
    void remove_later(RecordPtr record);

    Registry& registry() noexcept { return registry_; }
    const Registry& registry() const noexcept { return registry_; }
    Host& host() noexcept { return host_; }
    State& state() noexcept { return state_; }
    const State& state() const noexcept { return state_; }
    LostStoreList& lost_stores() noexcept { return lost_; }
    Worker& worker() noexcept { return worker_; }
    EventHub& hub() noexcept { return hub_; }
    std::string name_of(const Record& record) const;

    struct Locked {
        RecordPtr record;
        std::unique_lock<std::mutex> operation;
    };
    Locked lock(const DeviceKey& key) const;  // throws not_found
    void check_there(const Record& record) const;
    // Other devices whose live tables name this store, whether they have it or gave it away.
    std::vector<RecordPtr> others_with_store(const Record& record, const std::string& cow) const;
    // A held device whose table names what these words mean, by whatever path, or names them where nothing is: it has nothing open,
    // and wants it as it was. Null: none. May block.
    RecordPtr held_user_of(const std::string& words) const;
    // Whether no table names this file, of a device that is up or held.
    bool is_free(const std::string& path) const;
    // Whether all that an earlier daemon kept is known here: nothing of the state was damaged or unusable, or was once and is put aside still.
    bool knows_whole_state() const;

  private:
    class Observer;
    struct Located {
        Device* device = nullptr;
        unsigned home = 0;
    };
    Located locate(const Record& record) const;
    Device* device_at(const Record& record, unsigned home) const;
    unsigned choose_home(const RecordPtr& record, const std::vector<TableLine>& lines,
                         std::optional<unsigned> wanted);
    std::optional<unsigned> home_below(const std::vector<TableLine>& lines) const;
    RecordPtr bearer_of(const RecordPtr& record) const;
    RecordPtr put_below(const RecordPtr& record) const;
    Json set_locked(Record& record, const Json& wanted);
    void check_beside(const std::vector<TableLine>& lines) const;
    void restore_daemon_settings();
    DiskId identity_of(const std::string& word) const;
    void check_held_mirrors(const Record& record, const std::vector<TableLine>& lines) const;
    std::vector<TableLine> lines_elsewhere(const Record& user, unsigned home, std::string& name) const;
    void check_store(const Record& record, unsigned home, const TableLine& line) const;
    // Those whose stores go to `record` when it is resumed: noted so, but not yet in the state.
    std::vector<RecordPtr> note_givers(const Record& record);
    std::vector<State::Change> changes_of(const Record& record, const std::vector<RecordPtr>& givers) const;
    void forget_givers(const std::vector<RecordPtr>& givers);
    void drop_idle_device(Record& record);
    void remove_locked(const RecordPtr& record);
    bool needed_by_held(const Record& lower) const;
    void replace_by_error(const RecordPtr& record);
    std::string advice_for_held_locked(const Record& record) const;
    RecordPtr layer_under(const Record& volume) const;
    void tell_settings(const Record& record, Device& device, unsigned home) const;
    void tell_scrub(Record& record, Device& device, unsigned home) const;
    void update_after_resume(const RecordPtr& record);
    Json slot_lines(const DeviceKey& key, bool inactive, bool arguments) const;

    // devices_restore.cpp
    // `patience`: with what is in use; none without.
    void bring_up(const std::vector<RecordPtr>& held, Patience* patience = nullptr);
    void expect_origins(const std::vector<RecordPtr>& held);
    void bring_up_one(const RecordPtr& record, const Away& away = {});
    void hold(Record& record, const std::string& why, bool tell = true);
    void mark_snapshots_stale(const Record& origin, const std::vector<TableLine>& lines);
    void make_stale(const RecordPtr& snapshot, const std::string& why);
    void load_error_table(const RecordPtr& record);
    std::vector<RecordPtr> in_order(const std::vector<RecordPtr>& records) const;

    // devices_remote.cpp
    void set_remote_aside(std::vector<RecordPtr>& records);
    std::optional<SlotText> held_table(const Record& record) const;
    bool needs(const SlotText& slot, const std::vector<RecordPtr>& others) const;
    std::optional<std::string> obstacle(const RecordPtr& record, const SlotText& slot, const std::set<std::string>& there, const Away& away) const;
    bool waits_longer(const Record& record) const;

    Host& host_;
    EventHub& hub_;
    State& state_;
    Worker worker_;
    Worker recorder_;  // of lost stores alone: what the other waits for may be waiting for a record
    LostStoreList lost_;
    Registry registry_;
    std::mutex making_;  // of Device objects
    RemovalWatcher* removal_watcher_ = nullptr;
    std::atomic<bool> stopping_ = false;
    // Bases that origins of the state will write once these are up. Under the registry's mutex.
    std::set<DiskId> expected_origins_;
    // Held since restore() because of NBD servers, those below first. One thread's: who calls bring_up_remote().
    std::vector<RecordPtr> remote_;
    std::chrono::steady_clock::time_point restored_at_;
    struct Attempt {    // to bring one of them up that failed
        std::set<std::string> there;
        std::chrono::seconds pause{1};
        std::chrono::steady_clock::time_point again;
    };
    std::map<std::uint64_t, Attempt> failed_;    // by serial; likewise
    mutable std::mutex warnings_mutex_;
    std::vector<std::string> warnings_;
};

// Words that may name a device: identify() is spared for plain numbers and options.
bool may_be_device(const std::string& word);
// The first word of a snapshot, snapshot-merge or snapshot-origin line: what it is a view of. Empty for
// others.
std::string snapshot_base(const TableLine& line);
std::string snapshot_cow(const TableLine& line);  // of snapshot and snapshot-merge
bool writes_base(const TableLine& line);          // snapshot-origin and snapshot-merge: all snapshots must be there first

}  // namespace udm::ctl
