// Log lines on their way. Who has something to say hands it over and goes on, a reactor above all; one thread writes, and
// may take as long as standard error, the journal or the disk takes. What finds no room is dropped and counted, and the
// log says at that place how many there were.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "ctl/log.hpp"

namespace udm::daemon {

class LogQueue {
  public:
    struct Line {
        std::chrono::system_clock::time_point when{};
        ctl::LogLevel level{};
        std::string text{};
    };
    using Write = std::function<void(const Line&)>;    // on the thread; may block, may not throw

    // Up to about `bytes_max` wait, or one line that is longer by itself.
    LogQueue(std::size_t bytes_max, Write write);
    ~LogQueue() { end(); }
    LogQueue(const LogQueue&) = delete;
    LogQueue& operator=(const LogQueue&) = delete;

    void put(Line line) noexcept;    // any thread
    // Until all is written that was put, but no longer than kPatience; true: it is. In a signal handler, too.
    bool wait_written() const noexcept;
    static constexpr std::chrono::milliseconds kPatience{1000};
    // Waits likewise; nothing is put any more. False: the thread still writes, and is left to it.
    bool end() noexcept;

  private:
    struct Shared;
    static void run(const std::shared_ptr<Shared>& shared);
    const std::size_t bytes_max_;
    std::shared_ptr<Shared> shared_;
    std::thread thread_;
};

}  // namespace udm::daemon
