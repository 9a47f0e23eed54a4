// Legs of a mirror that come and go while the volume is used (docs/protocol.md, mirror.*; docs/targets/mirror.md, "Other legs").
//
// Each is one table in place of another. What must be durable before that, and what is handed over, is the target's business
// (targets/mirror/succession.hpp): it refuses the load of a table that would lose something. Here the device is made sure of, the log is
// made, and the state has the new table before it runs: after a crash either table is there.
//
// A volume `linear DEVICE OFFSET` becomes a mirror with its second leg, and is linear again without it. Of an origin it is the
// device below that has the mirror; where origin and snapshots stand on a file, one is put in between (interposing.hpp).
//
// replace_leg() of a leg that works adds the new one first. That the old one is to go when the new one has everything is noted in
// the state with the device, so that it survives a restart.
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "ctl/devices.hpp"

namespace udm::ctl {

class Mirroring final : EventSink {
  public:
    struct NewOne {
        std::string device;                // an absolute path, made if nothing is there; an NBD URI; a device of ours that nobody uses
        Sector offset{};                   // before the leg's data
        std::optional<std::string> log;    // of a mirror that is made: "core", or a path; none: as the daemon likes
        bool overwrite = false;            // also if it holds something
    };
    explicit Mirroring(Devices& devices) : devices_{devices} {}
    ~Mirroring();
    Mirroring(const Mirroring&) = delete;
    Mirroring& operator=(const Mirroring&) = delete;

    // All throw Failure; the caller has no lock. A leg is its number in the table or what the table calls it. The answer says what the
    // device, whose table is the mirror (or no longer is), has now: {"device", "legs", …}.
    Json add_leg(const DeviceKey& volume, const NewOne& wanted);
    Json drop_leg(const DeviceKey& volume, const std::string& leg);
    Json replace_leg(const DeviceKey& volume, const std::string& leg, const NewOne& wanted);
    Json readd(const DeviceKey& volume, const std::optional<std::string>& leg);    // none: all that are away

    // After a restart: replacements go on.
    void go_on();

  private:
    struct Work;    // one change: the device, locked, and its table

    void event(const Event& event, const std::string& line) noexcept override;
    Json add(Work& work, const NewOne& wanted, std::optional<std::size_t> instead_of = {}, std::optional<std::size_t> replaces = {});
    void make_plain(Work& work, std::size_t dropped);
    void swap(Work& work, const TableLine& line, const Json& note, const std::function<void()>& check = {});
    void take_back(Work& work, const TableLine& line, bool stated) noexcept;
    std::vector<std::string> states(const Work& work) const;
    void tell(const Work& work, const std::string& message) const;
    Json answer(const Work& work) const;
    void watch(const RecordPtr& record);
    void forget(const RecordPtr& record);
    void look(const RecordPtr& record);

    Devices& devices_;
    std::mutex starting_;       // one change begins at a time
    std::mutex subscribing_;    // the hub is told of the first and of the last
    std::mutex mutex_;
    std::map<std::uint64_t, RecordPtr> watched_;    // by serial
};

}  // namespace udm::ctl
