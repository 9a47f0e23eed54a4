#include "test/system/crash_load/load.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>

namespace crash {
namespace {

constexpr std::uint32_t kMostSectors = 128;   // of one request
constexpr std::uint64_t kFlushEvery = 48;     // writes of a volume, about
constexpr std::uint32_t kShuttingDown = 108;  // NBD_ESHUTDOWN: the server is about to go

double now_s() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

struct Load::Slot {
    std::uint16_t type = 0;
    bool busy = false, fua = false;
    Seq seq = 0;
    std::uint64_t first = 0, mark = 0;
    std::uint32_t count = 0;
};

struct Load::Peer {
    nbd::Connection connection;
    std::vector<Slot> slots;
    std::string out;
    std::size_t out_next = 0;
    std::vector<unsigned char> in;
    std::size_t in_fill = 0;
};

struct Load::Target {
    Volume* volume;
    nbd::Uri uri;
    bool writes = false, leaving = false, can_zero = false;
    std::vector<Peer> peers;
    std::vector<std::uint8_t> writing, reading;  // by sector
    std::uint64_t writes_since_flush = 0, in_flight = 0, verify_next = 0;
    bool flushing = false;
};

Load::Load(const Settings& settings, Journal& journal, Model& model, Seq first_seq)
    : settings_{settings}, journal_{journal}, model_{model}, prng_{settings.seed}, next_seq_{first_seq} {}

Load::~Load() = default;

void Load::add(Volume& volume, const std::string& uri, bool writes) {
    auto target = std::make_unique<Target>();
    target->volume = &volume;
    target->uri = nbd::Uri::parse(uri);
    target->writes = writes;
    target->writing.resize(volume.sectors());
    target->reading.resize(volume.sectors());
    targets_.push_back(std::move(target));
    if (connected_) away_since_ = now_s();
    connected_ = false;  // until the newcomer has its connections, too
}

void Load::remove(const std::string& name) {
    for (auto& t : targets_)
        if (t->volume->name() == name) t->leaving = true;
    std::erase_if(targets_, [](const auto& t) { return t->leaving && t->in_flight == 0; });
}

bool Load::has(const std::string& name) const noexcept {
    return std::ranges::any_of(targets_, [&](const auto& t) { return t->volume->name() == name; });
}

bool Load::quiet() const noexcept {
    return std::ranges::all_of(targets_, [](const auto& t) { return t->in_flight == 0; });
}

void Load::restart_verify() {
    for (auto& t : targets_) t->verify_next = 0;
}

bool Load::connect_all() {
    for (auto& t : targets_) {
        if (!t->peers.empty()) continue;
        try {
            std::vector<Peer> peers(settings_.connections);
            for (std::size_t i = 0; i < peers.size(); ++i) {
                auto& peer = peers[i];
                peer.connection = nbd::Connection::open(t->uri, 5000);
                if (i == 0 && !(peer.connection.flags & nbd::kCanMultiConn)) peers.resize(1);
                peer.slots.resize(settings_.depth);
                peer.in.resize((kMostSectors + 1) * kSectorSize * 4);
            }
            const auto& c = peers.front().connection;
            if (c.size / kSectorSize != t->volume->sectors())
                throw Violation{fmt::format("{}: the export has {} bytes, not {}", t->volume->name(), c.size,
                                            t->volume->sectors() * kSectorSize)};
            if (t->writes && (c.flags & (nbd::kReadOnly | nbd::kSendFlush | nbd::kSendFua)) !=
                                 (nbd::kSendFlush | nbd::kSendFua))
                throw RequestFailed{t->volume->name() +
                                    ": the export cannot be written, flushed or has no FUA"};
            t->can_zero = (c.flags & nbd::kSendWriteZeroes) != 0;
            t->peers = std::move(peers);
        } catch (const nbd::ConnectError& e) {
            why_away_ = t->volume->name() + ": " + e.what();
            if (now_s() - away_since_ > settings_.patience_s)
                throw StayedAway{fmt::format("no server within {} s: {}", settings_.patience_s, why_away_)};
            return false;
        }
    }
    connected_ = true;
    return true;
}

// All exports are of one server: when one connection breaks, they all count as broken, and what was in flight
// is in doubt.
void Load::lose_all(const std::string& why) {
    why_away_ = why;
    away_since_ = now_s();
    connected_ = false;
    ++counters_.losses;
    for (auto& t : targets_) {
        t->peers.clear();
        std::ranges::fill(t->writing, std::uint8_t{0});
        std::ranges::fill(t->reading, std::uint8_t{0});
        t->in_flight = 0;
        t->flushing = false;
    }
    journal_.lost();
    restart_verify();
    std::erase_if(targets_, [](const auto& t) { return t->leaving; });
}

bool Load::turn(int other_fd, int timeout_ms) {
    std::erase_if(targets_, [](const auto& t) { return t->leaving && t->in_flight == 0; });
    if (!connected_ && !connect_all()) {
        pollfd p{other_fd, POLLIN, 0};
        return ::poll(&p, 1, std::min(timeout_ms, 10)) > 0;
    }
    std::vector<pollfd> fds{{other_fd, POLLIN, 0}};
    for (auto& t : targets_) {
        for (auto& peer : t->peers) {
            issue(*t, peer);
            const bool blocked = peer.out_next < peer.out.size();
            fds.push_back({peer.connection.fd, static_cast<short>(POLLIN | (blocked ? POLLOUT : 0)), 0});
        }
    }
    journal_.write_out();  // what is about to be sent is written down first
    try {
        for (auto& t : targets_)
            for (auto& peer : t->peers) send(peer);
        if (verifying_ && quiet() && std::ranges::all_of(targets_, [](const auto& t) {
                return t->verify_next == t->volume->sectors();
            }))
            verifying_ = false;
        const int n =
            ::poll(fds.data(), fds.size(), verifying_ || !quiet() ? timeout_ms : std::min(timeout_ms, 5));
        if (n <= 0) return false;
        std::size_t i = 1;
        for (auto& t : targets_)
            for (auto& peer : t->peers)
                if (fds[i++].revents & ~POLLOUT) receive(*t, peer);
    } catch (const nbd::ConnectError& e) {
        lose_all(e.what());
    }
    return (fds[0].revents & (POLLIN | POLLHUP)) != 0;
}

void Load::issue(Target& target, Peer& peer) {
    if (peer.out_next < peer.out.size() || target.leaving) return;
    peer.out.clear();
    peer.out_next = 0;
    for (auto& slot : peer.slots) {
        if (slot.busy) continue;
        // Verifying waits for writes to end, and leaves the rest to the last of them.
        const bool go_on = verifying_ ? issue_verify(target, peer) : !held_ && issue_one(target, peer);
        if (!go_on) break;
    }
}

bool Load::pick_range(Target& target, bool for_write, std::uint64_t& first, std::uint32_t& count) {
    constexpr std::uint32_t kCounts[] = {1, 2, 3, 8, 8, 8, 8, 9, 16, 17, 32, 64, kMostSectors};
    const std::uint64_t sectors = target.volume->sectors();
    for (int attempt = 0; attempt < 8; ++attempt) {
        count = static_cast<std::uint32_t>(
            std::min<std::uint64_t>(kCounts[prng_.below(std::size(kCounts))], sectors));
        // Half of all goes to a sixteenth of the volume, so that sectors are written again before they are
        // flushed.
        const std::uint64_t span =
            prng_.chance(1, 2) ? std::max<std::uint64_t>(sectors / 16, count) : sectors;
        first = prng_.below(span - count + 1);
        if (prng_.chance(3, 4)) first &= ~std::uint64_t{7};  // most clients align to 4 KiB
        bool free = true;
        for (std::uint64_t s = first; s < first + count && free; ++s)
            free = !target.writing[s] && !(for_write && target.reading[s]);
        if (free) return true;
    }
    return false;
}

bool Load::issue_one(Target& target, Peer& peer) {
    auto& slot = *std::ranges::find_if(peer.slots, [](const Slot& s) { return !s.busy; });
    slot = Slot{};
    if (target.writes && target.writes_since_flush >= kFlushEvery && !target.flushing && prng_.chance(1, 4)) {
        slot.type = nbd::kFlush;
        slot.mark = model_.flush_mark(*target.volume);
        target.writes_since_flush = 0;
        target.flushing = true;
    } else if (target.writes && prng_.chance(3, 5)) {
        if (!pick_range(target, true, slot.first, slot.count)) return false;
        slot.type = target.can_zero && prng_.chance(1, 16) ? nbd::kWriteZeroes : nbd::kWrite;
        slot.fua = prng_.chance(1, 16);
        slot.seq = next_seq_++ | (slot.type == nbd::kWriteZeroes ? kZero : 0);
        ++target.writes_since_flush;
        ++counters_.writes;
        for (std::uint64_t s = slot.first; s < slot.first + slot.count; ++s) target.writing[s] = 1;
        journal_.sent(*target.volume, slot.seq, slot.first, slot.count);
    } else {
        if (!pick_range(target, false, slot.first, slot.count)) return false;
        slot.type = nbd::kRead;
        for (std::uint64_t s = slot.first; s < slot.first + slot.count; ++s) ++target.reading[s];
    }
    request(target, peer, slot);
    return true;
}

bool Load::issue_verify(Target& target, Peer& peer) {
    if (target.verify_next == 0 && target.in_flight > 0) return false;  // writes of before must end first
    if (target.verify_next == target.volume->sectors()) return false;
    auto& slot = *std::ranges::find_if(peer.slots, [](const Slot& s) { return !s.busy; });
    slot = Slot{};
    slot.type = nbd::kRead;
    slot.first = target.verify_next;
    slot.count = static_cast<std::uint32_t>(
        std::min<std::uint64_t>(kMostSectors, target.volume->sectors() - target.verify_next));
    target.verify_next += slot.count;
    for (std::uint64_t s = slot.first; s < slot.first + slot.count; ++s) ++target.reading[s];
    request(target, peer, slot);
    return true;
}

void Load::request(Target& target, Peer& peer, Slot& slot) {
    slot.busy = true;
    ++target.in_flight;
    nbd::Request head;
    head.type = slot.type;
    head.flags = slot.fua ? nbd::kCommandFua : 0;
    head.handle = static_cast<std::uint64_t>(&slot - peer.slots.data());
    head.offset = slot.first * kSectorSize;
    head.length = static_cast<std::uint32_t>(slot.count * kSectorSize);
    peer.out.append(reinterpret_cast<const char*>(&head), sizeof head);
    if (slot.type != nbd::kWrite) return;
    const std::size_t at = peer.out.size();
    peer.out.resize(at + slot.count * kSectorSize);
    for (std::uint32_t i = 0; i < slot.count; ++i)
        fill_sector(reinterpret_cast<unsigned char*>(&peer.out[at + i * kSectorSize]), slot.seq,
                    slot.first + i);
}

void Load::send(Peer& peer) {
    while (peer.out_next < peer.out.size()) {
        const ssize_t n = ::send(peer.connection.fd, &peer.out[peer.out_next],
                                 peer.out.size() - peer.out_next, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0 && errno == EAGAIN) return;
        if (n < 0) throw nbd::ConnectError(errno, std::string("send: ") + std::strerror(errno));
        peer.out_next += static_cast<std::size_t>(n);
    }
}

void Load::receive(Target& target, Peer& peer) {
    const ssize_t n =
        ::recv(peer.connection.fd, &peer.in[peer.in_fill], peer.in.size() - peer.in_fill, MSG_DONTWAIT);
    if (n < 0 && (errno == EINTR || errno == EAGAIN)) return;
    if (n < 0) throw nbd::ConnectError(errno, std::string("recv: ") + std::strerror(errno));
    if (n == 0) throw nbd::ConnectError(ECONNRESET, "the server closed the connection");
    peer.in_fill += static_cast<std::size_t>(n);
    std::size_t at = 0;
    while (peer.in_fill - at >= sizeof(nbd::SimpleReply)) {
        nbd::SimpleReply reply;
        std::memcpy(&reply, &peer.in[at], sizeof reply);
        const std::uint64_t index = reply.handle;
        if (reply.magic != nbd::kSimpleReplyMagic || index >= peer.slots.size() || !peer.slots[index].busy)
            throw Violation{target.volume->name() +
                            ": the server sent what is no reply to a request in flight"};
        Slot& slot = peer.slots[index];
        const std::size_t length = slot.type == nbd::kRead && reply.error == 0 ? slot.count * kSectorSize : 0;
        if (peer.in_fill - at < sizeof reply + length) break;
        complete(target, slot, reply.error, &peer.in[at + sizeof reply]);
        at += sizeof reply + length;
    }
    std::memmove(peer.in.data(), &peer.in[at], peer.in_fill - at);
    peer.in_fill -= at;
}

void Load::release(Target& target, Slot& slot) {
    slot.busy = false;
    --target.in_flight;
    for (std::uint64_t s = slot.first; s < slot.first + slot.count; ++s) {
        if (slot.type == nbd::kRead)
            --target.reading[s];
        else
            target.writing[s] = 0;
    }
}

void Load::complete(Target& target, Slot& slot, std::uint32_t error, const unsigned char* data) {
    if (error == kShuttingDown)
        throw nbd::ConnectError(static_cast<int>(error), "the server is shutting down");
    if (error != 0 && slot.type == nbd::kFlush && settings_.flush_may_fail) {
        ++counters_.failed_flushes;
        target.flushing = false;
        return release(target, slot);
    }
    if (error != 0)
        throw RequestFailed{fmt::format("{}: request of type {} for {} sectors from {} on failed: {}",
                                        target.volume->name(), slot.type, slot.count, slot.first,
                                        nbd::error_name(error))};
    release(target, slot);
    switch (slot.type) {
        case nbd::kRead:
            ++counters_.reads;
            counters_.sectors_checked += slot.count;
            journal_.check(*target.volume, slot.first, {data, slot.count * kSectorSize});
            break;
        case nbd::kFlush:
            ++counters_.flushes;
            target.flushing = false;
            journal_.flushed(*target.volume, slot.mark);
            break;
        default:
            ++counters_.acknowledged;
            journal_.acknowledged(*target.volume, slot.seq, slot.first, slot.count, slot.fua);
    }
}

}  // namespace crash
