// flakey's words, parsed. Source: Linux's public admin-guide/device-mapper/dm-flakey, and watching Linux 6.1 for the
// texts and their order.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "base/result.hpp"

namespace udm {

struct FlakeySettings {
    // While down, of each request in that direction that has all `flags`, the nth byte becomes `value`.
    struct Corrupt {
        std::uint32_t nth;    // from 1
        bool writes;          // else reads
        std::uint8_t value;
        std::uint32_t flags;
    };
    std::uint32_t up_s = 0;
    std::uint32_t down_s = 0;
    bool drop_writes = false;
    bool error_writes = false;
    std::optional<Corrupt> corrupt;

    bool has_features() const noexcept { return drop_writes || error_writes || corrupt; }
    std::uint64_t period_s() const noexcept { return std::uint64_t{up_s} + down_s; }

    // The words after DEVICE and OFFSET.
    static Result<FlakeySettings> parse(std::span<const std::string> words);
    // The same, as dmsetup prints them: a count of feature words, each word, and a space after the last.
    std::string words() const;
};

}  // namespace udm
