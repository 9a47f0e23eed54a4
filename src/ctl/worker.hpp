// One thread for what reactors want done that may block: deferred removals, records in the state directory.
// Idle without a wake-up.
#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>

namespace udm::ctl {

class Worker {
  public:
    Worker();
    ~Worker();                              // stops
    void post(std::function<void()> work);  // any thread
    // Runs what was posted, then ends. Idempotent; what is posted later is dropped.
    void stop();

  private:
    void run();
    std::mutex mutex_;
    std::condition_variable wake_;
    std::deque<std::function<void()>> queue_;
    bool stopping_ = false;
    std::thread thread_;  // last: it uses the others
};

}  // namespace udm::ctl
