// A hostile snapshot store: the first bytes of a COW device are the input. It loads, or is refused with words; then it is read and
// written, and nothing reaches outside of the device. (A simulated disk asserts that.)
#include <cstring>
#include <vector>

#include "core/device.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_opener.hpp"
#include "sim/sim_reactor.hpp"
#include "targets/all.hpp"

using namespace udm;

namespace {
constexpr std::uint64_t kSize = 256, kCow = 192;

void use(SimReactor& reactor, Device& device, std::uint64_t first, std::uint64_t count) {
    std::vector<std::byte> memory(count * kSectorSize);
    static_cast<void>(reactor.io(device, Op::read, {{first}, {count}}, memory.data()));
    static_cast<void>(reactor.io(device, Op::write, {{first}, {count}}, memory.data()));
}
}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    SimReactor reactor;
    Prng random{1};
    Chaos chaos;
    Env env{reactor, random, chaos};
    SimDisk origin{reactor, Sectors{kSize}}, cow{reactor, Sectors{kCow}};
    std::vector<std::byte> image(kCow * kSectorSize);
    std::memcpy(image.data(), data, std::min(size, image.size()));
    cow.write_now({{0}, {kCow}}, image.data());
    SimOpener opener;
    opener.add("origin", origin);
    opener.add("cow", cow);
    TargetTypes types;
    add_all_targets(types, env);
    {
        Device o{env, "o", DiskId{DiskId::Kind::mapped, 253, 0}}, s{env, "s", DiskId{DiskId::Kind::mapped, 253, 1}};
        const auto bring_up = [&](Device& device, const char* type, const char* params) {
            std::vector<TableLine> lines;
            lines.push_back({{0}, {kSize}, type, params});
            auto table = Table::build(lines, TableMode::read_write, {env, types, opener, device, nullptr, device.name(), device.id(), 253, 0});
            if (!table) __builtin_trap();
            auto loaded = reactor.run((*table)->load());
            if (!loaded) {
                if (loaded.error().message.size() < 20) __builtin_trap();
                return false;
            }
            device.set_inactive(std::move(*table));
            return reactor.run(device.resume()).has_value();
        };
        if (!bring_up(o, "snapshot-origin", "origin")) __builtin_trap();
        if (bring_up(s, "snapshot", "origin cow P 8")) {
            if (s.live()->entries()[0].target->status().empty()) __builtin_trap();
            use(reactor, s, 0, 64);
            use(reactor, o, 32, 50);
            use(reactor, s, 0, kSize);
            use(reactor, o, 0, kSize);
            static_cast<void>(reactor.flush(s));
        }
        reactor.run(s.detach());
        reactor.run(o.detach());
        reactor.run_until_idle();
    }
    reactor.run_until_idle();
    return 0;
}
