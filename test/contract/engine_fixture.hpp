// What the engine's contract tests share: an engine of each kind, and a way for a test's thread to have
// something done on a reactor and to wait for it.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <mutex>
#include <string>
#include <vector>

#include "engine/engine.hpp"

namespace udm::test {

enum class Variant { uring, plain_ring, threads };

inline std::string name_of(Variant variant) {
    switch (variant) {
        case Variant::uring:
            return "uring";
        case Variant::plain_ring:
            return "plain_ring";
        case Variant::threads:
            return "threads";
    }
    return "";
}

// Runs `f` on the reactor and returns what it returns.
template <class F>
auto on(Reactor& reactor, F&& f) {
    using R = std::invoke_result_t<F>;
    struct Call final : Task {
        explicit Call(F& function) : f{function} {}
        void run() noexcept override {
            // Set last: the waiter destroys this then.
            if constexpr (std::is_void_v<R>) {
                f();
                std::promise<R> mine{std::move(promise)};
                mine.set_value();
            } else {
                R r = f();
                std::promise<R> mine{std::move(promise)};
                mine.set_value(std::move(r));
            }
        }
        F& f;
        std::promise<R> promise;
    } call{f};
    auto future = call.promise.get_future();
    reactor.post_remote(call);
    return future.get();
}

// One request, from a test's thread; a batch of them goes down in one turn.
struct Request {
    Op op{};
    Extent extent{};
    std::vector<iovec> memory{};
    IoFlags flags{};
    IoStatus status{IoStatus::requeue};
    ExtentAnswer answer{};
};

class Submission final : public Layer, public Task {
  public:
    Submission(Reactor& reactor, Disk& disk, std::vector<Request>& requests)
        : reactor_{reactor}, disk_{disk}, requests_{requests}, left_{requests.size()} {}
    void run_and_wait() {
        auto done = promise_.get_future();
        reactor_.post_remote(*this);
        done.get();
    }

  private:
    void run() noexcept override {
        for (std::size_t i = 0; i < requests_.size(); ++i) {
            Request& request = requests_[i];
            Io& io = reactor_.take_io();
            io.op = request.op;
            io.extent = request.extent;
            io.flags = request.flags;
            io.buffers = Buffers{request.memory.data(), static_cast<std::uint32_t>(request.memory.size())};
            io.push(*this, i);
            submitting_ = true;
            disk_.submit(io);
            submitting_ = false;
        }
    }
    void on_complete(Io& io, Frame& frame) noexcept override {
        EXPECT_FALSE(submitting_) << "completed inside submit()";
        requests_[frame.a].status = io.status;
        requests_[frame.a].answer = io.answer;
        reactor_.give_io(io);
        if (--left_ == 0) {
            std::promise<void> mine{std::move(promise_)};
            mine.set_value();
        }
    }
    Reactor& reactor_;
    Disk& disk_;
    std::vector<Request>& requests_;
    std::size_t left_;
    bool submitting_ = false;
    std::promise<void> promise_;
};

class TempFolder {
  public:
    explicit TempFolder(const std::string& parent = "/tmp") {
        std::string name = parent + "/udm-test-XXXXXX";
        path_ = ::mkdtemp(name.data());
    }
    TempFolder(const TempFolder&) = delete;
    TempFolder& operator=(const TempFolder&) = delete;
    ~TempFolder() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    std::string operator/(const std::string& name) const { return (path_ / name).string(); }

  private:
    std::filesystem::path path_;
};

inline std::string make_file(const std::string& path, std::uint64_t bytes) {
    std::ofstream{path}.close();
    std::filesystem::resize_file(path, bytes);
    return path;
}

class EngineTest : public ::testing::Test {
  protected:
    void start(Variant variant, unsigned reactors = 1) {
        EngineConfig config;
        config.reactors = reactors;
        config.kind = variant == Variant::threads ? EngineConfig::Kind::threads : EngineConfig::Kind::uring;
        config.plain_ring = variant == Variant::plain_ring;
        config.log = [this](const std::string& line) {
            const std::lock_guard lock{log_mutex_};
            log_.push_back(line);
        };
        auto engine = Engine::start(config);
        if (!engine && variant != Variant::threads) GTEST_SKIP() << engine.error().message;
        ASSERT_TRUE(engine) << engine.error().message;
        engine_ = std::move(*engine);
    }
    void TearDown() override {
        if (engine_) engine_->stop();
    }

    Engine& engine() { return *engine_; }
    Reactor& reactor(unsigned i = 0) { return engine_->reactor(i); }
    std::vector<std::string> log_lines() {
        const std::lock_guard lock{log_mutex_};
        return log_;
    }

    std::unique_ptr<OpenDevice> open(const std::string& words, OpenMode mode = OpenMode::write,
                                     unsigned i = 0) {
        auto device = engine_->opener(i).open(words, mode);
        EXPECT_TRUE(device) << device.error().message;
        return device ? std::move(*device) : nullptr;
    }
    // On its reactor, as a target would.
    void close(std::unique_ptr<OpenDevice>& device, unsigned i = 0) {
        on(reactor(i), [&] { device.reset(); });
    }
    Request run(Disk& disk, Request request, unsigned i = 0) {
        std::vector<Request> requests{std::move(request)};
        Submission{reactor(i), disk, requests}.run_and_wait();
        return requests[0];
    }
    IoStatus transfer(Disk& disk, Op op, std::uint64_t first, std::vector<char>& data, IoFlags flags = {}) {
        return run(disk,
                   {op, {Sector{first}, whole_sectors(data.size())}, {{data.data(), data.size()}}, flags})
            .status;
    }
    IoStatus write(Disk& disk, std::uint64_t first, std::vector<char>& data, IoFlags flags = {}) {
        return transfer(disk, Op::write, first, data, flags);
    }
    IoStatus read(Disk& disk, std::uint64_t first, std::vector<char>& data) {
        return transfer(disk, Op::read, first, data);
    }
    IoStatus simple(Disk& disk, Op op, std::uint64_t first, std::uint64_t sectors, IoFlags flags = {}) {
        return run(disk, {op, {Sector{first}, Sectors{sectors}}, {}, flags}).status;
    }

    std::mutex log_mutex_;
    std::vector<std::string> log_;
    std::unique_ptr<Engine> engine_;
};

// Bytes that tell where they belong.
inline std::vector<char> pattern(std::size_t bytes, unsigned seed) {
    std::vector<char> data(bytes);
    std::uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;
    for (std::size_t i = 0; i < bytes; ++i) {
        x = x * 6364136223846793005u + 1442695040888963407u;
        data[i] = static_cast<char>(x >> 56);
    }
    return data;
}

}  // namespace udm::test
