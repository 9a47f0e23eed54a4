#include "exports/nbd/transmission.hpp"

#include <algorithm>
#include <bit>

#include "base/assert.hpp"

namespace udm::nbd {
namespace {

constexpr std::uint32_t kSegment = 256 << 10;
constexpr std::uint32_t kDirect = 64 << 10;   // payloads from here on get a buffer of their own if need be
constexpr std::uint32_t kRoomMin = 32 << 10;  // less room than this isn't worth a receive
constexpr std::uint32_t kSmallReceive = 4 << 10;  // while large writes come: little to copy
constexpr std::uint32_t kPieceMax = 4 << 20;      // of one receive or send, so that progress shows
constexpr std::uint32_t kStatusBuffer = 8 << 10;  // of one block status reply, all contexts together
constexpr std::uint32_t kStatusQuestions = 4096;  // asked for one context of one request

// What a pool gives for so many bytes, to count what is really held.
constexpr std::uint32_t rounded(std::uint32_t bytes) {
    return std::bit_ceil(std::max(bytes, std::uint32_t{BufferPool::kSmallest}));
}

}  // namespace

Transmission::Transmission(const Setup& setup, std::vector<Context> contexts, Owner& owner)
    : reactor_{setup.reactor},
      disk_{setup.disk},
      stream_{setup.stream},
      owner_{owner},
      memory_{setup.budget, *this},
      shape_{setup.shape},
      requests_max_{std::clamp(setup.requests, 1u, kRequestsMax)},
      grace_{setup.grace},
      contexts_{std::move(contexts)},
      slots_{std::make_unique_for_overwrite<Slot[]>(requests_max_)},
      replies_{std::make_unique<Replies[]>(2)} {
    ASSERT(shape_.block_max <= BufferPool::kLargest);
    for (std::uint32_t i = requests_max_; i-- > 0;) {
        slots_[i].next_free = free_slots_;
        free_slots_ = &slots_[i];
    }
}

Transmission::~Transmission() {
    ASSERT(in_flight_ == 0 && closed_);
    if (turn_.linked()) turn_.unlink();
}

void Transmission::start(ByteView received) noexcept {
    ASSERT(received.size() <= kSegment);
    segment_ = new_segment();
    ASSERT(segment_);  // the first piece of a session's own part
    if (!received.empty()) std::memcpy(segment_->data, received.data(), received.size());
    end_ = static_cast<std::uint32_t>(received.size());
    needed_ = kRequestSize;
    parse();
}

// --- receiving
// --------------------------------------------------------------------------------------------------

void Transmission::received(ssize_t n) noexcept {
    receiving_ = false;
    if (state_ != State::running) return check_end();
    if (n == 0 && !payload_slot_) {
        // The client is gone, or will send nothing more: it still gets its answers.
        finish();
        return;
    }
    if (n <= 0) {
        fail();
        return;
    }
    if (payload_slot_) {
        payload_received(static_cast<std::uint32_t>(n));
    } else {
        end_ += static_cast<std::uint32_t>(n);
        large_writes_ = false;  // until one is seen again
        parse();
    }
}

// Starts all requests that are there, then receives more.
void Transmission::parse() noexcept {
    blocked_ = false;
    while (state_ == State::running) {
        if (skip_ != 0 && !skip_payload()) break;
        const std::uint32_t there = end_ - begin_;
        needed_ = kRequestSize;
        if (there < kRequestSize) break;
        // Each request under way and each reply that waits has a place kept for its reply.
        if (in_flight_ + collecting().count() >= requests_max_) {
            blocked_ = true;
            break;
        }
        Request request;
        if (!parse_request(segment_->data + begin_, request)) {
            finish();  // nobody can tell where the next request starts
            break;
        }
        expect_after(request);
        const Taken taken = take(request, there);
        if (taken == Taken::blocked) blocked_ = true;
        if (taken != Taken::yes) break;
    }
    receive();
}

// While this one is served, what the next one needs can come from memory (measured: 8 % of the CPU of a write to a
// snapshot whose table of exceptions is larger than the caches).
void Transmission::expect_after(const Request& request) const noexcept {
    const std::size_t payload = request.command == static_cast<std::uint16_t>(Command::write) ? request.length : 0;
    const std::size_t next = begin_ + kRequestSize + payload;
    if (next + kRequestSize > end_) return;
    disk_.expect({request_offset(segment_->data + next) >> kSectorShift});
}

Transmission::Taken Transmission::take(const Request& request, std::uint32_t there) noexcept {
    const auto command = static_cast<Command>(request.command);
    if (command == Command::disconnect) {
        finish();
        return Taken::left;
    }
    Refusal refusal = validate(request, shape_);
    if (refusal.error == WireError::none && stopping_)
        refusal = {WireError::shutdown, describe(WireError::shutdown)};
    if (command == Command::write) {
        if (refusal.error == WireError::none && request.length != 0) return take_write(request, there);
        begin_ += kRequestSize;
        if (request.length != 0) {
            // Answered after the payload went by: a client may not look for replies before that.
            skip_ = request.length;
            skip_cookie_ = request.cookie;
            skip_refusal_ = refusal;
            return Taken::yes;
        }
    } else if (refusal.error == WireError::none && command == Command::read && request.length != 0) {
        const std::uint32_t bytes = rounded(request.length);
        if (!memory_.take(bytes)) return Taken::blocked;
        Slot& slot = new_slot(request);
        slot.bytes = bytes;
        slot.buffer = reactor_.buffers().take(bytes);
        slot.io->set_memory(slot.buffer, request.length);
        begin_ += kRequestSize;
        submit(slot, Op::read, {});
        return Taken::yes;
    } else if (refusal.error == WireError::none && command == Command::block_status) {
        if (!start_block_status(request)) return Taken::blocked;
        begin_ += kRequestSize;
        return Taken::yes;
    } else {
        begin_ += kRequestSize;
    }
    if (refusal.error != WireError::none) {
        refuse(request.cookie, refusal);
        return Taken::yes;
    }
    switch (command) {
        case Command::flush:
            submit(new_slot(request), Op::flush, {});
            return Taken::yes;
        case Command::trim:
        case Command::write_zeroes:
            if (request.length == 0) break;
            submit(new_slot(request), command == Command::trim ? Op::discard : Op::write_zeroes,
                   {.fua = (request.flags & kCmdFua) != 0,
                    .no_hole = (request.flags & kCmdNoHole) != 0,
                    .fast_only = (request.flags & kCmdFastZero) != 0});
            return Taken::yes;
        case Command::read:  // of nothing
            collecting().add_data(request, shape_.structured, nullptr);
            reply_later();
            return Taken::yes;
        default:
            break;
    }
    // Nothing to do: writes of nothing, and cache requests, which promise nothing.
    collecting().add_simple(request.cookie, WireError::none);
    reply_later();
    return Taken::yes;
}

Transmission::Taken Transmission::take_write(const Request& request, std::uint32_t there) noexcept {
    const std::uint32_t in_segment = there - static_cast<std::uint32_t>(kRequestSize);
    if (in_segment >= request.length) {
        Slot& slot = new_slot(request);
        slot.segment = segment_;
        ++segment_->users;
        void* payload = segment_->data + begin_ + kRequestSize;
        begin_ += static_cast<std::uint32_t>(kRequestSize) + request.length;
        submit_write(slot, payload);
        return Taken::yes;
    }
    if (request.length < kDirect) {
        needed_ = static_cast<std::uint32_t>(kRequestSize) + request.length;
        return Taken::incomplete;
    }
    const std::uint32_t bytes = rounded(request.length);
    if (!memory_.take(bytes)) return Taken::blocked;
    Slot& slot = new_slot(request);
    slot.bytes = bytes;
    slot.buffer = reactor_.buffers().take(bytes);
    std::memcpy(slot.buffer, segment_->data + begin_ + kRequestSize, in_segment);
    begin_ = end_;
    payload_slot_ = &slot;
    payload_there_ = in_segment;
    client_since_ = reactor_.now();
    large_writes_ = true;
    return Taken::incomplete;
}

// False: there is more to come.
bool Transmission::skip_payload() noexcept {
    const std::uint32_t n = std::min(skip_, end_ - begin_);
    skip_ -= n;
    begin_ += n;
    if (skip_ != 0) {
        needed_ = 1;
        return false;
    }
    refuse(skip_cookie_, skip_refusal_);
    return true;
}

void Transmission::receive() noexcept {
    if (receiving_ || blocked_ || state_ != State::running) return;
    if (payload_slot_) return receive_payload();
    if (!make_room()) {
        blocked_ = true;
        return;
    }
    std::uint32_t room = kSegment - end_;
    if (large_writes_) room = std::min(room, std::max(kSmallReceive, needed_));
    receiving_ = true;
    stream_.recv(segment_->data + end_, room);
}

// For what is needed from begin_ on, and more. False: no memory now.
bool Transmission::make_room() noexcept {
    if (begin_ == end_ && segment_->users == 1) begin_ = end_ = 0;
    const std::uint32_t there = end_ - begin_;
    const std::uint32_t room = kSegment - end_;
    if (room >= kRoomMin && kSegment - begin_ >= needed_) return true;
    if (segment_->users == 1) {
        std::memmove(segment_->data, segment_->data + begin_, there);
    } else {
        Segment* segment = new_segment();
        if (!segment) return false;
        std::memcpy(segment->data, segment_->data + begin_, there);
        release(*segment_);
        segment_ = segment;
    }
    begin_ = 0;
    end_ = there;
    return true;
}

void Transmission::receive_payload() noexcept {
    const std::uint32_t left = payload_slot_->request.length - payload_there_;
    receiving_ = true;
    stream_.recv(payload_slot_->buffer + payload_there_, std::min(left, kPieceMax), true);
}

void Transmission::payload_received(std::uint32_t n) noexcept {
    payload_there_ += n;
    client_since_ = reactor_.now();
    if (payload_there_ < payload_slot_->request.length) return receive_payload();
    Slot& slot = *payload_slot_;
    payload_slot_ = nullptr;
    submit_write(slot, slot.buffer);
    parse();
}

Transmission::Segment* Transmission::new_segment() noexcept {
    if (!memory_.take(kSegment)) return nullptr;
    Segment& segment = segments_.take();
    segment.data = reactor_.buffers().take(kSegment);
    segment.users = 1;
    return &segment;
}

void Transmission::release(Segment& segment) noexcept {
    if (--segment.users != 0) return;
    reactor_.buffers().give(segment.data, kSegment);
    segments_.give(segment);
    memory_.give(kSegment);
}

// --- requests
// ---------------------------------------------------------------------------------------------------

Transmission::Slot& Transmission::new_slot(const Request& request) noexcept {
    ASSERT(free_slots_);
    Slot& slot = *free_slots_;
    free_slots_ = slot.next_free;
    slot.request = request;
    slot.io = &reactor_.take_io();
    slot.bytes = 0;
    slot.segment = nullptr;
    ++in_flight_;
    return slot;
}

// What it still holds goes back.
void Transmission::free_slot(Slot& slot) noexcept {
    if (slot.bytes != 0) {
        reactor_.buffers().give(slot.buffer, slot.bytes);
        memory_.give(slot.bytes);
    }
    if (slot.segment) release(*slot.segment);
    reactor_.give_io(*slot.io);
    slot.next_free = free_slots_;
    free_slots_ = &slot;
    --in_flight_;
}

void Transmission::submit(Slot& slot, Op op, IoFlags flags) noexcept {
    Io& io = *slot.io;
    io.op = op;
    io.flags = flags;
    io.extent = {{slot.request.offset >> kSectorShift}, {slot.request.length >> kSectorShift}};
    io.push(*this, reinterpret_cast<std::uintptr_t>(&slot));
    disk_.submit(io);
}

void Transmission::submit_write(Slot& slot, void* payload) noexcept {
    slot.io->set_memory(payload, slot.request.length);
    submit(slot, Op::write, {.fua = (slot.request.flags & kCmdFua) != 0});
}

void Transmission::on_complete(Io& io, Frame& frame) noexcept {
    Slot& slot = *reinterpret_cast<Slot*>(static_cast<std::uintptr_t>(frame.a));
    const auto command = static_cast<Command>(slot.request.command);
    if (io.status == IoStatus::ok && command != Command::block_status) {
        if (state_ != State::broken) answer(slot, command);
    } else if (!answer_otherwise(slot, command)) {
        return;
    }
    free_slot(slot);
    reply_later();
}

void Transmission::answer(Slot& slot, Command command) noexcept {
    if (command != Command::read) return collecting().add_simple(slot.request.cookie, WireError::none);
    collecting().add_data(slot.request, shape_.structured, slot.buffer);
    collecting().keep(slot.buffer, slot.bytes);
    slot.bytes = 0;  // now the replies'
}

// False: it isn't over yet.
bool Transmission::answer_otherwise(Slot& slot, Command command) noexcept {
    const Io& io = *slot.io;
    // The device went away with its export, and with what it held back: the client is to ask again, not to believe
    // that the disk has failed.
    if (stopping_ && io.status == IoStatus::removed) fail();
    Refusal refusal{to_wire(io.status, (slot.request.flags & kCmdFastZero) != 0)};
    // A trim is a hint: a device that cannot do it has done all it was asked for.
    if (command == Command::trim && io.status == IoStatus::unsupported) refusal.error = WireError::none;
    if (command == Command::block_status && !block_status_answered(slot, io, refusal)) return false;
    if (state_ == State::broken) return true;
    if (refusal.error != WireError::none) {
        refusal.text = describe(refusal.error);
        refuse(slot.request.cookie, refusal);
    } else if (command == Command::block_status) {
        collecting().add_chunks(slot.buffer, slot.used);
        collecting().keep(slot.buffer, slot.bytes);
        slot.bytes = 0;
    } else {
        collecting().add_simple(slot.request.cookie, WireError::none);
    }
    return true;
}

void Transmission::refuse(std::uint64_t cookie, const Refusal& refusal) noexcept {
    if (refusal.error == WireError::none) {
        collecting().add_simple(cookie, WireError::none);
    } else {
        collecting().add_error(cookie, refusal, shape_.structured);
    }
    reply_later();
}

// --- block status
// -----------------------------------------------------------------------------------------------

// The reply is built in the request's buffer: one chunk a context, each with as many descriptors as its share
// of the buffer takes.
bool Transmission::start_block_status(const Request& request) noexcept {
    if (!memory_.take(kStatusBuffer)) return false;
    Slot& slot = new_slot(request);
    slot.bytes = kStatusBuffer;
    slot.buffer = reactor_.buffers().take(kStatusBuffer);
    slot.used = 0;
    slot.context = 0;
    begin_chunk(slot);
    ask(slot);
    return true;
}

void Transmission::begin_chunk(Slot& slot) noexcept {
    slot.chunk = slot.used;
    slot.used += sizeof(wire::StatusChunk);
    slot.position = slot.request.offset;
    slot.questions = 0;
}

void Transmission::ask(Slot& slot) noexcept {
    Io& io = *slot.io;
    const std::uint64_t end = slot.request.offset + slot.request.length;
    ++slot.questions;
    io.op = Op::extent_status;
    io.flags = {};
    io.answer = {};
    io.extent = {{slot.position >> kSectorShift}, {(end - slot.position) >> kSectorShift}};
    io.push(*this, reinterpret_cast<std::uintptr_t>(&slot));
    if (const Context& context = contexts_[slot.context]) {
        context->ask(io);
    } else {
        disk_.submit(io);
    }
}

// Adds the answer to the chunk. False: the chunk is full, and the answer was left out.
bool Transmission::note_extent(Slot& slot, const Io& io) noexcept {
    const std::uint64_t end = slot.request.offset + slot.request.length;
    // An answer ends on a block's boundary, but for the end of the export; be sure that it leads on.
    std::uint64_t length = std::min(to_bytes(io.answer.length), end - slot.position);
    if (slot.position + length != end) length &= ~std::uint64_t{shape_.block_min - 1};
    std::uint32_t flags = io.answer.flags;
    if (!contexts_[slot.context])
        flags = (io.answer.hole ? kStateHole : 0) | (io.answer.zero ? kStateZero : 0);
    if (length == 0) {  // less than a block is alike: of the whole block nothing is known
        length = shape_.block_min;
        if (!contexts_[slot.context]) flags = 0;
    }

    const std::uint32_t first = slot.chunk + static_cast<std::uint32_t>(sizeof(wire::StatusChunk));
    wire::Descriptor descriptor;
    if (slot.used > first) {
        std::byte* last = slot.buffer + slot.used - sizeof descriptor;
        std::memcpy(&descriptor, last, sizeof descriptor);
        if (descriptor.flags == flags) {  // lengths add up to the request's at most
            descriptor.length = descriptor.length + static_cast<std::uint32_t>(length);
            std::memcpy(last, &descriptor, sizeof descriptor);
            slot.position += length;
            return true;
        }
        const auto limit = static_cast<std::uint32_t>(kStatusBuffer / contexts_.size() * (slot.context + 1));
        if ((slot.request.flags & kCmdReqOne) || slot.used + sizeof descriptor > limit) return false;
    }
    descriptor = {static_cast<std::uint32_t>(length), flags};
    std::memcpy(slot.buffer + slot.used, &descriptor, sizeof descriptor);
    slot.used += sizeof descriptor;
    slot.position += length;
    return true;
}

// True: the reply is there, or the reason why there is none.
bool Transmission::block_status_answered(Slot& slot, const Io& io, Refusal& refusal) noexcept {
    bool more = true;
    if (io.status == IoStatus::unsupported && !contexts_[slot.context]) {
        // Nothing is known, and that is an answer.
        Io& answered = *slot.io;
        answered.answer = {.length = answered.extent.length};
        more = note_extent(slot, answered);
    } else if (io.status == IoStatus::ok) {
        more = note_extent(slot, io);
    } else if (slot.position == slot.request.offset) {
        return true;  // an error, and nothing before it
    } else {
        more = false;  // the client asks again for the rest, and sees the error then
    }
    refusal = {};
    const std::uint64_t end = slot.request.offset + slot.request.length;
    if (state_ != State::broken && more && slot.position < end && slot.questions < kStatusQuestions) {
        ask(slot);
        return false;
    }
    end_chunk(slot);
    if (state_ != State::broken && ++slot.context < contexts_.size()) {
        begin_chunk(slot);
        ask(slot);
        return false;
    }
    return true;
}

void Transmission::end_chunk(Slot& slot) noexcept {
    const bool last = slot.context + 1 == contexts_.size();
    const auto length = static_cast<std::uint32_t>(slot.used - slot.chunk - sizeof(wire::ChunkHeader));
    put_chunk(slot.buffer + slot.chunk, ChunkType::block_status, last ? kReplyDone : 0, slot.request.cookie,
              length);
    const be32 id = slot.context;
    std::memcpy(slot.buffer + slot.chunk + sizeof(wire::ChunkHeader), &id, sizeof id);
}

// --- replies
// ----------------------------------------------------------------------------------------------------

// At the end of the turn, when all that completes in it has completed.
void Transmission::reply_later() noexcept {
    if (sending_ && !blocked_ && state_ == State::running) return;  // sent() goes on
    if (!turn_.linked()) reactor_.post(turn_);
}

void Transmission::turn() noexcept {
    if (!sending_) send();
    if (blocked_ && state_ == State::running) parse();
    check_end();
}

void Transmission::send() noexcept {
    ASSERT(!sending_);
    if (collecting().empty() || state_ == State::broken) return;
    collecting_ ^= 1;
    client_since_ = reactor_.now();
    send_window();
}

void Transmission::send_window() noexcept {
    const Replies::Window window = outgoing().window(kPieceMax);
    sending_ = true;
    stream_.send(window.pieces, window.count);
}

void Transmission::sent(int status) noexcept {
    sending_ = false;
    if (status < 0) {
        fail();
        return;
    }
    const bool all = outgoing().advance();
    if (state_ == State::broken) return check_end();
    if (!all) {
        client_since_ = reactor_.now();
        return send_window();
    }
    drop(outgoing());
    send();
    if (blocked_) parse();
    check_end();
}

void Transmission::drop(Replies& replies) noexcept {
    for (const Replies::Payload& payload : replies.payloads()) {
        reactor_.buffers().give(payload.buffer, payload.bytes);
        memory_.give(payload.bytes);
    }
    replies.clear();
}

// --- memory
// -----------------------------------------------------------------------------------------------------

void Transmission::memory_freed() noexcept {
    if (!turn_.linked()) reactor_.post(turn_);
}

Nanoseconds Transmission::waits_for_client_since() const noexcept {
    return sending_ || payload_slot_ ? client_since_ : 0;
}

// --- the end
// ----------------------------------------------------------------------------------------------------

void Transmission::stop() noexcept {
    stopping_ = true;
    if (in_flight_ == 0 || (in_flight_ == 1 && payload_slot_)) finish();
    if (!turn_.linked()) reactor_.post(turn_);
}

void Transmission::abort() noexcept { fail(); }

void Transmission::finish() noexcept {
    if (state_ != State::running) return;
    state_ = State::finishing;
    blocked_ = false;
    memory_.forget();
    reactor_.arm(last_call_, reactor_.now() + grace_);
    if (!turn_.linked()) reactor_.post(turn_);
}

void Transmission::fail() noexcept {
    if (state_ == State::broken) return;
    state_ = State::broken;
    blocked_ = false;
    memory_.forget();
    if (!turn_.linked()) reactor_.post(turn_);
}

void Transmission::check_end() noexcept {
    // With `stopping_` no request was accepted since; the client has its answers, or they are on their way.
    if (state_ == State::running && stopping_ && in_flight_ == (payload_slot_ ? 1u : 0u)) finish();
    if (state_ == State::running) return;
    // A payload that never came whole isn't at the disk; it goes when nobody writes into it any more.
    const std::uint32_t at_disk = in_flight_ - (payload_slot_ ? 1 : 0);
    const bool answered = at_disk == 0 && !sending_ && collecting().empty();
    if (!closing_ && (state_ == State::broken || answered)) {
        closing_ = true;
        stream_.close();
    }
    if (!closed_) return;
    if (payload_slot_) {
        free_slot(*payload_slot_);
        payload_slot_ = nullptr;
    }
    if (in_flight_ != 0) return;
    drop(replies_[0]);
    drop(replies_[1]);
    if (segment_) release(*segment_);
    segment_ = nullptr;
    reactor_.cancel(last_call_);
    if (turn_.linked()) turn_.unlink();
    owner_.transmission_ended();  // may destroy this
}

void Transmission::closed() noexcept {
    ASSERT(closing_);
    closed_ = true;
    check_end();
}

}  // namespace udm::nbd
