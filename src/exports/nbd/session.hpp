// One connection, from the greeting to its end.
//
// It is negotiated on the server's reactor. Before anything is said about an export the session moves, with
// what it has read, to that export's home, and is served there; for a question about another export it comes
// back first. While it moves it belongs to nobody but the task that carries it.
#pragma once

#include <memory>

#include "exports/nbd/export.hpp"
#include "exports/nbd/negotiation.hpp"
#include "exports/nbd/transmission.hpp"

namespace udm::nbd {

struct ServerLimits {
    std::uint32_t sessions = 256;           // at a time; more are closed at once
    std::uint32_t requests = kRequestsMax;  // of one session under way, at most kRequestsMax
    Negotiation::Bounds handshake{};
    Nanoseconds handshake_time = 30 * kSecond;
    Nanoseconds grace = 10 * kSecond;  // for a client to take its last replies
    MemoryBudget::Bounds memory{};     // of each home, unless the export brings its budget
};

// What a session needs of its server; on the server's reactor.
class Directory {
  public:
    Directory(Reactor& reactor_, Network& network_, const ServerLimits& limits_) noexcept
        : reactor{reactor_}, network{network_}, limits{limits_} {}
    Reactor& reactor;
    Network& network;
    const ServerLimits limits;

    virtual Entry* find(std::string_view name) noexcept = 0;  // null: none, or on its way out
    virtual std::vector<ListedExport> list() const = 0;
    // The session is here and no export's.
    virtual void arrived(Session& session) noexcept = 0;
    // It is to be destroyed; it was here, or came for that.
    virtual void ended(Session& session) noexcept = 0;
    virtual void unbound(Entry& entry) noexcept = 0;  // one session less refers to it

  protected:
    ~Directory() = default;
};

class Session final : public ListHook, private StreamHandler, private Transmission::Owner {
  public:
    explicit Session(Directory& directory);
    ~Session();

    // On the server's reactor, once.
    void start(int fd);
    // The reactor where it is: an orderly end.
    void stop() noexcept;
    // The server's reactor, in Directory::ended(): the export it refers to, or null.
    Entry* entry() const noexcept { return entry_; }

  private:
    enum class Phase : std::uint8_t { negotiation, transmission, closing };
    enum class Goal : std::uint8_t { list, look_up, answer, end };   // why it moves
    enum class After : std::uint8_t { go_on, transmission, close };  // once the reply is out

    void received(ssize_t n) noexcept override;
    void sent(int status) noexcept override;
    void closed() noexcept override;
    void transmission_ended() noexcept override { end_later(); }

    void step() noexcept;
    void negotiate() noexcept;
    void handle(Negotiation::Next next) noexcept;
    void receive() noexcept;
    void send(After after) noexcept;
    void look_up() noexcept;
    void answer() noexcept;
    void enter_transmission() noexcept;
    void close() noexcept;
    void end_later() noexcept;

    bool is_home() const noexcept { return at_ == Place::home; }
    void move(Goal goal) noexcept;
    void arrive() noexcept;
    void leave_home() noexcept;

    struct Step final : Task {
        explicit Step(Session& of_) noexcept : of{of_} {}
        void run() noexcept override { of.step(); }
        Session& of;
    };
    struct Carrier final : Task {
        explicit Carrier(Session& of_) noexcept : of{of_} {}
        void run() noexcept override { of.arrive(); }
        Session& of;
    };
    struct Deadline final : Timer {
        explicit Deadline(Session& of_) noexcept : of{of_} {}
        void expired() noexcept override { of.close(); }
        Session& of;
    };
    enum class Place : std::uint8_t { server, home };

    Directory& directory_;
    Reactor* reactor_;  // where it is
    Place at_ = Place::server;
    Entry* entry_ = nullptr;  // counted there
    Phase phase_ = Phase::negotiation;
    After after_ = After::go_on;
    Goal goal_ = Goal::list;
    bool sending_ = false;
    bool ending_ = false;
    int fd_ = -1;  // while it moves
    Nanoseconds deadline_ = 0;
    std::unique_ptr<Stream> stream_;
    Negotiation negotiation_;
    Bytes in_;
    std::size_t begin_ = 0, end_ = 0;  // of what was received and not consumed
    Bytes out_;
    iovec out_piece_{};
    Shape shape_{};
    std::unique_ptr<Transmission> transmission_;
    Step step_{*this};
    Carrier carrier_{*this};
    Deadline timer_{*this};
};

}  // namespace udm::nbd
