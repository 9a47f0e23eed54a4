// The log of a mirror that the daemon makes itself: how large its regions are, and the file it is kept in.
#pragma once

#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "ctl/devices.hpp"

namespace udm::ctl {

// 512 KiB, or so much that the disk has 262,144 regions at most; of a smaller disk as much of it as a power of two can be.
Sectors region_size_for(Sectors size);
// What such a log takes, in bytes, in whole blocks of 4096.
std::uint64_t mirror_log_bytes(Sectors size, Sectors region);

// In the state directory, which is where the mirror's table is kept, too: without one neither lasts.
class MirrorLog {
  public:
    // A new log of zeroes, STATE/logs/NAME.log, that has all its space and is there after a power cut; one of this name that
    // no table names goes, unless the state was damaged and somebody may want it. Without a state directory: no file. Throws Failure.
    // `where`: "core" for one in memory, or another path: a new file, or a file or disk of zeroes that is there.
    MirrorLog(Devices& devices, const std::string& name, Sectors size, const std::optional<std::string>& where = {});
    MirrorLog(const MirrorLog&) = delete;
    MirrorLog& operator=(const MirrorLog&) = delete;
    ~MirrorLog();    // without keep() the file goes

    // The words of a mirror's table up to its legs: "disk 2 /state/logs/NAME.log 1024", or "core 1 1024".
    std::string words() const;
    const std::string& path() const noexcept { return path_; }    // empty: in memory
    bool made() const noexcept { return made_; }    // the file is ours to remove
    void keep() noexcept { kept_ = true; }

  private:
    void make(const std::string& path, Sectors size);

    const Sectors region_;
    std::string path_;
    bool made_ = false;
    bool kept_ = false;
};

// After a restart: of logs in the state directory, NAME beginning so, those that nobody needs go.
void remove_logs_but(const Devices& devices, std::string_view prefix, const std::set<std::string>& needed);

}  // namespace udm::ctl
