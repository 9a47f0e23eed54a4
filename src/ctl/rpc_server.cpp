#include "ctl/rpc_server.hpp"

#include <grp.h>
#include <poll.h>
#include <pwd.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "ctl/log.hpp"

namespace udm::ctl {
namespace {

constexpr std::size_t kRefusedMax = 16;
constexpr std::chrono::milliseconds kFarewell{1000};  // for the last answers of a client that is let go

void raise_flag(const Fd& event) noexcept {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n =
        ::write(event.get(), &one, sizeof one);  // can only be full: raised already
}
void lower_flag(const Fd& event) noexcept {
    std::uint64_t count = 0;
    [[maybe_unused]] const ssize_t n = ::read(event.get(), &count, sizeof count);
}

}  // namespace

// One connection: its thread, its calls, and the events on their way to it.
class RpcServer::Client final : public Caller, public EventSink {
  public:
    Client(Fd fd, RpcServer& server)
        : fd_{std::move(fd)},
          wake_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)},
          server_{server},
          session_{server.service_, *this} {}
    ~Client() {
        if (thread_.joinable()) thread_.join();
    }
    void start() {
        thread_ = std::thread{[this] { run(); }};
    }
    void stop() noexcept {
        stopping_ = true;
        raise_flag(wake_);
    }
    bool ended() const noexcept { return ended_; }
    bool can_be_woken() const noexcept { return static_cast<bool>(wake_); }

    void subscribe(std::uint64_t device_serial) override {
        const std::lock_guard lock{mutex_};
        subscriptions_.insert(device_serial);
    }
    void event(const Event& event, const std::string& line) noexcept override {
        const std::lock_guard lock{mutex_};
        if (subscriptions_.contains(0) || subscriptions_.contains(event.serial)) {
            if (events_.size() + line.size() > server_.config_.events_queued_max) {
                cut_ = true;
            } else {
                events_ += line;
            }
            raise_flag(wake_);
        } else if (looking_ || awaited_.contains(0) || awaited_.contains(event.serial)) {
            raise_flag(wake_);
        }
    }

  private:
    void run() noexcept;
    bool turn();
    bool cut();
    int timeout() const;
    bool handle_next_line();
    bool receive();
    bool flush();
    void take_events();
    void note_awaited();

    Fd fd_;
    Fd wake_;
    RpcServer& server_;
    RpcSession session_;
    std::thread thread_;
    std::atomic<bool> stopping_ = false;
    std::atomic<bool> ended_ = false;
    std::string in_;
    std::size_t scanned_ = 0;  // of in_: there is no newline before
    std::string out_;
    std::size_t sent_ = 0;  // of out_
    bool end_of_input_ = false;
    std::chrono::steady_clock::time_point farewell_{};

    std::mutex mutex_;  // of what follows
    std::set<std::uint64_t> subscriptions_;
    std::set<std::uint64_t> awaited_;  // devices with events that something waits for
    bool looking_ = false;             // awaited_ is about to change: any event may matter
    std::string events_;
    bool cut_ = false;
};

void RpcServer::Client::run() noexcept {
    server_.hub_.add(*this);
    try {
        while (turn()) {
        }
    } catch (const std::exception& error) {  // out of memory: this client goes, the daemon stays
        log_error("", "control client dropped: {}", error.what());
    }
    server_.hub_.remove(*this);
    ::shutdown(fd_.get(), SHUT_RDWR);
    ended_ = true;
    const std::lock_guard lock{server_.mutex_};
    server_.ended_.notify_all();
    raise_flag(server_.stop_event_);  // the acceptor collects the thread
}

// Handles what came, sends what is ready, and waits for more. False: this connection is over.
bool RpcServer::Client::turn() {
    if (cut()) {
        log_warning("", "a subscriber that does not read its events was cut off");
        return false;
    }
    take_events();
    if (!flush()) return false;
    while (sent_ == out_.size() && !stopping_) {  // in order, and without piling up answers
        if (!handle_next_line()) break;
        if (!flush()) return false;
    }
    const bool sending = sent_ < out_.size();
    if (!sending && in_.size() > kLineMax) {
        out_ += to_line(
            {{"jsonrpc", "2.0"},
             {"id", nullptr},
             {"error", error_object(RpcError{rpc_code::kNoRequest, "a message of more than 1 MiB"})}});
        out_ += '\n';
        flush();
        return false;
    }
    if (stopping_) {
        const auto now = std::chrono::steady_clock::now();
        if (farewell_ == std::chrono::steady_clock::time_point{}) farewell_ = now + kFarewell;
        if (!sending || now >= farewell_) return false;
    }
    if (end_of_input_ && !sending && !session_.has_pending()) return false;
    // A client that doesn't read its answers isn't read from either.
    const bool reading = !sending && !end_of_input_ && !stopping_;
    pollfd polled[2] = {{fd_.get(), static_cast<short>((reading ? POLLIN : 0) | (sending ? POLLOUT : 0)), 0},
                        {wake_.get(), POLLIN, 0}};
    if (::poll(polled, 2, timeout()) < 0 && errno != EINTR) return false;
    // Gone altogether: then nobody waits for an answer. A client that only ended its own side still does.
    if (polled[0].revents & (POLLERR | POLLNVAL)) return false;
    if ((polled[0].revents & POLLHUP) && !(polled[0].revents & POLLIN)) return false;
    if (polled[1].revents & POLLIN) lower_flag(wake_);
    if (polled[0].revents & POLLIN && !receive()) return false;
    session_.check_pending(out_);
    note_awaited();
    return true;
}

bool RpcServer::Client::cut() {
    const std::lock_guard lock{mutex_};
    return cut_;
}

// For poll: until the first deadline, or for ever.
int RpcServer::Client::timeout() const {
    auto deadline = session_.next_deadline();
    if (stopping_ && (!deadline || farewell_ < *deadline)) deadline = farewell_;
    if (!deadline) return -1;
    const auto left =
        std::chrono::ceil<std::chrono::milliseconds>(*deadline - std::chrono::steady_clock::now());
    return static_cast<int>(std::clamp<std::int64_t>(left.count(), 0, 1 << 30));
}

bool RpcServer::Client::handle_next_line() {
    const std::size_t end = in_.find('\n', scanned_);
    if (end == std::string::npos) {
        scanned_ = in_.size();
        return false;
    }
    const std::string line = in_.substr(0, end);
    in_.erase(0, end + 1);
    scanned_ = 0;
    if (in_.empty() && in_.capacity() > 65536) in_.shrink_to_fit();
    {
        const std::lock_guard lock{mutex_};
        looking_ = true;  // from before the look at an event number, so that no event is missed
    }
    session_.handle_line(line, out_);
    note_awaited();
    return true;
}

void RpcServer::Client::note_awaited() {
    std::set<std::uint64_t> awaited;
    if (session_.has_pending()) awaited = session_.awaited();
    const std::lock_guard lock{mutex_};
    awaited_ = std::move(awaited);
    looking_ = false;
}

bool RpcServer::Client::receive() {
    char buffer[16384];
    const ssize_t n = ::recv(fd_.get(), buffer, sizeof buffer, MSG_DONTWAIT);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) end_of_input_ = true;
    in_.append(buffer, static_cast<std::size_t>(n));
    return true;
}

// Sends what the socket takes now.
bool RpcServer::Client::flush() {
    while (sent_ < out_.size()) {
        const ssize_t n =
            ::send(fd_.get(), out_.data() + sent_, out_.size() - sent_, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return errno == EAGAIN;
        sent_ += static_cast<std::size_t>(n);
    }
    out_.clear();
    sent_ = 0;
    if (out_.capacity() > 65536) out_.shrink_to_fit();
    return true;
}

// Whole lines, and only when the former ones have gone out: what waits in events_ is bounded, out_ is not.
void RpcServer::Client::take_events() {
    if (sent_ < out_.size()) return;
    const std::lock_guard lock{mutex_};
    out_ += events_;
    events_.clear();
}

RpcServer::RpcServer(Config config, Service& service, EventHub& hub)
    : config_{std::move(config)},
      service_{service},
      hub_{hub},
      stop_event_{::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)} {}

RpcServer::~RpcServer() { stop(); }

Result<void> RpcServer::listen() {
    const std::string& path = config_.path;
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.empty() || path.size() >= sizeof address.sun_path) {
        return fail(
            Errc::bad_argument,
            "socket path " + path + " is longer than the system takes (107 bytes); use a shorter --socket");
    }
    std::memcpy(address.sun_path, path.data(), path.size());
    const auto* generic = reinterpret_cast<const sockaddr*>(&address);
    Fd fd{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
    if (!fd) return std::unexpected(error_from_errno(errno, "cannot make a socket"));

    struct stat there {};
    if (::lstat(path.c_str(), &there) == 0) {
        if (!S_ISSOCK(there.st_mode)) {
            return fail(Errc::exists,
                        path + " exists and is no socket; remove it or choose another --socket");
        }
        const Fd probe{::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0)};
        if (!probe) return std::unexpected(error_from_errno(errno, "cannot make a socket"));
        // EAGAIN: it is there, and too busy to accept.
        if (::connect(probe.get(), generic, sizeof address) == 0 || errno == EAGAIN) {
            return fail(Errc::busy,
                        "another udmd answers on " + path + "; stop it, or choose another --socket");
        }
        if (errno == EACCES || errno == EPERM) {
            return fail(Errc::denied, path + " belongs to somebody else; choose another --socket");
        }
        if (errno != ECONNREFUSED && errno != ENOENT)
            return std::unexpected(error_from_errno(errno, "cannot see whether a udmd answers on " + path));
        ::unlink(path.c_str());  // stale: nobody answers
    }
    const mode_t mode = config_.group ? 0660 : 0600;
    const mode_t before = ::umask(0777 & ~mode);
    const int bound = ::bind(fd.get(), generic, sizeof address);
    const int error = errno;
    ::umask(before);
    if (bound != 0) {
        return std::unexpected(error_from_errno(
            error, "cannot listen on " + path +
                       " (does its folder exist, and may this user write there? --socket chooses another)"));
    }
    if (config_.group && ::chown(path.c_str(), static_cast<uid_t>(-1), *config_.group) != 0) {
        const Error why = error_from_errno(errno, "cannot give " + path + " to the group");
        ::unlink(path.c_str());
        return std::unexpected(why);
    }
    if (::listen(fd.get(), 128) != 0)
        return std::unexpected(error_from_errno(errno, "cannot listen on " + path));
    if (::lstat(path.c_str(), &there) == 0) inode_ = there.st_ino;
    listener_ = std::move(fd);
    return {};
}

void RpcServer::serve() {
    acceptor_ = std::thread{[this] { accept_loop(); }};
}

// A last word to somebody who gets no thread. It would be lost if the connection were closed with a request
// in it that nobody has read; so it stays until the other side has ended it, or had time to.
void RpcServer::refuse(Fd fd, const Failure& why) {
    const Json answer = {{"jsonrpc", "2.0"}, {"id", nullptr}, {"error", error_object(why)}};
    const std::string line = to_line(answer) + '\n';
    [[maybe_unused]] const ssize_t n =
        ::send(fd.get(), line.data(), line.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    ::shutdown(fd.get(), SHUT_WR);
    if (refused_.size() < kRefusedMax)
        refused_.push_back({std::move(fd), std::chrono::steady_clock::now() + kFarewell});
}

void RpcServer::read_refused() {
    const auto now = std::chrono::steady_clock::now();
    std::erase_if(refused_, [&](const Refused& refused) {
        char ignored[4096];
        const ssize_t n = ::recv(refused.fd.get(), ignored, sizeof ignored, MSG_DONTWAIT);
        return n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR) || now >= refused.until;
    });
}

void RpcServer::accept_loop() {
    bool exhausted = false;  // out of descriptors: poll would say "ready" for ever
    for (;;) {
        std::vector<pollfd> polled = {{stop_event_.get(), POLLIN, 0},
                                      {exhausted ? -1 : listener_.get(), POLLIN, 0}};
        for (const Refused& refused : refused_) polled.push_back({refused.fd.get(), POLLIN, 0});
        ::poll(polled.data(), polled.size(), exhausted || !refused_.empty() ? 1000 : -1);
        read_refused();
        if (polled[0].revents & POLLIN) lower_flag(stop_event_);
        std::list<std::unique_ptr<Client>> ended;  // joined without the lock, which their last act takes
        {
            const std::lock_guard lock{mutex_};
            if (stopping_) return;
            for (auto client = clients_.begin(); client != clients_.end();) {
                const auto next = std::next(client);
                if ((*client)->ended()) ended.splice(ended.end(), clients_, client);
                client = next;
            }
        }
        ended.clear();
        if (!exhausted && !(polled[1].revents & POLLIN)) continue;
        const int fd = ::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
        exhausted = fd < 0 && (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS);
        if (exhausted) log_warning("", "no file descriptor for a new control client; trying again");
        if (fd >= 0) accepted(Fd{fd});
    }
}

void RpcServer::accepted(Fd fd) {
    std::string who;
    if (!allowed(fd.get(), who)) {
        log_warning("", "control connection of {} refused", who);
        return refuse(std::move(fd),
                      Failure{Errc::denied, "this daemon answers root, its own user" +
                                                std::string{config_.group ? " and its group" : ""} +
                                                " only, and you are " + who});
    }
    const std::lock_guard lock{mutex_};
    if (clients_.size() >= config_.clients_max) {
        return refuse(std::move(fd),
                      Failure{Errc::busy, "too many clients: " + std::to_string(config_.clients_max) +
                                              " are connected; try again later"});
    }
    try {
        auto client = std::make_unique<Client>(std::move(fd), *this);
        // Nobody could end one that hears of nothing.
        if (!client->can_be_woken()) return log_warning("", "no file descriptor for a new control client");
        client->start();
        clients_.push_back(std::move(client));
    } catch (const std::exception& error) {
        log_error("", "cannot serve a control client: {}", error.what());
    }
}

bool RpcServer::allowed(int fd, std::string& who) const {
    ucred peer{};
    socklen_t size = sizeof peer;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
        who = "somebody the system does not name";
        return false;
    }
    who = "uid " + std::to_string(peer.uid);
    if (peer.uid == 0 || peer.uid == ::geteuid()) return true;
    if (!config_.group) return false;
    if (peer.gid == *config_.group) return true;
    gid_t groups[1024];
    size = sizeof groups;
    if (::getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, groups, &size) != 0) return false;
    const gid_t* end = groups + size / sizeof(gid_t);
    return std::find(groups, const_cast<gid_t*>(end), *config_.group) != end;
}

void RpcServer::stop() {
    {
        std::unique_lock lock{mutex_};
        stopping_ = true;
        raise_flag(stop_event_);
        for (const auto& client : clients_) client->stop();
    }
    if (acceptor_.joinable()) acceptor_.join();
    std::list<std::unique_ptr<Client>> last;
    {
        std::unique_lock lock{mutex_};
        for (const auto& client : clients_) client->stop();  // one may have come meanwhile
        ended_.wait(lock, [this] {
            return std::all_of(clients_.begin(), clients_.end(), [](const auto& c) { return c->ended(); });
        });
        last.swap(clients_);
    }
    last.clear();
    if (listener_) {
        struct stat there {};
        if (::lstat(config_.path.c_str(), &there) == 0 && there.st_ino == inode_)
            ::unlink(config_.path.c_str());
        listener_.reset();
    }
}

std::size_t RpcServer::clients() const {
    const std::lock_guard lock{mutex_};
    return clients_.size();
}

}  // namespace udm::ctl
