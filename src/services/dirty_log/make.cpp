#include "services/dirty_log/make.hpp"

#include <fmt/format.h>

#include <bit>

#include "base/parse.hpp"
#include "core/target_args.hpp"
#include "services/dirty_log/local_log.hpp"

namespace udm::dirty_log {
namespace {

std::unexpected<Error> bad(std::string why, Errc code = Errc::bad_argument) {
    return fail(code, "Error creating mirror dirty log: " + std::move(why));
}

struct Sizes {
    RegionSize region = RegionSize::of_sectors(2);
    Regions count{};
};

Result<Sizes> parse_region_size(std::string_view word, Sectors length) {
    const auto sectors = parse_u32(word);
    if (!sectors) return bad(fmt::format("region size '{}' is not a number of sectors", word));
    if (!std::has_single_bit(*sectors) || *sectors < 2) return bad(fmt::format("region size {} is not a power of two of at least 2 sectors", *sectors));
    if (*sectors > length.v) return bad(fmt::format("region size {} is above the mirror's {} sectors", *sectors, length.v));
    const RegionSize region = RegionSize::of_sectors(*sectors);
    const Regions count = region.covering(length);
    if (count.v > kRegionsMax) return bad(fmt::format("{} regions of {} sectors; at most {} are possible", count.v, *sectors, kRegionsMax));
    return Sizes{region, count};
}

}  // namespace

Result<std::unique_ptr<DirtyLog>> make(const TargetArgs& args, std::string_view type, std::span<const std::string> words) {
    const bool disk = type == "disk";
    if (!disk && type != "core") return bad(fmt::format("log type '{}' is not known; known are core and disk", type));
    const std::size_t fewest = disk ? 2 : 1;
    if (words.size() < fewest || words.size() > fewest + 1) {
        return bad(fmt::format("log type {} takes {}REGION_SECTORS [sync|nosync], not {} words", type, disk ? "DEVICE " : "", words.size()));
    }
    TRY(const Sizes sizes, parse_region_size(words[fewest - 1], args.length));
    SyncWord word = SyncWord::none;
    if (words.size() > fewest) {
        if (words[fewest] == "sync") {
            word = SyncWord::sync;
        } else if (words[fewest] == "nosync") {
            word = SyncWord::nosync;
        } else {
            return bad(fmt::format("'{}' is neither sync nor nosync", words[fewest]));
        }
    }
    std::unique_ptr<LogDisk> log_disk;
    if (disk) {
        auto device = args.opener.open(words[0], OpenMode::write);
        if (!device && args.mode == TableMode::read_only) device = args.opener.open(words[0], OpenMode::read);
        if (!device) return bad(std::move(device.error().message), device.error().code);
        log_disk = std::make_unique<LogDisk>(args.env, std::move(*device), sizes.region, sizes.count, word);
    }
    return std::make_unique<LocalLog>(args.env, sizes.region, sizes.count, word, std::move(log_disk));
}

}  // namespace udm::dirty_log
