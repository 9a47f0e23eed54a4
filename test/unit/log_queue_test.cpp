// The daemon's log lines: written in order, by somebody else, and bounded while nobody takes them.
#include <gtest/gtest.h>

#include <future>
#include <mutex>
#include <semaphore>
#include <vector>

#include "apps/udmd/log_queue.hpp"

namespace udm::daemon {
namespace {

struct Paper {
    void write(const LogQueue::Line& line) {
        arrived.release();
        if (blocked) go_on.acquire();
        const std::lock_guard lock{mutex};
        lines.push_back(line.text);
    }
    std::atomic<bool> blocked = false;
    std::counting_semaphore<> arrived{0}, go_on{0};
    std::mutex mutex;
    std::vector<std::string> lines;
};

LogQueue::Line line(const std::string& text) { return {std::chrono::system_clock::now(), ctl::LogLevel::info, text}; }

TEST(LogQueueTest, WritesAllInOrderAndSaysWhenItHas) {
    Paper paper;
    LogQueue queue{1 << 20, [&paper](const LogQueue::Line& one) { paper.write(one); }};
    std::vector<std::string> expected;
    for (int i = 0; i < 1000; ++i) {
        expected.push_back(std::to_string(i));
        queue.put(line(expected.back()));
    }
    EXPECT_TRUE(queue.wait_written());
    EXPECT_EQ(paper.lines, expected);
}

TEST(LogQueueTest, KeepsNobodyWaitingAndSaysHowManyLinesAreMissing) {
    Paper paper;
    paper.blocked = true;
    {
        LogQueue queue{64 << 10, [&paper](const LogQueue::Line& one) { paper.write(one); }};
        queue.put(line("first"));
        paper.arrived.acquire();
        for (int i = 0; i < 100'000; ++i) queue.put(line(std::to_string(i)));    // returns though nothing is written
        EXPECT_FALSE(queue.wait_written());
        paper.blocked = false;
        paper.go_on.release();
        EXPECT_TRUE(queue.wait_written());
        queue.put(line("later"));
    }
    const std::size_t kept = paper.lines.size() - 3;
    EXPECT_GT(kept, 100u);
    EXPECT_LT(kept, 2000u);
    EXPECT_EQ(paper.lines[kept], std::to_string(kept - 1));
    EXPECT_EQ(paper.lines[kept + 1].find(std::to_string(100'000 - kept) + " log lines are missing here"), 0u) << paper.lines[kept + 1];
    EXPECT_EQ(paper.lines.back(), "later");
}

TEST(LogQueueTest, EndsThoughAWriteNeverDoes) {
    auto paper = std::make_shared<Paper>();
    paper->blocked = true;
    {
        LogQueue queue{1 << 20, [paper](const LogQueue::Line& one) { paper->write(one); }};
        queue.put(line("stuck"));
        paper->arrived.acquire();
    }
    EXPECT_TRUE(paper->lines.empty());
    paper->go_on.release();
    while (paper.use_count() != 1) std::this_thread::yield();    // the thread is gone
    const std::lock_guard lock{paper->mutex};
    EXPECT_EQ(paper->lines.size(), 1u);
}

}  // namespace
}  // namespace udm::daemon
