// What survives the daemon: keys and their JSON values, changed in atomic, durable steps (decision 12).
// Without a directory it lives as long as the daemon.
//
// Keys: device/MINOR, export/URI, lost/N, setting/NAME. What the values hold is written beside their users.
#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "ctl/json.hpp"
#include "ctl/state_log.hpp"

namespace udm::ctl {

class State {
  public:
    struct Change {
        std::string key;
        std::optional<Json> value;  // none: the key goes
    };

    // Reads what is there. A damaged state is put aside and told by warning(). Once, before the others.
    Result<void> open(const std::string& directory);
    // All of the changes or none; durable when it returns, one write. Keys that already have that value cost
    // nothing.
    Result<void> commit(const std::vector<Change>& changes);
    // By key, of those that begin with `prefix`.
    std::vector<std::pair<std::string, Json>> all(const std::string& prefix) const;
    std::optional<Json> get(const std::string& key) const;

    bool is_kept() const noexcept { return log_.is_open(); }
    const std::string& directory() const noexcept { return log_.directory(); }
    const std::string& warning() const noexcept { return warning_; }
    std::uint64_t bytes_written() const;

  private:
    void apply(const Json& record);
    Result<void> compact_if_due();
    std::vector<std::string> as_records() const;

    static constexpr std::uint64_t kSlack = std::uint64_t{1}
                                            << 20;  // the file may be this much over twice its need
    static constexpr std::size_t kRecordBytes = std::size_t{256} << 10;  // of one record of a compacted file

    mutable std::mutex mutex_;
    StateLog log_;
    std::map<std::string, std::string> values_;  // as text: what is written again is what was read
    std::uint64_t live_bytes_ = 0;
    std::string warning_;
};

}  // namespace udm::ctl
