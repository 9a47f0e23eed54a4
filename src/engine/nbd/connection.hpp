// One connection to an NBD server on a loop: hands commands to libnbd, and calls it when the socket is ready.
//
// libnbd calls back under a lock of its own, in the middle of its work: what it says there is only noted, and told to the owner
// once libnbd has returned.
#pragma once

#include <string>
#include <utility>

#include "engine/loop.hpp"
#include "engine/nbd/handshake.hpp"
#include "engine/operation.hpp"

namespace udm {

class NbdConnection;
class NbdRequest;

// One command. Belongs to the client's queue or to a connection.
struct NbdPiece : ListHook {
    enum class Kind : std::uint8_t { read, write, flush, trim, zero, status } kind{};
    std::uint8_t flags = 0;              // LIBNBD_CMD_FLAG_…
    bool again = false;                  // was sent before, on a connection that was lost
    int error = 0;
    NbdRequest* request = nullptr;       // null: the client's own
    NbdConnection* connection = nullptr;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    std::byte* memory = nullptr;
    std::uint32_t copied = 0;            // bytes of `memory`, which is a copy; 0: it is the request's own
    std::uint64_t mark = 0;              // flush: the writes it covers, as its disk counts them
    std::uint32_t extent_length = 0;     // status: the first extent, and what it is
    std::uint32_t extent_flags = 0;
};

class NbdConnection final : public Loop::Leftover {
  public:
    // Called on the loop, never inside issue().
    class Owner {
      public:
        // The server's answer: 0 or an errno. The piece is the owner's again.
        virtual void piece_done(NbdPiece& piece) noexcept = 0;
        // No more answers come from it. The owner closes it.
        virtual void connection_lost(NbdConnection& connection, const std::string& why) noexcept = 0;

      protected:
        ~Owner() = default;
    };
    NbdConnection(Loop& loop, Owner& owner, NbdHandle handle) noexcept;
    ~NbdConnection() override;

    void begin() noexcept { pump(); }
    void issue(NbdPiece& piece) noexcept;
    std::size_t load() const noexcept { return load_; }
    // Asked every tick: how many ticks it has answered nothing though it has something to answer.
    std::uint64_t quiet_ticks() noexcept {
        quiet_ticks_ = load_ == 0 || std::exchange(answers_seen_, answers_) != answers_ ? 0 : quiet_ticks_ + 1;
        return quiet_ticks_;
    }
    // What is under way goes to `unanswered`. It deletes itself when the loop has let go of it. Politely: the server is told;
    // else what is still in our socket is thrown away, not delivered late.
    void close(bool politely, List<NbdPiece>& unanswered) noexcept;

  private:
    class Poll final : public Operation {
      public:
        Poll(NbdConnection& connection, Kind what) noexcept : connection_{connection} { kind = what; }
        void done(int) noexcept override;
        bool active = false;

      private:
        NbdConnection& connection_;
    };
    class Pump final : public Task {
      public:
        explicit Pump(NbdConnection& connection) noexcept : connection_{connection} {}
        void run() noexcept override {
            if (!connection_.closed_) return connection_.pump();
            if (!connection_.in_.active && !connection_.out_.active) delete &connection_;
        }

      private:
        NbdConnection& connection_;
    };

    static int completed(void* piece, int* error) noexcept;
    static int told_extents(void* piece, const char* context, std::uint64_t offset, std::uint32_t* entries, std::size_t count,
                            int* error) noexcept;
    std::int64_t hand_over(NbdPiece& piece) noexcept;
    void settle(NbdPiece& piece) noexcept;
    void ready(const Poll& poll) noexcept;
    void note_failure() noexcept;
    bool alive() const noexcept;
    bool has_input() const noexcept;
    void pump() noexcept;
    void watch() noexcept;
    void tell_done() noexcept;
    void lost() noexcept;
    void end_if_quiet() noexcept;

    Loop& loop_;
    Owner& owner_;
    NbdHandle handle_;
    File file_;
    Poll in_{*this, Operation::Kind::readable};
    Poll out_{*this, Operation::Kind::writable};
    Pump pump_{*this};
    List<NbdPiece> under_way_;
    List<NbdPiece> done_;
    std::size_t load_ = 0;
    std::uint64_t answers_ = 0, answers_seen_ = 0, quiet_ticks_ = 0;
    bool leaving_ = false;    // the server says that it shuts down
    bool closed_ = false;
    std::string why_;
};

}  // namespace udm
