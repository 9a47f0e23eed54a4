#include "engine/file_locks.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>

namespace udm {
namespace {

// QEMU's bytes: see the top of the header.
constexpr off_t kUsesRead = 100;
constexpr off_t kUsesWrite = 101;
constexpr off_t kSharesNoWrite = 201;

struct flock range(short type, off_t start, off_t length) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = start;
    lock.l_len = length;  // 0: to the end, whatever it will be
    return lock;
}

bool set(int fd, short type, off_t start, off_t length) noexcept {
    struct flock lock = range(type, start, length);
    return ::fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

// What stands in the way of such a lock; l_type F_UNLCK if nothing does.
struct flock obstacle(int fd, short type, off_t start, off_t length) noexcept {
    struct flock lock = range(type, start, length);
    if (::fcntl(fd, F_OFD_GETLK, &lock) != 0) lock.l_type = F_UNLCK;
    return lock;
}

int lock_shared(int fd) noexcept {
    if (!set(fd, F_RDLCK, kUsesRead, 1) || !set(fd, F_RDLCK, kSharesNoWrite, 1)) return errno;
    return obstacle(fd, F_WRLCK, kUsesWrite, 1).l_type == F_UNLCK ? 0 : EAGAIN;
}

bool is_conflict(int error) noexcept { return error == EAGAIN || error == EACCES || error == EBUSY; }

std::string name_of_process(const std::string& pid) {
    std::ifstream file{"/proc/" + pid + "/comm"};
    std::string name;
    std::getline(file, name);
    return name.empty() ? "pid " + pid : fmt::format("pid {} ({})", pid, name);
}

Error busy(const std::string& path, const DiskId& id, int fd, OpenMode mode) {
    std::string who;
    const struct flock lock = obstacle(fd, mode == OpenMode::write ? F_WRLCK : F_RDLCK, 0, 0);
    if (lock.l_type != F_UNLCK && lock.l_pid > 0) {
        who = name_of_process(std::to_string(lock.l_pid));
    } else {
        who = who_has_open(id);
    }
    return Error{Errc::busy,
                 fmt::format("{}: in use by another process{}{}: {}", path, who.empty() ? "" : ": ", who,
                             mode == OpenMode::write
                                 ? "end it first, or use the device read-only if that one only reads"
                                 : "it may write to it; end it first")};
}

class CloseCall final : public Operation {
  public:
    explicit CloseCall(int descriptor) noexcept : descriptor_{descriptor} { kind = Kind::call; }
    int call() noexcept override {
        ::close(descriptor_);
        delete this;  // nobody waits for it
        return 0;
    }
    void done(int) noexcept override { UNREACHABLE(); }

  private:
    ~CloseCall() = default;
    const int descriptor_;
};

}  // namespace

void close_elsewhere(EngineShared& shared, int fd) noexcept {
    if (fd >= 0) shared.workers().submit(*new CloseCall{fd});
}

std::string who_has_open(const DiskId& id) {
    std::string found;
    DIR* processes = ::opendir("/proc");
    if (!processes) return found;
    const std::string self = std::to_string(::getpid());
    while (const dirent* process = found.empty() ? ::readdir(processes) : nullptr) {
        const std::string pid = process->d_name;
        if (pid.find_first_not_of("0123456789") != std::string::npos || pid == self) continue;
        const std::string folder = "/proc/" + pid + "/fd";
        DIR* files = ::opendir(folder.c_str());
        if (!files) continue;  // another user's
        while (const dirent* file = ::readdir(files)) {
            struct stat status;
            if (::fstatat(::dirfd(files), file->d_name, &status, 0) != 0) continue;
            const bool same = id.kind == DiskId::Kind::block
                                  ? S_ISBLK(status.st_mode) && status.st_rdev == id.inode
                                  : status.st_dev == id.device && status.st_ino == id.inode;
            if (!same) continue;
            found = name_of_process(pid);
            break;
        }
        ::closedir(files);
    }
    ::closedir(processes);
    return found;
}

FileLocks::~FileLocks() {
    for (auto& [id, entry] : entries_) {
        if (entry.fd >= 0) ::close(entry.fd);
    }
}

int FileLocks::lock(Entry& entry, const DiskId& id, Held wanted) noexcept {
    if (entry.held == wanted || id.kind != DiskId::Kind::file)
        return 0;  // a block device's lock is its descriptor
    int error = 0;
    switch (wanted) {
        case Held::exclusive:
            if (!set(entry.fd, F_WRLCK, 0, 0)) error = errno;
            break;
        case Held::shared:
            error = lock_shared(entry.fd);
            if (error == 0 && entry.held == Held::exclusive) {
                set(entry.fd, F_UNLCK, 0, kUsesRead);
                set(entry.fd, F_UNLCK, kUsesRead + 1, kSharesNoWrite - kUsesRead - 1);
                set(entry.fd, F_UNLCK, kSharesNoWrite + 1, 0);
            }
            if (error != 0) set(entry.fd, F_UNLCK, 0, 0);
            break;
        case Held::nothing:
            set(entry.fd, F_UNLCK, 0, 0);
            break;
    }
    if (error == 0) entry.held = wanted;
    return error;
}

bool FileLocks::join(const DiskId& id, OpenMode mode, Lease& lease) {
    const std::lock_guard lock{mutex_};
    const auto found = entries_.find(id);
    if (found == entries_.end()) return false;
    Entry& entry = found->second;
    if (mode == OpenMode::write && entry.writers == 0) return false;
    ++(mode == OpenMode::write ? entry.writers : entry.readers);
    lease = Lease{*this, id, mode, entry.number};
    return true;
}

Result<FileLocks::Lease> FileLocks::acquire(const DiskId& id, int fd, OpenMode mode,
                                            const std::string& path) {
    const std::lock_guard lock{acquiring_};
    Lease lease;
    if (join(id, mode, lease)) return lease;
    const std::string again = fmt::format("/proc/self/fd/{}", fd);
    if (id.kind == DiskId::Kind::block) {
        if (mode == OpenMode::read) return acquire_with(-1, false, id, mode, path);
        const int fresh = ::open(again.c_str(), O_RDWR | O_EXCL | O_CLOEXEC);
        if (fresh < 0 && errno == EBUSY) {
            std::string who = who_has_open(id);
            return fail(
                Errc::busy,
                fmt::format("{}: in use{}{}: unmount it or end what uses it, or open it read-only", path,
                            who.empty() ? " (mounted, or part of another device)" : " by ", who));
        }
        if (fresh < 0)
            return fail(static_cast<Errc>(errno), fmt::format("{}: {}", path, std::strerror(errno)));
        return acquire_with(fresh, true, id, mode, path);
    }
    // Open for writing if that is allowed, also for a reader: so that its lock can become a writer's in one
    // step.
    int fresh = ::open(again.c_str(), O_RDWR | O_CLOEXEC);
    const bool writable = fresh >= 0;
    if (!writable) fresh = ::open(again.c_str(), O_RDONLY | O_CLOEXEC);
    if (fresh < 0)
        return fail(static_cast<Errc>(errno),
                    fmt::format("{}: opening it for its lock: {}", path, std::strerror(errno)));
    return acquire_with(fresh, writable, id, mode, path);
}

Result<FileLocks::Lease> FileLocks::acquire_with(int fresh, bool writable, const DiskId& id, OpenMode mode,
                                                 const std::string& path) {
    const Held wanted = mode == OpenMode::write ? Held::exclusive : Held::shared;
    int unused = fresh;
    int error = 0;
    Lease lease;
    {
        const std::lock_guard lock{mutex_};
        Entry& entry = entries_[id];
        const bool is_new = entry.readers + entry.writers == 0;
        if (is_new) entry.number = ++last_number_;
        if (entry.fd < 0 || (wanted == Held::exclusive && !entry.writable)) {
            // The old descriptor's read lock would stand in the new one's way.
            if (entry.fd >= 0) this->lock(entry, id, Held::nothing);
            std::swap(entry.fd, unused);
            std::swap(entry.writable, writable);
        }
        error = this->lock(entry, id, wanted);
        if (error != 0 && !is_conflict(error)) {
            shared_.warn(fmt::format("{}: cannot be locked ({}): see that nothing else uses it", path,
                                     std::strerror(error)));
            entry.held = wanted;
            error = 0;
        }
        if (error == 0) {
            ++(mode == OpenMode::write ? entry.writers : entry.readers);
            lease = Lease{*this, id, mode, entry.number};
        } else if (is_new) {
            std::swap(entry.fd, unused);
            entries_.erase(id);
        } else if (entry.held == Held::nothing) {
            // Readers were here before, under the old descriptor; nobody else can have got a writer's lock
            // meanwhile without being noticed by the next open.
            this->lock(entry, id, Held::shared);
        }
    }
    if (error != 0) {
        Error refused = busy(path, id, unused >= 0 ? unused : fresh, mode);
        if (unused >= 0) ::close(unused);
        return std::unexpected<Error>(std::move(refused));
    }
    if (unused >= 0) ::close(unused);
    return lease;
}

void FileLocks::release(const DiskId& id, OpenMode mode) noexcept {
    int unused = -1;
    {
        const std::lock_guard lock{mutex_};
        const auto found = entries_.find(id);
        ASSERT(found != entries_.end());
        Entry& entry = found->second;
        unsigned& uses = mode == OpenMode::write ? entry.writers : entry.readers;
        ASSERT(uses > 0);
        --uses;
        if (entry.readers + entry.writers == 0) {
            if (entry.fd >= 0) this->lock(entry, id, Held::nothing);
            unused = entry.fd;
            entries_.erase(found);
        } else if (entry.writers == 0 && entry.fd >= 0) {
            if (id.kind == DiskId::Kind::block) {
                unused = std::exchange(entry.fd, -1);
            } else {
                this->lock(entry, id, Held::shared);
            }
        }
    }
    close_elsewhere(shared_, unused);
}

void FileLocks::Lease::release() noexcept {
    if (FileLocks* locks = std::exchange(locks_, nullptr)) locks->release(id_, mode_);
}

}  // namespace udm
