#include "sim/sim_reactor.hpp"

#include <gtest/gtest.h>

#include "sim/sim_disk.hpp"

namespace udm {
namespace {

class Note final : public Task {
  public:
    explicit Note(std::vector<int>& notes, int what) : notes_{notes}, what_{what} {}
    void run() noexcept override { notes_.push_back(what_); }

  private:
    std::vector<int>& notes_;
    int what_;
};

class Alarm final : public Timer {
  public:
    Alarm(std::vector<int>& notes, int what) : notes_{notes}, what_{what} {}
    void expired() noexcept override { notes_.push_back(what_); }

  private:
    std::vector<int>& notes_;
    int what_;
};

TEST(SimReactor, IsCurrentOnTheThreadThatMadeIt) {
    SimReactor reactor;
    EXPECT_TRUE(reactor.is_current());
}

TEST(SimReactor, RunsTimersInTheOrderOfTheirDeadlinesWithoutWaiting) {
    SimReactor reactor;
    std::vector<int> notes;
    Alarm late{notes, 2}, early{notes, 1};
    const Nanoseconds start = reactor.now();
    reactor.arm(late, start + 3600 * kSecond);
    reactor.arm(early, start + 60 * kSecond);
    reactor.run_until_idle();
    EXPECT_EQ(notes, (std::vector{1, 2}));
    EXPECT_EQ(reactor.now(), start + 3600 * kSecond);
}

TEST(SimReactor, RunForStopsAtItsTimeAndMovesTheClockThere) {
    SimReactor reactor;
    std::vector<int> notes;
    Alarm alarm{notes, 1};
    const Nanoseconds start = reactor.now();
    reactor.arm(alarm, start + 100);
    reactor.run_for(99);
    EXPECT_TRUE(notes.empty());
    EXPECT_EQ(reactor.now(), start + 99);
    reactor.run_for(1);
    EXPECT_EQ(notes, std::vector{1});
}

TEST(SimReactor, RunUntilSaysWhenTheConditionNeverComes) {
    SimReactor reactor;
    EXPECT_FALSE(reactor.run_until([] { return false; }));
}

TEST(SimReactor, TwoOnOneTimelineTakeTurnsAndSendEachOtherTasks) {
    Timeline timeline;
    SimReactor one{timeline}, two{timeline};
    EXPECT_TRUE(one.is_current());
    std::vector<int> notes;
    Note here{notes, 1}, there{notes, 2};
    two.post_remote(there);
    one.post(here);
    one.run_until_idle();
    EXPECT_EQ(notes, (std::vector{1, 2}));
    EXPECT_TRUE(one.is_current());
    two.enter();
    EXPECT_TRUE(two.is_current());
}

Job<int> two_sleeps(Reactor& reactor) {
    Sleep first{reactor, reactor.now() + 10};
    co_await first;
    Sleep second{reactor, reactor.now() + 10};
    co_await second;
    co_return 7;
}

TEST(SimReactor, RunsAJobToItsEnd) {
    SimReactor reactor;
    const Nanoseconds start = reactor.now();
    EXPECT_EQ(reactor.run(two_sleeps(reactor)), 7);
    EXPECT_EQ(reactor.now(), start + 20);
}

Job<void> sleep_long(Reactor& reactor, bool& ended) {
    Sleep nap{reactor, reactor.now() + kSecond};
    co_await nap;
    ended = true;
}

TEST(SimReactor, DestroysWaitingJobsWhenItGoes) {
    bool ended = false;
    {
        SimReactor reactor;
        reactor.jobs().spawn(sleep_long(reactor, ended));
        reactor.run_for(10);
    }
    EXPECT_FALSE(ended);
}

}  // namespace
}  // namespace udm
