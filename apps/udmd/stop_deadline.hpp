// An orderly stop waits for requests under way. Some never end: those held by a device that was suspended below another, or by
// storage that hangs. When time is up the process ends as in a crash, which loses nothing: what was not
// acknowledged was not promised, and every store survives it.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>

namespace udm::daemon {

class StopDeadline {
  public:
    // `last` is run before the process ends: what a crash would leave behind and a stop should not.
    StopDeadline(std::chrono::seconds patience, std::string waits_for, std::function<void()> last);
    ~StopDeadline();    // in time
    StopDeadline(const StopDeadline&) = delete;
    StopDeadline& operator=(const StopDeadline&) = delete;

  private:
    void watch();

    const std::chrono::seconds patience_;
    const std::string waits_for_;
    const std::function<void()> last_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool in_time_ = false;
    std::thread thread_;
};

}  // namespace udm::daemon
