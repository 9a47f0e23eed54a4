// Says on the terminal that something takes time, and how far it is.
#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace udm::app {

// From half a second on, a line on standard error that changes ten times a second: "taking the snapshot  3
// s", or with a total "copying  [######......] 50%  3 s, 3 s left". It is wiped away at the end. Nothing
// where standard error is no terminal, or with an empty `what`.
class Progress {
  public:
    explicit Progress(std::string what);
    ~Progress();
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;

    // How much of how much is done, in any unit; may be called from any thread.
    void update(std::uint64_t done, std::uint64_t total);

    // The line's text, `columns` wide at most. For tests.
    static std::string line(const std::string& what, std::uint64_t done, std::uint64_t total,
                            std::chrono::milliseconds elapsed, std::size_t columns);

  private:
    void draw_until_ended();

    std::string what_;
    std::mutex mutex_;
    std::condition_variable changed_;
    std::uint64_t done_ = 0, total_ = 0;
    bool ended_ = false;
    std::thread thread_;  // last, since it uses the others
};

}  // namespace udm::app
