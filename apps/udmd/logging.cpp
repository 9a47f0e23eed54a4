#include "apps/udmd/logging.hpp"

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <cstdlib>

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

void write_line(ctl::LogLevel level, std::string_view device, std::string_view text) {
    const std::string_view colon = device.empty() ? "" : ": ";
    if (journald) {
        spdlog::log(level_of(level), "<{}>{}{}{}", priority_of(level), device, colon, text);
    } else {
        spdlog::log(level_of(level), "{}{}{}", device, colon, text);
    }
}

}  // namespace

void start_logging(ctl::LogLevel level, const std::string& file) {
    auto logger = file.empty() ? spdlog::stderr_logger_mt("udmd") : spdlog::basic_logger_mt("udmd", file);
    journald = file.empty() && std::getenv("JOURNAL_STREAM") != nullptr;
    logger->set_pattern(journald ? "%v" : "%Y-%m-%d %H:%M:%S.%e %l: %v");
    logger->set_level(level_of(level));
    logger->flush_on(spdlog::level::debug);
    spdlog::set_default_logger(std::move(logger));
    ctl::set_log_sink(&write_line);
}

}  // namespace udm::daemon
