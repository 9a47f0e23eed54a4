// A simulated power cut drops a machine with its requests in flight: what is linked stays linked, what is counted is
// never counted down. While that goes on, destructors may not insist on a tidy end.
#pragma once

namespace udm {

class Abandoning {
  public:
    Abandoning() noexcept { ++depth_; }
    Abandoning(const Abandoning&) = delete;
    Abandoning& operator=(const Abandoning&) = delete;
    ~Abandoning() { --depth_; }
    // For the assertions of destructors: ASSERT(in_flight_ == 0 || Abandoning::now()).
    static bool now() noexcept { return depth_ != 0; }

  private:
    static inline thread_local int depth_ = 0;
};

}  // namespace udm
