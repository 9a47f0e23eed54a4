// What the disks of a history are like, as far as stories have it in common.
#pragma once

#include <cstdint>
#include <string>

#include "sim/world.hpp"

namespace udm {

// Bits are by the disk's number, which each story gives.
struct DiskSetup {
    std::uint64_t stable_disks = 0;    // bits: without a volatile cache
    std::uint64_t fast_disks = 0;      // bits: much faster than the others
    std::uint64_t no_zeroes = 0;       // bits: takes no write_zeroes
    std::uint64_t no_discard = 0;      // bits
    std::uint64_t lazy_discard = 0;
    std::uint64_t block = 0;           // logical block in sectors, 0: 1
    std::uint64_t max_transfer = 0;    // in sectors, 0: none

    SimDisk& add_disk(World& world, const std::string& name, std::uint64_t sectors, unsigned number) const;
    std::string describe_disks() const;
};

}  // namespace udm
