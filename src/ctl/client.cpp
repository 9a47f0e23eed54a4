#include "ctl/client.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace udm::ctl {
namespace {

// Longer answers than this are not the daemon's.
constexpr std::size_t kAnswerMax = std::size_t{256} << 20;

std::string advice(const std::string& path, int error) {
    if (error == EACCES || error == EPERM) {
        return fmt::format(
            "the daemon's socket {} may not be used by this user ({}); root, the daemon's own user and its "
            "--group may",
            path, std::strerror(error));
    }
    return fmt::format("no udm daemon answers on {} ({}); start one with: udmd --socket {}", path,
                       std::strerror(error), path);
}

}  // namespace

std::string control_socket_path(const std::string& given) {
    if (!given.empty()) return given;
    if (const char* path = std::getenv("UDM_SOCKET"); path != nullptr && *path != '\0') return path;
    if (::geteuid() == 0) return "/run/udm/udmd.sock";
    if (const char* folder = std::getenv("XDG_RUNTIME_DIR"); folder != nullptr && *folder != '\0') {
        return std::string{folder} + "/udm/udmd.sock";
    }
    throw NoDaemon{
        "where the daemon's socket is isn't known: XDG_RUNTIME_DIR is not set; give --socket PATH, or set "
        "UDM_SOCKET"};
}

CallError::CallError(const Json& error)
    : std::runtime_error{error.value("message", std::string{"the daemon gave no reason"})},
      code_{error.value("code", 0)},
      object_(error) {
    if (const auto data = error.find("data"); data != error.end() && data->is_object()) {
        errno_ = data->value("errno", 0);
        if (const auto device = data->find("device"); device != data->end() && device->is_string())
            device_ = *device;
    }
}

Json call_for_all(Endpoint& endpoint, std::string_view method, const char* key, Json params) {
    std::size_t most = 1000;  // items of 300 to 500 bytes: well below 1 MiB
    Json all = Json::array();
    for (;;) {
        params["limit"] = most;
        Json part;
        try {
            part = endpoint.call(method, params);
        } catch (const CallError& error) {
            if (error.error_number() != E2BIG || most == 1) throw;
            most /= 2;  // these are longer
            continue;
        }
        const bool last = part.size() < most;
        for (Json& item : part) all.push_back(std::move(item));
        if (last) return all;
        params["after"] = all.back().at(key);
    }
}

Client::Client(std::string path) : path_{std::move(path)} {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path_.size() >= sizeof address.sun_path) {
        throw NoDaemon{fmt::format("the socket's path {} is longer than the {} bytes that Unix sockets allow",
                                   path_, sizeof address.sun_path - 1)};
    }
    std::memcpy(address.sun_path, path_.data(), path_.size());
    fd_ = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd_ < 0) throw NoDaemon{fmt::format("cannot make a socket: {}", std::strerror(errno))};
    int connected;
    do {
        connected = ::connect(fd_, reinterpret_cast<const sockaddr*>(&address), sizeof address);
    } while (connected != 0 && errno == EINTR);
    if (connected != 0) {
        const int error = errno;
        ::close(fd_);
        fd_ = -1;
        throw NoDaemon{advice(path_, error)};
    }
}

Client::~Client() {
    if (fd_ >= 0) ::close(fd_);
}

void Client::gone(int error) const {
    if (error == 0)
        throw NoDaemon{fmt::format("the daemon on {} closed the connection; its log says why", path_)};
    throw NoDaemon{fmt::format("the connection to the daemon on {} broke: {}", path_, std::strerror(error))};
}

void Client::send_line(const std::string& line) {
    std::size_t sent = 0;
    while (sent < line.size()) {
        const ssize_t n = ::send(fd_, line.data() + sent, line.size() - sent, MSG_NOSIGNAL);
        if (n > 0) {
            sent += static_cast<std::size_t>(n);
        } else if (n < 0 && errno == EPIPE) {
            return;  // it may have said why before it closed: that is read next
        } else if (n < 0 && errno != EINTR) {
            gone(errno);
        }
    }
}

std::optional<std::string> Client::read_line(std::optional<std::chrono::steady_clock::time_point> deadline,
                                             bool interruptible, int wake) {
    for (;;) {
        if (const auto end = unread_.find('\n', searched_); end != std::string::npos) {
            std::string line = unread_.substr(0, end);
            unread_.erase(0, end + 1);
            searched_ = 0;
            return line;
        }
        searched_ = unread_.size();
        if (unread_.size() > kAnswerMax)
            throw NoDaemon{fmt::format("what answers on {} is no udm daemon", path_)};
        int timeout = -1;
        if (deadline) {
            const auto left =
                std::chrono::ceil<std::chrono::milliseconds>(*deadline - std::chrono::steady_clock::now());
            if (left.count() < 0) return std::nullopt;
            timeout = static_cast<int>(std::min<std::chrono::milliseconds::rep>(left.count(), 1'000'000));
        }
        pollfd wanted[]{{fd_, POLLIN, 0}, {wake, POLLIN, 0}};  // poll leaves out negative ones
        const int ready = ::poll(wanted, 2, timeout);
        if (ready < 0 && errno == EINTR) {
            if (interruptible) return std::nullopt;
            continue;
        }
        if (ready < 0) gone(errno);
        if (ready == 0) {
            if (deadline && std::chrono::steady_clock::now() >= *deadline) return std::nullopt;
            continue;
        }
        if (wanted[1].revents != 0) return std::nullopt;
        char buffer[65536];
        const ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
        if (n == 0) gone(0);
        if (n < 0 && errno != EINTR) gone(errno == ECONNRESET ? 0 : errno);
        if (n > 0) unread_.append(buffer, static_cast<std::size_t>(n));
    }
}

Json Client::call(std::string_view method, Json params) {
    const std::uint64_t id = ++last_id_;
    const Json request{{"jsonrpc", "2.0"}, {"id", id}, {"method", method}, {"params", std::move(params)}};
    // A path may have bytes that are no UTF-8; JSON cannot say them.
    send_line(request.dump(-1, ' ', false, Json::error_handler_t::replace) + "\n");
    for (;;) {
        const Json answer = Json::parse(*read_line(std::nullopt, false), nullptr, false);
        if (!answer.is_object()) throw NoDaemon{fmt::format("what answers on {} is no udm daemon", path_)};
        if (answer.contains("method")) {
            if (answer["method"] == "event") events_.push_back(answer.value("params", Json::object()));
            continue;
        }
        const auto error = answer.find("error");
        const auto answered = answer.find("id");
        // Errors about the line itself (too long, say) have the id null.
        if (error != answer.end() && (answered == answer.end() || answered->is_null() || *answered == id))
            throw CallError{*error};
        if (answered == answer.end() || *answered != id) continue;
        return answer.value("result", Json{});
    }
}

std::optional<Json> Client::next_event(std::optional<std::chrono::milliseconds> timeout, int wake) {
    std::optional<std::chrono::steady_clock::time_point> deadline;
    if (timeout) deadline = std::chrono::steady_clock::now() + *timeout;
    for (;;) {
        if (!events_.empty()) {
            Json event = std::move(events_.front());
            events_.pop_front();
            return event;
        }
        const auto line = read_line(deadline, true, wake);
        if (!line) return std::nullopt;
        const Json message = Json::parse(*line, nullptr, false);
        if (message.is_object() && message.value("method", "") == "event") {
            events_.push_back(message.value("params", Json::object()));
        }
    }
}

}  // namespace udm::ctl
