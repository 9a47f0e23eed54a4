#include "ctl/new_leg.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <filesystem>

#include "ctl/call_on.hpp"
#include "ctl/cow_file.hpp"
#include "ctl/failure.hpp"
#include "ctl/opener.hpp"

namespace udm::ctl {
namespace {

std::string bytes_text(std::uint64_t bytes) {
    return bytes % (1 << 20) == 0 ? fmt::format("{} MiB", bytes >> 20) : fmt::format("{} bytes", bytes);
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
    if (!mapped_) return;
    const std::lock_guard lock{devices_.registry().mutex};
    if (mapped_->exports != 0)
        throw Failure{Errc::busy, fmt::format("{} is in use: it is exported; `udm unexport {}` ends that", words_, mapped_->name), volume.name};
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
