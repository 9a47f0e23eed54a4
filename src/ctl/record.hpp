// What the control plane knows of one mapped device. The device itself lives on its home reactor.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/device.hpp"
#include "ctl/json.hpp"
#include "ctl/table_text.hpp"

namespace udm::ctl {

class Record;
using RecordPtr = std::shared_ptr<Record>;

// One of the two table slots, as loaded.
struct SlotText {
    std::vector<TableLine> lines;
    bool read_only = false;
    // Which of our devices the words meant when it was loaded: they keep meaning it after a rename (decision
    // 12).
    std::map<std::string, std::uint32_t> minors;
};

class Record {
  public:
    Record(std::uint64_t serial_number, std::uint32_t minor_number)
        : serial{serial_number}, minor{minor_number} {}

    const std::uint64_t serial;  // never used twice
    const std::uint32_t minor;
    DiskId id() const noexcept { return {DiskId::Kind::mapped, kMajor, minor}; }

    // Held during a change, in the order of serials where several devices change; taken before the registry's
    // mutex.
    std::mutex operation;

    // --- under the registry's mutex
    // -----------------------------------------------------------------------------
    std::string name, uuid;
    bool gone = false;  // removed or being removed: nobody finds it
    bool suspended =
        false;  // by a user, or after a failed resume; a new device without a table isn't (as in Linux)
    bool deferred_remove = false;
    std::optional<SlotText> live, inactive;
    Sectors size{};  // of the live table
    std::uint32_t event_number = 0;
    unsigned table_opens = 0;  // by tables of others
    unsigned exports = 0;
    std::map<Record*, unsigned> uses;            // which devices its tables have open, and how often
    std::map<DiskId, unsigned> disks;            // what its tables have open, mapped or not, and how often
    std::map<std::uint64_t, Record*> used_by;    // the reverse, by serial
    unsigned home = 0;                           // once `device` is there
    // As owned below; for who may ask without being on its home. Registry::set_device_locked() sets both.
    Device* device = nullptr;
    std::shared_ptr<Device::Observer> observer;  // of `device`
    std::string trouble;                         // with its files (file_watch.hpp); Registry::set_trouble_locked()
    std::string held_because;                    // why it was left without its table after a restart
    std::string stale_because;     // a snapshot that must never be trusted again: it has an error table now
    std::optional<SlotText> kept;  // the table it had then, while it is held; Registry::note_held_locked()
    // Its live table's store went to another device's table: it answers with errors, and the state has an error table.
    bool gave_store = false;
    Json settings = Json::object();
    // What snapshot.take noted about a snapshot; null otherwise. Set by Registry::note_snapshot_locked().
    Json snapshot;
    std::optional<std::uint32_t> snapshot_of;  // the number of its origin, as noted
    // What is to be done when its merge is done, or, of a still image, who is merged into it (merging.hpp); null otherwise.
    Json merging;
    // Where it moves to, and what it has then (moving.hpp); null otherwise.
    Json moving;
    std::string scrub;      // how far the check or repair of its mirror is, as the target told it (scrubs.hpp); empty: none was ever begun
    // Of a mirror: its log, if we made it, and the leg that goes when another has everything (mirroring.hpp); null otherwise.
    Json mirroring;
    bool still = false;     // a still image that a redirected volume stands on: nobody writes it
    bool internal = false;  // made by snapshot.take, not by a user

    // --- home reactor
    // -------------------------------------------------------------------------------------------
    std::unique_ptr<Device> owned;
};

// Which device is meant: exactly one of them is given.
struct DeviceKey {
    std::optional<std::string> name, uuid;
    std::optional<std::uint32_t> minor;
    std::uint32_t major = kMajor;
    std::string text() const {
        if (name) return *name;
        if (uuid) return *uuid;
        return std::to_string(major) + ":" + std::to_string(minor.value_or(0));
    }
};

}  // namespace udm::ctl
