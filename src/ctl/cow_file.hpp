// The file behind a snapshot's store: where it goes, how large it is, making it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "base/units.hpp"

namespace udm::ctl {

// The COW device's size in bytes beyond which an origin of this many sectors cannot make it grow
// (formats.md 3.2).
std::uint64_t useful_cow_bytes(Sectors origin, std::uint64_t chunk_bytes);
// `wanted` (bytes, "10G" or "20%" of the origin), at most what is useful and at least what holds one chunk; a
// multiple of the chunk. Throws Failure.
std::uint64_t cow_bytes(const std::optional<std::string>& wanted, Sectors origin, std::uint64_t chunk_bytes);
// A new file of zeroes: sparse, or with all its space (`reserve`). Throws Failure: exists and what the system says.
void make_cow_file(const std::string& path, std::uint64_t bytes, bool reserve);
// From here on the file is there after a power cut, too. What it holds and how long it is is the store's, which flushes it
// before it has a header: so a take waits for the disk once less.
void keep_cow_file(const std::string& path);
// Throws Failure unless the device or file begins with zeroes: what has something in it is not overwritten.
void check_blank(const std::string& path);

}  // namespace udm::ctl
