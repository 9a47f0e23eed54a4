// A mirror's log on a simulated disk, with an owner that only says what it was asked.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "services/dirty_log/format.hpp"
#include "services/dirty_log/make.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_opener.hpp"
#include "sim/sim_reactor.hpp"
#include "test/support/log_alone.hpp"

namespace udm::dirty_log::test {

struct TestOwner final : Owner {
    explicit TestOwner(Reactor& r) : reactor{r} {}
    Reactor& reactor;
    std::vector<std::string> events;
    unsigned flushes = 0;
    IoStatus answer{IoStatus::ok};
    Nanoseconds takes = 0;
    Job<IoStatus> flush_legs() override {
        ++flushes;
        if (takes != 0) {
            Sleep nap{reactor, reactor.now() + takes};
            co_await nap;
        }
        co_return answer;
    }
    void log_failed(std::string_view what) noexcept override { events.emplace_back(what); }
    void log_recovered() noexcept override { events.emplace_back("recovered"); }
};

class DirtyLogTest : public ::testing::Test {
  public:
    ~DirtyLogTest() override {
        stop();
        reactor.run_until_idle();
    }

    SimDisk& disk(std::uint64_t sectors, SimDisk::Options options = {}) {
        options.limits.size = {sectors};
        options.name = "log";
        device = std::make_unique<SimDisk>(reactor.timeline(), options);
        opener.add("log", *device);
        return *device;
    }
    Result<std::unique_ptr<DirtyLog>> parse(std::uint64_t length, std::string_view type, std::vector<std::string> words) {
        TargetArgs args{env, {0}, {length}, TableMode::read_write, words, opener, no_events, nullptr, "m"};
        return make(args, type, words);
    }
    std::string error_of(std::uint64_t length, std::string_view type, std::vector<std::string> words) {
        auto made = parse(length, type, std::move(words));
        if (!made) return made.error().message;
        auto loaded = reactor.run((*made)->load(&owner));
        return loaded ? "no error" : loaded.error().message;
    }
    // Regions of 8 sectors.
    Result<Found> start(std::uint64_t regions, const std::string& word = "", const std::string& type = "disk", std::uint64_t region_size = 8) {
        stop();
        std::vector<std::string> words{std::to_string(region_size)};
        if (type == "disk") words.insert(words.begin(), "log");
        if (!word.empty()) words.push_back(word);
        auto made = parse(regions * region_size, type, words);
        EXPECT_TRUE(made) << (made ? "" : made.error().message);
        log = std::move(*made);
        auto loaded = reactor.run(log->load(&owner));
        EXPECT_TRUE(loaded) << (loaded ? "" : loaded.error().message);
        return reactor.run(log->resume());
    }
    void begin(std::uint64_t regions, const std::string& word = "", const std::string& type = "disk", std::uint64_t region_size = 8) {
        auto found = start(regions, word, type, region_size);
        ASSERT_TRUE(found) << found.error().message;
    }
    // As in a power cut: what is on the disk now, and nothing of what is in memory. (The disk has no cache here.)
    Result<Found> crash_and_start(std::uint64_t regions, const std::string& word = "") {
        {
            const Abandoning abandoning;
            reactor.cut();
            log.reset();
        }
        return start(regions, word);
    }
    void stop() {
        if (!log) return;
        reactor.run(log->presuspend());
        static_cast<void>(reactor.run(log->postsuspend()));
        log.reset();
    }
    IoStatus flush() {
        TestWaiter waiter;
        log->flush(waiter);
        const bool done = reactor.run_until([&] { return waiter.done; });
        EXPECT_TRUE(done);
        return waiter.status;
    }
    IoStatus mark(std::uint64_t region) { return log->mark({region}) ? IoStatus::ok : flush(); }
    void make_dirty(std::uint64_t region) { EXPECT_EQ(mark(region), IoStatus::ok); }
    // The first of two legs misses a region, and the log has that durably.
    void leave_the_first_leg_behind(std::uint64_t region) {
        make_dirty(region);
        log->set_sync({region}, false);
        log->record(LegRecord{.leg_count = 2, .source = 1, .failed = 1});
        EXPECT_EQ(flush(), IoStatus::ok);
    }
    // Makes all regions in sync, and clean.
    void sync_all() {
        for (std::uint64_t r = 0; r < log->region_count().v; ++r) {
            log->set_sync({r}, true);
            log->clear({r});
        }
        reactor.run_until_idle();
    }
    bool in_sync(std::uint64_t region) { return log->in_sync({region}) == Answer::yes; }
    RegionRun work(std::uint64_t most = 1000) { return reactor.run(log->resync_work({most})); }

    // --- the disk, past the log ---------------------------------------------------------------------------------
    std::vector<std::byte> bytes(std::uint64_t from, std::uint64_t count) {
        std::vector<std::byte> all(to_bytes(device->limits().size));
        device->read_now({{0}, device->limits().size}, all.data());
        return {all.begin() + static_cast<std::ptrdiff_t>(from), all.begin() + static_cast<std::ptrdiff_t>(from + count)};
    }
    void put(std::uint64_t from, const void* data, std::uint64_t count) {
        std::vector<std::byte> all(to_bytes(device->limits().size));
        device->read_now({{0}, device->limits().size}, all.data());
        std::memcpy(all.data() + from, data, count);
        device->write_now({{0}, device->limits().size}, all.data());
    }
    DiskHeader header() {
        DiskHeader header;
        std::memcpy(&header, bytes(0, sizeof header).data(), sizeof header);
        return header;
    }
    void put_header(std::uint32_t magic, std::uint32_t version, std::uint64_t regions) {
        DiskHeader header;
        header.magic = magic;
        header.version = version;
        header.regions = regions;
        put(0, &header, sizeof header);
    }
    bool clean_on_disk(std::uint64_t region) {
        return (static_cast<unsigned>(bytes(kBitmapOffset + region / 8, 1)[0]) >> (region % 8) & 1) != 0;
    }
    std::uint64_t writes() const { return device->count(Op::write).requests; }
    std::uint64_t flushes() const { return device->count(Op::flush).requests; }

    SimReactor reactor;
    Prng random{1};
    Chaos chaos;
    Env env{reactor, random, chaos};
    NoEvents no_events;
    std::unique_ptr<SimDisk> device;
    SimOpener opener;
    TestOwner owner{reactor};
    std::unique_ptr<DirtyLog> log;
};

}  // namespace udm::dirty_log::test
