// Volumes that move to another device while they are used (docs/move.md).
//
// The device's table `linear FROM OFFSET` becomes a mirror of FROM and TO, which copies all there is, and when TO has all of it
// `linear TO 0`. Clients notice a pause at either end. Of a volume with snapshots it is the device below that moves, which origin
// and snapshots stand on; where they stand on a file itself, such a device is put in between first (interposing.hpp).
//
// What is to be done at the end is noted in the state with the device, so that it survives a restart; what is copied already is in
// the mirror's log.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "ctl/devices.hpp"

namespace udm::ctl {

class Moving final : EventSink {
  public:
    explicit Moving(Devices& devices) : devices_{devices} {}
    ~Moving() { stop(); }
    Moving(const Moving&) = delete;
    Moving& operator=(const Moving&) = delete;

    // All throw Failure; the caller has no lock. `rate`: bytes a second, as resync_rate. Returns when the copy has begun, as list() has it.
    Json start(const DeviceKey& volume, const std::string& to, const std::optional<std::string>& rate);
    // Back to where it was. {"device", "from", "to", "removed": whether the file that the move had made is gone}
    Json abort(const DeviceKey& volume);
    Json pause(const DeviceKey& volume, bool paused);
    // Of one volume (empty if it does not move), or of all, by name.
    Json list(const std::optional<DeviceKey>& volume) const;

    // After a restart: goes on, and removes logs that nobody needs.
    void go_on();
    // Before devices are stopped. The moves go on after a restart.
    void stop();

  private:
    void event(const Event& event, const std::string& line) noexcept override;
    void watch(const RecordPtr& record);
    void run();
    void look(const RecordPtr& record);
    void forget(const RecordPtr& record, const Json& noted);
    void finish(const RecordPtr& record, const Json& noted);
    bool may_end(const Record& record) const;    // not soon after an end that could not be
    void note_failed_end(const Record& record, const std::string& because);
    bool swap_back(const RecordPtr& record, const Json& noted, bool stated) noexcept;
    void tell_paused(const RecordPtr& record, bool paused) const;
    void set_patience(const RecordPtr& record, const std::string& to, bool moves) const;
    RecordPtr carrier_of(const DeviceKey& volume) const;
    RecordPtr moving_carrier(const DeviceKey& volume) const;    // throws when it does not move
    Json details_of(const Record& record) const;
    Json describe(const RecordPtr& record) const;    // null: it does not move

    Devices& devices_;
    std::mutex starting_;    // two do not begin at a time, nor does one begin while another is taken back
    mutable std::mutex mutex_;
    std::condition_variable wake_;
    std::map<std::uint64_t, RecordPtr> watched_;    // by serial
    std::set<std::uint64_t> due_;                   // something has happened to them
    std::set<std::uint64_t> told_;                  // looked at since they came up
    struct FailedEnd {
        std::string because;
        std::chrono::seconds pause{};
        std::chrono::steady_clock::time_point again;
    };
    std::map<std::uint64_t, FailedEnd> failed_;    // by serial
    bool subscribed_ = false, stopping_ = false;
    std::thread thread_;    // from the first move on; last
};

}  // namespace udm::ctl
