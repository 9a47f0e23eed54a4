#include "ctl/cow_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>

#include "base/parse.hpp"
#include "ctl/failure.hpp"
#include "ctl/fd.hpp"

namespace udm::ctl {

std::uint64_t useful_cow_bytes(Sectors origin, std::uint64_t chunk_bytes) {
    const std::uint64_t chunks = (to_bytes(origin) + chunk_bytes - 1) / chunk_bytes;
    const std::uint64_t per_area = chunk_bytes / 16;
    return (1 + chunks + (chunks + per_area) / per_area) * chunk_bytes;
}

std::uint64_t cow_bytes(const std::optional<std::string>& wanted, Sectors origin, std::uint64_t chunk_bytes) {
    const std::uint64_t most = useful_cow_bytes(origin, chunk_bytes);
    if (!wanted) return most;
    std::uint64_t bytes = 0;
    if (wanted->ends_with('%')) {
        const auto percent = parse_u32(std::string_view{*wanted}.substr(0, wanted->size() - 1));
        if (!percent || *percent == 0) {
            throw Failure{Errc::bad_argument,
                          fmt::format("size {} is no percentage of the origin, such as 20%", *wanted)};
        }
        bytes = to_bytes(origin) / 100 * std::min(*percent, 1000u);    // far more than is of use
    } else {
        const auto size = parse_size(*wanted);
        if (!size)
            throw Failure{Errc::bad_argument,
                          fmt::format("size {} is neither bytes (10G) nor a percentage (20%)", *wanted)};
        bytes = *size;
    }
    // Header, one area, one chunk of data, and the area that ends the list.
    const std::uint64_t least = 4 * chunk_bytes;
    if (bytes < least) {
        throw Failure{Errc::bad_argument, fmt::format("size {} is too small: a store with chunks of {} KiB takes {} KiB at least, and is of use with a part "
                                                      "of the origin's size, such as 20%", *wanted, chunk_bytes >> 10, least >> 10)};
    }
    bytes = (std::min(bytes, std::max(least, most)) + chunk_bytes - 1) / chunk_bytes * chunk_bytes;
    return bytes;
}

void make_cow_file(const std::string& path, std::uint64_t bytes, bool reserve) {
    const auto complain = [&](const char* what) {
        return Failure{error_from_errno(errno, fmt::format("{} {}", what, path))};
    };
    Fd file{::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)};
    if (!file) {
        if (errno == EEXIST)
            throw Failure{
                Errc::exists,
                fmt::format("{} exists already; name another file, or remove it if nobody needs it", path)};
        throw complain("cannot make");
    }
    const auto size = static_cast<off_t>(bytes);
    if (::ftruncate(file.get(), size) != 0 || (reserve && ::fallocate(file.get(), 0, 0, size) != 0)) {
        const Failure why = complain(reserve ? "cannot make and give all its space to" : "cannot make");
        ::unlink(path.c_str());
        throw why;
    }
}

void keep_cow_file(const std::string& path) {
    const std::string folder = std::filesystem::path{path}.parent_path();
    const Fd directory{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!directory || ::fsync(directory.get()) != 0)
        throw Failure{error_from_errno(errno, fmt::format("cannot sync {}", folder))};
}

void check_blank(const std::string& path) {
    const Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)};
    if (!file) throw Failure{error_from_errno(errno, "cannot read " + path)};
    char first[4096];
    const ssize_t n = ::pread(file.get(), first, sizeof first, 0);
    if (n < 0) throw Failure{error_from_errno(errno, "cannot read " + path)};
    if (std::any_of(first, first + n, [](char c) { return c != 0; })) {
        throw Failure{
            Errc::exists,
            fmt::format(
                "{} is not blank: it may hold a store or other data; wipe its first 4 KiB if nobody needs it",
                path)};
    }
}

}  // namespace udm::ctl
