// nbdecho: the least that an NBD server can do, as the limit that others are measured against. One thread:
// one receive for many requests, the data in place, one send for many replies. No features, no care for
// clients that misbehave.
#include <getopt.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <system_error>
#include <vector>

#include "base/parse.hpp"
#include "test/bench/nbdecho/session.hpp"
#include "test/bench/nbdecho/store.hpp"

namespace {

constexpr const char* kHelp = R"(usage: nbdecho --socket PATH [--size BYTES] [--direct] null|memory|FILE...

  null      reads zeroes, forgets writes        memory   --size bytes (1G) of memory
  FILE      read and written in place           --direct with O_DIRECT through io_uring
  several   writes go to all of them, reads to the first
)";

[[noreturn]] void refuse(const char* what) {
    std::fprintf(stderr, "nbdecho: %s\n%s", what, kHelp);
    std::exit(2);
}

int listen_on(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path) refuse("--socket: path too long");
    std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
    ::unlink(path.c_str());
    const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || ::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address) != 0 ||
        ::listen(fd, 64) != 0)
        throw std::system_error(errno, std::system_category(), path);
    return fd;
}

class Server {
  public:
    Server(int listener, echo::Store& store) : listener_{listener}, store_{store} {
        epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
        epoll_event event{.events = EPOLLIN, .data = {.ptr = nullptr}};
        ::epoll_ctl(epoll_, EPOLL_CTL_ADD, listener_, &event);
    }

    [[noreturn]] void run() {
        for (unsigned turn = 0;; ++turn) {
            if (sessions_.size() != 1) {
                wait_for_any();
                continue;
            }
            // Alone, a client is served with two system calls a batch: the receive itself waits, and gives up
            // now and then to look for a second client.
            errno = 0;
            echo::Session& only = *sessions_.front();
            if (!only.serve_batch(0))
                end(&only);
            else if (errno == EAGAIN || turn % 4096 == 0)
                accept_all();
        }
    }

  private:
    void accept_all() {
        for (;;) {
            const int fd = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
            if (fd < 0) return;
            const timeval patience{.tv_sec = 0, .tv_usec = 20'000};
            ::setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
            auto session = std::make_unique<echo::Session>(fd, store_);
            if (!session->handshake()) continue;
            epoll_event event{.events = EPOLLIN, .data = {.ptr = session.get()}};
            ::epoll_ctl(epoll_, EPOLL_CTL_ADD, fd, &event);
            sessions_.push_back(std::move(session));
        }
    }
    void wait_for_any() {
        epoll_event events[64];
        const int n = ::epoll_wait(epoll_, events, 64, -1);
        for (int i = 0; i < n; ++i) {
            auto* session = static_cast<echo::Session*>(events[i].data.ptr);
            if (session == nullptr)
                accept_all();
            else if (!session->serve_batch(MSG_DONTWAIT))
                end(session);
        }
    }
    void end(echo::Session* session) {
        std::erase_if(sessions_, [session](const auto& s) { return s.get() == session; });
    }

    int listener_, epoll_;
    echo::Store& store_;
    std::vector<std::unique_ptr<echo::Session>> sessions_;
};

}  // namespace

int main(int argc, char** argv) {
    static const option kLong[] = {{"socket", 1, nullptr, 's'},
                                   {"size", 1, nullptr, 'z'},
                                   {"direct", 0, nullptr, 'd'},
                                   {"help", 0, nullptr, 'h'},
                                   {}};
    std::string socket;
    std::uint64_t size = 1ull << 30;
    bool direct = false;
    for (int c; (c = ::getopt_long(argc, argv, "", kLong, nullptr)) != -1;) {
        if (c == 's')
            socket = optarg;
        else if (c == 'z')
            size = udm::parse_size(optarg).value_or(0);
        else if (c == 'd')
            direct = true;
        else if (c == 'h')
            return std::fputs(kHelp, stdout), 0;
        else
            refuse("unknown option");
    }
    if (socket.empty()) refuse("--socket is needed");
    if (size == 0) refuse("--size: a number of bytes, such as 1G");
    if (optind >= argc) refuse("a store is needed");
    try {
        const auto store = echo::make_store({argv + optind, argv + argc}, size, direct);
        Server{listen_on(socket), *store}.run();
    } catch (const std::exception& e) {
        std::fprintf(stderr, "nbdecho: %s\n", e.what());
        return 1;
    }
}
