// Brings devices back whose NBD servers were away when the daemon started, one thread for each export that is waited for, and
// one for the devices. Ends by itself when none is left.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>

#include "ctl/devices.hpp"

namespace udm::ctl {

class Revival {
  public:
    // `brought_up` is called after devices have come up.
    Revival(Devices& devices, std::function<void()> brought_up);
    ~Revival() { stop(); }
    // Until every server was asked once, but no longer than that: most are there.
    void wait_for_first_look(std::chrono::milliseconds patience);
    // Does not wait for servers that do not answer longer than the host does (Host::stop_connecting).
    void stop();

  private:
    struct Found {
        std::unique_ptr<OpenDevice> device;
        unsigned home = 0;
    };
    void look(const std::string& uri);
    void run();
    bool pause(std::unique_lock<std::mutex>& lock, std::chrono::milliseconds time);
    std::set<std::string> there() const;

    Devices& devices_;
    const std::function<void()> brought_up_;
    std::mutex mutex_;
    std::condition_variable changed_;
    bool stopping_ = false;
    bool looked_ = false;    // at all, and what was found there is up
    std::size_t asked_ = 0, exports_ = 0;
    std::map<std::string, Found> found_;
    std::list<std::thread> threads_;
    std::thread main_;
};

}  // namespace udm::ctl
