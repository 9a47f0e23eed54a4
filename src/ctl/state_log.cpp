#include "ctl/state_log.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <optional>

#include "base/crc32c.hpp"
#include "base/parse.hpp"
#include "ctl/json.hpp"
#include "ctl/time_text.hpp"

namespace udm::ctl {
namespace {

constexpr std::string_view kHeader = R"({"format":"udm state","version":1})";
constexpr std::size_t kSector = 512;

struct Parsed {
    std::string_view text;
    std::size_t end;  // after the newline
};

// The record that begins at `at`, if there is a whole and right one.
std::optional<Parsed> parse_record(std::string_view file, std::size_t at) {
    const std::string_view rest = file.substr(at);
    if (rest.size() < 11 || rest[8] != ' ') return std::nullopt;
    std::uint32_t crc = 0;
    for (char c : rest.substr(0, 8)) {
        const bool digit = c >= '0' && c <= '9';
        if (!digit && (c < 'a' || c > 'f')) return std::nullopt;
        crc = crc << 4 | static_cast<std::uint32_t>(digit ? c - '0' : c - 'a' + 10);
    }
    const std::size_t space = rest.find(' ', 9);
    if (space == std::string_view::npos || space > 29) return std::nullopt;
    const auto length = parse_u64(rest.substr(9, space - 9));
    if (!length || *length > rest.size() || space + 1 + *length >= rest.size()) return std::nullopt;
    const std::size_t newline = space + 1 + *length;
    if (rest[newline] != '\n' || crc32c(rest.substr(9, newline - 9)) != crc) return std::nullopt;
    return Parsed{rest.substr(space + 1, *length), at + newline + 1};
}

// Whether `rest` is the beginning of a record that has more bytes than there are.
bool is_cut_short(std::string_view rest) {
    if (rest.find('\n') != std::string_view::npos) return false;
    const std::size_t space = rest.size() < 10 ? std::string_view::npos : rest.find(' ', 9);
    if (space == std::string_view::npos) return rest.size() < 30;
    const auto length = parse_u64(rest.substr(9, space - 9));
    return length && (*length > rest.size() || space + 1 + *length + 1 > rest.size());
}

// Whether what begins at `at` and doesn't check can be the last append of a machine that stopped in the
// middle of it: nothing after it checks, and bytes are missing at its end or it has a sector (or its part of
// one) of zeroes. Text has no zero bytes and no newline inside, so a changed byte looks different.
bool looks_torn(std::string_view file, std::size_t at) {
    for (std::size_t line = file.find('\n', at); line != std::string_view::npos;
         line = file.find('\n', line + 1)) {
        if (parse_record(file, line + 1)) return false;
    }
    for (std::size_t from = at; from < file.size();) {
        const std::size_t to = std::min(file.size(), (from / kSector + 1) * kSector);
        const std::string_view part = file.substr(from, to - from);
        if (part.find_first_not_of('\0') == std::string_view::npos) return true;
        from = to;
    }
    return is_cut_short(file.substr(at));
}

Result<std::string> read_all(int fd, const std::string& name) {
    std::string text;
    char buffer[65536];
    for (;;) {
        const ssize_t n = ::pread(fd, buffer, sizeof buffer, static_cast<off_t>(text.size()));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return std::unexpected(error_from_errno(errno, "cannot read " + name));
        if (n == 0) return text;
        text.append(buffer, static_cast<std::size_t>(n));
    }
}

Result<void> write_all(int fd, std::string_view text, std::uint64_t at, const std::string& name) {
    while (!text.empty()) {
        const ssize_t n = ::pwrite(fd, text.data(), text.size(), static_cast<off_t>(at));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return std::unexpected(error_from_errno(errno, "cannot write " + name));
        text.remove_prefix(static_cast<std::size_t>(n));
        at += static_cast<std::uint64_t>(n);
    }
    return {};
}

}  // namespace

std::string format_record(std::string_view text) {
    std::string checked = fmt::format("{} {}", text.size(), text);
    return fmt::format("{:08x} {}\n", crc32c(checked), checked);
}

std::string StateLog::path(std::string_view name) const { return fmt::format("{}/{}", directory_, name); }

Result<void> StateLog::lock() {
    lock_.reset(::open(path("lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!lock_) {
        return std::unexpected(error_from_errno(
            errno,
            "cannot use state directory " + directory_ + " (choose another --state-dir?): " + path("lock")));
    }
    if (::flock(lock_.get(), LOCK_EX | LOCK_NB) == 0) return {};
    if (errno != EWOULDBLOCK) return std::unexpected(error_from_errno(errno, "cannot lock " + path("lock")));
    return fail(Errc::busy, "state directory " + directory_ +
                                " is in use by another udmd; stop it, or choose another --state-dir");
}

Result<void> StateLog::sync_directory() const {
    const Fd fd{::open(directory_.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (!fd || ::fsync(fd.get()) != 0)
        return std::unexpected(error_from_errno(errno, "cannot sync " + directory_));
    return {};
}

Result<StateLog::Opened> StateLog::open(const std::string& directory) {
    directory_ = directory;
    if (::mkdir(directory.c_str(), 0700) != 0 && errno != EEXIST) {
        return std::unexpected(error_from_errno(errno, "cannot make state directory " + directory));
    }
    CHECK(lock());
    ::unlink(path("state.log.new").c_str());  // a compaction that didn't get there
    Opened opened;
    file_.reset(::open(path("state.log").c_str(), O_RDWR | O_CLOEXEC));
    if (!file_) {
        if (errno != ENOENT)
            return std::unexpected(error_from_errno(errno, "cannot open " + path("state.log")));
        CHECK(rewrite({}));
        return opened;
    }
    TRY(const std::string text, read_all(file_.get(), path("state.log")));
    std::size_t at = 0;
    const auto header = parse_record(text, 0);
    if (!header) {
        CHECK(put_aside("its first record does not check", opened));
        return opened;
    }
    if (header->text != kHeader) {
        return fail(Errc::unsupported,
                    fmt::format("{} was written by another version of udm ({}); use that version, or another "
                                "--state-dir",
                                path("state.log"), header->text));
    }
    at = header->end;
    while (at < text.size()) {
        const auto record = parse_record(text, at);
        if (record) {
            opened.records.emplace_back(record->text);
            at = record->end;
        } else if (looks_torn(text, at)) {
            opened.torn_bytes = text.size() - at;
            break;
        } else {
            const std::string why =
                fmt::format("the record at byte {} of {} does not check", at, text.size());
            opened.records.clear();
            CHECK(put_aside(why, opened));
            return opened;
        }
    }
    end_ = at;
    if (opened.torn_bytes != 0 &&
        (::ftruncate(file_.get(), static_cast<off_t>(at)) != 0 || ::fsync(file_.get()) != 0)) {
        return std::unexpected(
            error_from_errno(errno, "cannot cut the torn record off " + path("state.log")));
    }
    return opened;
}

Result<void> StateLog::put_aside(const std::string& why, Opened& opened) {
    std::string aside = path("state.log.damaged-" + compact_time(std::chrono::system_clock::now()));
    for (int i = 1; ::access(aside.c_str(), F_OK) == 0; ++i) {
        aside = fmt::format("{}-{}", aside.substr(0, aside.find('Z') + 1), i);
    }
    if (::rename(path("state.log").c_str(), aside.c_str()) != 0) {
        return std::unexpected(
            error_from_errno(errno, "cannot put the damaged " + path("state.log") + " aside"));
    }
    CHECK(rewrite({}));  // syncs the directory too
    opened.damaged = fmt::format("{} is damaged ({}): kept as {}; no device was brought up from it",
                                 path("state.log"), why, aside);
    return {};
}

Result<void> StateLog::append(std::string_view text) {
    if (broken_)
        return fail(Errc::io,
                    "the state file " + path("state.log") + " cannot be written since an earlier error");
    const std::string record = format_record(text);
    auto written = write_all(file_.get(), record, end_, path("state.log"));
    if (written && ::fdatasync(file_.get()) != 0) {
        written = std::unexpected(error_from_errno(errno, "cannot sync " + path("state.log")));
        broken_ = true;  // what is on the disk is anybody's guess now
    }
    if (!written) {
        // Part of it may be there: it must not stand before the next one.
        if (::ftruncate(file_.get(), static_cast<off_t>(end_)) != 0 || ::fsync(file_.get()) != 0)
            broken_ = true;
        return written;
    }
    end_ += record.size();
    written_ += record.size();
    return {};
}

Result<void> StateLog::rewrite(const std::vector<std::string>& records) {
    std::string text = format_record(kHeader);
    for (const std::string& record : records) text += format_record(record);
    const std::string fresh = path("state.log.new");
    Fd file{::open(fresh.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600)};
    if (!file) return std::unexpected(error_from_errno(errno, "cannot write " + fresh));
    auto written = write_all(file.get(), text, 0, fresh);
    if (written && ::fsync(file.get()) != 0)
        written = std::unexpected(error_from_errno(errno, "cannot sync " + fresh));
    if (written && ::rename(fresh.c_str(), path("state.log").c_str()) != 0) {
        written = std::unexpected(error_from_errno(errno, "cannot put " + fresh + " in place"));
    }
    if (!written) {
        ::unlink(fresh.c_str());
        return written;
    }
    file_ = std::move(file);
    end_ = text.size();
    written_ += text.size();
    auto synced = sync_directory();
    broken_ = !synced;  // a crash might bring the old file back: append nothing that it would lack
    return synced;
}

}  // namespace udm::ctl
