// An NBD server: one listener, several exports.
//
// All members are for the server's own reactor (the one it was made with), which is where its listener
// accepts: other threads post a Task to it with Reactor::post_remote. Sessions move to the homes of their
// exports by themselves; a session's end comes back before an export's removal is done.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "exports/nbd/session.hpp"

namespace udm::nbd {

class Server final : private Directory, private Listener::Handler {
  public:
    Server(Reactor& reactor, Network& network, const ServerLimits& limits = {});
    ~Server();  // after stop() was done, or before anything was served

    // Errors: those of Network::listen. Control plane, may block shortly: may be called before the reactor
    // runs, or wherever Network::listen() may.
    Result<void> listen(const Address& address);
    // As listened on, with the real port.
    const Address& address() const noexcept { return address_; }

    // Errors: exists, bad_argument (a name longer than 4096 bytes or with a NUL).
    Result<void> add(Export what);
    // No new connections get it; those it has are answered what is under way, then closed. `done` is told
    // when none is left: then the disk may go. False: there is no such export, or it is on its way out.
    bool remove(std::string_view name, Done& done);
    // Stops listening, and removes all exports. `done` may destroy the server.
    void stop(Done& done);

    std::uint32_t connections() const noexcept { return connections_; }  // in all
    std::uint32_t connections(std::string_view name) const noexcept;     // that have chosen that export
    std::uint64_t refused() const noexcept { return refused_; }          // for want of a place
    std::size_t exports() const noexcept { return entries_.size(); }     // with those on their way out

  private:
    struct Record;
    class Closer;
    struct Tell final : Task {
        explicit Tell(Server& of_) noexcept : of{of_} {}
        void run() noexcept override;
        Server& of;
    };

    void accepted(int fd) noexcept override;
    Entry* find(std::string_view name) noexcept override;
    std::vector<ListedExport> list() const override;
    void arrived(Session& session) noexcept override;
    void ended(Session& session) noexcept override;
    void unbound(Entry& entry) noexcept override;

    Record* record_of(std::string_view name) const noexcept;
    MemoryBudget& budget_of(Reactor& home);
    void start_removal(Record& record, Done& done) noexcept;
    void check_removed(Record& record) noexcept;
    void check_stopped() noexcept;

    struct OwnBudget {
        Reactor* home;
        std::unique_ptr<MemoryBudget> budget;
    };
    std::vector<OwnBudget> budgets_;                // of the homes of exports that brought none
    std::vector<std::unique_ptr<Record>> entries_;  // in the order in which they were added
    List<Session> negotiating_;
    std::unique_ptr<Listener> listener_;
    Address address_;
    std::uint32_t connections_ = 0;
    std::uint32_t refusing_ = 0;
    std::uint64_t refused_ = 0;
    Done* stopped_ = nullptr;
    bool told_ = false;
    Tell tell_{*this};
};

}  // namespace udm::nbd
