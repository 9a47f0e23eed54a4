// Looks now and then at the files that tables have open. Nobody tells us when one is removed, moved away, replaced by another
// or cut off: the open file goes on being there, until the daemon ends.
#pragma once

#include <chrono>
#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "ctl/devices.hpp"

namespace udm::ctl {

class FileWatch {
  public:
    explicit FileWatch(Devices& devices) : devices_{devices} {}
    ~FileWatch() { stop(); }
    FileWatch(const FileWatch&) = delete;
    FileWatch& operator=(const FileWatch&) = delete;

    // Looks at all files every two seconds, at no more than a thousand a second on average.
    void start();
    void stop();    // before the devices; idempotent

  private:
    void run();
    std::size_t look_at_files();    // how many there are
    void look_at(const std::vector<RecordPtr>& records);
    void note(const RecordPtr& record, std::string trouble);
    bool pause(std::chrono::milliseconds time);    // false: told to stop

    Devices& devices_;
    std::map<DiskId, std::uint64_t> sizes_;    // as last seen
    std::mutex mutex_;
    std::condition_variable wake_;
    bool stopping_ = false;
    std::thread thread_;
};

}  // namespace udm::ctl
