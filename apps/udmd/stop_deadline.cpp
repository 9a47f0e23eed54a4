#include "apps/udmd/stop_deadline.hpp"

#include <unistd.h>

#include "ctl/log.hpp"

namespace udm::daemon {

StopDeadline::StopDeadline(std::chrono::seconds patience, std::string waits_for, std::function<void()> last)
    : patience_{patience},
      waits_for_{std::move(waits_for)},
      last_{std::move(last)},
      thread_{[this] { watch(); }} {}

StopDeadline::~StopDeadline() {
    {
        const std::lock_guard lock{mutex_};
        in_time_ = true;
    }
    changed_.notify_one();
    thread_.join();
}

void StopDeadline::watch() {
    std::unique_lock lock{mutex_};
    if (changed_.wait_for(lock, patience_, [this] { return in_time_; })) return;
    ctl::log_error("", "after {} s requests are still under way{}; ending without them: none was acknowledged", patience_.count(),
                   waits_for_);
    last_();
    ::_exit(1);
}

}  // namespace udm::daemon
