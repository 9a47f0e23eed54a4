// Patience with a daemon that was killed: the kernel lets go of what its rings hold (files, their locks,
// listening sockets) some milliseconds after its process is gone and reaped. Seen on Linux 6.18: 10 to 40 ms,
// more where a disk is slow to answer. A restart that took "in use" for an answer at once would hold devices
// and give up snapshots for nothing.
#pragma once

#include <cerrno>
#include <chrono>
#include <thread>

#include "base/result.hpp"

namespace udm::ctl {

inline bool is_in_use(const Error& error) noexcept {
    return error.code == Errc::busy || static_cast<int>(error.code) == EADDRINUSE;
}

// One for a whole restore: what is really in use by somebody else delays it once, not once a device.
class Patience {
  public:
    explicit Patience(std::chrono::milliseconds whole) noexcept
        : end_{std::chrono::steady_clock::now() + whole} {}
    // Waits a little. False: it has waited long enough.
    bool wait() noexcept {
        if (std::chrono::steady_clock::now() >= end_) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds{10});
        return true;
    }

  private:
    const std::chrono::steady_clock::time_point end_;
};

inline constexpr std::chrono::seconds kRestorePatience{10};

}  // namespace udm::ctl
