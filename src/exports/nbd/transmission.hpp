// The transmission phase of one connection: requests in, replies out.
//
// Bytes are received into large segments and all requests that are there are started in one go; a write's
// payload is used where it lies. A large payload that isn't all there yet is received into a buffer of its
// own. Replies collect while requests complete and go out together at the end of the turn; while a send is
// under way the next replies collect. Nothing grows: so many requests and so many bytes are under way, and
// beyond that nothing is received.
//
// Life: running → finishing (what is under way ends and is answered, nothing more is read; within a time) or
// broken (replies have nowhere to go) → the stream is closed → ended, when nothing is under way.
#pragma once

#include <memory>
#include <vector>

#include "base/pool.hpp"
#include "exports/nbd/budget.hpp"
#include "exports/nbd/replies.hpp"
#include "exports/nbd/validate.hpp"
#include "port/disk.hpp"
#include "port/extent_question.hpp"
#include "port/net.hpp"
#include "port/reactor.hpp"

namespace udm::nbd {

// One metadata context: a question other than what is allocated, or null for base:allocation.
using Context = std::unique_ptr<ExtentQuestion>;

class Transmission final : private Layer, private Account::Owner {
  public:
    struct Setup {
        Reactor& reactor;
        Disk& disk;
        Stream& stream;
        MemoryBudget& budget;
        Shape shape;
        std::uint32_t requests = kRequestsMax;  // under way at a time, at most kRequestsMax
        Nanoseconds grace = 10 * kSecond;       // for the client to take its last replies
    };
    class Owner {
      public:
        // Nothing is under way any more and the stream is closed. The transmission may be destroyed.
        virtual void transmission_ended() noexcept = 0;

      protected:
        ~Owner() = default;
    };

    Transmission(const Setup& setup, std::vector<Context> contexts, Owner& owner);
    ~Transmission();

    // Once, with what the handshake has received too much.
    void start(ByteView received) noexcept;
    // No more requests are accepted (NBD_ESHUTDOWN); when those under way are answered the connection is
    // closed.
    void stop() noexcept;
    // At once: what is under way ends unanswered.
    void abort() noexcept;

    // From the stream.
    void received(ssize_t n) noexcept;
    void sent(int status) noexcept;
    void closed() noexcept;

  private:
    // Receive buffer. Held by the transmission while it is the current one, and by each write whose payload
    // it has.
    struct Segment {
        std::byte* data;
        std::uint32_t users;
    };
    // A request under way at the disk.
    struct Slot {
        Request request;
        Io* io;
        std::byte* buffer;    // of its own: data, or a block status reply under construction
        std::uint32_t bytes;  // of the buffer, 0: none
        std::uint32_t used;   // block status: bytes of chunks so far
        Segment* segment;     // the payload lies in it
        Slot* next_free;
        std::uint32_t context;    // block status: the one being asked
        std::uint32_t chunk;      // block status: where its chunk starts
        std::uint32_t questions;  // block status: asked so far
        std::uint64_t position;   // block status: asked up to here
    };
    enum class State : std::uint8_t { running, finishing, broken };
    enum class Taken : std::uint8_t { yes, incomplete, blocked, left };

    void on_complete(Io& io, Frame& frame) noexcept override;
    void memory_freed() noexcept override;
    Nanoseconds waits_for_client_since() const noexcept override;
    void evict() noexcept override { fail(); }

    // Receiving.
    void parse() noexcept;
    Taken take(const Request& request, std::uint32_t there) noexcept;
    Taken take_write(const Request& request, std::uint32_t there) noexcept;
    void expect_after(const Request& request) const noexcept;
    bool skip_payload() noexcept;
    void receive() noexcept;
    bool make_room() noexcept;
    void receive_payload() noexcept;
    void payload_received(std::uint32_t n) noexcept;
    Segment* new_segment() noexcept;
    void release(Segment& segment) noexcept;

    // Requests.
    Slot& new_slot(const Request& request) noexcept;
    void free_slot(Slot& slot) noexcept;
    void submit(Slot& slot, Op op, IoFlags flags) noexcept;
    void submit_write(Slot& slot, void* payload) noexcept;
    void answer(Slot& slot, Command command) noexcept;
    bool answer_otherwise(Slot& slot, Command command) noexcept;
    void refuse(std::uint64_t cookie, const Refusal& refusal) noexcept;
    bool start_block_status(const Request& request) noexcept;
    void begin_chunk(Slot& slot) noexcept;
    void ask(Slot& slot) noexcept;
    bool note_extent(Slot& slot, const Io& io) noexcept;
    bool block_status_answered(Slot& slot, const Io& io, Refusal& refusal) noexcept;
    void end_chunk(Slot& slot) noexcept;

    // Replies.
    Replies& collecting() noexcept { return replies_[collecting_]; }
    Replies& outgoing() noexcept { return replies_[collecting_ ^ 1]; }
    void reply_later() noexcept;
    void turn() noexcept;
    void send() noexcept;
    void send_window() noexcept;
    void drop(Replies& replies) noexcept;

    // The end.
    void finish() noexcept;
    void fail() noexcept;
    void check_end() noexcept;

    struct Turn final : Task {
        explicit Turn(Transmission& of_) noexcept : of{of_} {}
        void run() noexcept override { of.turn(); }
        Transmission& of;
    };
    struct Grace final : Timer {
        explicit Grace(Transmission& of_) noexcept : of{of_} {}
        void expired() noexcept override { of.fail(); }
        Transmission& of;
    };

    Reactor& reactor_;
    Disk& disk_;
    Stream& stream_;
    Owner& owner_;
    Account memory_;
    const Shape shape_;
    const std::uint32_t requests_max_;
    const Nanoseconds grace_;
    std::vector<Context> contexts_;

    State state_ = State::running;
    bool stopping_ = false;
    bool receiving_ = false;
    bool sending_ = false;
    bool blocked_ = false;  // something must end before the next request is taken
    bool closing_ = false;
    bool closed_ = false;
    bool large_writes_ = false;  // the last one's payload got a buffer of its own
    std::uint8_t collecting_ = 0;
    std::uint32_t in_flight_ = 0;

    Segment* segment_ = nullptr;         // the current one
    std::uint32_t begin_ = 0, end_ = 0;  // in it: what was received and not parsed
    std::uint32_t needed_ = 0;           // bytes from begin_ on that the next step wants
    std::uint32_t skip_ = 0;             // payload of a refused write still to come
    std::uint64_t skip_cookie_ = 0;
    Refusal skip_refusal_;
    Slot* payload_slot_ = nullptr;  // receives its payload straight
    std::uint32_t payload_there_ = 0;
    Nanoseconds client_since_ = 0;  // when the send or the payload under way last made progress

    Slot* free_slots_ = nullptr;
    Turn turn_{*this};
    Grace last_call_{*this};
    Pool<Segment> segments_{16};
    std::unique_ptr<Slot[]> slots_;
    std::unique_ptr<Replies[]> replies_;
};

}  // namespace udm::nbd
