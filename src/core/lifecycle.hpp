// The states of a mapped device as data: what each one lets through and where it may go.
#pragma once

#include <cstdint>

namespace udm {

class Lifecycle {
  public:
    enum class State : std::uint8_t {
        suspended,     // as made, and after suspend(): requests are held back, nothing is under way
        resuming,      // swap and preresume under way: requests are held back
        live,
        suspending,    // presuspend has run: requests are held back, those under way drain
        detached,      // on its way out: requests end with `removed`
    };
    State state() const noexcept { return state_; }
    bool is_suspended() const noexcept { return state_ == State::suspended; }
    bool admits() const noexcept { return state_ == State::live && quiesce_depth_ == 0; }
    bool noflush() const noexcept { return noflush_; }

    void to(State next) noexcept;    // asserts that the step is legal
    void set_noflush(bool noflush) noexcept { noflush_ = noflush; }
    void quiesce() noexcept { ++quiesce_depth_; }
    void unquiesce() noexcept;

  private:
    State state_ = State::suspended;
    bool noflush_ = false;
    unsigned quiesce_depth_ = 0;
};

}  // namespace udm
