// A persistent snapshot store from an enemy. It is refused, or loads as invalid, or reads as its entries say; and can then be
// used, and loaded again.
//
// Input: byte 0 options (bit 0: PO; bit 1: header as given rather than a good one; bits 2-3: chunk of 8 << n sectors); 16 bytes of header
// if asked for; then records that become entries, one after the other through the areas: a byte 0 and 16 bytes as they are, or another
// byte and two of 2 bytes (old and new chunk).

#include <cstdint>
#include <cstring>
#include <map>
#include <span>

#include "base/endian.hpp"
#include "targets/snapshot/format.hpp"
#include "test/fuzz/machine.hpp"

namespace {

using namespace udm;

constexpr std::uint64_t kOriginChunks = 64, kCowChunks = 600;    // more than two areas with the smallest chunks

class Input {
  public:
    Input(const std::uint8_t* data, std::size_t size) : rest_{data, size} {}
    bool has(std::size_t n) const { return rest_.size() >= n; }
    void take(void* to, std::size_t n) {
        std::memcpy(to, rest_.data(), n);
        rest_ = rest_.subspan(n);
    }
    template <class T>
    T take() {
        T value;
        take(&value, sizeof value);
        return value;
    }

  private:
    std::span<const std::uint8_t> rest_;
};

constexpr std::byte origin_byte(std::uint64_t chunk) { return std::byte(0x80 | (chunk & 0x7f)); }
constexpr std::byte cow_byte(std::uint64_t chunk) { return std::byte(chunk % 127); }

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    Input input{data, size};
    if (!input.has(1)) return 0;
    const auto options = input.take<std::uint8_t>();
    const ChunkSize chunk = ChunkSize::of_sectors(8U << (options >> 2 & 3));
    const snapshot::Geometry geometry{chunk};
    snapshot::DiskHeader header{};
    header.magic = snapshot::kMagic;
    header.valid = 1;
    header.version = snapshot::kVersion;
    header.chunk_size = static_cast<std::uint32_t>(chunk.sectors().v);
    if ((options & 2) != 0 && input.has(sizeof header)) input.take(&header, sizeof header);

    const Sectors origin_size{kOriginChunks * chunk.sectors().v}, cow_size{kCowChunks * chunk.sectors().v};
    test::Machine machine{origin_size, cow_size};
    for (std::uint64_t c = 0; c < kOriginChunks; ++c) machine.a.fill_now({chunk.start({c}), chunk.sectors()}, std::uint8_t(origin_byte(c)));
    for (std::uint64_t c = 0; c < kCowChunks; ++c)
        if (!geometry.is_metadata({c})) machine.b.fill_now({chunk.start({c}), chunk.sectors()}, std::uint8_t(cow_byte(c)));

    std::array<std::byte, kSectorSize> sector{};
    std::memcpy(sector.data(), &header, sizeof header);
    machine.b.write_now({{0}, {1}}, sector.data());
    std::map<std::uint64_t, std::uint64_t> newest;    // old chunk → new chunk
    bool ended = false;
    for (std::uint64_t index = 0; input.has(1) && index < geometry.capacity(kCowChunks); ++index) {
        snapshot::DiskException entry{};
        if (input.take<std::uint8_t>() == 0) {
            if (!input.has(sizeof entry)) break;
            input.take(&entry, sizeof entry);
        } else {
            if (!input.has(4)) break;
            entry.old_chunk = input.take<std::uint16_t>();
            entry.new_chunk = input.take<std::uint16_t>();
        }
        const std::uint64_t bytes = index % geometry.exceptions_per_area() * sizeof entry;
        const Sector where = chunk.start(geometry.area(index / geometry.exceptions_per_area())) + Sectors{bytes / kSectorSize};
        machine.b.read_now({where, {1}}, sector.data());
        std::memcpy(sector.data() + bytes % kSectorSize, &entry, sizeof entry);
        machine.b.write_now({where, {1}}, sector.data());
        ended = ended || std::uint64_t{entry.new_chunk} == 0;
        if (!ended) newest[entry.old_chunk] = entry.new_chunk;
    }

    const std::vector<TableLine> lines = {
        {{0}, origin_size, "snapshot", std::string{"a b "} + ((options & 1) != 0 ? "PO " : "P ") + std::to_string(chunk.sectors().v)}};
    Device& device = machine.add("s");
    const auto started = machine.start(device, lines);
    if (!started) {
        ASSERT(!started.error().message.empty());
        return 0;
    }
    const std::string status = device.live()->entries()[0].target->status();
    const bool as_written = (options & 2) == 0;    // else the header may say another chunk size, or that all is new
    for (std::uint64_t c = 0; c < kOriginChunks; ++c) {
        SimRequest read{machine.reactor, device, Op::read, {chunk.start({c}), {1}}, sector.data()};
        const bool done = machine.reactor.run_until([&] { return read.done(); });
        ASSERT(done);
        if (!as_written) continue;
        if (status == "Invalid") {
            ASSERT(read.status() != IoStatus::ok);
            continue;
        }
        ASSERT(read.status() == IoStatus::ok);
        const auto found = newest.find(c);
        ASSERT(sector[0] == (found == newest.end() ? origin_byte(c) : cow_byte(found->second)));
    }
    machine.memory.fill(std::byte{0x55});
    for (const std::uint64_t c : {0, 1, 17, 63}) machine.request(device, Op::write, {chunk.start({c}), {1}});
    machine.request(device, Op::flush, {});
    const std::string before = device.live()->entries()[0].target->status();

    // Loaded again, it is as it was left.
    machine.reactor.run(device.detach());
    machine.opener.remove("s");
    machine.devices.pop_back();
    machine.reactor.run_until_idle();
    Device& again = machine.add("s");
    const auto restarted = machine.start(again, lines);
    ASSERT(restarted);
    const std::string after = again.live()->entries()[0].target->status();
    ASSERT(after == before || before == "Overflow");
    return 0;
}
