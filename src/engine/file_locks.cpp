#include "engine/file_locks.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <thread>

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

// Who holds the lock that stands in the way; empty if that is nobody alive.
std::string holder(const DiskId& id, int fd, OpenMode mode) {
    const struct flock lock = obstacle(fd, mode == OpenMode::write ? F_WRLCK : F_RDLCK, 0, 0);
    if (lock.l_type != F_UNLCK && lock.l_pid > 0) return name_of_process(std::to_string(lock.l_pid));
    return who_has_open(id);
}

Error busy(const std::string& path, const std::string& who, OpenMode mode) {
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

FileLocks::Descriptor::Descriptor(EngineShared& shared, int fd, bool writable) noexcept
    : shared_{shared}, fd_{fd}, writable_{writable} {}
// Closing may block.
FileLocks::Descriptor::~Descriptor() { shared_.workers().submit(*new CloseCall{fd_}); }

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

int FileLocks::lock(Entry& entry, Held wanted) noexcept {
    if (entry.held == wanted) return 0;
    const int fd = entry.file->fd();
    int error = 0;
    switch (wanted) {
        case Held::exclusive:
            if (!set(fd, F_WRLCK, 0, 0)) error = errno;
            break;
        case Held::shared:
            error = lock_shared(fd);
            if (error == 0 && entry.held == Held::exclusive) {
                set(fd, F_UNLCK, 0, kUsesRead);
                set(fd, F_UNLCK, kUsesRead + 1, kSharesNoWrite - kUsesRead - 1);
                set(fd, F_UNLCK, kSharesNoWrite + 1, 0);
            }
            if (error != 0) set(fd, F_UNLCK, 0, 0);
            break;
        case Held::nothing:
            set(fd, F_UNLCK, 0, 0);
            break;
    }
    if (error == 0) entry.held = wanted;
    return error;
}

std::optional<FileLocks::Lease> FileLocks::join(const DiskId& id, OpenMode mode) {
    const std::lock_guard lock{mutex_};
    const auto found = entries_.find(id);
    if (found == entries_.end() || id.kind != DiskId::Kind::file) return std::nullopt;
    Entry& entry = found->second;
    if (mode == OpenMode::write && entry.writers == 0 &&
        (!entry.file->writable() || this->lock(entry, Held::exclusive) != 0))
        return std::nullopt;
    ++(mode == OpenMode::write ? entry.writers : entry.readers);
    return Lease{*this, id, mode, entry.number, entry.file};
}

Result<FileLocks::Lease> FileLocks::acquire(const DiskId& id, int fd, OpenMode mode,
                                            const std::string& path) {
    const bool writing = mode == OpenMode::write;
    auto opened = std::make_shared<Descriptor>(shared_, fd, writing);
    if (id.kind == DiskId::Kind::block) {
        const std::lock_guard lock{acquiring_};
        return acquire_block(opened, id, mode, path);
    }
    if (!writing) {
        // Open for writing if that is allowed, also for a reader: so that its lock can become a writer's in one
        // step. Its device refuses writes all the same.
        const int fresh = ::open(fmt::format("/proc/self/fd/{}", fd).c_str(), O_RDWR | O_CLOEXEC);
        if (fresh >= 0) opened = std::make_shared<Descriptor>(shared_, fresh, true);
    }
    for (;;) {
        {
            const std::lock_guard lock{acquiring_};
            if (auto joined = join(id, mode)) return std::move(*joined);
            if (auto acquired = acquire_file(opened, id, mode, path)) return std::move(*acquired);
        }
        const std::string who = holder(id, opened->fd(), mode);
        if (!who.empty() || std::chrono::steady_clock::now() >= patient_until_) return std::unexpected<Error>(busy(path, who, mode));
        std::this_thread::sleep_for(std::chrono::milliseconds{10});
    }
}

// Each device has a descriptor of its own. A writer has another one, which keeps others away.
Result<FileLocks::Lease> FileLocks::acquire_block(const DescriptorPtr& opened, const DiskId& id, OpenMode mode,
                                                  const std::string& path) {
    DescriptorPtr exclusive;
    bool is_held = false;
    {
        const std::lock_guard lock{mutex_};
        const auto found = entries_.find(id);
        is_held = found != entries_.end() && found->second.file != nullptr;
    }
    if (mode == OpenMode::write && !is_held) {
        const std::string again = fmt::format("/proc/self/fd/{}", opened->fd());
        const int fd = ::open(again.c_str(), O_RDWR | O_EXCL | O_CLOEXEC);
        if (fd < 0 && errno == EBUSY) {
            std::string who = who_has_open(id);
            return fail(
                Errc::busy,
                fmt::format("{}: in use{}{}: unmount it or end what uses it, or open it read-only", path,
                            who.empty() ? " (mounted, or part of another device)" : " by ", who));
        }
        if (fd < 0) return fail(static_cast<Errc>(errno), fmt::format("{}: {}", path, std::strerror(errno)));
        exclusive = std::make_shared<Descriptor>(shared_, fd, true);
    }
    const std::lock_guard lock{mutex_};
    Entry& entry = entries_[id];
    if (entry.readers + entry.writers == 0) entry.number = ++last_number_;
    if (exclusive) entry.file = std::move(exclusive);
    ++(mode == OpenMode::write ? entry.writers : entry.readers);
    return Lease{*this, id, mode, entry.number, opened};
}

std::optional<FileLocks::Lease> FileLocks::acquire_file(const DescriptorPtr& opened, const DiskId& id, OpenMode mode,
                                                        const std::string& path) {
    const Held wanted = mode == OpenMode::write ? Held::exclusive : Held::shared;
    const std::lock_guard lock{mutex_};
    Entry& entry = entries_[id];
    const bool is_new = entry.readers + entry.writers == 0;
    const Entry before = entry;
    if (is_new) entry.number = ++last_number_;
    if (!entry.file || (wanted == Held::exclusive && !entry.file->writable())) {
        // The old descriptor's read lock would stand in the new one's way.
        if (entry.file) this->lock(entry, Held::nothing);
        entry.file = opened;
    }
    int error = this->lock(entry, wanted);
    if (error != 0 && !is_conflict(error)) {
        shared_.warn(fmt::format("{}: cannot be locked ({}): see that nothing else uses it", path,
                                 std::strerror(error)));
        entry.held = wanted;
        error = 0;
    }
    if (error == 0) {
        ++(mode == OpenMode::write ? entry.writers : entry.readers);
        return Lease{*this, id, mode, entry.number, entry.file};
    }
    if (is_new) {
        entries_.erase(id);
    } else if (entry.held == Held::nothing) {
        // Readers were here before, under the old descriptor; nobody else can have got a writer's lock
        // meanwhile without being noticed by the next open.
        entry.file = before.file;
        this->lock(entry, Held::shared);
    }
    return std::nullopt;
}

std::optional<FileTraits> FileLocks::traits(const DiskId& id, OpenMode mode) const {
    const std::lock_guard lock{mutex_};
    const auto found = entries_.find(id);
    if (found == entries_.end() || id.kind != DiskId::Kind::file) return std::nullopt;
    return mode == OpenMode::write ? found->second.to_write : found->second.to_read;
}

void FileLocks::note_traits(const DiskId& id, OpenMode mode, const FileTraits& traits) {
    const std::lock_guard lock{mutex_};
    if (const auto found = entries_.find(id); found != entries_.end()) found->second.traits(mode) = traits;
}

void FileLocks::release(const DiskId& id, OpenMode mode) noexcept {
    DescriptorPtr unused;  // destroyed without the lock
    const std::lock_guard lock{mutex_};
    const auto found = entries_.find(id);
    ASSERT(found != entries_.end());
    Entry& entry = found->second;
    const bool is_block = id.kind == DiskId::Kind::block;
    unsigned& uses = mode == OpenMode::write ? entry.writers : entry.readers;
    ASSERT(uses > 0);
    --uses;
    if (entry.readers + entry.writers == 0) {
        if (!is_block) this->lock(entry, Held::nothing);
        unused = std::move(entry.file);
        entries_.erase(found);
    } else if (entry.writers == 0) {
        if (is_block) {
            unused = std::move(entry.file);
        } else {
            this->lock(entry, Held::shared);
        }
    }
}

void FileLocks::Lease::release() noexcept {
    if (FileLocks* locks = std::exchange(locks_, nullptr)) locks->release(id_, mode_);
    file_.reset();
}

}  // namespace udm
