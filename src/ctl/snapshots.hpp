// Snapshots of live volumes, the whole dance (docs/protocol.md, snapshot.*; decision 24).
//
// A volume becomes an origin the first time: if its table is one `linear DEVICE 0`, it is replaced by
// `snapshot-origin DEVICE`; any other table moves to a device of its own, NAME-real, and the volume becomes
// `snapshot-origin udm:NAME-real`. A snapshot is `snapshot DEVICE COW P CHUNK` beside it.
//
// A redirected volume is `linear udm:NAME-live 0` over NAME-live, `snapshot STILL COW PO CHUNK`, where STILL
// is the snapshot taken: the volume's former table, read-only, or the former NAME-live under a new name.
// Tables with a store in them never move; names do.
//
// Order: the stores are made and read in, and the state says how things will be, before the volumes stop;
// then all stop, are switched and go on. A crash after the state was written makes the snapshot's moment the
// crash: nobody was told of another. What fails is taken back.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ctl/devices.hpp"
#include "ctl/merging.hpp"

namespace udm::ctl {

class Snapshots {
  public:
    explicit Snapshots(Devices& devices) : devices_{devices}, merging_{devices} {}

    struct Wanted {
        DeviceKey origin;
        std::optional<std::string> snapshot;  // the new name
        std::optional<std::string> cow;       // a path to be made, or a blank device
    };
    struct Request {
        std::vector<Wanted> origins;
        std::optional<std::string> cow_dir;
        std::optional<std::string> size;  // bytes, with a unit, or a percentage of the origin
        std::uint64_t chunk = 4096;       // bytes
        bool persistent = true;
        bool redirect = false;
        bool reserve = false;  // the space of the stores that are made, now
    };
    // All throw Failure.
    Json take(const Request& request);
    Json drop(const DeviceKey& key);    // of a still image: merges down what stands on it, and returns when that has begun
    Json merge(const DeviceKey& key);
    // After a restart.
    void go_on() { merging_.find_unfinished(); }
    // By name: those after `after`, `most` of them. `only`: that one, if it is a snapshot.
    Json list(const std::optional<DeviceKey>& origin, const std::optional<std::string>& after = {},
              std::uint64_t most = ~std::uint64_t{0}, const std::optional<DeviceKey>& only = {}) const;

  private:
    class Taking;
    struct Listed;
    using Names = std::map<std::string, std::string>;    // by words: many may stand on the same
    std::optional<Listed> listed(const RecordPtr& record, Names& names) const;
    std::optional<Listed> listed_merge(const RecordPtr& volume) const;
    std::string volume_over(const std::string& base) const;
    Devices& devices_;
    Merging merging_;
    std::mutex one_at_a_time_;  // a take locks several devices
};

}  // namespace udm::ctl
