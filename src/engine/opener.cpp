#include "engine/opener.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <optional>
#include <utility>

#include "base/parse.hpp"
#include "engine/file_disk.hpp"
#include "engine/operation.hpp"

// sysmacros.h has them as macros; our names are functions.
#undef major
#undef minor

namespace udm {
namespace {

struct MemoryWords {
    std::string name;  // empty: private
    std::uint64_t bytes = 0;
};

// `ram:SIZE` or `ram:NAME:SIZE`.
Result<MemoryWords> parse_memory(const std::string& words) {
    MemoryWords parsed;
    std::string size = words.substr(4);
    if (const auto colon = size.rfind(':'); colon != std::string::npos) {
        parsed.name = size.substr(0, colon);
        size.erase(0, colon + 1);
        if (parsed.name.empty())
            return fail(Errc::bad_argument,
                        fmt::format("{}: the name is empty (ram:SIZE or ram:NAME:SIZE)", words));
    }
    const auto bytes = parse_size(size);
    if (!bytes || *bytes == 0) {
        return fail(Errc::bad_argument,
                    fmt::format("{}: '{}' is not a size, such as 64M or 1G (ram:SIZE or ram:NAME:SIZE)",
                                words, size));
    }
    if (*bytes % kSectorSize != 0) {
        return fail(Errc::bad_argument,
                    fmt::format("{}: {} bytes is not a multiple of {}", words, *bytes, kSectorSize));
    }
    parsed.bytes = *bytes;
    return parsed;
}

bool is_memory(std::string_view words) { return words.starts_with("ram:"); }

// "7:0" -> device number; anything else -> nothing.
std::optional<dev_t> device_number(std::string_view words) {
    const auto colon = words.find(':');
    if (colon == std::string_view::npos) return std::nullopt;
    const auto major = parse_u32(words.substr(0, colon));
    const auto minor = parse_u32(words.substr(colon + 1));
    if (!major || !minor) return std::nullopt;
    return ::gnu_dev_makedev(*major, *minor);
}

// The node of a block device, as the system names it.
Result<std::string> node_of(dev_t number, std::string_view words) {
    const unsigned major = ::gnu_dev_major(number);
    const unsigned minor = ::gnu_dev_minor(number);
    std::ifstream file{fmt::format("/sys/dev/block/{}:{}/uevent", major, minor)};
    std::string line;
    while (std::getline(file, line)) {
        if (line.starts_with("DEVNAME=")) return "/dev/" + line.substr(8);
    }
    const std::string link = fmt::format("/dev/block/{}:{}", major, minor);
    struct stat status;
    if (::stat(link.c_str(), &status) == 0) return link;
    return fail(Errc::no_device, fmt::format("{}: there is no block device of this number", words));
}

Result<std::string> path_of(const std::string& words) {
    if (words.starts_with('/')) return words;
    if (const auto number = device_number(words)) return node_of(*number, words);
    return fail(
        Errc::no_device,
        fmt::format("{}: no such device (an absolute path, MAJOR:MINOR, ram:SIZE, ram:NAME:SIZE or an NBD URI)", words));
}

class OpenMemory final : public OpenDevice {
  public:
    OpenMemory(Loop& loop, NamedMemory::Found found, std::string words)
        : id_{found.id}, words_{std::move(words)}, disk_{loop, std::move(found.memory)} {}
    Disk& disk() noexcept override { return disk_; }
    const DiskId& id() const noexcept override { return id_; }
    const std::string& words() const noexcept override { return words_; }
    // As Linux numbers its RAM disks.
    std::uint32_t major() const noexcept override { return 1; }
    std::uint32_t minor() const noexcept override { return static_cast<std::uint32_t>(id_.inode); }

  private:
    const DiskId id_;
    const std::string words_;
    RamDisk disk_;
};

class OpenPath final : public OpenDevice, private Operation {
  public:
    OpenPath(Loop& its_loop, const OpenedFile& opened, FileLocks::Lease lease, std::string words)
        : loop_{its_loop}, id_{id_of(opened.status)}, words_{std::move(words)}, lease_{std::move(lease)}, disk_{its_loop, opened, words_} {}
    // The lock goes at once; the descriptor, whose closing may block, on a helper thread.
    ~OpenPath() override {
        disk_.release();
        lease_.release();
    }
    Disk& disk() noexcept override { return disk_; }
    const DiskId& id() const noexcept override { return id_; }
    const std::string& words() const noexcept override { return words_; }
    // A file has no number of its own: 0 and one that no other open file has.
    std::uint32_t major() const noexcept override {
        return id_.kind == DiskId::Kind::block ? ::gnu_dev_major(id_.inode) : 0;
    }
    std::uint32_t minor() const noexcept override {
        return id_.kind == DiskId::Kind::block ? ::gnu_dev_minor(id_.inode) : lease_.number();
    }

    std::string cannot_grow() const override {
        if (id_.kind == DiskId::Kind::block) return "it is a block device; make that larger, and the space is used";
        return disk_.limits().read_only ? "it is open for reading only" : "";
    }
    void grow(Sectors to, DeviceGrowth& waiting) noexcept override {
        kind = Kind::call;
        length = to_bytes(to);
        known_ = to_bytes(disk_.limits().size);
        waiting_ = &waiting;
        loop_.start(*this);
    }

  private:
    // On a helper thread.
    int call() noexcept override {
        const int fd = disk_.descriptor();
        struct stat now {};
        if (::fstat(fd, &now) != 0) return -errno;
        if (static_cast<std::uint64_t>(now.st_size) < known_) return -ESTALE;    // what was cut off would be zeroes
        if (static_cast<std::uint64_t>(now.st_size) >= length) return 0;
        return ::ftruncate(fd, static_cast<off_t>(length)) == 0 && ::fsync(fd) == 0 ? 0 : -errno;
    }
    void done(int n) noexcept override {
        Result<void> answer;
        if (n < 0) answer = std::unexpected(error_from_errno(-n, fmt::format("{} cannot have {} bytes", words_, length)));
        std::exchange(waiting_, nullptr)->grown(std::move(answer));
    }

    Loop& loop_;
    const DiskId id_;
    const std::string words_;
    FileLocks::Lease lease_;
    FileDisk disk_;
    DeviceGrowth* waiting_ = nullptr;
    std::uint64_t known_ = 0;    // bytes that it had when it was to grow
};

}  // namespace

Result<NamedMemory::Found> NamedMemory::take(const std::string& name, std::uint64_t bytes) {
    const std::lock_guard lock{mutex_};
    Entry& entry = entries_[name];
    if (entry.number == 0) entry.number = ++last_number_;
    std::shared_ptr<Memory> memory = entry.memory.lock();
    if (memory && memory->bytes() != bytes) {
        return fail(Errc::bad_argument,
                    fmt::format("ram:{0}:{1}: memory of this name is in use with {2} bytes, not {1}", name,
                                bytes, memory->bytes()));
    }
    if (!memory) {
        TRY(memory, Memory::make(bytes));
        entry.memory = memory;
    }
    return Found{std::move(memory), new_id(entry.number)};
}

DiskId NamedMemory::id_of(const std::string& name) {
    const std::lock_guard lock{mutex_};
    Entry& entry = entries_[name];
    if (entry.number == 0) entry.number = ++last_number_;
    return new_id(entry.number);
}

DiskId NamedMemory::unnamed_id() {
    const std::lock_guard lock{mutex_};
    return new_id(++last_number_);
}

Result<std::unique_ptr<OpenDevice>> Opener::open(std::string_view words, OpenMode mode) {
    const std::string given{words};
    if (is_memory(words)) return open_memory(given);
    if (is_nbd_uri(words)) return servers_.open(loop_, given, mode);
    TRY(const std::string path, path_of(given));
    return open_path(given, path, mode);
}

Result<std::unique_ptr<OpenDevice>> Opener::open_away(std::string_view words, Sectors size) {
    if (is_nbd_uri(words)) return servers_.open_away(loop_, std::string{words}, size);
    return DeviceOpener::open_away(words, size);
}

Result<std::unique_ptr<OpenDevice>> Opener::open_memory(const std::string& words) {
    TRY(const MemoryWords parsed, parse_memory(words));
    NamedMemory::Found found;
    if (parsed.name.empty()) {
        TRY(found.memory, Memory::make(parsed.bytes));
        found.id = memory_.unnamed_id();
    } else {
        TRY(found, memory_.take(parsed.name, parsed.bytes));
    }
    return std::make_unique<OpenMemory>(loop_, std::move(found), words);
}

Result<std::unique_ptr<OpenDevice>> Opener::open_path(const std::string& words, const std::string& path,
                                                      OpenMode mode) {
    OpenedFile file;
    FileLocks::Lease lease;
    std::optional<FileLocks::Lease> joined;
    if (const auto id = may_open(path, mode)) joined = locks_.join(*id, mode);
    if (joined) {
        lease = std::move(*joined);
        file.traits.limits.read_only = mode == OpenMode::read;
        if (::fstat(lease.fd(), &file.status) != 0) return fail(Errc::io, fmt::format("{}: {}", path, std::strerror(errno)));
    } else {
        TRY(file, open_file(path, mode));
        TRY(lease, locks_.acquire(id_of(file.status), file.fd, mode, path));
    }
    file.fd = lease.fd();
    const DiskId id = id_of(file.status);
    if (const auto known = locks_.traits(id, mode)) {
        file.traits = *known;
    } else {
        find_traits(file);
        locks_.note_traits(id, mode, file.traits);
    }
    auto usable = find_size(file, path);
    if (usable && file.traits.limits.read_only && mode == OpenMode::write) {
        usable = fail(Errc::read_only, fmt::format("{}: the block device is read-only", path));
    }
    if (!usable) return fail(usable);
    if (file.traits.bytes_unserved != 0) {
        loop_.shared().log(
            fmt::format("{}: its last {} bytes are not served: the size is not a multiple of {}", path,
                        file.traits.bytes_unserved, file.traits.limits.logical_block));
    }
    return std::make_unique<OpenPath>(loop_, file, std::move(lease), words);
}

Result<DiskId> identify_device(std::string_view words, NamedMemory& memory) {
    const std::string given{words};
    if (is_memory(words)) {
        TRY(const MemoryWords parsed, parse_memory(given));
        return parsed.name.empty() ? memory.unnamed_id() : memory.id_of(parsed.name);
    }
    if (is_nbd_uri(words)) return NbdServers::identify(words);
    TRY(const std::string path, path_of(given));
    struct stat status;
    if (::stat(path.c_str(), &status) != 0) {
        return fail(Errc::no_device, fmt::format("{}: {}", path, std::strerror(errno)));
    }
    if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode)) {
        return fail(Errc::no_device, fmt::format("{}: neither a file nor a block device", path));
    }
    return id_of(status);
}

}  // namespace udm
