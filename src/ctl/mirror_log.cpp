#include "ctl/mirror_log.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <filesystem>

#include "base/parse.hpp"
#include "ctl/cow_file.hpp"
#include "ctl/log.hpp"

namespace udm::ctl {
namespace {

constexpr std::uint64_t kRegionsMost = 1 << 18;
constexpr std::uint64_t kRegionLeast = 1024, kRegionSmallest = 2;    // sectors
constexpr std::uint64_t kBeforeBits = 1024, kBlock = 4096;           // bytes: docs/formats/disk_log.md

}  // namespace

Sectors region_size_for(Sectors size) {
    const std::uint64_t wanted = std::bit_ceil(std::max(kRegionLeast, (size.v + kRegionsMost - 1) / kRegionsMost));
    return {std::max(kRegionSmallest, std::min(wanted, std::bit_floor(size.v)))};
}

std::uint64_t mirror_log_bytes(Sectors size, Sectors region) {
    const std::uint64_t regions = (size.v + region.v - 1) / region.v, bytes = kBeforeBits + (regions + 63) / 64 * 8;
    return (bytes + kBlock - 1) / kBlock * kBlock;
}

MirrorLog::MirrorLog(Devices& devices, const std::string& name, Sectors size, const std::optional<std::string>& where) : region_{region_size_for(size)} {
    const State& state = devices.state();
    if (where == "core" || (!where && !state.is_kept())) return;
    if (where) {
        if (std::filesystem::exists(std::filesystem::symlink_status(*where))) {
            check_blank(*where);
            path_ = *where;
        } else {
            make(*where, size);
        }
        return;
    }
    const std::string folder = state.directory() + "/logs";
    ::mkdir(folder.c_str(), 0700);
    std::string path = fmt::format("{}/{}.log", folder, name);
    const auto is_taken = [&] { return !devices.is_free(path) || (::access(path.c_str(), F_OK) == 0 && !devices.knows_whole_state()); };
    for (unsigned i = 2; is_taken(); ++i) path = fmt::format("{}/{}-{}.log", folder, name, i);
    ::unlink(path.c_str());
    make(path, size);
}

void MirrorLog::make(const std::string& path, Sectors size) {
    make_cow_file(path, mirror_log_bytes(size, region_), true);
    try {
        keep_cow_file(path);
        keep_cow_file(std::filesystem::path{path}.parent_path());
    } catch (...) {
        ::unlink(path.c_str());
        throw;
    }
    path_ = path;
    made_ = true;
}

MirrorLog::~MirrorLog() {
    if (made_ && !kept_) ::unlink(path_.c_str());
}

std::string MirrorLog::words() const {
    return path_.empty() ? fmt::format("core 1 {}", region_.v) : fmt::format("disk 2 {} {}", quote_word(path_), region_.v);
}

void remove_logs_but(const Devices& devices, std::string_view prefix, const std::set<std::string>& needed) {
    const State& state = devices.state();
    if (!state.is_kept()) return;
    const bool sure = devices.knows_whole_state();
    std::error_code none;
    for (const auto& file : std::filesystem::directory_iterator{state.directory() + "/logs", none}) {
        const std::string path = file.path();
        if (!file.path().filename().string().starts_with(prefix) || needed.contains(path) || !devices.is_free(path)) continue;
        if (sure) ::unlink(path.c_str());
        else log_warning("", "{} stays: a device of the damaged state may need it; remove state.log.damaged-* from {} when none does", path, state.directory());
    }
}

}  // namespace udm::ctl
