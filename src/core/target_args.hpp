// What constructors of targets have in common: reading their words, opening their devices, printing both.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "core/target_type.hpp"

namespace udm {

// The mode of the table: for devices that are written when the target is.
inline OpenMode open_mode(const TargetArgs& args) {
    return args.mode == TableMode::read_only ? OpenMode::read : OpenMode::write;
}

// Opens a device of the table. `text` is what the kernel says when it can't be; the reason comes after it.
Result<std::unique_ptr<OpenDevice>> open_device(const TargetArgs& args, std::string_view words, OpenMode mode,
                                                std::string_view text = "Device lookup failed");

// An offset into a device, in sectors, within what any device can have. The area itself is checked at load.
Result<Sector> parse_offset(std::string_view word, std::string_view text = "Invalid device sector");

// As in the table, quoted where need be.
std::string device_words(const OpenDevice& device);

}  // namespace udm
