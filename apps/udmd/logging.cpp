#include "apps/udmd/logging.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <csignal>
#include <cstdlib>
#include <memory>

#include "apps/udmd/log_queue.hpp"

namespace udm::daemon {
namespace {

bool journald = false;  // lines begin with <PRIORITY>, and journald adds the time

spdlog::level::level_enum level_of(ctl::LogLevel level) {
    switch (level) {
        case ctl::LogLevel::debug:
            return spdlog::level::debug;
        case ctl::LogLevel::info:
            return spdlog::level::info;
        case ctl::LogLevel::warning:
            return spdlog::level::warn;
        case ctl::LogLevel::error:
            return spdlog::level::err;
    }
    return spdlog::level::info;
}

int priority_of(ctl::LogLevel level) {
    switch (level) {
        case ctl::LogLevel::debug:
            return 7;
        case ctl::LogLevel::info:
            return 6;
        case ctl::LogLevel::warning:
            return 4;
        case ctl::LogLevel::error:
            return 3;
    }
    return 6;
}

constexpr std::size_t kWaitingBytes = 1 << 20;

std::shared_ptr<spdlog::logger> logger;
std::unique_ptr<LogQueue> queue;

void hand_over(ctl::LogLevel level, std::string_view device, std::string_view text) {
    if (!logger->should_log(level_of(level))) return;
    const std::string_view colon = device.empty() ? "" : ": ";
    queue->put({std::chrono::system_clock::now(), level,
                journald ? fmt::format("<{}>{}{}{}", priority_of(level), device, colon, text)
                         : fmt::format("{}{}{}", device, colon, text)});
}

// An assertion's reason is on standard error already; this is what led to it.
void at_abort(int) { flush_log(); }

}  // namespace

Logging::Logging(ctl::LogLevel level, const std::string& file) {
    logger = file.empty() ? spdlog::stderr_logger_mt("udmd") : spdlog::basic_logger_mt("udmd", file);
    journald = file.empty() && std::getenv("JOURNAL_STREAM") != nullptr;
    logger->set_pattern(journald ? "%v" : "%Y-%m-%d %H:%M:%S.%e %l: %v");
    logger->set_level(level_of(level));
    logger->flush_on(spdlog::level::debug);
    queue = std::make_unique<LogQueue>(kWaitingBytes, [mine = logger](const LogQueue::Line& line) {
        mine->log(line.when, spdlog::source_loc{}, level_of(line.level), line.text);
    });
    ctl::set_log_sink(&hand_over);
    struct sigaction action {};
    action.sa_handler = &at_abort;
    action.sa_flags = static_cast<int>(SA_RESETHAND);
    ::sigaction(SIGABRT, &action, nullptr);
}

bool Logging::end() noexcept {
    if (!queue) return true;
    ctl::set_log_sink(nullptr);
    std::signal(SIGABRT, SIG_DFL);
    const bool ended = queue->end();
    queue.reset();
    return ended;
}

void flush_log() noexcept {
    if (queue) queue->wait_written();
}

}  // namespace udm::daemon
