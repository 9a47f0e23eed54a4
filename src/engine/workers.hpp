// Threads for what may block: file I/O where there is no ring, and calls the ring does not have. Started when
// needed, idle for nothing.
#pragma once

#include <pthread.h>

#include <condition_variable>
#include <mutex>
#include <vector>

#include "engine/operation.hpp"

namespace udm {

class Workers {
  public:
    explicit Workers(unsigned threads_max) noexcept : threads_max_{threads_max} {}
    Workers(const Workers&) = delete;
    Workers& operator=(const Workers&) = delete;
    ~Workers() { stop(); }

    // Any thread. Performs it and hands it back to its loop. After stop(), and where the system gives no thread at
    // all, it is performed at once, by the caller.
    void submit(Operation& op) noexcept;
    // Ends the threads, after what was submitted.
    void stop() noexcept;

  private:
    void run() noexcept;
    bool have_threads() noexcept;

    const unsigned threads_max_;
    std::mutex mutex_;  // of what follows
    std::condition_variable wanted_;
    List<Operation> queue_;
    unsigned queued_ = 0;  // operations in it
    unsigned idle_ = 0;    // threads that wait, woken ones included until they have taken something
    bool stopped_ = false;
    std::vector<pthread_t> threads_;
};

// The system call of a file operation or its call(): bytes or 0, or a negative errno.
int perform(Operation& op) noexcept;

}  // namespace udm
