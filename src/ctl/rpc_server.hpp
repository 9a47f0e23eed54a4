// The control socket: listens, checks who asks, and gives each client a thread (docs/protocol.md; decision
// 21).
#pragma once

#include <sys/types.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <list>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "base/result.hpp"
#include "ctl/events.hpp"
#include "ctl/fd.hpp"
#include "ctl/rpc.hpp"

namespace udm::ctl {

class RpcServer {
  public:
    struct Config {
        std::string path;
        std::optional<gid_t> group;  // --group: the socket is 0660 and theirs, and members are answered
        unsigned clients_max = 64;
        std::size_t events_queued_max = kLineMax;  // bytes a subscriber may leave unread
    };

    RpcServer(Config config, Service& service, EventHub& hub);
    ~RpcServer();  // stops

    // Makes the socket and listens; nobody is served before serve(). A socket nobody answers on is replaced.
    // Errors say what to do; busy: another daemon answers there.
    Result<void> listen();
    void serve();
    // No new clients; those there get the answers to what is under way and are let go. Idempotent.
    void stop();
    std::size_t clients() const;

  private:
    class Client;
    void accept_loop();
    void accepted(Fd fd);
    void refuse(Fd fd, const Failure& why);
    void read_refused();
    bool allowed(int fd, std::string& who) const;

    Config config_;
    Service& service_;
    EventHub& hub_;
    Fd listener_;
    Fd stop_event_;
    struct Refused {
        Fd fd;
        std::chrono::steady_clock::time_point until;
    };
    std::vector<Refused> refused_;  // the acceptor's
    std::thread acceptor_;
    mutable std::mutex mutex_;
    std::condition_variable ended_;
    std::list<std::unique_ptr<Client>> clients_;
    bool stopping_ = false;
    std::uint64_t inode_ = 0;  // of the socket's file, so that only our own is removed
};

}  // namespace udm::ctl
