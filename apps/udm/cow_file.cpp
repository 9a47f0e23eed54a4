#include "apps/udm/cow_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <vector>

#include "apps/udm/progress.hpp"

namespace udm::app {
namespace {

constexpr std::size_t kCopyPiece = 1 << 20;

struct flock whole_file(short type) {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    return lock;
}

Refusal unreadable(const std::string& path, int error) {
    return Refusal{fmt::format("{}: {}", path, std::strerror(error)),
                   error == EACCES ? "the file's owner, or root, may look into it" : "", kUnreadable};
}

Refusal in_use_by_others(const std::string& path) {
    return Refusal{fmt::format("{} is in use: nothing was changed", path),
                   "remove the snapshot that has it first (udm remove NAME), or end udmd"};
}

std::string folder_of(const std::string& path) {
    const std::string folder = std::filesystem::path{path}.parent_path().string();
    return folder.empty() ? "." : folder;
}

}  // namespace

CowFile::CowFile(const std::string& path, Mode mode) : path_{path} {
    // A block device that somebody has for himself is refused for changing, and free for looking.
    const int flags = mode == Mode::look ? O_RDONLY : O_RDWR;
    fd_ = ::open(path.c_str(), flags | O_CLOEXEC | O_NONBLOCK);
    if (fd_ < 0) throw unreadable(path, errno);
    struct stat about {};
    const bool known = ::fstat(fd_, &about) == 0 && (S_ISREG(about.st_mode) || S_ISBLK(about.st_mode));
    const off_t end = known ? ::lseek(fd_, 0, SEEK_END) : -1;
    if (end < 0) {
        ::close(fd_);
        throw Refusal{fmt::format("{} is no file or block device", path), {}, kUnreadable};
    }
    block_device_ = S_ISBLK(about.st_mode);
    size_ = static_cast<std::uint64_t>(end);
    if (mode == Mode::look) return;
    try {
        lock();
    } catch (...) {
        ::close(fd_);
        throw;
    }
}

CowFile::~CowFile() { ::close(fd_); }

void CowFile::lock() {
    if (block_device_) {
        const int exclusive = ::open(path_.c_str(), O_RDWR | O_EXCL | O_CLOEXEC);
        if (exclusive < 0) throw in_use_by_others(path_);
        ::close(fd_);
        fd_ = exclusive;
        return;
    }
    struct flock lock = whole_file(F_WRLCK);
    if (::fcntl(fd_, F_OFD_SETLK, &lock) == 0) return;
    if (errno == EAGAIN || errno == EACCES) {
        throw in_use_by_others(path_);
    }
    throw Refusal{fmt::format("{} cannot be locked: {}", path_, std::strerror(errno))};
}

bool CowFile::in_use() const {
    if (block_device_) return false;
    struct flock lock = whole_file(F_RDLCK);
    return ::fcntl(fd_, F_OFD_GETLK, &lock) == 0 && lock.l_type == F_WRLCK;
}

std::uint64_t CowFile::allocated() const {
    struct stat about {};
    if (block_device_ || ::fstat(fd_, &about) != 0) return size_;
    return static_cast<std::uint64_t>(about.st_blocks) * 512;
}

Result<void> CowFile::read(std::uint64_t offset, std::span<std::byte> into) {
    while (!into.empty()) {
        const ssize_t n = ::pread(fd_, into.data(), into.size(), static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(Errc::io, fmt::format("{}: reading at byte {}: {}", path_, offset, std::strerror(errno)));
        if (n == 0) return fail(Errc::io, fmt::format("{}: it became shorter while it was read", path_));
        offset += static_cast<std::uint64_t>(n);
        into = into.subspan(static_cast<std::size_t>(n));
    }
    return {};
}

Result<void> CowFile::write(std::uint64_t offset, std::span<const std::byte> from) {
    while (!from.empty()) {
        const ssize_t n = ::pwrite(fd_, from.data(), from.size(), static_cast<off_t>(offset));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(Errc::io, fmt::format("{}: writing at byte {}: {}", path_, offset, std::strerror(errno)));
        offset += static_cast<std::uint64_t>(n);
        from = from.subspan(static_cast<std::size_t>(n));
    }
    return {};
}

Result<void> CowFile::sync() {
    if (::fsync(fd_) == 0) return {};
    return fail(Errc::io, fmt::format("{}: {}", path_, std::strerror(errno)));
}

Result<void> CowFile::grow(std::uint64_t size) {
    if (block_device_) {
        return fail(Errc::unsupported, fmt::format("{} must have {} bytes at least for its list to end: make the device larger", path_, size));
    }
    if (::ftruncate(fd_, static_cast<off_t>(size)) != 0) return fail(Errc::io, fmt::format("{}: {}", path_, std::strerror(errno)));
    size_ = size;
    return sync();
}

void CowFile::copy_to(const std::string& copy) const {
    struct stat about {};
    const mode_t mode = ::fstat(fd_, &about) == 0 && !block_device_ ? about.st_mode & 0777 : 0600;
    const int out = ::open(copy.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    if (out < 0) {
        throw Refusal{fmt::format("{}: {}", copy, errno == EEXIST ? "is there already" : std::strerror(errno)),
                      errno == EEXIST ? "--backup FILE names another place for the copy" : "--backup FILE puts the copy elsewhere"};
    }
    Progress progress{"keeping a copy of " + path_};
    const auto copied = [&]() -> bool {
        std::vector<std::byte> piece(kCopyPiece);
        auto at = off_t{0};
        const auto end = static_cast<off_t>(size_);
        while (at < end) {
            off_t data = block_device_ ? at : ::lseek(fd_, at, SEEK_DATA);
            if (data < 0 && errno == ENXIO) break;    // a hole to the end
            if (data < 0) data = at;
            off_t hole = block_device_ ? end : ::lseek(fd_, data, SEEK_HOLE);
            if (hole < 0) hole = end;
            for (at = data; at < hole && at < end;) {
                const auto wanted = static_cast<std::size_t>(std::min<off_t>(hole - at, kCopyPiece));
                const ssize_t n = ::pread(fd_, piece.data(), wanted, at);
                if (n < 0 && errno == EINTR) continue;
                if (n <= 0) return false;
                for (ssize_t done = 0; done < n;) {
                    const ssize_t written = ::pwrite(out, piece.data() + done, static_cast<std::size_t>(n - done), at + done);
                    if (written < 0 && errno == EINTR) continue;
                    if (written <= 0) return false;
                    done += written;
                }
                at += n;
                progress.update(static_cast<std::uint64_t>(at), size_);
            }
        }
        return ::ftruncate(out, end) == 0 && ::fsync(out) == 0;
    };
    bool done = copied();
    int error = errno;
    if (::close(out) != 0 && done) {
        done = false;
        error = errno;
    }
    if (done) {
        const int folder = ::open(folder_of(copy).c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        done = folder >= 0 && ::fsync(folder) == 0;
        error = errno;
        if (folder >= 0) ::close(folder);
    }
    if (done) return;
    ::unlink(copy.c_str());
    throw Refusal{fmt::format("{}: the copy could not be made: {}; nothing was changed", copy, std::strerror(error)),
                  "--backup FILE puts it elsewhere"};
}

}  // namespace udm::app
