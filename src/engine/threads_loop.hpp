// The loop where io_uring is forbidden: epoll for sockets, helper threads for files. Slower, and the same
// otherwise.
#pragma once

#include <sys/epoll.h>

#include <vector>

#include "engine/loop.hpp"

namespace udm {

class ThreadsLoop final : public Loop {
  public:
    using Loop::Loop;
    ~ThreadsLoop() override;

    void start(Operation& op) noexcept override;
    using Loop::cancel;
    void cancel(Operation& op) noexcept override;
    void attach(File& file) noexcept override;
    void detach(File& file) noexcept override;

  private:
    // What waits until a socket is ready. Edge-triggered: an operation waits only after it found nothing to
    // do.
    struct Socket {
        Operation* input = nullptr;
        Operation* output = nullptr;
        bool watched = false;
    };

    Result<void> open() override;
    void close() noexcept override;
    void turn(bool wait, Nanoseconds deadline) noexcept override;

    Socket& socket_of(int fd);
    void attempt_round() noexcept;
    void wait_for_socket(Operation& op) noexcept;
    void collect(bool wait, Nanoseconds deadline) noexcept;
    int epoll(epoll_event* events, int max, bool wait, Nanoseconds deadline) noexcept;

    int epoll_ = -1;
    bool whole_milliseconds_ = false;  // no epoll_pwait2
    List<Operation> attempts_;
    std::vector<Socket> sockets_;  // by descriptor
};

}  // namespace udm
