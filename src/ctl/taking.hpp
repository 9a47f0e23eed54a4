// One snapshot.take, from the request to the answer, or back to how it was.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "ctl/snapshots.hpp"

namespace udm::ctl {

class Snapshots::Taking {
  public:
    Taking(Devices& devices, const Request& request) : devices_{devices}, request_{request} {}
    Json run();

  private:
    struct Volume {
        RecordPtr origin;
        std::string name, snapshot_name;
        SlotText table;  // of the origin, as it is
        Sectors size{};
        unsigned home = 0;
        std::string cow;        // path or words
        std::string cow_words;  // quoted, for a table line
        bool made = false;      // the file is ours
        std::string base;       // words of what the snapshot is a view of
        std::vector<std::string> beside;    // other devices that write what the volume stands on
        RecordPtr snapshot;     // the new device the user sees (of a redirection: the still image)
        RecordPtr real;         // NAME-real, where one was needed
        RecordPtr layer;        // redirected: the new NAME-live
        RecordPtr still;        // redirected before: the former NAME-live, which takes the snapshot's name
        Json previous_note;     // of `still`
        bool reloaded = false;  // the origin has its new table in the inactive slot
        bool suspended = false;
        bool switched = false;
        std::chrono::steady_clock::time_point stopped{}, going{};
    };

    void resolve();
    void check(Volume& volume) const;
    void look_beside(Volume& volume) const;
    void choose_names(Volume& volume) const;
    void choose_cow(Volume& volume) const;
    void prepare_copying(Volume& volume);
    void prepare_redirect(Volume& volume);
    RecordPtr make(const std::string& name);
    void load(const RecordPtr& record, const std::vector<TableLine>& lines, bool read_only,
              const std::map<std::string, std::uint32_t>& minors = {}, std::optional<unsigned> home = {});
    void check_is_new(const RecordPtr& record, const std::string& cow) const;    // the store of the inactive table
    std::string store_words(const Volume& volume) const;
    void note(const RecordPtr& record, Json what, bool internal, bool still) const;
    std::vector<State::Change> changes() const;
    void switch_over();
    void undo() noexcept;
    bool undo_step(const char* what, const std::function<void()>& step) noexcept;    // false: it failed
    Json answer() const;

    Devices& devices_;
    const Request& request_;
    std::vector<Volume> volumes_;
    std::vector<RecordPtr> made_;  // new devices, in the order in which they were made
    std::vector<std::unique_lock<std::mutex>> operations_;  // of all that take part
    std::vector<std::string> files_;                        // made by us
    std::chrono::system_clock::time_point now_{};
    bool committed_ = false;
};

}  // namespace udm::ctl
