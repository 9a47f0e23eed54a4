#include "apps/udm/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>

#include "apps/udm/text.hpp"

namespace udm::app {
namespace {

using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::milliseconds{500};
constexpr auto kBetweenDrawings = std::chrono::milliseconds{100};
constexpr std::size_t kBarColumns = 24;

std::size_t terminal_columns() {
    winsize size{};
    return ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col != 0 ? size.ws_col : 80;
}

}  // namespace

Progress::Progress(std::string what) : what_{std::move(what)} {
    if (!what_.empty() && ::isatty(STDERR_FILENO)) thread_ = std::thread{[this] { draw_until_ended(); }};
}

Progress::~Progress() {
    if (!thread_.joinable()) return;
    {
        const std::lock_guard lock{mutex_};
        ended_ = true;
    }
    changed_.notify_one();
    thread_.join();
}

void Progress::update(std::uint64_t done, std::uint64_t total) {
    const std::lock_guard lock{mutex_};
    done_ = done;
    total_ = total;
}

std::string Progress::line(const std::string& what, std::uint64_t done, std::uint64_t total,
                           std::chrono::milliseconds elapsed, std::size_t columns) {
    std::string text = what + "  ";
    if (total != 0) {
        const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
        const auto filled = static_cast<std::size_t>(part * static_cast<double>(kBarColumns));
        text += fmt::format("[{}{}] {}%  ", std::string(filled, '#'), std::string(kBarColumns - filled, '.'),
                            static_cast<int>(part * 100));
        if (part > 0.01) {
            const auto whole = static_cast<double>(elapsed.count()) / part;
            const auto left = std::chrono::milliseconds{static_cast<std::int64_t>(whole) - elapsed.count()};
            text += fmt::format("{}, {} left", human_time(elapsed), human_time(left));
        } else {
            text += human_time(elapsed);
        }
    } else {
        text += human_time(elapsed);
    }
    return text.substr(0, columns);
}

void Progress::draw_until_ended() {
    const auto start = Clock::now();
    std::unique_lock lock{mutex_};
    bool drawn = false;
    auto wake = start + kPatience;
    while (!changed_.wait_until(lock, wake, [this] { return ended_; })) {
        const auto now = Clock::now();
        const std::string text =
            line(what_, done_, total_, std::chrono::duration_cast<std::chrono::milliseconds>(now - start),
                 terminal_columns() - 1);
        fmt::print(stderr, "\r{}\x1b[K", text);
        std::fflush(stderr);
        drawn = true;
        wake = now + kBetweenDrawings;
    }
    if (drawn) fmt::print(stderr, "\r\x1b[K");
}

}  // namespace udm::app
