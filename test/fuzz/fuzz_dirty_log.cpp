// A mirror's log from an enemy: the first bytes of its device are the input. It loads, or says with words why it is not trusted; a log that is
// not trusted is not written; one that is says again what it said when it is loaded again, and keeps what is noted.
//
// Input: byte 0 options (bits 0-1: word; bit 2: blocks of 4 KiB; bit 3: regions of 16 sectors; bit 4: a good header, the input is note and
// bitmap; bit 5: and a good note; bits 6-7: 20, 300, 3,000 or 26,000 regions, the last in two blocks), then bytes of the device.
#include <cstdint>
#include <cstring>
#include <vector>

#include "services/dirty_log/format.hpp"
#include "services/dirty_log/make.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_opener.hpp"
#include "sim/sim_reactor.hpp"
#include "test/support/log_alone.hpp"

namespace {

using namespace udm;
using namespace udm::dirty_log;

constexpr std::uint64_t kDevice = 64;    // sectors

struct World {
    SimEnv sim;
    test::QuietLegs legs;
    test::NoEvents events;
    SimOpener opener;
    SimDisk disk;
    std::uint64_t regions;
    std::uint32_t region_size;
    std::vector<std::string> words;
    std::unique_ptr<DirtyLog> log;

    World(const SimDisk::Options& options, std::uint64_t count, std::uint32_t size) : disk{sim.reactor, options}, regions{count}, region_size{size} {
        opener.add("log", disk);
        words = {"log", std::to_string(size)};
    }
    Found start() {
        TargetArgs args{sim.env, {0}, {regions * region_size}, TableMode::read_write, words, opener, events, nullptr, "m"};
        auto made = make(args, "disk", words);
        ASSERT(made);
        log = std::move(*made);
        auto loaded = sim.reactor.run(log->load(&legs));
        ASSERT(loaded);
        auto found = sim.reactor.run(log->resume());
        ASSERT(found);
        return std::move(*found);
    }
    void stop() {
        sim.reactor.run(log->presuspend());
        auto stopped = sim.reactor.run(log->postsuspend());
        ASSERT(stopped);
        log.reset();
    }
    IoStatus flush() {
        test::TestWaiter waiter;
        log->flush(waiter);
        const bool done = sim.reactor.run_until([&] { return waiter.done; });
        ASSERT(done);
        return waiter.status;
    }
    std::vector<std::byte> content() const {
        std::vector<std::byte> bytes(kDevice * kSectorSize);
        disk.read_now({{0}, {kDevice}}, bytes.data());
        return bytes;
    }
    std::vector<bool> states() const {
        std::vector<bool> in_sync(regions);
        std::uint64_t count = 0;
        for (std::uint64_t r = 0; r < regions; ++r) count += in_sync[r] = log->in_sync({r}) == Answer::yes;
        ASSERT(count == log->sync_count().v);
        return in_sync;
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    if (size == 0) return 0;
    const unsigned options = *data++;
    --size;
    SimDisk::Options disk;
    disk.limits.size = {kDevice};
    disk.limits.logical_block = (options & 4) != 0 ? 4096 : 512;
    static constexpr std::uint64_t kCounts[] = {20, 300, 3'000, 26'000};
    World world{disk, kCounts[options >> 6], (options & 8) != 0 ? 16U : 8U};
    if ((options & 3) == 1) world.words.emplace_back("sync");
    if ((options & 3) == 2) world.words.emplace_back("nosync");

    std::vector<std::byte> image(kDevice * kSectorSize);
    std::size_t from = 0;
    if ((options & 16) != 0) {
        LegRecord legs{.leg_count = 3, .source = 1, .failed = 0b101};
        put_header(image.data(), {world.regions}, RegionSize::of_sectors(world.region_size),
                   (options & 32) != 0 ? std::optional{legs} : std::nullopt);
        from = (options & 32) != 0 ? kBitmapOffset : kNoteOffset;
    }
    std::memcpy(image.data() + from, data, std::min(size, image.size() - from));
    world.disk.write_now({{0}, {kDevice}}, image.data());

    const Found found = world.start();
    const std::vector<bool> before = world.states();
    ASSERT(!world.log->leg_record() || world.log->leg_record()->makes_sense());
    if (found.kind == Found::Kind::distrusted) {
        ASSERT(!found.why.empty() && world.log->sync_count().v == 0 && world.log->health() == Health::failed);
        ASSERT(!world.log->mark({0}));
        ASSERT(world.flush() != IoStatus::ok);
        const RegionRun none = world.sim.reactor.run(world.log->resync_work({8}));
        ASSERT(!none);
        world.stop();
        ASSERT(world.content() == image);
        return 0;
    }
    const auto record = world.log->leg_record();
    // The same again: what it has written means what it read.
    world.stop();
    if (world.words.back() == "sync") world.words.pop_back();
    const Found again = world.start();
    ASSERT(again.kind == Found::Kind::trusted && again.why.empty() && world.states() == before && world.log->leg_record() == record);
    // Used.
    const std::uint64_t last = world.regions - 1;
    const IoStatus marked = world.log->mark({last}) ? IoStatus::ok : world.flush();
    ASSERT(marked == IoStatus::ok);
    if (world.regions > 3000) {    // copying all of them would tell nothing new
        world.stop();
        return 0;
    }
    while (const RegionRun run = world.sim.reactor.run(world.log->resync_work({4096}))) {
        for (std::uint64_t r = run.first.v; r < run.end().v; ++r) {
            world.log->set_sync({r}, true);
            world.log->clear({r});
        }
    }
    ASSERT(world.log->sync_count() == world.log->region_count());
    world.log->record(std::nullopt);
    world.stop();
    world.start();
    const bool was_in_sync = before[last];    // then its write is still under way
    ASSERT(world.log->sync_count().v == world.regions - (was_in_sync ? 1 : 0) && !world.log->leg_record());
    world.stop();
    ASSERT(world.disk.counters().invalid == 0);
    return 0;
}
