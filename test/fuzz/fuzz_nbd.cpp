// The NBD server against any bytes: a client that sends them, in pieces of any size, beside one that behaves.
// Whatever happens, the good client gets its data, and nothing is left behind.
//
// Input: how to begin (bit 0: the handshake is done for it; bit 1: with structured replies and a metadata
// context; bit 2: the export lives on another reactor; bit 3: the client reads nothing back; bit 4: it
// vanishes at the end instead of ending its side; bit 5: the export is removed meanwhile), how its bytes are
// cut (0: not at all), then the bytes.
#include <cstddef>
#include <cstdint>
#include <optional>

#include "exports/nbd/server.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_reactor.hpp"
#include "test/support/fake_net.hpp"
#include "test/support/nbd_bytes.hpp"

namespace udm::test {
namespace {

constexpr std::uint64_t kDiskSize = 256 << 10;

struct Told final : nbd::Done {
    void done() noexcept override { ++times; }
    int times = 0;
};

const std::string& good_bytes() {
    static const std::string bytes = [] {
        std::string content(kDiskSize, '\0');
        for (std::size_t i = 0; i < content.size(); ++i) content[i] = static_cast<char>(i * 7 + i / 512);
        return content;
    }();
    return bytes;
}

struct World {
    World() {
        SimDisk::Options options;
        options.limits.size = whole_sectors(kDiskSize);
        options.limits.discard = true;
        options.latency_min = 1'000;
        options.latency_max = 1'000'000;
        here.enter();
        disk.emplace(timeline, options);
        good_disk.emplace(timeline, options);
        const std::string& content = good_bytes();
        good_disk->write_now({{0}, whole_sectors(kDiskSize)}, content.data());
    }
    void run(Nanoseconds time = 5 * kSecond) { here.run_for(time); }

    Timeline timeline;
    SimReactor here{timeline};
    SimReactor there{timeline};
    Wires wires;
    FakeNetwork network{here, wires};
    FakeNetwork network_there{there, wires};
    std::optional<SimDisk> disk, good_disk;
};

void check_good_client(World& world, Wire& good) {
    good.write(request(kRead, 99, 4096, 4096));
    world.run();
    WireReader reader{good.take()};
    Answers answers;
    answers.reads[99] = 4096;
    answers.read(reader);
    ASSERT(answers.order.size() == 1 && answers.by_cookie[99].data == good_bytes().substr(4096, 4096));
    ASSERT(!good.closed());
}

}  // namespace
}  // namespace udm::test

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace udm;
    using namespace udm::test;
    if (size < 2) return 0;
    const unsigned how = data[0];
    const std::size_t most = data[1];
    const std::string bytes(reinterpret_cast<const char*>(data) + 2, size - 2);

    World world;
    nbd::Server server{world.here, world.network};
    ASSERT(server.listen({}));
    const bool elsewhere = (how & 4) != 0;
    nbd::Export what{.name = "vol",
                     .description = "any",
                     .disk = &*world.disk,
                     .home = elsewhere ? &world.there : &world.here,
                     .network = elsewhere ? &world.network_there : &world.network};
    ASSERT(server.add(what));
    what = {.name = "good", .disk = &*world.good_disk, .home = &world.here, .network = &world.network};
    ASSERT(server.add(what));

    Wire& good = world.network.connect();
    good.write(client_flags() + go("good"));
    world.run();
    good.take();

    Wire& wire = world.network.connect();
    Prng random{size};
    if (most != 0) wire.fragment = [&random, most](std::size_t) { return random.between(1, most); };
    std::string handshake;
    if (how & 1) {
        handshake = client_flags();
        if (how & 2) handshake += structured() + set_meta("vol", {"base:allocation"});
        handshake += go("vol");
    }
    wire.set_reads((how & 8) == 0);
    wire.write(handshake + bytes);
    Told removed;
    if (how & 32) {
        for (std::size_t i = 0; i < most; ++i) world.timeline.step();
        ASSERT(server.remove("vol", removed));
    }
    world.run();
    check_good_client(world, good);
    (how & 16) ? wire.vanish() : wire.end();
    world.run();
    check_good_client(world, good);

    Told stopped;
    server.stop(stopped);
    world.run(60 * kSecond);
    ASSERT(stopped.times == 1 && server.connections() == 0);
    ASSERT(removed.times == ((how & 32) ? 1 : 0));
    for (SimReactor* reactor : {&world.here, &world.there}) {
        ASSERT(reactor->ios_out() == 0 && reactor->buffers().bytes_out() == 0);
    }
    return 0;
}
