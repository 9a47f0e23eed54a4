// All mapped devices by name, uuid and number, who uses whom, and what files the tables have open. A short
// lock, never held while waiting for anything.
//
// A daemon may have ten thousand devices: whatever is asked about one of them is answered from an index, so that
// it costs the same beside many others. Only what says "all" looks at all.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ctl/free_numbers.hpp"
#include "ctl/record.hpp"

namespace udm {
class RemoteDisk;
}

namespace udm::ctl {

class Registry {
  public:
    Registry();
    mutable std::mutex mutex;  // of all records' fields that say so

    // --- names; each takes the mutex
    // ---------------------------------------------------------------------------- Throws Failure:
    // bad_argument for a wrong name, busy for one that is taken.
    RecordPtr create(const std::string& name, const std::string& uuid, std::optional<std::uint32_t> minor);
    RecordPtr find(const DeviceKey& key) const;  // throws Failure not_found (ENXIO)
    RecordPtr try_find(const DeviceKey& key) const;
    std::vector<RecordPtr> all() const;  // by name
    // Those whose names come after `after` (from the first one on without it), at most `most`.
    std::vector<RecordPtr> some(const std::optional<std::string>& after, std::size_t most) const;
    std::size_t size() const;
    void rename(Record& record, const std::string& name);    // throws Failure busy, in the kernel's words
    void set_uuid(Record& record, const std::string& uuid);  // likewise
    void unset_uuid(Record& record);
    // Throws Failure busy where begin_removal() would.
    void check_unused(const Record& record) const;
    // From now on it isn't found, unless it is in use: then throws Failure busy, saying by whom. Others get its name
    // and uuid when the state has forgotten it (or they would be there twice after a crash), and its number when its
    // device is destroyed (or the state would forget the next one with it).
    void begin_removal(Record& record);
    // Of devices that stand on each other only: all of them, or none.
    void begin_removal(const std::vector<RecordPtr>& together);
    void undo_removal(Record& record);
    void free_names(Record& record);
    void end_removal(Record& record);

    // --- uses; each takes the mutex
    // ----------------------------------------------------------------------------- A table of `upper` opens
    // `lower`. Throws Failure: not_found when it is gone; bad_argument for a loop, and where more
    // than Table::kLevelsMax devices would stand on each other.
    void open(Record& upper, const RecordPtr& lower);
    // The other way; true when that was the last use of a device whose removal was deferred.
    bool close(Record& upper, Record& lower);
    bool export_opened(Record& record, int difference);  // true as with close()
    // What a table has something open for. A mere user of a base is neither.
    struct Use {
        unsigned home = 0;      // of the device whose table it is
        bool writes = false;    // open for writing
        bool snapshot = false;  // the base of a snapshot
        bool origin = false;    // the base of what writes it past no snapshot: snapshot-origin, snapshot-merge, discard_passdown_origin
    };
    void note_use(const DiskId& id, Record& record, const Use& use);
    void forget_use(const DiskId& id, Record& record, const Use& use);
    // The devices whose tables have this open, each once, in the order of their serials.
    std::vector<RecordPtr> users_of(const DiskId& id) const;
    std::vector<RecordPtr> writers_of(const DiskId& id) const;      // those that write it past its origin
    std::vector<RecordPtr> origins_of(const DiskId& base) const;    // the snapshot-origins and snapshot-merges among them
    // A path by which a file is open, and how large it was then.
    struct OpenFile {
        DiskId id;
        std::string path;
        std::uint64_t bytes = 0;
    };
    void note_file(const OpenFile& file);    // after note_use()
    std::vector<OpenFile> files_after(const DiskId& after, std::size_t most) const;
    std::optional<unsigned> home_of_users(const DiskId& id) const;  // of one of them
    // Where a snapshot-origin, or another snapshot, of this base belongs: to its origin, or to who writes it otherwise.
    // Where there is neither, an origin belongs to the snapshots, and snapshots stay together while they are few
    // (somebody may be about to load an origin over them) or if an origin is expected. None: anywhere.
    std::optional<unsigned> home_of_base(const DiskId& id, bool for_origin, bool expect_origin) const;
    static constexpr unsigned kFewSnapshots = 8;
    // An origin and the snapshots of its base share one home (decision 18): names of those that stand in the way of such
    // a use, a few of many, and how many there are in all; empty if none do.
    struct Elsewhere {
        std::vector<std::string> names;
        std::size_t count = 0;
    };
    Elsewhere family_elsewhere(const DiskId& base, const Use& use) const;
    // Names of devices whose tables use it, the oldest first, at most `most`.
    std::vector<std::string> users_of(const Record& lower, std::size_t most = ~std::size_t{0}) const;
    // Whether they lead to a file or block device that is the same: then their data may be the same, too.
    bool share_a_disk(const Record& one, const Record& other) const;
    // The devices that share one with it, but for itself and internal ones; at most so many, sorted.
    std::vector<std::string> names_on_its_disks(const Record& record, std::size_t most) const;
    // Those that use others first.
    std::vector<RecordPtr> top_down() const;

    void note_remote(Record& lower, RemoteDisk& disk, unsigned home);
    void forget_remote(RemoteDisk& disk);
    // The proxies for this device on other reactors. Use each on its home, under the mutex, after
    // has_remote().
    std::vector<std::pair<RemoteDisk*, unsigned>> remotes_of(const Record& lower) const;
    bool has_remote_locked(RemoteDisk* disk) const { return remotes_.contains(disk); }

    // --- more indexes; those with _locked want the mutex to be held
    // ------------------------------------------------------------------------------------------
    // The device has, or has no longer, a home.
    void set_device_locked(Record& record, Device* device, unsigned home = 0);
    std::vector<unsigned> devices_per_home(unsigned homes) const;
    // After a change of `kept` or `held_because`.
    void note_held_locked(Record& record);
    std::vector<RecordPtr> held() const;  // those with either, by serial
    bool any_held() const;
    void set_trouble_locked(Record& record, std::string trouble);
    std::vector<RecordPtr> troubled() const;    // those with any, by serial
    // What snapshot.take notes about a snapshot, and so whose it is.
    void note_snapshot_locked(Record& record, Json what);
    std::vector<RecordPtr> snapshots_of(const Record& origin) const;  // noted as such, by name

  private:
    template <class Says>
    std::vector<RecordPtr> users_who(const DiskId& id, Says says) const;
    RecordPtr find_locked(const DeviceKey& key) const;
    void free_names_locked(const Record& record);
    std::vector<std::string> users_locked(const Record& lower, std::size_t most) const;
    std::string users_text_locked(const Record& lower) const;
    void check_unused_locked(const Record& record, const std::set<const Record*>& but_by) const;
    void bottom_locked(const Record& record, std::set<DiskId>& bottom) const;
    unsigned height_locked(const Record& record, bool up) const;
    bool reaches_locked(const Record& from, const Record& to, std::vector<std::string>& way) const;
    static bool unused_and_deferred(const Record& record);

    struct Remote {
        Record* lower;
        unsigned home;
    };
    // All uses of one disk.
    struct Uses {
        struct Counts {
            unsigned all = 0, writers = 0, snapshots = 0, origins = 0;
        };
        std::map<std::uint64_t, Counts> by_serial;
        std::vector<Counts> by_home;
        std::string path;    // of a file
        std::uint64_t bytes = 0;
        static void add(Counts& counts, const Use& use, unsigned difference);
        template <class Says>
        std::optional<unsigned> home(Says says) const;
    };
    void change_use(const DiskId& id, Record& record, const Use& use, unsigned difference);
    std::uint64_t next_serial_ = 1;  // 0 means all devices to subscribers
    std::map<std::string, RecordPtr, std::less<>> by_name_, by_uuid_;
    std::map<std::uint32_t, RecordPtr> by_minor_;
    std::size_t going_ = 0;  // of by_minor_: on their way out
    FreeNumbers free_minors_;
    std::map<std::uint64_t, std::weak_ptr<Record>> by_serial_;
    std::map<DiskId, Uses> uses_;
    std::map<RemoteDisk*, Remote> remotes_;
    std::map<const Record*, std::set<RemoteDisk*>> remotes_by_lower_;
    std::vector<unsigned> per_home_;
    std::map<std::uint64_t, Record*> held_, troubled_;
    std::map<std::uint32_t, std::set<std::uint64_t>> snapshots_;  // minor of the origin → serials
};

}  // namespace udm::ctl
