#include "test/bench/nbdload/load.hpp"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace load {
namespace {

std::uint64_t monotonic_ns() {
    timespec t{};
    ::clock_gettime(CLOCK_MONOTONIC, &t);
    return std::uint64_t(t.tv_sec) * 1'000'000'000 + std::uint64_t(t.tv_nsec);
}

template <class T>
void shuffle(std::vector<T>& v, udm::Prng& prng) {
    for (std::size_t i = v.size(); i > 1; --i) std::swap(v[i - 1], v[prng.below(i)]);
}

[[noreturn]] void lost(const char* what, int error) {
    throw nbd::ConnectError(error, std::string(what) + ": " + std::strerror(error));
}

constexpr std::size_t kIovMax = 1024;

}  // namespace

Plan::Plan(const Options& o, std::uint64_t export_size)
    : start_{o.start},
      size_{o.size},
      random_{o.mode == Mode::randread || o.mode == Mode::randwrite},
      prng_{o.seed} {
    if (o.start > export_size) throw std::invalid_argument("--start is beyond the export's end");
    const std::uint64_t range = o.range != 0 ? o.range : export_size - o.start;
    if (range > export_size - o.start) throw std::invalid_argument("--range goes beyond the export's end");
    blocks_ = range / size_;
    if (blocks_ == 0) throw std::invalid_argument("the range holds no block of --size");
    limit_ = o.requests != 0 ? o.requests : ~0ull;
    if (!o.each_block_once()) return;
    const std::uint64_t per_slot = o.slot == 0 ? 1 : o.slot / size_, slots = blocks_ / per_slot;
    if (blocks_ > (1ull << 28) || slots == 0)
        throw std::invalid_argument("firsttouch, again and discard take ranges of one slot to 2^28 blocks");
    order_.resize(slots);
    for (std::uint64_t i = 0; i < slots; ++i)
        order_[i] = static_cast<std::uint32_t>(i * per_slot + (per_slot == 1 ? 0 : prng_.below(per_slot)));
    shuffle(order_, prng_);
    limit_ = std::min<std::uint64_t>(limit_, slots);
    order_.resize(limit_);
    if (o.mode == Mode::again) shuffle(order_, prng_);
}

bool Plan::next(std::uint64_t& offset) noexcept {
    if (issued_ == limit_) return false;
    const std::uint64_t block = !order_.empty() ? order_[issued_]
                                : random_       ? prng_.below(blocks_)
                                                : issued_ % blocks_;
    ++issued_;
    offset = start_ + block * size_;
    return true;
}

Load::Load(const Options& options, const nbd::Uri& uri)
    : options_{options},
      command_{options.mode == Mode::discard ? nbd::kTrim
               : options.writes()            ? nbd::kWrite
                                             : nbd::kRead} {
    epoll_ = ::epoll_create1(EPOLL_CLOEXEC);
    payload_.resize(options.size);
    udm::Prng prng{options.seed ^ 0xda7a};  // random content: no server may take it for zeroes
    for (auto& byte : payload_) byte = static_cast<unsigned char>(prng.next());
    peers_.resize(options.connections);
    for (auto& peer : peers_) {
        peer.connection = nbd::Connection::open(uri);
        peer.slots.resize(options.depth);
        for (unsigned i = options.depth; i-- > 0;) peer.free.push_back(i);
        peer.out.reserve(2 * std::size_t{options.depth});
        peer.in = std::make_unique<unsigned char[]>(kReceiveSize);
        const timeval patience{.tv_sec = 10};
        ::setsockopt(peer.connection.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
        epoll_event event{.events = EPOLLIN, .data = {.ptr = &peer}};
        ::epoll_ctl(epoll_, EPOLL_CTL_ADD, peer.connection.fd, &event);
    }
    const auto& c = peers_.front().connection;
    if (options.writes() && (c.flags & nbd::kReadOnly))
        throw std::invalid_argument("the export is read-only");
    if (options.mode == Mode::discard && !(c.flags & nbd::kSendTrim))
        throw std::invalid_argument("the export takes no discards");
    if (options.fua && !(c.flags & nbd::kSendFua)) throw std::invalid_argument("the export has no FUA");
    if ((options.flush_every != 0 || options.flush_at_end) && !(c.flags & nbd::kSendFlush))
        throw std::invalid_argument("the export has no flush");
    plan_ = std::make_unique<Plan>(options, c.size);
}

void Load::start_counting() {
    result_ = Result{};
    result_.server_before = usage_of(options_.pid);
    client_cpu_start_ = usage_of(0).cpu_ns;
    start_ns_ = now_ns_ = monotonic_ns();
    stop_ns_ = options_.seconds > 0 ? start_ns_ + static_cast<std::uint64_t>(options_.seconds * 1e9) : ~0ull;
    counting_ = true;
}

Result Load::run() {
    const std::uint64_t warm_until = monotonic_ns() + static_cast<std::uint64_t>(options_.warmup * 1e9);
    now_ns_ = monotonic_ns();
    if (options_.warmup == 0) start_counting();
    for (auto& peer : peers_) fill(peer);
    std::vector<epoll_event> events(peers_.size());
    while (in_flight_ > 0 || flush_at_end()) {
        auto& only = peers_.front();
        if (peers_.size() == 1 && !only.wants_out) {
            receive(only, true);
        } else {
            const int n = ::epoll_wait(epoll_, events.data(), static_cast<int>(events.size()), 10'000);
            if (n < 0 && errno != EINTR) lost("epoll_wait", errno);
            if (n == 0) throw nbd::ConnectError(ETIMEDOUT, "no answer within 10 s");
            for (int i = 0; i < n; ++i) {
                auto& peer = *static_cast<Peer*>(events[static_cast<std::size_t>(i)].data.ptr);
                if (events[static_cast<std::size_t>(i)].events & EPOLLOUT) send(peer);
                if (events[static_cast<std::size_t>(i)].events & ~std::uint32_t{EPOLLOUT})
                    receive(peer, false);
            }
        }
        if (!counting_ && now_ns_ >= warm_until) start_counting();
        if (counting_ && now_ns_ >= stop_ns_) issuing_ = false;
    }
    result_.seconds = static_cast<double>(now_ns_ - start_ns_) / 1e9;
    result_.server_after = usage_of(options_.pid);
    result_.client_cpu_ns = usage_of(0).cpu_ns - client_cpu_start_;
    return result_;
}

// Starts the last flush, once. False: nothing is left to do.
bool Load::flush_at_end() {
    if (!options_.flush_at_end) return false;
    options_.flush_at_end = false;
    add_request(peers_.front(), nbd::kFlush, 0, now_ns_);
    send(peers_.front());
    return true;
}

void Load::add_request(Peer& peer, std::uint16_t type, std::uint64_t offset, std::uint64_t now) {
    const std::uint32_t index = peer.free.back();
    peer.free.pop_back();
    Slot& slot = peer.slots[index];
    slot.busy = true;
    slot.sent_ns = now;
    slot.request.type = type;
    slot.request.flags = type == nbd::kWrite && options_.fua ? nbd::kCommandFua : 0;
    slot.request.handle = index;
    slot.request.offset = offset;
    slot.request.length = type == nbd::kFlush ? 0 : options_.size;
    peer.out.push_back({&slot.request, sizeof slot.request});
    if (type == nbd::kWrite) peer.out.push_back({payload_.data(), payload_.size()});
    ++in_flight_;
}

// Puts every free slot to work, then sends all that is new at once.
void Load::fill(Peer& peer) {
    if (peer.out_next < peer.out.size()) return;  // the socket is full: later, from send()
    peer.out.clear();
    peer.out_next = 0;
    while (issuing_ && !peer.free.empty()) {
        if (options_.flush_every != 0 && peer.writes_since_flush >= options_.flush_every) {
            peer.writes_since_flush = 0;
            add_request(peer, nbd::kFlush, 0, now_ns_);
            continue;
        }
        std::uint64_t offset;
        if (!plan_->next(offset)) {
            issuing_ = false;
            break;
        }
        if (options_.writes()) ++peer.writes_since_flush;
        add_request(peer, command_, offset, now_ns_);
    }
    if (!peer.out.empty()) send(peer);
}

void Load::watch_out(Peer& peer, bool on) {
    if (peer.wants_out == on) return;
    peer.wants_out = on;
    epoll_event event{.events = EPOLLIN | (on ? std::uint32_t{EPOLLOUT} : 0u), .data = {.ptr = &peer}};
    ::epoll_ctl(epoll_, EPOLL_CTL_MOD, peer.connection.fd, &event);
}

void Load::send(Peer& peer) {
    while (peer.out_next < peer.out.size()) {
        msghdr message{};
        message.msg_iov = &peer.out[peer.out_next];
        message.msg_iovlen = std::min(peer.out.size() - peer.out_next, kIovMax);
        const ssize_t n = ::sendmsg(peer.connection.fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0) {
            if (errno == EINTR) continue;
            if (errno == EAGAIN) return watch_out(peer, true);
            lost("send", errno);
        }
        ++result_.sends;
        auto left = static_cast<std::size_t>(n);
        while (left > 0) {
            iovec& v = peer.out[peer.out_next];
            const std::size_t part = std::min(left, v.iov_len);
            v.iov_base = static_cast<char*>(v.iov_base) + part;
            v.iov_len -= part;
            left -= part;
            if (v.iov_len == 0) ++peer.out_next;
        }
    }
    watch_out(peer, false);
}

void Load::receive(Peer& peer, bool may_wait) {
    const ssize_t n = ::recv(peer.connection.fd, &peer.in[peer.in_fill], kReceiveSize - peer.in_fill,
                             may_wait ? 0 : MSG_DONTWAIT);
    if (n < 0) {
        if (errno == EAGAIN && may_wait) throw nbd::ConnectError(ETIMEDOUT, "no answer within 10 s");
        if (errno == EINTR || errno == EAGAIN) return;
        lost("recv", errno);
    }
    if (n == 0) throw nbd::ConnectError(ECONNRESET, "the server closed the connection");
    ++result_.receives;
    peer.in_fill += static_cast<std::size_t>(n);
    now_ns_ = monotonic_ns();
    if (counting_ && now_ns_ >= stop_ns_) issuing_ = false;
    parse(peer);
    fill(peer);
}

void Load::parse(Peer& peer) {
    std::size_t at = 0;
    for (;;) {
        const std::size_t have = peer.in_fill - at;
        if (peer.skip > 0) {
            const auto part = std::min<std::uint64_t>(peer.skip, have);
            peer.skip -= part;
            at += part;
            if (peer.skip > 0) break;
            continue;
        }
        if (have < sizeof(nbd::SimpleReply)) break;
        nbd::SimpleReply reply;
        std::memcpy(&reply, &peer.in[at], sizeof reply);
        if (reply.magic != nbd::kSimpleReplyMagic) throw nbd::ConnectError(0, "server: not a simple reply");
        at += sizeof reply;
        complete(peer, reply.handle, reply.error, now_ns_);
    }
    std::memmove(peer.in.get(), &peer.in[at], peer.in_fill - at);  // less than one header
    peer.in_fill -= at;
}

void Load::complete(Peer& peer, std::uint64_t handle, std::uint32_t error, std::uint64_t now) {
    if (handle >= peer.slots.size() || !peer.slots[handle].busy)
        throw nbd::ConnectError(0, "server: reply to a request that is not in flight");
    Slot& slot = peer.slots[handle];
    const std::uint16_t type = slot.request.type;
    if (error != 0)
        throw nbd::ConnectError(static_cast<int>(error),
                                "request of type " + std::to_string(type) + " at byte " +
                                    std::to_string(std::uint64_t{slot.request.offset}) +
                                    " failed: " + nbd::error_name(error));
    if (type == nbd::kRead) peer.skip = slot.request.length;
    slot.busy = false;
    peer.free.push_back(static_cast<std::uint32_t>(handle));
    --in_flight_;
    if (type == nbd::kFlush) {
        ++result_.flushes;
        result_.flush_latency.add(now - slot.sent_ns);
    } else {
        ++result_.requests;
        result_.bytes += options_.size;
        result_.latency.add(now - slot.sent_ns);
    }
}

}  // namespace load
