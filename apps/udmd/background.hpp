// Leaving the terminal: the parent waits until the daemon is ready, or has failed, and says so by its status.
#pragma once

#include <optional>

#include "ctl/fd.hpp"

namespace udm::daemon {

class Background {
  public:
    // Before any thread is made. In the parent: the status to end with. In the daemon: nothing.
    std::optional<int> fork();
    // The daemon serves: lets the parent go, and the terminal.
    void ready();

  private:
    ctl::Fd pipe_;
};

}  // namespace udm::daemon
