// All mapped devices by name, uuid and number, who uses whom, and what files the tables have open. A short
// lock, never held while waiting for anything.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ctl/record.hpp"

namespace udm {
class RemoteDisk;
}

namespace udm::ctl {

class Registry {
  public:
    mutable std::mutex mutex;  // of all records' fields that say so

    // --- names; each takes the mutex
    // ---------------------------------------------------------------------------- Throws Failure:
    // bad_argument for a wrong name, busy for one that is taken.
    RecordPtr create(const std::string& name, const std::string& uuid, std::optional<std::uint32_t> minor);
    RecordPtr find(const DeviceKey& key) const;  // throws Failure not_found (ENXIO)
    RecordPtr try_find(const DeviceKey& key) const;
    std::vector<RecordPtr> all() const;  // by name
    std::size_t size() const;
    void rename(Record& record, const std::string& name);    // throws Failure busy, in the kernel's words
    void set_uuid(Record& record, const std::string& uuid);  // likewise
    // From now on it isn't found, unless it is in use: then throws Failure busy, saying by whom. Others get its name
    // and uuid when the state has forgotten it (or they would be there twice after a crash), and its number when its
    // device is destroyed (or the state would forget the next one with it).
    void begin_removal(Record& record);
    void undo_removal(Record& record);
    void free_names(Record& record);
    void end_removal(Record& record);

    // --- uses; each takes the mutex
    // ----------------------------------------------------------------------------- A table of `upper` opens
    // `lower`. Throws Failure: not_found when it is gone; bad_argument for a loop.
    void open(Record& upper, const RecordPtr& lower);
    // The other way; true when that was the last use of a device whose removal was deferred.
    bool close(Record& upper, Record& lower);
    bool export_opened(Record& record, int difference);  // true as with close()
    void note_use(const DiskId& id, Record& record, int difference);
    // The devices whose tables have this open, each once, in the order of their serials.
    std::vector<RecordPtr> users_of(const DiskId& id) const;
    std::vector<std::string> users_of(const Record& lower) const;  // names of devices whose tables use it
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

  private:
    RecordPtr find_locked(const DeviceKey& key) const;
    void free_names_locked(const Record& record);
    std::vector<std::string> users_locked(const Record& lower) const;
    void bottom_locked(const Record& record, std::set<DiskId>& bottom) const;
    bool reaches_locked(const Record& from, const Record& to, std::vector<std::string>& way) const;
    static bool unused_and_deferred(const Record& record);

    struct Remote {
        Record* lower;
        unsigned home;
    };
    std::uint64_t next_serial_ = 1;  // 0 means all devices to subscribers
    std::map<std::string, RecordPtr, std::less<>> by_name_, by_uuid_;
    std::map<std::uint32_t, RecordPtr> by_minor_;
    std::map<std::uint64_t, std::weak_ptr<Record>> by_serial_;
    std::map<DiskId, std::map<std::uint64_t, unsigned>> uses_;  // disk → serial → how often
    std::map<RemoteDisk*, Remote> remotes_;
};

}  // namespace udm::ctl
