// A reactor on a thread of its own: the part that both engines share. What is special to one is how
// operations are started and how the loop waits.
//
// Sleeping and waking: before it waits, the loop announces that it sleeps, under the mutex of the remote
// queue, and only if that queue is empty. Who posts from another thread and finds it sleeping writes to the
// eventfd, once.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <thread>

#include "base/result.hpp"
#include "engine/operation.hpp"
#include "engine/shared.hpp"
#include "port/reactor.hpp"

namespace udm {

class FileRequests;

class Loop : public Reactor {
  public:
    explicit Loop(EngineShared& shared);
    ~Loop() override;

    Nanoseconds now() const noexcept final;
    void post_remote(Task& task) noexcept final;

    using Reactor::cancel;

    // --- for disks and streams, on this thread
    // --------------------------------------------------------------------
    virtual void start(Operation& op) noexcept = 0;
    // done() comes later all the same: with -ECANCELED, or with what had happened already.
    virtual void cancel(Operation& op) noexcept = 0;
    // Operations on a file that was attached are cheaper. Detached before it is closed, with nothing under
    // way.
    virtual void attach(File& file) noexcept = 0;
    virtual void detach(File& file) noexcept = 0;
    // Something that outlives its owner until its last completion. It deletes itself then; the loop does at
    // its end.
    class Leftover : public ListHook {
      public:
        virtual ~Leftover() {
            if (linked()) unlink();
        }
    };
    void leave(Leftover& leftover) noexcept { leftovers_.push_back(leftover); }
    FileRequests& file_requests() noexcept { return *file_requests_; }
    EngineShared& shared() noexcept { return shared_; }

    // --- for helper threads
    // -----------------------------------------------------------------------------------
    void finished(Operation& op, int n) noexcept;

    // --- for the engine
    // ----------------------------------------------------------------------------------------- Starts the
    // thread; returns when it is ready to run or has failed.
    Result<void> launch(unsigned index);
    // Ends the thread and waits for it.
    void stop() noexcept;
    std::uint64_t cpu_ns() const noexcept;
    bool running() const noexcept { return thread_.joinable(); }

  protected:
    // On the loop's thread, first and last.
    virtual Result<void> open() = 0;
    virtual void close() noexcept = 0;
    // Submits what was prepared and calls done() of what has ended. If `wait`, and nothing has, waits for
    // something to end, a wake-up or `deadline`.
    static constexpr Nanoseconds kForever = ~Nanoseconds{0};
    virtual void turn(bool wait, Nanoseconds deadline) noexcept = 0;

    // False: something came from another thread meanwhile; do not wait.
    bool fall_asleep() noexcept;
    void wake_up() noexcept;  // after waiting
    int wake_fd() const noexcept { return wake_fd_; }
    void perform_later(Operation& op) noexcept;  // by a helper thread

  private:
    static constexpr unsigned kBudget = 256;
    static constexpr Nanoseconds kTrimAfter = 5 * kSecond;
    void run() noexcept;
    void take_remote() noexcept;
    Nanoseconds trim_buffers() noexcept;
    void rouse() noexcept;
    void signal() noexcept;

    EngineShared& shared_;
    std::unique_ptr<FileRequests> file_requests_;
    const int wake_fd_;
    Nanoseconds trim_at_ = 0;  // 0: nothing to trim
    List<Leftover> leftovers_;
    std::atomic<bool> stopping_{false};

    std::atomic<bool> remote_pending_{false};  // there is something under the mutex, or it is time to stop
    std::atomic<bool> asleep_{false};
    std::mutex mutex_;  // of the lists
    List<Task> remote_;
    List<Operation> finished_;

    std::thread thread_;
    std::uint64_t cpu_at_end_ = 0;
};

}  // namespace udm
