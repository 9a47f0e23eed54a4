#include "ctl/new_leg.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <functional>
#include <optional>
#include <set>

#include "base/parse.hpp"
#include "ctl/call_on.hpp"
#include "ctl/cow_file.hpp"
#include "ctl/failure.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

std::string bytes_text(std::uint64_t bytes) {
    return bytes % (1 << 20) == 0 ? fmt::format("{} MiB", bytes >> 20) : fmt::format("{} bytes", bytes);
}

// Of a device whose tables are linear, both of them; what it writes of a disk is known then. The registry's mutex is held.
std::optional<std::vector<TableLine>> plain_lines(const Record& record) {
    std::vector<TableLine> lines;
    for (const auto* const slot : {&record.live, &record.inactive}) {
        if (*slot) lines.insert(lines.end(), (*slot)->lines.begin(), (*slot)->lines.end());
    }
    const bool plain = std::all_of(lines.begin(), lines.end(), [](const TableLine& line) { return line.type == "linear"; });
    return plain ? std::optional{lines} : std::nullopt;
}

bool overlap(Host& host, const DiskId& disk, const std::vector<TableLine>& one, const std::vector<TableLine>& other) {
    const auto extents = [&](const std::vector<TableLine>& lines) {
        std::vector<std::pair<std::uint64_t, std::uint64_t>> found;
        for (const TableLine& line : lines) {
            const auto words = words_of(line);
            if (words.empty() || host.identify(words[0]) != disk) continue;
            const std::uint64_t begin = words.size() > 1 ? parse_u64(words[1]).value_or(0) : 0;
            found.emplace_back(begin, begin + line.length.v);
        }
        return found;
    };
    const auto theirs = extents(other);
    const auto here = extents(one);
    // Not known of both: it stands on the disk through others.
    if (here.empty() || theirs.empty()) return true;
    return std::any_of(here.begin(), here.end(), [&](const auto& a) {
        return std::any_of(theirs.begin(), theirs.end(), [&](const auto& b) { return a.first < b.second && b.first < a.second; });
    });
}

}  // namespace

NewLeg::NewLeg(Devices& devices, const std::string& words, const Volume& volume) : devices_{devices}, words_{words}, home_{volume.home} {
    if (words_.starts_with("ram:")) {
        throw Failure{Errc::bad_argument, fmt::format("{} is memory, and would be lost with the daemon: name a file, a disk or an NBD export", words_), volume.name};
    }
    mapped_ = find_mapped(devices_.registry(), words_);
    check_nobody_uses_it(volume);
    if (mapped_) {
        Limits limits;
        {
            const std::lock_guard lock{devices_.registry().mutex};
            if (!mapped_->live || mapped_->suspended)
                throw Failure{Errc::bad_argument, fmt::format("{} has no table that runs: load one, and resume it", words_), volume.name};
            limits.read_only = mapped_->live->read_only || mapped_->still;
        }
        const bool read_only = limits.read_only;
        const Device& device = devices_.ensure_device(mapped_, volume.home);
        unsigned home = 0;
        {
            const std::lock_guard lock{devices_.registry().mutex};
            home = mapped_->home;
        }
        run_on(devices_.host().env(home).reactor, [&] { limits = device.limits(); });
        limits.read_only = limits.read_only || read_only;
        check_limits(limits, false, volume);
        return;
    }
    if (words_.starts_with('/') && !std::filesystem::exists(std::filesystem::symlink_status(words_))) {
        make_cow_file(words_, to_bytes(volume.size), false);
        made_ = true;
    }
    try {
        if (made_) keep_cow_file(words_);
        open_ = must(devices_.host().opener(home_).open(words_, OpenMode::write), volume.name);
        check_nobody_uses_it(volume);    // a path may have become known by opening it
        check_limits(open_->disk().limits(), open_->id().kind == DiskId::Kind::remote, volume);
    } catch (...) {
        close();
        throw;
    }
}

NewLeg::~NewLeg() { close(); }

void NewLeg::close() noexcept {
    if (open_) run_on(devices_.host().env(home_).reactor, [this] { open_.reset(); });
    if (made_ && !kept_) ::unlink(words_.c_str());
}

void NewLeg::check_nobody_uses_it(const Volume& volume) const {
    const auto users = devices_.registry().users_of(mapped_ ? mapped_->id() : devices_.host().identify(words_));
    if (!users.empty()) {
        throw Failure{Errc::busy, fmt::format("{} is in use: {} stands on it; name one that nobody uses, since all that is in it is overwritten", words_,
                                              devices_.name_of(*users[0])), volume.name};
    }
    if (const RecordPtr held = devices_.held_user_of(words_)) {
        throw Failure{Errc::busy, fmt::format("{} belongs to {}, which is held and will want it as it is; name another device, or remove that one first", words_,
                                              devices_.name_of(*held)), volume.name};
    }
    if (!mapped_) return;
    check_disks_below(volume);
    const std::lock_guard lock{devices_.registry().mutex};
    if (mapped_->exports != 0)
        throw Failure{Errc::busy, fmt::format("{} is in use: it is exported; `udm unexport {}` ends that", words_, mapped_->name), volume.name};
}

void NewLeg::check_disks_below(const Volume& volume) const {
    const Registry& registry = devices_.registry();
    std::set<DiskId> disks;
    std::set<const Record*> chain;
    const std::function<void(const Record&)> walk = [&](const Record& at) {
        if (!chain.insert(&at).second) return;
        for (const auto& [id, count] : at.disks) {
            if (id.kind != DiskId::Kind::mapped) disks.insert(id);
        }
        for (const auto& [lower, count] : at.uses) walk(*lower);
    };
    std::optional<std::vector<TableLine>> here;
    {
        const std::lock_guard lock{registry.mutex};
        walk(*mapped_);
        here = plain_lines(*mapped_);
    }
    for (const DiskId& disk : disks) {
        for (const RecordPtr& user : registry.users_of(disk)) {
            std::optional<std::vector<TableLine>> theirs;
            std::string name;
            {
                const std::lock_guard lock{registry.mutex};
                if (chain.contains(user.get())) continue;
                theirs = plain_lines(*user);
                name = user->name;
            }
            if (here && theirs && !overlap(devices_.host(), disk, *here, *theirs)) continue;
            throw Failure{Errc::busy, fmt::format("{} stands on a disk that {} stands on, too, and all that is in it is overwritten: name a device on another disk, "
                                                  "or in another place of it", words_, name), volume.name};
        }
    }
}

void NewLeg::check_limits(const Limits& limits, bool remote, const Volume& volume) const {
    if (limits.read_only) throw Failure{Errc::bad_argument, fmt::format("{} is read-only", words_), volume.name};
    if (limits.size < volume.size) {
        throw Failure{Errc::bad_argument, fmt::format("{} is too small: it has {}, and {} has {}", words_, bytes_text(to_bytes(limits.size)), volume.name,
                                                  bytes_text(to_bytes(volume.size))), volume.name};
    }
    if (limits.logical_block > volume.logical_block) {
        throw Failure{Errc::bad_argument, fmt::format("{} has blocks of {} bytes, and the clients of {} may write {} bytes: name a device with blocks of {} or less",
                                                      words_, limits.logical_block, volume.name, volume.logical_block, volume.logical_block), volume.name};
    }
    if (remote && !limits.volatile_cache) {
        throw Failure{Errc::unsupported, fmt::format("the server of {} has no flush: nobody could know when what is written there is safe; use a server that has it",
                                                     words_), volume.name};
    }
}

}  // namespace udm::ctl
