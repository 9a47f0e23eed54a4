// Snapshots that are merged into what they are a view of (docs/protocol.md, snapshot.merge and snapshot.drop).
//
// merge: VOLUME, `snapshot-origin BASE`, becomes `snapshot-merge BASE COW P CHUNK`, which takes the store over from the
// snapshot's device, and that one goes: at once VOLUME reads as the snapshot did. When all is merged it is `snapshot-origin
// BASE` again and the store is deleted.
//
// merge_down: a still image goes, and what the layer above it has stored is merged into it: LAYER, `snapshot STILL COW PO
// CHUNK`, becomes `snapshot-merge STILL COW PO CHUNK`, and then has the table of STILL, whose device goes. What
// the volume reads never changes.
//
// What is to be done at the end is noted in the state with the device that merges, so that it survives a restart.
#pragma once

#include <functional>
#include <map>
#include <mutex>

#include "ctl/devices.hpp"

namespace udm::ctl {

class Merging final : EventSink {
  public:
    explicit Merging(Devices& devices) : devices_{devices} {}
    ~Merging();
    Merging(const Merging&) = delete;
    Merging& operator=(const Merging&) = delete;

    // Both return when the merge has begun, with {"snapshot", "into" (the volume), "device" (which merges), "cow"}; the caller has no lock. Throw Failure.
    Json merge(const RecordPtr& snapshot);
    Json merge_down(const RecordPtr& still);

    // The devices that merge, as far as they took up a merge by merge() or merge_down().
    std::vector<RecordPtr> under_way() const;
    // After a restart: goes on waiting for the ends.
    void find_unfinished();

  private:
    struct Switch;
    void event(const Event& event, const std::string& line) noexcept override;
    Json begin(Switch& change);
    void set_read_only(const RecordPtr& record, const SlotText& table, bool read_only);
    void attempt(const char* what, const RecordPtr& record, const std::function<void()>& step) const;
    void watch(const RecordPtr& record);
    void forget(const RecordPtr& record);
    void look(const RecordPtr& record);
    void finish(const RecordPtr& record, const Json& noted);
    void unstack(const RecordPtr& layer);
    bool is_lost(const Record& snapshot) const;    // Invalid; a merge of it would never end
    bool is_merged(const Record& record) const;

    Devices& devices_;
    std::mutex subscribing_;    // the hub is told of the first and of the last
    mutable std::mutex mutex_;
    std::map<std::uint64_t, RecordPtr> watched_;    // by serial
};

}  // namespace udm::ctl
