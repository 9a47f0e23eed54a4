#include "sim/disk_setup.hpp"

#include <fmt/format.h>

namespace udm {

SimDisk& DiskSetup::add_disk(World& world, const std::string& name, std::uint64_t sectors, unsigned number) const {
    const auto has = [number](std::uint64_t bits) { return (bits >> number & 1) != 0; };
    SimDisk::Options options;
    options.name = name;
    options.limits.size = {sectors};
    options.limits.discard = !has(no_discard);
    options.limits.write_zeroes = !has(no_zeroes);
    options.limits.volatile_cache = !has(stable_disks);
    options.limits.max_transfer = {max_transfer};
    if (block != 0) options.limits.logical_block = static_cast<std::uint32_t>(block * kSectorSize);
    options.lazy_discard = lazy_discard != 0;
    options.latency_min = has(fast_disks) ? 5'000 : 50'000;
    options.latency_max = 8 * options.latency_min;
    return world.add_disk(options);
}

std::string DiskSetup::describe_disks() const {
    std::string text;
    if (block) text += fmt::format("; blocks of {}", block);
    if (max_transfer) text += fmt::format("; transfers of at most {}", max_transfer);
    if (stable_disks) text += fmt::format("; disks without cache {:#x}", stable_disks);
    if (no_zeroes) text += fmt::format("; without write_zeroes {:#x}", no_zeroes);
    if (no_discard) text += fmt::format("; without discard {:#x}", no_discard);
    if (lazy_discard) text += "; lazy discards";
    return text;
}

}  // namespace udm
