// Which stores must never be trusted again (decision 11), kept in the state: by identity, and by the words of
// the table line, since a store that could not be opened had no identity, and numbers change over a reboot.
#pragma once

#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "ctl/state.hpp"
#include "ctl/worker.hpp"
#include "port/disk.hpp"

namespace udm::ctl {

class LostStoreList final : public LostStores {
  public:
    LostStoreList(State& state, Worker& worker) : state_{state}, worker_{worker} {}
    void load();  // from the state, once it is open

    void record(const DiskId& store, const std::string& words, Recorded& done) noexcept override;
    bool is_lost(const DiskId& store) const noexcept override;
    void forget(const DiskId& store) noexcept override;

    // --- control threads
    // ---------------------------------------------------------------------------------------- The change
    // that records a store known by its words only; takes effect with note_lost() after the commit.
    State::Change change_for(const std::string& words, const DiskId& id);
    void note_lost(const State::Change& change);
    // A device was opened: if its words are those of a lost store, so is its identity from now on.
    void seen(std::string_view words, const DiskId& id);
    // The file is deleted, or made anew by us.
    void forget_words(const std::string& words);
    std::vector<std::string> all() const;  // for daemon.status

  private:
    struct Lost {
        DiskId id;
        std::string words;
    };
    void drop(const std::string& key);
    void put(const std::string& key, const Lost& lost);
    void take(const std::string& key);
    template <class Index, class Value>
    static std::set<std::string> keys_of(const Index& index, const Value& value);
    mutable std::mutex mutex_;
    State& state_;
    Worker& worker_;
    std::map<std::string, Lost> lost_;  // by key of the state
    std::map<DiskId, std::set<std::string>> by_id_;  // → keys
    std::map<std::string, std::set<std::string>, std::less<>> by_words_;
    std::uint64_t next_ = 1;
};

}  // namespace udm::ctl
