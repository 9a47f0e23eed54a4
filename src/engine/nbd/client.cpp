// Requests: cut into commands, handed to the connections, and put together again.
#include "engine/nbd/client.hpp"

#include <algorithm>
#include <cerrno>

namespace udm {
namespace {

constexpr unsigned kPiecesMax = 8;                                         // of one request, at a time
constexpr std::size_t kLoadMax = 128;                                      // commands of one connection, at a time
constexpr std::uint64_t kDirect = std::uint64_t{64} << 10;                 // smaller pieces of memory are gathered in a copy
constexpr std::uint64_t kCopyMax = std::uint64_t{1} << 20;
constexpr std::uint64_t kWithoutDataMax = std::uint64_t{1} << 30;          // lengths have 32 bits

// What the server finds wrong with a request that we checked is trouble of the server's.
IoStatus status_of(int error) noexcept {
    switch (error) {
        case EINVAL:
        case ERANGE:
        case EOVERFLOW:
            return IoStatus::io_error;
        default:
            return status_from_errno(error);
    }
}

bool can(const NbdFacts& facts, const Io& io) noexcept {
    switch (io.op) {
        case Op::discard:
            return facts.trim;
        case Op::write_zeroes:
            return facts.zero && (facts.fast_zero || !io.flags.fast_only);
        default:
            return true;
    }
}

}  // namespace

NbdDisk::NbdDisk(NbdClient& client, bool read_only) noexcept : client_{client} {
    const NbdFacts facts = client.facts();
    limits_.size = whole_sectors(facts.size - facts.size % facts.block);
    limits_.logical_block = facts.block;
    limits_.physical_block = std::max(facts.block, std::min(facts.preferred, std::uint32_t{4096}));
    limits_.optimal_io = facts.preferred;
    limits_.discard_granularity = facts.trim ? facts.block : 0;
    limits_.discard = facts.trim;
    limits_.write_zeroes = facts.zero;
    limits_.fast_zeroes = facts.fast_zero;
    limits_.volatile_cache = facts.flush;
    limits_.read_only = read_only || facts.read_only;
}

void NbdDisk::refresh() noexcept { limits_.size = whole_sectors(client_.size() - client_.size() % limits_.logical_block); }

void NbdDisk::submit(Io& io) noexcept {
    Loop& loop = client_.loop();
    ASSERT(loop.is_current());
    if (io.op == Op::flush) {
        if (!limits_.volatile_cache || limits_.read_only) return loop.complete_later(io, IoStatus::ok);
    } else {
        const std::uint64_t block = limits_.logical_block >> kSectorShift;
        const Extent& extent = io.extent;
        const bool fits = extent.length <= limits_.size && extent.first.v <= limits_.size.v - extent.length.v;
        if (!fits || extent.first.v % block != 0 || extent.length.v % block != 0) return loop.complete_later(io, IoStatus::invalid);
        if (io.is_write() && limits_.read_only) return loop.complete_later(io, IoStatus::read_only);
        if (!extent.length) return loop.complete_later(io, IoStatus::ok);
    }
    client_.start(*this, io);
}

void NbdClient::start(NbdDisk& disk, Io& io) noexcept {
    if (!disk.linked()) disks_.push_back(disk);
    if (io.op == Op::flush && std::exchange(disk.doubt_, false)) return loop_.complete_later(io, IoStatus::io_error);
    if (!can(facts_, io)) return loop_.complete_later(io, IoStatus::unsupported);
    if (io.op == Op::extent_status && !facts_.extents) {
        io.answer.length = io.extent.length;
        io.answer.hole = io.answer.zero = false;
        return loop_.complete_later(io, IoStatus::ok);
    }
    if (is_given_up()) return loop_.complete_later(io, IoStatus::io_error);
    if (io.op == Op::flush && !facts_.flush) return loop_.complete_later(io, IoStatus::ok);    // it was not known when the table was loaded
    NbdRequest& request = request_pool_.take(disk, io);
    request.total = io.op == Op::flush ? 1 : to_bytes(io.extent.length);
    request.flush_after = io.is_write() && io.flags.fua && facts_.flush && !facts_.fua;
    if (requests_.empty()) quiet_since_ = ticks_;
    request.since = ticks_;
    requests_.push_back(request);
    if (!tick_.armed()) loop_.arm(tick_, loop_.now() + kTick);
    advance(request);
    dispatch();
}

// As much of it as may be under way at a time goes into the queue; when nothing is left, it ends.
void NbdClient::advance(NbdRequest& request) noexcept {
    while (request.status == IoStatus::ok && request.at < request.total && request.outstanding < kPiecesMax) {
        waiting_.push_back(next_piece(request));
        ++request.outstanding;
    }
    if (request.outstanding != 0) return;
    if (request.status != IoStatus::ok || !request.flush_after || request.syncing) return finish(request);
    request.syncing = true;
    NbdPiece& flush = piece_pool_.take();
    flush.kind = NbdPiece::Kind::flush;
    flush.request = &request;
    waiting_.push_back(flush);
    ++request.outstanding;
}

NbdPiece& NbdClient::next_piece(NbdRequest& request) noexcept {
    NbdPiece& piece = piece_pool_.take();
    const Io& io = request.io;
    const std::uint64_t left = request.total - request.at;
    piece.request = &request;
    piece.offset = to_bytes(io.extent.first) + request.at;
    piece.length = std::min(left, kWithoutDataMax);
    // Without flushes there is no other way to have anything durable.
    if (io.is_write() && facts_.fua && (io.flags.fua || !facts_.flush)) piece.flags = LIBNBD_CMD_FLAG_FUA;
    switch (io.op) {
        case Op::read:
        case Op::write:
            piece.kind = io.op == Op::read ? NbdPiece::Kind::read : NbdPiece::Kind::write;
            plan_transfer(request, piece);
            break;
        case Op::flush:
            piece.kind = NbdPiece::Kind::flush;
            piece.offset = piece.length = 0;
            request.at = request.total;
            return piece;
        case Op::discard:
            piece.kind = NbdPiece::Kind::trim;
            break;
        case Op::write_zeroes:
            piece.kind = NbdPiece::Kind::zero;
            if (io.flags.no_hole) piece.flags |= LIBNBD_CMD_FLAG_NO_HOLE;
            if (io.flags.fast_only) piece.flags |= LIBNBD_CMD_FLAG_FAST_ZERO;
            break;
        case Op::extent_status:
            piece.kind = NbdPiece::Kind::status;
            piece.flags = LIBNBD_CMD_FLAG_REQ_ONE;
            request.at = request.total;
            return piece;
    }
    request.at += piece.length;
    return piece;
}

// Straight from or into the request's memory where there is enough of it in one piece.
void NbdClient::plan_transfer(NbdRequest& request, NbdPiece& piece) noexcept {
    const Io& io = request.io;
    const std::uint64_t left = request.total - request.at;
    const Buffers from = io.buffers.advanced(request.at);
    std::uint64_t direct = std::min({from.contiguous(), left, std::uint64_t{facts_.payload_max}});
    direct -= direct % facts_.block;
    if (direct >= std::min({left, kDirect, std::uint64_t{facts_.payload_max}})) {
        piece.memory = from.data();
        piece.length = direct;
        return;
    }
    piece.length = std::min({left, kCopyMax, std::uint64_t{facts_.payload_max}});
    piece.copied = static_cast<std::uint32_t>(piece.length);
    piece.memory = loop_.buffers().take(piece.length);
    if (io.op == Op::write) from.copy_to(piece.memory, piece.length);
}

void NbdClient::give_piece(NbdPiece& piece) noexcept {
    if (piece.copied != 0) loop_.buffers().give(piece.memory, piece.copied);
    piece_pool_.give(piece);
}

void NbdClient::finish(NbdRequest& request) noexcept {
    request.unlink();
    loop_.complete_later(request.io, request.status);
    request_pool_.give(request);
}

void NbdClient::dispatch() noexcept {
    while (!waiting_.empty()) {
        NbdConnection* const connection = pick();
        if (!connection) return;
        NbdPiece& piece = waiting_.pop_front();
        if (piece.kind == NbdPiece::Kind::flush) piece.mark = piece.request->disk.written_;
        connection->issue(piece);
    }
}

// The one with the least to do; of equal ones each in its turn.
NbdConnection* NbdClient::pick() noexcept {
    NbdConnection* best = nullptr;
    for (std::size_t i = 0; i < members_.size(); ++i) {
        NbdConnection* const connection = members_[(next_member_ + i) % members_.size()];
        if (!best || connection->load() < best->load()) best = connection;
    }
    if (!best || best->load() >= kLoadMax) return nullptr;
    ++next_member_;
    return best;
}

void NbdClient::note_answer(NbdRequest& request, NbdPiece& piece) noexcept {
    NbdDisk& disk = request.disk;
    switch (piece.kind) {
        case NbdPiece::Kind::read:
            if (piece.copied == 0) return;
            request.io.buffers.advanced(piece.offset - to_bytes(request.io.extent.first)).copy_from(piece.memory, piece.length);
            return;
        case NbdPiece::Kind::write:
        case NbdPiece::Kind::trim:
        case NbdPiece::Kind::zero:
            // What brings its own flush is sent again in full if that does not come through.
            if (facts_.flush && (piece.flags & LIBNBD_CMD_FLAG_FUA) == 0 && !request.flush_after) ++disk.written_;
            return;
        case NbdPiece::Kind::flush:
            disk.flushed_ = std::max(disk.flushed_, piece.mark);
            return;
        case NbdPiece::Kind::status: {
            // In whole sectors; the rest of one that is not alike is called data.
            constexpr std::uint32_t kHole = 1, kZero = 2;
            const Sectors asked = request.io.extent.length;
            const Sectors alike = whole_sectors(piece.extent_length);
            ExtentAnswer& answer = request.io.answer;
            answer.length = std::clamp(alike, Sectors{1}, asked);
            answer.hole = alike && (piece.extent_flags & kHole) != 0;
            answer.zero = alike && (piece.extent_flags & kZero) != 0;
            return;
        }
    }
}

void NbdClient::piece_done(NbdPiece& piece) noexcept {
    ++answers_;
    if (!piece.request) {
        ASSERT(&piece == proof_);
        const int error = piece.error;
        piece_pool_.give(*std::exchange(proof_, nullptr));
        proved(error);
        return;
    }
    NbdRequest& request = *piece.request;
    if (piece.error == 0) {
        note_answer(request, piece);
    } else {
        request.status = first_error(request.status, status_of(piece.error));
    }
    give_piece(piece);
    --request.outstanding;
    advance(request);
    dispatch();
}

}  // namespace udm
