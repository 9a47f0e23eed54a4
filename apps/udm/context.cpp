#include "apps/udm/context.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <cstring>

#include "apps/udm/progress.hpp"
#include "base/parse.hpp"
#include "ctl/client_table.hpp"

namespace udm::app {
namespace {

// What to do about the errors people meet.
std::string advice_for(std::string_view method, const ctl::CallError& error) {
    const std::string_view message = error.what();
    const auto says = [&](std::string_view word) { return message.find(word) != std::string_view::npos; };
    if (error.code() == -32601) return "the daemon is older than this program: restart it";
    switch (error.error_number()) {
        case EINVAL:
            if (method == "table.regions") return "`udm ls` says what it is; `udm mirror create` makes a mirror";
            return method == "snapshot.diff" ? "`udm snapshot diff SNAPSHOT [OTHER]`; `udm snapshot list` shows the snapshots" : "";
        case EIO:
            if (method == "snapshot.diff" && says("is invalid")) return "it is lost for good: `udm snapshot drop` it, and take another";
            return "";
        case ENXIO:
            if (method.starts_with("snapshot.") && method != "snapshot.take") return "`udm snapshot list` lists the snapshots there are";
            return "`udm ls` lists the devices there are";
        case EEXIST:
        case EBUSY:
            if (says("in use by another process")) return "";    // it has said what to do
            if (method == "device.create" && says("stand")) return "`udm export` serves a volume that is there; --read-only only looks; --force writes past it all the same";
            if (method == "device.create" && says("store")) return "`udm cow` looks into stores; --read-only, too";
            if (method == "device.create" && says("exists")) return "choose another name; `udm ls` lists those in use";
            if (method == "device.create") return "";
            if (method == "snapshot.take" && says("exists")) return "give it another name: ORIGIN=NAME";
            if (says("export")) return fmt::format("`udm unexport {}` ends its exports", error.device().empty() ? "NAME" : error.device());
            return method.starts_with("device.") || method.starts_with("snapshot.")
                       ? "`udm show NAME` says what uses it"
                       : "";
        case EACCES:
        case EPERM:
            if (method == "move.start") return "the daemon's user must be allowed to write it";
            return "the daemon's user must be allowed to open it; --read-only needs less";
        case EROFS:
            return "--read-only, if nobody is to write to it";
        case ENOSPC:
            return "make room there, or use another file system";
        case ENOENT:
            if (method == "export.remove") return "`udm show NAME` lists its exports";
            return method == "export.add" ? "make the folder first" : "";
        default:
            return "";
    }
}

}  // namespace

Json Refusal::object() const {
    Json object{{"message", what()}};
    if (!advice_.empty()) object["advice"] = advice_;
    object.update(details);
    return {{"error", std::move(object)}};
}

ctl::Client& Context::daemon() {
    if (!client_) client_ = std::make_unique<ctl::Client>(ctl::control_socket_path(socket));
    return *client_;
}

Json Context::call(const char* method, Json params, const std::string& doing) {
    const Progress progress{json ? std::string{} : doing};
    try {
        return daemon().call(method, std::move(params));
    } catch (const ctl::CallError& error) {
        Refusal refusal{error.what(), advice_for(method, error)};
        refusal.details = error.object().value("data", Json::object());
        throw refusal;
    }
}

void Context::end_exports(const std::string& device) {
    try {
        call("export.remove", {{"device", device}}, "letting clients of " + device + " go");
    } catch (const Refusal& refusal) {
        if (refusal.details.value("errno", 0) != ENOENT) throw;    // it has none
    }
}

bool Context::has(const std::string& device) {
    try {
        call("device.info", {{"device", device}});
    } catch (const Refusal& refusal) {
        if (refusal.details.value("errno", 0) != ENXIO) throw;
        return false;
    }
    return true;
}

Json Context::list(const char* method, const char* key, Json params) {
    try {
        return ctl::call_for_all(daemon(), method, key, std::move(params));
    } catch (const ctl::CallError& error) {
        throw Refusal{error.what(), advice_for(method, error)};
    }
}

void Context::use(std::string path) {
    socket = std::move(path);
    client_.reset();
}

void Context::print(const Json& object, const std::string& text) const {
    if (json) {
        fmt::print("{}\n", object.dump(2, ' ', false, Json::error_handler_t::replace));
    } else if (!text.empty()) {
        fmt::print("{}{}", text, text.ends_with('\n') ? "" : "\n");
    }
    std::fflush(stdout);
}

void Context::note(const std::string& text) const {
    if (!json) fmt::print(stderr, "{}\n", text);
}

std::uint64_t size_argument(const std::string& word, const char* what) {
    const auto bytes = parse_size(word);
    if (!bytes || *bytes == 0 || *bytes % 512 != 0) {
        throw WrongWords{fmt::format("{}: '{}' is no size", what, word),
                         "write it as 4096, 64K, 10M, 2G or 1T; a multiple of 512 bytes"};
    }
    return *bytes;
}

std::uint64_t size_of(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        if (errno == ENOENT) return 0;
        throw Refusal{fmt::format("{}: {}", path, std::strerror(errno))};
    }
    struct stat about {};
    const bool fits = ::fstat(fd, &about) == 0 && (S_ISREG(about.st_mode) || S_ISBLK(about.st_mode));
    const off_t end = fits ? ::lseek(fd, 0, SEEK_END) : -1;
    ::close(fd);
    if (end < 0) throw Refusal{fmt::format("{} is no file or block device", path)};
    return static_cast<std::uint64_t>(end);
}

std::string with_absolute_socket(const std::string& uri) {
    static constexpr std::string_view kKey = "socket=";
    const auto query = uri.find('?');
    const auto key = query == std::string::npos ? std::string::npos : uri.find(kKey, query);
    if (key == std::string::npos) return uri;
    const auto start = key + kKey.size();
    const auto end = std::min(uri.find('&', start), uri.size());
    const std::string given = uri.substr(start, end - start);
    if (given.empty() || given.front() == '/' || given.starts_with("%2F") || given.starts_with("%2f"))
        return uri;
    // What is put in front is escaped, what was given stays as it was.
    std::string folder;
    for (const char c : ctl::absolute_path("./x")) {
        const bool plain = std::isalnum(static_cast<unsigned char>(c)) != 0 ||
                           std::string_view{"/-._~"}.find(c) != std::string_view::npos;
        folder += plain ? std::string{c} : fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
    folder.pop_back();  // the x
    return uri.substr(0, start) + folder + given + uri.substr(end);
}

}  // namespace udm::app
