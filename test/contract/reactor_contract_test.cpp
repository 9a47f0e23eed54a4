// The contract of Reactor (port/reactor.hpp), and that idleness costs nothing.
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include <atomic>
#include <barrier>
#include <condition_variable>
#include <thread>

#include "engine/workers.hpp"
#include "port/job.hpp"
#include "test/contract/engine_fixture.hpp"

namespace udm::test {
namespace {

class ReactorContract : public EngineTest, public ::testing::WithParamInterface<Variant> {};

INSTANTIATE_TEST_SUITE_P(All, ReactorContract,
                         ::testing::Values(Variant::uring, Variant::plain_ring, Variant::threads),
                         [](const auto& which) { return name_of(which.param); });

TEST_P(ReactorContract, RunsWhatOtherThreadsPostInTheirOrder) {
    start(GetParam());
    struct Counted final : Task {
        void run() noexcept override {
            EXPECT_TRUE(reactor->is_current());
            EXPECT_EQ((*last)[thread] + 1, number);
            (*last)[thread] = number;
            left->fetch_sub(1);
        }
        Reactor* reactor = nullptr;
        std::vector<int>* last = nullptr;
        std::atomic<int>* left = nullptr;
        std::size_t thread = 0;
        int number = 0;
    };
    constexpr int kThreads = 4;
    constexpr int kPosts = 20000;
    std::vector<int> last(kThreads);
    std::atomic<int> left{kThreads * kPosts};
    std::vector<std::vector<Counted>> tasks;
    for (int i = 0; i < kThreads; ++i) tasks.emplace_back(kPosts);
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < kThreads; ++i) {
        threads.emplace_back([&, i] {
            for (int n = 0; n < kPosts; ++n) {
                Counted& task = tasks[i][static_cast<std::size_t>(n)];
                task.reactor = &reactor();
                task.last = &last;
                task.left = &left;
                task.thread = i;
                task.number = n + 1;
                reactor().post_remote(task);
            }
        });
    }
    for (std::thread& thread : threads) thread.join();
    // Tasks run in their order: this one comes after all.
    on(reactor(), [] {});
    EXPECT_EQ(left.load(), 0);
}

// A copy in memory, for instance: each request's end begins the next one.
TEST_P(ReactorContract, CompletionsWithoutEndKeepNobodyFromRunning) {
    start(GetParam());
    struct Circle final : Layer {
        void on_complete(Io& io, Frame&) noexcept override {
            if (over) return reactor->give_io(io);
            io.push(*this);
            reactor->complete_later(io, IoStatus::ok);
        }
        Reactor* reactor = nullptr;
        std::atomic<bool> over{false};
    } circle;
    circle.reactor = &reactor();
    on(reactor(), [&] {
        Io& io = reactor().take_io();
        io.push(circle);
        reactor().complete_later(io, IoStatus::ok);
    });
    std::promise<void> ran;
    auto reached = ran.get_future();
    struct Other final : Task {
        void run() noexcept override { ran->set_value(); }
        std::promise<void>* ran = nullptr;
    } other;
    other.ran = &ran;
    reactor().post_remote(other);
    EXPECT_EQ(reached.wait_for(std::chrono::seconds(20)), std::future_status::ready);
    circle.over = true;
    reached.wait();
    on(reactor(), [&] { EXPECT_EQ(reactor().ios_out(), 0u); });
}

// Two reactors that post to each other, with nothing else to wake them: a lost wake-up hangs here.
TEST_P(ReactorContract, NeverLosesAWakeUp) {
    start(GetParam(), 2);
    struct Ball final : Task {
        void run() noexcept override {
            if (--bounces == 0) return over.set_value();
            at = 1 - at;
            engine->reactor(at).post_remote(*this);
        }
        Engine* engine = nullptr;
        unsigned at = 0;
        int bounces = 20000;
        std::promise<void> over;
    };
    Ball balls[3];
    for (Ball& ball : balls) {
        ball.engine = &engine();
        engine().reactor(0).post_remote(ball);
    }
    for (Ball& ball : balls) ball.over.get_future().get();
}

TEST_P(ReactorContract, ExpiresTimersInTheirOrderAndNotEarly) {
    start(GetParam());
    struct Ring final : Timer {
        void expired() noexcept override {
            EXPECT_GE(reactor->now(), deadline);
            rung->push_back(number);
            if (rung->size() == 5) all->set_value();
        }
        Reactor* reactor = nullptr;
        std::vector<int>* rung = nullptr;
        std::promise<void>* all = nullptr;
        int number = 0;
        Nanoseconds deadline = 0;
    };
    Ring rings[6];
    std::vector<int> rung;
    std::promise<void> all;
    const Nanoseconds after_ms[] = {30, 10, 20, 10, 0, 15};
    on(reactor(), [&] {
        const Nanoseconds now = reactor().now();
        for (int i = 0; i < 6; ++i) {
            rings[i].reactor = &reactor();
            rings[i].rung = &rung;
            rings[i].all = &all;
            rings[i].number = i;
            rings[i].deadline = now + after_ms[i] * kMillisecond;
            reactor().arm(rings[i], rings[i].deadline);
        }
        reactor().cancel(rings[5]);
    });
    all.get_future().get();
    EXPECT_EQ(rung, (std::vector<int>{4, 1, 3, 2, 0}));
}

TEST_P(ReactorContract, ArmsATimerFromAPostWhileItSleeps) {
    start(GetParam());
    struct Once final : Timer {
        void expired() noexcept override { over.set_value(); }
        std::promise<void> over;
    };
    Once far, near;
    on(reactor(), [&] { reactor().arm(far, reactor().now() + 3600 * kSecond); });
    on(reactor(), [&] { reactor().arm(near, reactor().now() + kMillisecond); });
    near.over.get_future().get();
    on(reactor(), [&] { reactor().cancel(far); });
}

struct Usage {
    long switches = 0;
    std::uint64_t cpu_ns = 0;
};

// Of the threads whose names start with "udm-".
Usage usage(const Engine& engine) {
    Usage sum;
    for (const auto& entry : std::filesystem::directory_iterator("/proc/self/task")) {
        std::ifstream comm{entry.path() / "comm"};
        std::string name;
        std::getline(comm, name);
        if (!name.starts_with("udm-")) continue;
        std::ifstream status{entry.path() / "status"};
        for (std::string line; std::getline(status, line);) {
            if (line.find("ctxt_switches") != std::string::npos)
                sum.switches += std::stol(line.substr(line.find(':') + 1));
        }
    }
    for (const std::uint64_t ns : engine.cpu_ns()) sum.cpu_ns += ns;
    return sum;
}

// Idle with work behind it, devices open and a timer far away: not one wake-up in a second.
TEST_P(ReactorContract, SleepsWhenThereIsNothingToDo) {
    start(GetParam(), 2);
    const TempFolder folder{"/var/tmp"};
    auto device = open(make_file(folder / "image", 1u << 20));
    std::vector<char> data(4096);
    ASSERT_EQ(write(device->disk(), 0, data), IoStatus::ok);
    struct Never final : Timer {
        void expired() noexcept override { ADD_FAILURE(); }
    } never;
    on(reactor(), [&] { reactor().arm(never, reactor().now() + 3600 * kSecond); });

    // Helper threads and the reactors themselves come to rest: until two looks in a row are alike.
    Usage before = usage(engine());
    std::mutex mutex;
    std::condition_variable nothing;
    auto pass = [&](int ms) {
        std::unique_lock lock{mutex};
        nothing.wait_for(lock, std::chrono::milliseconds(ms));
    };
    for (int tries = 0; tries < 50; ++tries) {
        pass(50);
        const Usage now = usage(engine());
        const bool resting = now.switches == before.switches;
        before = now;
        if (resting) break;
    }
    pass(1000);
    const Usage after = usage(engine());
    EXPECT_EQ(after.switches, before.switches);
    EXPECT_EQ(after.cpu_ns, before.cpu_ns);
    on(reactor(), [&] { reactor().cancel(never); });
    close(device);
}

TEST_P(ReactorContract, RunsCompletionsBeforeTheTasksTheyPost) {
    start(GetParam());
    auto device = open("ram:1M");
    std::vector<std::string> order;
    struct Note final : Task {
        void run() noexcept override { order->push_back("task"); }
        std::vector<std::string>* order = nullptr;
    } note;
    note.order = &order;
    struct End final : Layer {
        void on_complete(Io& io, Frame&) noexcept override {
            order->push_back("completion");
            if (!note->linked() && order->size() == 1) reactor->post(*note);
            reactor->give_io(io);
        }
        Reactor* reactor = nullptr;
        Note* note = nullptr;
        std::vector<std::string>* order = nullptr;
    } end;
    end.reactor = &reactor();
    end.note = &note;
    end.order = &order;
    on(reactor(), [&] {
        for (int i = 0; i < 3; ++i) {
            Io& io = reactor().take_io();
            io.op = Op::flush;
            io.push(end);
            device->disk().submit(io);
        }
    });
    on(reactor(), [] {});
    EXPECT_EQ(order, (std::vector<std::string>{"completion", "completion", "completion", "task"}));
    close(device);
}

Job<void> read_and_sleep(Reactor* reactor, Disk* disk, std::byte* memory, std::promise<IoStatus>* over) {
    IoWait wait{*reactor, *disk, Op::read, Extent{Sector{0}, Sectors{8}}, memory};
    const IoStatus status = co_await wait;
    Sleep nap{*reactor, reactor->now() + kMillisecond};
    co_await nap;
    over->set_value(status);
}

TEST_P(ReactorContract, RunsJobs) {
    start(GetParam());
    auto device = open("ram:1M");
    std::byte memory[4096];
    std::promise<IoStatus> over;
    on(reactor(),
       [&] { reactor().jobs().spawn(read_and_sleep(&reactor(), &device->disk(), memory, &over)); });
    EXPECT_EQ(over.get_future().get(), IoStatus::ok);
    close(device);
}

TEST_P(ReactorContract, TellsItsKindAndTimes) {
    start(GetParam(), 3);
    EXPECT_EQ(engine().size(), 3u);
    EXPECT_STREQ(engine().kind_name(), GetParam() == Variant::threads ? "threads" : "uring");
    std::uint64_t sum = 0;
    on(reactor(2), [&] {
        for (const Nanoseconds until = reactor(2).now() + 20 * kMillisecond; reactor(2).now() < until;) ++sum;
    });
    ASSERT_EQ(engine().cpu_ns().size(), 3u);
    EXPECT_GT(engine().cpu_ns()[2], engine().cpu_ns()[0]);
    EXPECT_GT(sum, 0u);
}

TEST_P(ReactorContract, StopsWithRequestsPostedAndTimersArmed) {
    start(GetParam());
    struct Never final : Timer {
        void expired() noexcept override { ADD_FAILURE(); }
    } never;
    on(reactor(), [&] { reactor().arm(never, reactor().now() + 3600 * kSecond); });
    on(reactor(), [&] { reactor().cancel(never); });
    engine().stop();
    engine().stop();  // harmless
    EXPECT_EQ(engine().cpu_ns().size(), 1u);
}

// Runs `f` on a thread, and whatever threads that one makes, to which these system calls answer `error`, as a
// container's filter does. False where a filter cannot be set.
bool with_filter(const std::vector<unsigned>& calls, int error, const std::function<void()>& f) {
    bool filtered = false;
    std::thread thread{[&] {
        std::vector<sock_filter> program = {BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr))};
        for (const unsigned call : calls) {
            program.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1));
            program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | static_cast<unsigned>(error)));
        }
        program.push_back(BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW));
        const sock_fprog filter{static_cast<unsigned short>(program.size()), program.data()};
        filtered = ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
                   ::prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0;
        if (filtered) f();
    }};
    thread.join();
    return filtered;
}

TEST(EngineStart, UsesThreadsWhereIoUringIsForbiddenAndSaysSo) {
    for (const int error : {EPERM, ENOSYS}) {
        const bool filtered = with_filter({SYS_io_uring_setup}, error, [&] {
            auto engine = Engine::start({.reactors = 1});
            ASSERT_TRUE(engine) << engine.error().message;
            EXPECT_STREQ((*engine)->kind_name(), "threads");
            ASSERT_FALSE((*engine)->warnings().empty());
            EXPECT_NE((*engine)->warnings()[0].find("io_uring is not to be had"), std::string::npos);
            auto none = Engine::start({.reactors = 1, .kind = EngineConfig::Kind::uring});
            ASSERT_FALSE(none);
            EXPECT_EQ(none.error().code, Errc::unsupported);
            EXPECT_NE(none.error().message.find(std::strerror(error)), std::string::npos)
                << none.error().message;
        });
        if (!filtered) GTEST_SKIP() << "no seccomp here";
    }
}

// Something for a helper thread, of which nobody hears.
struct HelperCall final : Operation {
    explicit HelperCall(std::function<void()> function) : f{std::move(function)} { kind = Kind::call; }
    int call() noexcept override {
        f();
        return 0;
    }
    void done(int) noexcept override {}
    std::function<void()> f;
};

TEST(HelperThreads, NoOperationWaitsBehindOneThatBlocksWhileAnotherThreadMayBeHad) {
    for (int round = 0; round < 200; ++round) {
        Workers workers{4};
        std::promise<void> first_ran, second_began;
        auto began = second_began.get_future();
        HelperCall warm_up{[&] { first_ran.set_value(); }};
        workers.submit(warm_up);
        first_ran.get_future().get();
        std::this_thread::yield();
        // One thread is there. Both come before it has taken the first.
        HelperCall blocks{[&] { EXPECT_EQ(began.wait_for(std::chrono::seconds(5)), std::future_status::ready); }};
        HelperCall second{[&] { second_began.set_value(); }};
        workers.submit(blocks);
        workers.submit(second);
        workers.stop();
        if (HasFailure()) return;
    }
}

TEST(HelperThreads, WithoutAThreadTheCallerDoesTheWork) {
    int calls = 0;
    const bool filtered = with_filter({SYS_clone3, SYS_clone}, EAGAIN, [&] {
        Workers workers{4};
        HelperCall call{[&] { ++calls; }};
        workers.submit(call);
        workers.stop();
    });
    if (!filtered) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(calls, 1);
}

TEST(EngineStart, FindsAKindByItself) {
    auto engine = Engine::start({.reactors = 1});
    ASSERT_TRUE(engine);
    EXPECT_TRUE(std::string{(*engine)->kind_name()} == "uring" || !(*engine)->warnings().empty());
    rlimit files{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    EXPECT_EQ(files.rlim_cur, files.rlim_max);
}

}  // namespace
}  // namespace udm::test
