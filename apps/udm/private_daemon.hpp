// A daemon of our own in a folder of its own; both end with this object.
#pragma once

#include <sys/types.h>

#include <string>

namespace udm::app {

class PrivateDaemon {
  public:
    // Starts udmd (the one beside this program, else an installed one) and waits until it answers. Throws
    // Refusal with what it said when it doesn't.
    PrivateDaemon();
    ~PrivateDaemon();
    PrivateDaemon(const PrivateDaemon&) = delete;
    PrivateDaemon& operator=(const PrivateDaemon&) = delete;

    std::string socket() const { return folder_ + "/control.sock"; }
    const std::string& folder() const { return folder_; }

  private:
    void start(const std::string& program);
    bool alive();
    void end() noexcept;

    std::string folder_;
    pid_t pid_ = -1;
};

}  // namespace udm::app
