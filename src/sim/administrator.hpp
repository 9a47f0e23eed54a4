// Who loads tables, suspends and resumes in a story, as the daemon's control plane and its owner would: one thing at a time,
// each a job on the machine.
#pragma once

#include "port/job.hpp"
#include "sim/world.hpp"

namespace udm {

class Administrator {
  public:
    explicit Administrator(World& world) noexcept : world_{world} {}
    // The job makes `busy` false when it ends; a power cut, which ends it too, has to be told here.
    void start(Job<void> job);
    // Lets some time pass if something is under way; false: it still is, and what comes next is left out.
    bool wait();

    bool busy = false;

  private:
    World& world_;
};

}  // namespace udm
