// Suspend, resume, quiesce, detach, messages and events.
#include <gtest/gtest.h>

#include <optional>

#include "test/support/mapped_world.hpp"
#include "test/support/probe_target.hpp"

namespace udm {
namespace {

using Steps = std::vector<std::string>;

struct DeviceLife : testing::Test {
    Steps steps;    // of probes that share it; outlives them
    MappedWorld w;
    ProbeType& probes = add_probe_type(w.types);
    Memory memory{64};

    // Runs a job without waiting for its end.
    struct Running {
        std::optional<Result<void>> result;
        bool done() const { return result.has_value(); }
    };
    static Job<void> keep(Job<Result<void>>* job, Running* running) {
        running->result = co_await *job;
    }
    static Job<void> keep_end(Job<void>* job, bool* done) {
        co_await *job;
        *done = true;
    }
    // The number of the first event that is let go, or 0 if the device goes.
    static Job<void> next_event(Device* device, std::optional<std::uint32_t>* number) {
        auto event = device->event_signal().wait();
        co_await event;
        *number = device->event_number();
    }
};

TEST(Lifecycle, TakesLegalStepsAndNoOthers) {
    using State = Lifecycle::State;
    constexpr State kAll[] = {State::suspended, State::resuming, State::live, State::suspending, State::detached};
    const auto way_to = [](State state) -> std::vector<State> {
        switch (state) {
            case State::suspended: return {};
            case State::resuming: return {State::resuming};
            case State::live: return {State::resuming, State::live};
            case State::suspending: return {State::resuming, State::live, State::suspending};
            case State::detached: return {State::detached};
        }
        return {};
    };
    unsigned legal = 0;
    for (const State from : kAll) {
        for (const State to : kAll) {
            Lifecycle lifecycle;
            for (const State step : way_to(from)) lifecycle.to(step);
            EXPECT_EQ(lifecycle.admits(), from == State::live);
            const bool allowed = (from == State::suspended && (to == State::resuming || to == State::detached)) ||
                                 (from == State::resuming && (to == State::live || to == State::suspended)) ||
                                 (from == State::live && to == State::suspending) ||
                                 (from == State::suspending && to == State::suspended);
            if (allowed) {
                lifecycle.to(to);
                EXPECT_EQ(lifecycle.state(), to);
                ++legal;
            } else {
                EXPECT_DEATH(lifecycle.to(to), "is_legal");
            }
        }
    }
    EXPECT_EQ(legal, 6u);
}

TEST_F(DeviceLife, ANewDeviceHoldsRequestsBackUntilItHasATable) {
    w.disk("a");
    Device& device = w.device("d");
    EXPECT_EQ(device.limits().size.v, 0u);
    const auto request = w.submit(device, Op::read, 0, 8, memory.at());
    w.reactor.run_until_idle();
    EXPECT_FALSE(request->done());
    EXPECT_EQ(device.counters().held_back, 1u);
    w.start(device, "0 100 linear a 0");
    w.reactor.run_until_idle();
    ASSERT_TRUE(request->done());
    EXPECT_EQ(request->status(), IoStatus::ok);
    EXPECT_EQ(device.counters().held_back, 0u);
}

TEST_F(DeviceLife, ADeviceThatNeverHadATableIsNotSuspendedAndResumesAsLinuxDoes) {
    Device& device = w.device("d");
    EXPECT_FALSE(device.suspended());
    EXPECT_TRUE(w.resume(device).has_value());
    ASSERT_TRUE(w.load(device, "0 8 zero").has_value());
    device.clear_inactive();
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_TRUE(w.suspend(device).has_value());
    EXPECT_TRUE(device.suspended());
    const auto resumed = w.resume(device);
    ASSERT_FALSE(resumed.has_value());
    EXPECT_EQ(resumed.error().code, Errc::bad_argument);
}

TEST_F(DeviceLife, SuspendTellsTargetsInOrderAroundTheDrain) {
    probes["p"].shared_steps = &steps;
    probes["q"].shared_steps = &steps;
    probes["p"].holds = true;
    Device& device = w.start("d", "0 100 probe p\n100 100 probe q");
    EXPECT_EQ(steps, (Steps{"load", "load", "preresume", "preresume", "resume", "resume"}));
    steps.clear();
    const auto before = w.submit(device, Op::read, 0, 8, memory.at());
    Running running;
    auto job = device.suspend({});
    w.reactor.jobs().spawn(keep(&job, &running));
    w.reactor.run_until_idle();
    EXPECT_EQ(steps, (Steps{"presuspend", "presuspend"}));
    EXPECT_FALSE(running.done());
    const auto after = w.submit(device, Op::read, 0, 8, memory.at());
    probes["p"].release();
    w.reactor.run_until_idle();
    EXPECT_TRUE(before->done());
    EXPECT_FALSE(after->done());
    ASSERT_TRUE(running.done());
    EXPECT_TRUE(running.result->has_value());
    EXPECT_EQ(steps, (Steps{"presuspend", "presuspend", "postsuspend", "postsuspend"}));
    EXPECT_TRUE(device.suspended());
    EXPECT_TRUE(w.suspend(device).has_value());    // fine, and nothing happens
    EXPECT_EQ(steps.size(), 4u);
    probes["p"].holds = false;
    ASSERT_TRUE(w.resume(device).has_value());
    w.reactor.run_until_idle();
    EXPECT_TRUE(after->done());
}

TEST_F(DeviceLife, SuspendFlushesWhatWasWrittenSinceTheLastFlush) {
    SimDisk& disk = w.disk("a");
    Device& device = w.start("d", "0 100 linear a 0");
    EXPECT_TRUE(w.suspend(device).has_value());
    EXPECT_EQ(disk.count(Op::flush).requests, 0u);    // nothing was written
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_EQ(w.write(device, 0, 1, 1), IoStatus::ok);
    EXPECT_TRUE(w.suspend(device).has_value());
    EXPECT_EQ(disk.count(Op::flush).requests, 1u);
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_EQ(w.io(device, Op::discard, 0, 1), IoStatus::ok);
    EXPECT_TRUE(w.suspend(device, {.noflush = true}).has_value());
    EXPECT_EQ(disk.count(Op::flush).requests, 1u);
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
    EXPECT_TRUE(w.suspend(device).has_value());
    EXPECT_EQ(disk.count(Op::flush).requests, 2u);
}

TEST_F(DeviceLife, AFlushThatFailsAtSuspendFailsTheNextOneFromAbove) {
    SimDisk& disk = w.disk("a");
    Device& device = w.start("d", "0 100 linear a 0");
    EXPECT_EQ(w.write(device, 0, 1, 1), IoStatus::ok);
    disk.fail_nth(1, op_bit(Op::flush));    // a disk says only once that a write was lost
    EXPECT_TRUE(w.suspend(device).has_value());
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::io_error);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::ok);
}

TEST_F(DeviceLife, RequestsHeldBackGoDownInTheirOrder) {
    SimDisk& disk = w.disk("a");
    Device& device = w.start("d", "0 100 linear a 0");
    EXPECT_TRUE(w.suspend(device).has_value());
    disk.keep_log(true);
    std::vector<std::unique_ptr<SimRequest>> requests;
    for (std::uint64_t i = 0; i < 20; ++i) requests.push_back(w.submit(device, Op::write, i * 3 % 20, 1, memory.at()));
    EXPECT_EQ(device.counters().held_back, 20u);
    EXPECT_TRUE(w.resume(device).has_value());
    requests.push_back(w.submit(device, Op::write, 50, 1, memory.at()));
    w.reactor.run_until_idle();
    ASSERT_EQ(disk.log().size(), 21u);
    for (std::uint64_t i = 0; i < 20; ++i) EXPECT_EQ(disk.log()[i].extent.first.v, i * 3 % 20);
    EXPECT_EQ(disk.log()[20].extent.first.v, 50u);
}

TEST_F(DeviceLife, NoflushKeepsWhatATargetGivesBack) {
    Probe& probe = probes["p"];
    probe.holds = true;
    probe.requeues_held = true;
    Device& device = w.start("d", "0 100 probe p");
    const auto first = w.submit(device, Op::write, 1, 1, memory.at());
    const auto second = w.submit(device, Op::write, 2, 2, memory.at());
    EXPECT_TRUE(w.suspend(device, {.noflush = true}).has_value());
    const auto third = w.submit(device, Op::write, 5, 1, memory.at());
    EXPECT_EQ(device.counters().held_back, 3u);
    EXPECT_EQ(device.counters().in_flight, 0u);
    EXPECT_FALSE(first->done() || second->done());
    probe.holds = false;
    probe.calls.clear();
    EXPECT_TRUE(w.resume(device).has_value());
    w.reactor.run_until_idle();
    EXPECT_EQ(first->status(), IoStatus::ok);
    EXPECT_EQ(second->status(), IoStatus::ok);
    EXPECT_EQ(third->status(), IoStatus::ok);
    ASSERT_EQ(probe.calls.size(), 3u);
    EXPECT_EQ(probe.calls[0].extent.first.v, 1u);
    EXPECT_EQ(probe.calls[1].extent, (Extent{{2}, {2}}));
    EXPECT_EQ(probe.calls[2].extent.first.v, 5u);
    const auto& writes = device.counters().by_op[static_cast<int>(Op::write)];
    EXPECT_EQ(writes.requests, 3u);
    EXPECT_EQ(writes.sectors, 4u);
    EXPECT_EQ(writes.errors, 0u);
}

TEST_F(DeviceLife, NoflushTriesAWholeRequestAgainOfWhichOnePieceWasGivenBack) {
    Probe& probe = probes["p"];
    probe.chunk = {4};
    probe.holds = true;
    Device& device = w.start("d", "0 100 probe p");
    const auto request = w.submit(device, Op::write, 0, 16, memory.at());
    probe.release(IoStatus::ok, 1);
    probe.release(IoStatus::io_error, 1);
    w.reactor.run_until_idle();
    probe.requeues_held = true;
    EXPECT_TRUE(w.suspend(device, {.noflush = true}).has_value());
    EXPECT_FALSE(request->done());
    probe.holds = false;
    probe.calls.clear();
    EXPECT_TRUE(w.resume(device).has_value());
    w.reactor.run_until_idle();
    EXPECT_EQ(request->status(), IoStatus::ok);
    EXPECT_EQ(probe.calls.size(), 4u);
}

TEST_F(DeviceLife, RequeueWithoutNoflushIsAnError) {
    probes["p"].ends_with = IoStatus::requeue;
    Device& device = w.start("d", "0 100 probe p");
    EXPECT_EQ(w.io(device, Op::read, 0, 1, memory.at()), IoStatus::io_error);
}

TEST_F(DeviceLife, ResumeSwapsTablesWithRequestsUnderWay) {
    SimDisk& a = w.disk("a");
    SimDisk& b = w.disk("b");
    Device& device = w.start("d", "0 100 linear a 0");
    EXPECT_EQ(w.write(device, 0, 1, 1), IoStatus::ok);
    ASSERT_TRUE(w.load(device, "0 200 linear b 0").has_value());
    EXPECT_EQ(device.limits().size.v, 100u);
    const auto before = w.submit(device, Op::write, 5, 1, memory.at());
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_TRUE(before->done());
    EXPECT_EQ(device.limits().size.v, 200u);
    EXPECT_EQ(device.inactive(), nullptr);
    EXPECT_EQ(w.write(device, 150, 1, 2), IoStatus::ok);
    EXPECT_EQ(a.count(Op::write).requests, 2u);
    EXPECT_EQ(a.count(Op::flush).requests, 1u);
    EXPECT_EQ(b.count(Op::write).requests, 1u);
    EXPECT_EQ(w.opener.open_count("a"), 0u);
    EXPECT_EQ(w.opener.open_count("b"), 1u);
}

TEST_F(DeviceLife, TheOldTableGoesAfterTheNewOneResumed) {
    probes["old"].shared_steps = &steps;
    probes["new"].shared_steps = &steps;
    Device& device = w.start("d", "0 100 probe old");
    ASSERT_TRUE(w.load(device, "0 100 probe new").has_value());
    steps.clear();
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_EQ(steps, (Steps{"presuspend", "postsuspend", "preresume", "resume", "gone"}));
}

TEST_F(DeviceLife, APreresumeThatFailsLeavesTheDeviceSuspendedWithTheNewTable) {
    Device& device = w.start("d", "0 100 probe old");
    probes["new"].preresume_result = fail(Errc::io, "Unable to resume");
    ASSERT_TRUE(w.load(device, "0 200 probe new").has_value());
    const auto resumed = w.resume(device);
    ASSERT_FALSE(resumed.has_value());
    EXPECT_EQ(resumed.error().message, "probe: Unable to resume");
    EXPECT_EQ(resumed.error().code, Errc::io);
    EXPECT_TRUE(device.suspended());
    EXPECT_EQ(device.limits().size.v, 200u);
    EXPECT_EQ(probes["old"].steps.back(), "gone");
    const auto request = w.submit(device, Op::read, 0, 1, memory.at());
    probes["new"].preresume_result = {};
    EXPECT_TRUE(w.resume(device).has_value());
    w.reactor.run_until_idle();
    EXPECT_TRUE(request->done());
}

TEST_F(DeviceLife, ResumeOfARunningDeviceWithoutANewTableDoesNothing) {
    Device& device = w.start("d", "0 100 probe p");
    const auto steps_before = probes["p"].steps;
    EXPECT_TRUE(w.resume(device).has_value());
    EXPECT_EQ(probes["p"].steps, steps_before);
}

TEST_F(DeviceLife, LoadingReplacesAndClearingDropsTheInactiveTable) {
    Device& device = w.start("d", "0 100 probe live");
    ASSERT_TRUE(w.load(device, "0 100 probe one").has_value());
    ASSERT_TRUE(w.load(device, "0 100 probe two").has_value());
    EXPECT_EQ(probes["one"].steps.back(), "gone");
    EXPECT_NE(device.inactive(), nullptr);
    device.clear_inactive();
    EXPECT_EQ(probes["two"].steps.back(), "gone");
    EXPECT_EQ(device.inactive(), nullptr);
}

TEST_F(DeviceLife, SuspendAndResumeCallsWaitForEachOther) {
    Probe& probe = probes["p"];
    probe.holds = true;
    Device& device = w.start("d", "0 100 probe p");
    const auto request = w.submit(device, Op::read, 0, 1, memory.at());
    Running first, second, third;
    auto suspend = device.suspend({});
    auto resume = device.resume();
    auto again = device.suspend({.noflush = true});
    w.reactor.jobs().spawn(keep(&suspend, &first));
    w.reactor.jobs().spawn(keep(&resume, &second));
    w.reactor.jobs().spawn(keep(&again, &third));
    w.reactor.run_until_idle();
    EXPECT_FALSE(first.done() || second.done() || third.done());
    probe.release();
    w.reactor.run_until_idle();
    EXPECT_TRUE(first.done() && second.done() && third.done());
    EXPECT_TRUE(request->done());
    EXPECT_TRUE(device.suspended());
    const Steps tail(probe.steps.end() - 6, probe.steps.end());
    EXPECT_EQ(tail, (Steps{"presuspend", "postsuspend", "preresume", "resume", "presuspend noflush", "postsuspend noflush"}));
}

TEST_F(DeviceLife, QuiesceNestsAndKnowsNothingOfTheUsersSuspend) {
    Probe& probe = probes["p"];
    probe.holds = true;
    Device& device = w.start("d", "0 100 probe p");
    const auto steps_before = probe.steps;
    const auto before = w.submit(device, Op::read, 0, 1, memory.at());
    bool outer = false, inner = false;
    auto job = device.quiesce();
    w.reactor.jobs().spawn(keep_end(&job, &outer));
    w.reactor.run_until_idle();
    EXPECT_FALSE(outer);
    const auto after = w.submit(device, Op::read, 0, 1, memory.at());
    probe.release();
    w.reactor.run_until_idle();
    EXPECT_TRUE(outer && before->done());
    auto nested = device.quiesce();
    w.reactor.jobs().spawn(keep_end(&nested, &inner));
    w.reactor.run_until_idle();
    EXPECT_TRUE(inner);
    EXPECT_EQ(probe.steps, steps_before);
    EXPECT_FALSE(device.suspended());

    EXPECT_TRUE(w.suspend(device).has_value());
    EXPECT_TRUE(w.resume(device).has_value());
    device.unquiesce();
    w.reactor.run_until_idle();
    EXPECT_EQ(probe.held_count, 0u);
    EXPECT_EQ(device.counters().held_back, 1u);
    device.unquiesce();
    // What comes before the held back ones went down waits behind them.
    const auto later = w.submit(device, Op::read, 9, 1, memory.at());
    w.reactor.run_until_idle();
    EXPECT_EQ(probe.held_count, 2u);
    EXPECT_EQ(probe.calls.back().extent.first.v, 9u);
    probe.release();
    w.reactor.run_until_idle();
    EXPECT_TRUE(after->done() && later->done());
}

TEST_F(DeviceLife, QuiescedDevicesResumedByTheUserStayQuiet) {
    Probe& probe = probes["p"];
    Device& device = w.start("d", "0 100 probe p");
    w.reactor.run(device.quiesce());
    EXPECT_TRUE(w.suspend(device).has_value());
    const auto request = w.submit(device, Op::read, 0, 1, memory.at());
    device.unquiesce();
    w.reactor.run_until_idle();
    EXPECT_FALSE(request->done());    // still suspended
    EXPECT_TRUE(w.resume(device).has_value());
    w.reactor.run_until_idle();
    EXPECT_TRUE(request->done());
    EXPECT_EQ(probe.calls.size(), 1u);
}

TEST_F(DeviceLife, DetachEndsTheTableAndWhateverComes) {
    w.disk("a");
    Device& device = w.start("d", "0 100 probe p a 0");
    ASSERT_TRUE(w.load(device, "0 100 probe q a 0").has_value());
    EXPECT_EQ(w.opener.open_count("a"), 2u);
    std::optional<std::uint32_t> woken;
    w.reactor.jobs().spawn(next_event(&device, &woken));
    w.reactor.run(device.detach());
    w.reactor.run_until_idle();
    EXPECT_EQ(woken, 0u);
    EXPECT_EQ(probes["p"].steps.back(), "gone");
    EXPECT_EQ(probes["p"].steps[probes["p"].steps.size() - 2], "postsuspend");
    EXPECT_EQ(probes["q"].steps, (Steps{"load", "gone"}));
    EXPECT_EQ(w.opener.open_count("a"), 0u);
    EXPECT_EQ(device.live(), nullptr);
    EXPECT_EQ(w.io(device, Op::read, 0, 1, memory.at()), IoStatus::removed);
    EXPECT_EQ(w.io(device, Op::flush), IoStatus::removed);
    const auto resumed = w.resume(device);
    ASSERT_FALSE(resumed.has_value());
    EXPECT_EQ(resumed.error().code, Errc::not_found);
    EXPECT_FALSE(w.suspend(device).has_value());
    w.reactor.run(device.detach());    // once more is fine
}

TEST_F(DeviceLife, DetachEndsWhatWasHeldBack) {
    Device& device = w.start("d", "0 100 probe p");
    EXPECT_TRUE(w.suspend(device).has_value());
    const auto request = w.submit(device, Op::write, 0, 1, memory.at());
    w.reactor.run(device.detach());
    w.reactor.run_until_idle();
    EXPECT_EQ(request->status(), IoStatus::removed);
    EXPECT_EQ(device.counters().held_back, 0u);
    EXPECT_TRUE(probes["p"].calls.empty());
}

TEST_F(DeviceLife, DetachOfADeviceWithoutATableIsFine) {
    Device& device = w.device("d");
    const auto request = w.submit(device, Op::read, 0, 1, memory.at());
    w.reactor.run(device.detach());
    w.reactor.run_until_idle();
    EXPECT_EQ(request->status(), IoStatus::removed);
}

TEST_F(DeviceLife, MessagesAreRoutedAnsweredAndRefusedInTheKernelsWords) {
    w.disk("a");
    probes["q"].answer = "42";
    Device& device = w.device("d");
    EXPECT_EQ(w.message(device, 0, {"x"}).error().message, "The device has no table.");
    w.start(device, "0 100 probe p\n100 100 linear a 0\n200 100 probe q");
    EXPECT_EQ(w.message(device, 250, {"hello", "there"}).value(), "42");
    EXPECT_EQ(probes["q"].steps.back(), "message hello");
    EXPECT_EQ(w.message(device, 150, {"hello"}).error().message, "Target type does not support messages");
    EXPECT_EQ(w.message(device, 300, {"hello"}).error().message.find("Target message sector outside device."), 0u);
    EXPECT_EQ(w.message(device, 999, {"@foo"}).error().message, "Unsupported message sent to DM core: @foo");
    EXPECT_EQ(w.message(device, 0, {}).error().code, Errc::bad_argument);
    EXPECT_TRUE(w.suspend(device).has_value());
    EXPECT_EQ(w.message(device, 0, {"hello"}).value(), "answer");    // suspended devices answer too
}

TEST_F(DeviceLife, EventsAreNumberedObservedAndWaitedFor) {
    Device& device = w.start("d", "0 100 zero");
    EXPECT_EQ(device.event_number(), 0u);
    std::optional<std::uint32_t> seen;
    w.reactor.jobs().spawn(next_event(&device, &seen));
    w.reactor.run_until_idle();
    EXPECT_FALSE(seen.has_value());
    device.raise(EventKind::target, "something happened");
    w.reactor.run_until_idle();
    EXPECT_EQ(seen, 1u);
    device.raise(EventKind::table, "renamed");
    EXPECT_EQ(device.event_number(), 2u);
    ASSERT_EQ(w.events.size(), 2u);
    EXPECT_EQ(w.events[0].device, "d");
    EXPECT_EQ(w.events[0].number, 1u);
    EXPECT_EQ(w.events[0].what, "something happened");
    EXPECT_EQ(w.events[1].kind, EventKind::table);
}

TEST_F(DeviceLife, APowerCutLeavesNothingBehind) {
    std::vector<std::unique_ptr<SimRequest>> requests;
    Running running;
    {
        auto world = std::make_unique<MappedWorld>();
        ProbeType& other = add_probe_type(world->types);
        world->disk("a");
        Device& low = world->start("low", "0 100 linear a 0");
        Device& device = world->start("d", "0 100 delay low 0 50\n100 100 probe p");
        other["p"].holds = true;
        for (std::uint64_t i = 0; i < 8; ++i) requests.push_back(world->submit(device, Op::write, 90, 20, memory.at()));
        for (std::uint64_t i = 0; i < 8; ++i) requests.push_back(world->submit(low, Op::write, i, 2, memory.at()));
        auto job = std::make_optional(device.suspend({}));
        world->reactor.jobs().spawn(keep(&*job, &running));
        requests.push_back(world->submit(device, Op::write, 0, 1, memory.at()));
        EXPECT_EQ(device.counters().held_back, 1u);
        const Abandoning abandoning;
        world->reactor.cut();
        job.reset();
        world.reset();
    }
    EXPECT_FALSE(running.done());
    for (const auto& request : requests) EXPECT_FALSE(request->done());
}

}  // namespace
}  // namespace udm
