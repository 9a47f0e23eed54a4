#include "apps/udm/blank.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "apps/udm/context.hpp"
#include "apps/udm/progress.hpp"
#include "ctl/fd.hpp"

namespace udm::app {

std::optional<std::uint64_t> first_data(const std::string& path, const std::string& doing) {
    const std::uint64_t size = size_of(path);
    const ctl::Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (!file) throw Refusal{fmt::format("{}: {}", path, std::strerror(errno))};
    Progress progress{doing};
    std::vector<char> block(std::size_t{1} << 20);
    for (std::uint64_t at = 0; at < size;) {
        const off_t data = ::lseek(file.get(), static_cast<off_t>(at), SEEK_DATA);
        if (data < 0 && errno == ENXIO) return std::nullopt;    // a hole to the end
        if (data >= 0) at = static_cast<std::uint64_t>(data);   // else the file system, or device, does not say
        const ssize_t read = ::pread(file.get(), block.data(), std::min<std::uint64_t>(block.size(), size - at), static_cast<off_t>(at));
        if (read <= 0) throw Refusal{fmt::format("{}: {}", path, read < 0 ? std::strerror(errno) : "it ended while it was read")};
        const auto found = std::find_if(block.begin(), block.begin() + read, [](char c) { return c != 0; });
        if (found != block.begin() + read) return at + static_cast<std::uint64_t>(found - block.begin());
        at += static_cast<std::uint64_t>(read);
        progress.update(at, size);
    }
    return std::nullopt;
}

}  // namespace udm::app
