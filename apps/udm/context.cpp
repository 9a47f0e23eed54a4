#include "apps/udm/context.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/parse.hpp"

namespace udm::app {
namespace {
volatile std::sig_atomic_t stopped = 0;
}

void catch_signals() {
    struct sigaction action {};
    action.sa_handler = [](int) { stopped = 1; };    // without SA_RESTART, so that waits end
    for (const int signal : {SIGINT, SIGTERM, SIGHUP}) ::sigaction(signal, &action, nullptr);
}

bool stop_requested() noexcept { return stopped != 0; }

ctl::Client& Context::daemon() {
    if (!client_) client_ = std::make_unique<ctl::Client>(ctl::control_socket_path(socket));
    return *client_;
}

void Context::print(const Json& object, const std::string& text) const {
    if (json) {
        fmt::print("{}\n", object.dump(2));
    } else if (!text.empty()) {
        fmt::print("{}{}", text, text.ends_with('\n') ? "" : "\n");
    }
    std::fflush(stdout);
}

Columns::Columns(std::vector<std::string> heads) : heads_{std::move(heads)} {
    for (std::string& head : heads_) {
        right_.push_back(head.ends_with('>'));
        if (right_.back()) head.pop_back();
    }
}

std::string Columns::text() const {
    std::vector<std::size_t> widths;
    for (const std::string& head : heads_) widths.push_back(head.size());
    for (const auto& row : rows_) {
        for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
    }
    std::string text;
    const auto line = [&](const std::vector<std::string>& row) {
        std::string out;
        for (std::size_t i = 0; i < row.size(); ++i) {
            if (i != 0) out += "  ";
            out += right_[i] ? fmt::format("{:>{}}", row[i], widths[i]) : fmt::format("{:<{}}", row[i], widths[i]);
        }
        while (out.ends_with(' ')) out.pop_back();
        text += out + "\n";
    };
    line(heads_);
    for (const auto& row : rows_) line(row);
    return text;
}

std::string human_size(std::uint64_t bytes) {
    static constexpr const char* kUnits[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
    double value = static_cast<double>(bytes);
    std::size_t unit = 0;
    while (value >= 1024 && unit + 1 < std::size(kUnits)) {
        value /= 1024;
        ++unit;
    }
    return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string human_sectors(const Json& sectors) { return sectors.is_number() ? human_size(sectors.get<std::uint64_t>() * 512) : "-"; }

std::uint64_t size_argument(const std::string& word, const char* what) {
    const auto bytes = parse_size(word);
    if (!bytes || *bytes == 0 || *bytes % 512 != 0) {
        throw Refusal(fmt::format("{}: '{}' is no size", what, word), "write it as 4096, 64K, 10M, 2G or 1T; a multiple of 512 bytes");
    }
    return *bytes;
}

std::uint64_t size_of(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        if (errno == ENOENT) return 0;
        throw Refusal(fmt::format("{}: {}", path, std::strerror(errno)));
    }
    const off_t end = ::lseek(fd, 0, SEEK_END);
    ::close(fd);
    if (end < 0) throw Refusal(fmt::format("{}: not a file or block device", path));
    return static_cast<std::uint64_t>(end);
}

std::string absolute(const std::string& path) { return std::filesystem::absolute(path).lexically_normal().string(); }

}  // namespace udm::app
