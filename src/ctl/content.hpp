// What a device holds, as far as its first sectors tell: to be said before it is overwritten.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "ctl/devices.hpp"

namespace udm::ctl {

// For people: "an ext4 file system", "a partition table", "data"; empty where there are zeroes only. 68 KiB tell all that is known here.
std::string content_name(std::span<const std::byte> start);

// Of a device that can be opened: a path, an NBD URI, one of ours; from `offset` on. Throws Failure when it cannot be read.
std::string content_of(Devices& devices, const std::string& words, Sector offset, unsigned home);

}  // namespace udm::ctl
