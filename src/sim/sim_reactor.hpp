// A reactor with virtual time. One alone has a timeline of its own and is current on the thread that made it; several
// share one (sim/world.hpp), and enter() says which of them the code between two steps belongs to.
#pragma once

#include <memory>
#include <optional>
#include <utility>

#include "port/job.hpp"
#include "port/reactor.hpp"
#include "sim/timeline.hpp"

namespace udm {

class SimReactor final : public Reactor {
  public:
    SimReactor();
    explicit SimReactor(Timeline& timeline);
    // Forgets what is queued and destroys the jobs that wait, as a power cut does.
    ~SimReactor() override;

    Nanoseconds now() const noexcept override { return timeline_.now(); }
    void post_remote(Task& task) noexcept override;
    Timeline& timeline() noexcept { return timeline_; }

    // Code that runs between steps is this reactor's from here on.
    void enter() noexcept;

    bool step() noexcept { return timeline_.step(); }
    // Until there is nothing to do on the whole timeline. What is stalled or waits for a condition stays as it is.
    void run_until_idle() noexcept;
    void run_for(Nanoseconds time) noexcept;
    // False: it isn't fulfilled and nothing more will happen, or `time` has passed.
    template <class F>
    bool run_until(F&& predicate, Nanoseconds time = 3600 * kSecond) noexcept {
        const Nanoseconds limit = now() + time;
        while (!predicate()) {
            if (!timeline_.step_until(limit)) return predicate();
        }
        return true;
    }
    // Spawns the job and runs until it ended; it must end.
    template <class T>
    T run(Job<T> job) noexcept {
        std::optional<T> result;
        jobs().spawn(keep_result<T>(&job, &result));
        const bool ended = run_until([&result] { return result.has_value(); });
        ASSERT(ended);
        return std::move(*result);
    }
    void run(Job<void> job) noexcept {
        bool ended = false;
        jobs().spawn(keep_end(&job, &ended));
        const bool in_time = run_until([&ended] { return ended; });
        ASSERT(in_time);
    }
    // One request, to its end. Memory as long as the extent.
    IoStatus io(Disk& disk, Op op, Extent extent, void* memory = nullptr, IoFlags flags = {},
                ExtentAnswer* answer = nullptr) noexcept;
    IoStatus flush(Disk& disk) noexcept { return io(disk, Op::flush, {}); }

    // Power cut: see Reactor::abandon(). What devices and targets hold on lists goes with them.
    void cut() noexcept;

  private:
    friend class Timeline;
    template <class T>
    static Job<void> keep_result(Job<T>* job, std::optional<T>* result) {
        auto value = co_await *job;
        result->emplace(std::move(value));
    }
    static Job<void> keep_end(Job<void>* job, bool* ended) {
        co_await *job;
        *ended = true;
    }
    class Arrival final : public SimEvent {
      public:
        explicit Arrival(SimReactor& reactor) noexcept : reactor_{reactor} {}
        void happen() noexcept override;

      private:
        SimReactor& reactor_;
    };

    std::unique_ptr<Timeline> own_;
    Timeline& timeline_;
    Arrival arrival_{*this};
    List<Task> remote_;
};

// One request a test has under way: submitted when made, done() once it ended. Lives until then.
class SimRequest final : Layer {
  public:
    SimRequest(Reactor& reactor, Disk& disk, Op op, Extent extent, void* memory = nullptr, IoFlags flags = {}) noexcept;
    SimRequest(const SimRequest&) = delete;
    SimRequest& operator=(const SimRequest&) = delete;
    bool done() const noexcept { return done_; }
    IoStatus status() const noexcept {
        ASSERT(done_);
        return status_;
    }
    const ExtentAnswer& answer() const noexcept { return answer_; }
    Nanoseconds ended() const noexcept { return ended_; }    // time

  private:
    void on_complete(Io& io, Frame&) noexcept override;
    Reactor& reactor_;
    bool done_ = false;
    IoStatus status_{IoStatus::ok};
    ExtentAnswer answer_{};
    Nanoseconds ended_ = 0;
};

// What a test of a target needs: a reactor, and an Env on it in which nothing unexpected happens.
struct SimEnv {
    SimReactor reactor;
    Prng random{1};
    Chaos chaos;
    Env env{reactor, random, chaos};
};

}  // namespace udm
