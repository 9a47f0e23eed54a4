// A persistent snapshot store from an enemy, looked at and repaired from outside (src/inspect), and then loaded: what is called
// whole loads, what has a damaged exception does not, and what was repaired does.
//
// Input: as of fuzz_store_content.cpp, whose corpus it shares.

#include <cstdint>
#include <cstring>
#include <span>

#include "inspect/snapshot_repair.hpp"
#include "test/fuzz/machine.hpp"

namespace {

using namespace udm;

constexpr std::uint64_t kOriginChunks = 64, kCowChunks = 600;

class Bytes final : public inspect::Target {
  public:
    explicit Bytes(std::size_t size) : bytes(size) {}
    std::uint64_t size() const override { return bytes.size(); }
    Result<void> read(std::uint64_t offset, std::span<std::byte> into) override {
        ASSERT(offset <= bytes.size() && into.size() <= bytes.size() - offset);
        std::memcpy(into.data(), bytes.data() + offset, into.size());
        return {};
    }
    Result<void> write(std::uint64_t offset, std::span<const std::byte> from) override {
        ASSERT(offset <= bytes.size() && from.size() <= bytes.size() - offset);
        std::memcpy(bytes.data() + offset, from.data(), from.size());
        return {};
    }
    Result<void> sync() override { return {}; }
    Result<void> grow(std::uint64_t size) override {
        bytes.resize(size);
        return {};
    }
    std::vector<std::byte> bytes;
};

class Explain final : public inspect::Findings {
  public:
    void found(const inspect::Finding& finding) override { all.push_back(finding); }
    std::vector<inspect::Finding> all;
};

inspect::Report look(Bytes& store) {
    Explain findings;
    auto report = inspect::check(store, {}, &findings);
    ASSERT(report);
    for (const inspect::Finding& finding : findings.all) ASSERT(!inspect::explain(finding, *report).empty());
    ASSERT(report->fault_count() == findings.all.size());
    return std::move(*report);
}

bool loads(const Bytes& store, std::uint64_t chunk) {
    test::Machine machine{Sectors{kOriginChunks * chunk}, Sectors{store.bytes.size() / kSectorSize}};
    machine.b.write_now({{0}, {store.bytes.size() / kSectorSize}}, store.bytes.data());
    Device& device = machine.add("s");
    const std::vector<TableLine> lines = {{{0}, {kOriginChunks * chunk}, "snapshot", "a b P " + std::to_string(chunk)}};
    return machine.start(device, lines).has_value();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    std::span<const std::uint8_t> rest{data, size};
    const auto take = [&rest](void* to, std::size_t n) {
        if (rest.size() < n) return false;
        std::memcpy(to, rest.data(), n);
        rest = rest.subspan(n);
        return true;
    };
    std::uint8_t options = 0;
    if (!take(&options, 1)) return 0;
    const ChunkSize chunk = ChunkSize::of_sectors(8U << (options >> 2 & 3));
    const snapshot::Geometry geometry{chunk};
    snapshot::DiskHeader header{};
    header.magic = snapshot::kMagic;
    header.valid = 1;
    header.version = snapshot::kVersion;
    header.chunk_size = static_cast<std::uint32_t>(chunk.sectors().v);
    if ((options & 2) != 0) static_cast<void>(take(&header, sizeof header));
    Bytes store{kCowChunks * chunk.bytes()};
    std::memcpy(store.bytes.data(), &header, sizeof header);
    for (std::uint64_t index = 0; index < geometry.capacity(kCowChunks); ++index) {
        std::uint8_t kind = 0;
        snapshot::DiskException entry{};
        std::uint16_t small[2];
        if (!take(&kind, 1)) break;
        if (kind == 0) {
            if (!take(&entry, sizeof entry)) break;
        } else {
            if (!take(small, sizeof small)) break;
            entry.old_chunk = small[0];
            entry.new_chunk = small[1];
        }
        const std::uint64_t at = to_bytes(chunk.start(geometry.area(index / geometry.exceptions_per_area()))) +
                                 index % geometry.exceptions_per_area() * sizeof entry;
        std::memcpy(store.bytes.data() + at, &entry, sizeof entry);
    }

    const inspect::Report report = look(store);
    const auto has = [&](inspect::Fault fault) { return report.faults[static_cast<std::size_t>(fault)] != 0; };
    // A chunk size of less than the 8 sectors of the smallest here is one more thing that a device may refuse.
    const bool plain = report.kind == inspect::Report::Kind::store && report.chunk_sectors == chunk.sectors().v;
    if (plain && !has(inspect::Fault::bad_valid) && report.valid()) {
        bool bad_exception = false;
        for (std::size_t f = 0; f < inspect::kFaults; ++f) {
            if (is_of_exception(static_cast<inspect::Fault>(f))) bad_exception |= report.faults[f] != 0;
        }
        ASSERT(loads(store, chunk.sectors().v) == !bad_exception);
    }
    auto plan = inspect::RepairPlan::make(store, {});
    if (!plan) {
        ASSERT(!plan.error().message.empty());
        return 0;
    }
    while (plan->grows_to() != 0) {
        if (plan->grows_to() > 16 * store.bytes.size()) return 0;
        ASSERT(store.grow(plan->grows_to()));
        plan = inspect::RepairPlan::make(store, {});
        ASSERT(plan);
    }
    if (!plan->needed()) return 0;
    ASSERT(plan->carry_out(store));
    const inspect::Report after = look(store);
    ASSERT(after.fault_count() == 0 && after.exceptions == plan->kept());
    if (plain) ASSERT(loads(store, chunk.sectors().v));
    return 0;
}
