// What the loops of one engine share: helper threads, the log, and the list of what could not be had.
#pragma once

#include <functional>
#include <mutex>
#include <string>
#include <vector>

#include "engine/workers.hpp"

namespace udm {

class EngineShared {
  public:
    EngineShared(unsigned threads, std::function<void(const std::string&)> log_function);

    Workers& workers() noexcept { return workers_; }
    void log(const std::string& line) noexcept;      // any thread
    void warn(const std::string& warning) noexcept;  // any thread; once each
    std::vector<std::string> warnings() const;

  private:
    std::function<void(const std::string&)> log_;
    mutable std::mutex mutex_;
    std::vector<std::string> warnings_;
    Workers workers_;  // last: its threads end first
};

}  // namespace udm
