// What a file or block device can do: found out once, when it is opened. May block.
#pragma once

#include <sys/stat.h>

#include <optional>
#include <string>

#include "base/result.hpp"
#include "port/disk.hpp"

namespace udm {

struct FileTraits {
    Limits limits{};
    bool block_device = false;
    bool memory = false;               // tmpfs or ramfs: never waits for a disk
    bool direct = false;               // O_DIRECT
    std::uint64_t bytes_unserved = 0;  // of the last block, which isn't whole
};

struct OpenedFile {
    int fd = -1;
    struct stat status {};
    FileTraits traits{};
};

// Opens for reading, or for reading and writing; nothing but block_device and read_only is known of it yet.
// The messages name `path`. Error too_many_files: see limit_of_files().
Result<OpenedFile> open_file(const std::string& path, OpenMode mode);
// Whether open_file() would be allowed to open it so, and what it is; nothing if it wouldn't or there is none.
std::optional<DiskId> may_open(const std::string& path, OpenMode mode);
// Finds the rest but for the size, and sets O_DIRECT where the file takes it. It tries things out, so the file is
// locked before.
void find_traits(OpenedFile& file);
Result<void> find_size(OpenedFile& file, const std::string& path);

DiskId id_of(const struct stat& status) noexcept;
// Descriptors of this process.
std::uint64_t count_open_files();

// Descriptors that devices leave to all else: connections, logs, the state.
inline constexpr unsigned kFilesReserved = 256;

// Bytes of a file or block device now, or a negative errno. Does not block.
std::int64_t file_bytes(int fd, bool block_device) noexcept;

}  // namespace udm
