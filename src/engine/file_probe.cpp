#include "engine/file_probe.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

namespace udm {
namespace {

constexpr long kTmpfs = 0x01021994;
constexpr long kRamfs = 0x858458f6;

Errc code_of_open(int error) {
    switch (error) {
        case ENOENT:
        case ENOTDIR:
        case ENODEV:
        case ENXIO:
            return Errc::no_device;
        case EACCES:
        case EPERM:
            return Errc::denied;
        default:
            return static_cast<Errc>(error);
    }
}

// What the kernel says of direct I/O on this file; tried out where it says nothing.
struct DirectIo {
    bool possible = false;
    std::uint32_t memory = 1;
    std::uint32_t offset = kSectorSize;
};

bool reads_directly(int fd, std::uint32_t memory, std::uint32_t offset) {
    struct FreeDeleter {
        void operator()(void* p) const { std::free(p); }
    };
    const std::unique_ptr<void, FreeDeleter> buffer{std::aligned_alloc(4096, 3 * 4096)};
    if (!buffer) return false;
    auto* at = static_cast<std::byte*>(buffer.get()) + (memory < 4096 ? memory : 4096);
    return ::pread(fd, at, offset, 0) >= 0;
}

DirectIo direct_io(int fd, bool block_device) {
    struct statx status {};
    if (::statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &status) == 0 &&
        (status.stx_mask & STATX_DIOALIGN) != 0) {
        if (status.stx_dio_offset_align == 0) return {};
        return {true, status.stx_dio_mem_align, status.stx_dio_offset_align};
    }
    if (block_device) {
        int logical = 0;
        if (::ioctl(fd, BLKSSZGET, &logical) != 0 || logical <= 0) logical = 4096;
        return {true, static_cast<std::uint32_t>(logical), static_cast<std::uint32_t>(logical)};
    }
    // An empty file cannot be tried: its first block decides nothing. Then 4096 is right everywhere.
    if (file_bytes(fd, false) >= 4096) {
        if (reads_directly(fd, 512, 512)) return {true, 512, 512};
    }
    return {true, 4096, 4096};
}

std::uint64_t queue_value(dev_t device, const char* name) {
    // A partition has no queue of its own.
    for (const char* format : {"/sys/dev/block/{}:{}/queue/{}", "/sys/dev/block/{}:{}/../queue/{}"}) {
        std::ifstream file{
            fmt::format(fmt::runtime(format), ::gnu_dev_major(device), ::gnu_dev_minor(device), name)};
        std::uint64_t value = 0;
        if (file >> value) return value;
    }
    return 0;
}

void find_block_limits(const OpenedFile& file, Limits& limits) {
    int logical = 0;
    if (::ioctl(file.fd, BLKSSZGET, &logical) == 0 && logical > 0)
        limits.logical_block = static_cast<std::uint32_t>(logical);
    unsigned value = 0;
    limits.physical_block = limits.logical_block;
    if (::ioctl(file.fd, BLKPBSZGET, &value) == 0 && value > limits.physical_block)
        limits.physical_block = value;
    if (::ioctl(file.fd, BLKIOOPT, &value) == 0) limits.optimal_io = value;
    const dev_t device = file.status.st_rdev;
    limits.discard_granularity = static_cast<std::uint32_t>(queue_value(device, "discard_granularity"));
    limits.discard = queue_value(device, "discard_max_bytes") != 0;
    limits.fast_zeroes = queue_value(device, "write_zeroes_max_bytes") != 0;
    int read_only = 0;
    if (::ioctl(file.fd, BLKROGET, &read_only) == 0 && read_only != 0) limits.read_only = true;
}

void find_file_limits(const OpenedFile& file, Limits& limits) {
    const auto block = static_cast<std::uint32_t>(file.status.st_blksize);
    limits.physical_block = block >= kSectorSize && block <= 4096 ? block : 4096;
    limits.discard_granularity = limits.physical_block;
    // Beyond the end there is nothing to punch; a file system that cannot says so.
    if (!limits.read_only) {
        const off_t end = (file.status.st_size + 0xfffff) & ~off_t{0xfffff};
        limits.discard = ::fallocate(file.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, end, 4096) == 0;
        limits.fast_zeroes = limits.discard;
    }
}

}  // namespace

std::uint64_t count_open_files() {
    struct stat folder {};
    if (::stat("/proc/self/fd", &folder) == 0 && folder.st_size > 0)
        return static_cast<std::uint64_t>(folder.st_size);  // Linux 6.2 has counted them
    std::error_code ignored;
    const std::filesystem::directory_iterator all{"/proc/self/fd", ignored};
    return static_cast<std::uint64_t>(std::distance(begin(all), end(all)));
}

std::int64_t file_bytes(int fd, bool block_device) noexcept {
    if (block_device) {
        std::uint64_t bytes = 0;
        return ::ioctl(fd, BLKGETSIZE64, &bytes) == 0 ? static_cast<std::int64_t>(bytes) : -errno;
    }
    struct stat status;
    return ::fstat(fd, &status) == 0 ? status.st_size : -errno;
}

DiskId id_of(const struct stat& status) noexcept {
    if (S_ISBLK(status.st_mode)) return {DiskId::Kind::block, 0, status.st_rdev};
    return {DiskId::Kind::file, status.st_dev, status.st_ino};
}

std::optional<DiskId> may_open(const std::string& path, OpenMode mode) {
    struct stat status {};
    if (::stat(path.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) return std::nullopt;
    const int access = mode == OpenMode::write ? R_OK | W_OK : R_OK;
    if (::faccessat(AT_FDCWD, path.c_str(), access, AT_EACCESS) != 0) return std::nullopt;
    return id_of(status);
}

namespace {

// The limit of open files, with some left for what isn't a device. Descriptors are numbered from the lowest free
// one on, so the number says how many there are without counting them.
Result<void> check_room(int fd, const std::string& path) {
    rlimit files{};
    if (::getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY) return {};
    const rlim_t reserved = std::min<rlim_t>(kFilesReserved, files.rlim_cur / 4);
    if (fd >= 0 && static_cast<rlim_t>(fd) < files.rlim_cur - reserved) return {};
    return fail(Errc::too_many_files,
                fmt::format("{}: too many open files: {} are open of at most {}, and {} are left for connections; "
                            "start the daemon with a higher limit (`ulimit -n NUMBER` before it, or LimitNOFILE=NUMBER "
                            "in its systemd unit)",
                            path, count_open_files(), files.rlim_cur, reserved));
}

}  // namespace

Result<OpenedFile> open_file(const std::string& path, OpenMode mode) {
    // Looked at before it is opened: opening a FIFO or a tape does something.
    OpenedFile file;
    if (::stat(path.c_str(), &file.status) != 0) {
        return fail(code_of_open(errno), fmt::format("{}: {}", path, std::strerror(errno)));
    }
    if (!S_ISREG(file.status.st_mode) && !S_ISBLK(file.status.st_mode)) {
        return fail(Errc::no_device, fmt::format("{}: neither a file nor a block device", path));
    }
    const int flags = (mode == OpenMode::write ? O_RDWR : O_RDONLY) | O_CLOEXEC | O_NONBLOCK;
    file.fd = ::open(path.c_str(), flags);
    if (file.fd < 0 || ::fstat(file.fd, &file.status) != 0) {
        const int error = errno;
        if (file.fd >= 0) ::close(file.fd);
        if (error == EMFILE) CHECK(check_room(-1, path));
        const char* remedy = error == EACCES || error == EPERM
                                 ? " (a read-only device or table needs no write permission)"
                                 : "";
        return fail(code_of_open(error), fmt::format("{}: {}{}", path, std::strerror(error),
                                                     mode == OpenMode::write ? remedy : ""));
    }
    if (!S_ISREG(file.status.st_mode) && !S_ISBLK(file.status.st_mode)) {  // another one since we looked
        ::close(file.fd);
        return fail(Errc::no_device, fmt::format("{}: neither a file nor a block device", path));
    }
    if (auto room = check_room(file.fd, path); !room) {
        ::close(file.fd);
        return fail(room);
    }
    // O_NONBLOCK was for opening only.
    ::fcntl(file.fd, F_SETFL, flags & ~O_NONBLOCK);
    file.traits.block_device = S_ISBLK(file.status.st_mode);
    file.traits.limits.read_only = mode == OpenMode::read;
    return file;
}

void find_traits(OpenedFile& file) {
    FileTraits& traits = file.traits;
    Limits& limits = traits.limits;
    struct statfs system {};
    traits.memory =
        !traits.block_device && ::fstatfs(file.fd, &system) == 0 &&
        (static_cast<long>(system.f_type) == kTmpfs || static_cast<long>(system.f_type) == kRamfs);
    const int flags = ::fcntl(file.fd, F_GETFL);
    traits.direct = !traits.memory && ::fcntl(file.fd, F_SETFL, flags | O_DIRECT) == 0;
    if (traits.direct) {
        const DirectIo direct = direct_io(file.fd, traits.block_device);
        traits.direct = direct.possible;
        if (direct.possible) {
            limits.logical_block = direct.offset > kSectorSize ? direct.offset : kSectorSize;
            limits.memory_alignment = direct.memory;
        } else {
            ::fcntl(file.fd, F_SETFL, flags);
        }
    }
    if (traits.block_device) {
        find_block_limits(file, limits);
    } else {
        find_file_limits(file, limits);
    }
    limits.volatile_cache = !traits.memory;
}

Result<void> find_size(OpenedFile& file, const std::string& path) {
    FileTraits& traits = file.traits;
    Limits& limits = traits.limits;
    const std::int64_t bytes = file_bytes(file.fd, traits.block_device);
    if (bytes < 0) {
        return fail(Errc::io, fmt::format("{}: its size: {}", path, std::strerror(static_cast<int>(-bytes))));
    }
    const auto size = static_cast<std::uint64_t>(bytes);
    traits.bytes_unserved = size % limits.logical_block;
    limits.size = whole_sectors(size - traits.bytes_unserved);
    return {};
}

}  // namespace udm
