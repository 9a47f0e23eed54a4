#include "engine/nbd/handshake.hpp"

#include <fmt/format.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <chrono>

namespace udm {
namespace {

constexpr const char* kAllocation = "base:allocation";
constexpr std::uint32_t kBlockMax = 1u << 20;

Errc code_of(int error) {
    switch (error) {
        case ENOENT:
        case EHOSTUNREACH:
        case ENETUNREACH:
            return Errc::no_device;
        case EACCES:
        case EPERM:
            return Errc::denied;
        case ETIMEDOUT:
            return Errc::timed_out;
        case ENOTSUP:
            return Errc::unsupported;
        default:
            return Errc::io;
    }
}

std::string advice_for(int error, const NbdUri& uri) {
    const bool local = uri.address.kind == Address::Kind::unix_socket;
    switch (error) {
        case ECONNREFUSED:
            return local ? "; nobody listens on that socket: start the server" : "; nobody listens on that port: start the server";
        case ENOENT:
            return local ? "; the server must be running, serve an export of this name, and make its socket at this path"
                         : "; the server must be running and serve an export of this name";
        case EACCES:
            return "; the daemon's user may not use that socket";
        default:
            return {};
    }
}

std::unexpected<Error> failure(const NbdUri& uri, const std::string& words) {
    const int error = nbd_get_errno();
    return fail(code_of(error), fmt::format("{}: {}{}", words, nbd_error_text(), advice_for(error, uri)));
}

// A host that is gone without a word is noticed within half a minute, also while it owes us an answer.
void watch_over(int fd) {
    int family = 0;
    socklen_t size = sizeof family;
    if (::getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) != 0 || (family != AF_INET && family != AF_INET6)) return;
    const int on = 1, idle_s = 10, interval_s = 5, probes = 3;
    const unsigned unanswered_ms = 25'000;
    ::setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    ::setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    ::setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &unanswered_ms, sizeof unanswered_ms);
}

// 0 where the server has none, or one that makes no sense.
std::uint64_t block_size(nbd_handle* handle, int which) {
    const std::int64_t bytes = nbd_get_block_size(handle, which);
    return bytes > 0 ? static_cast<std::uint64_t>(bytes) : 0;
}

Result<NbdFacts> facts_of(nbd_handle* handle, const std::string& words) {
    NbdFacts facts;
    const std::int64_t size = nbd_get_size(handle);
    if (size < 0) return fail(Errc::io, fmt::format("{}: the server told no size: {}", words, nbd_error_text()));
    facts.size = static_cast<std::uint64_t>(size);
    const std::uint64_t least = std::max<std::uint64_t>(block_size(handle, LIBNBD_SIZE_MINIMUM), kSectorSize);
    if (!std::has_single_bit(least) || least > kBlockMax) {
        return fail(Errc::unsupported,
                    fmt::format("{}: its smallest block is {} bytes; a power of two up to {} would do", words, least, kBlockMax));
    }
    facts.block = static_cast<std::uint32_t>(least);
    const std::uint64_t preferred = block_size(handle, LIBNBD_SIZE_PREFERRED);
    if (std::has_single_bit(preferred) && preferred >= least && preferred <= (32u << 20))
        facts.preferred = static_cast<std::uint32_t>(preferred);
    if (const std::uint64_t most = block_size(handle, LIBNBD_SIZE_MAXIMUM); most >= least)
        facts.payload_max = static_cast<std::uint32_t>(std::min<std::uint64_t>(most - most % least, facts.payload_max));
    facts.read_only = nbd_is_read_only(handle) > 0;
    facts.flush = nbd_can_flush(handle) > 0;
    facts.fua = nbd_can_fua(handle) > 0;
    facts.trim = nbd_can_trim(handle) > 0;
    facts.zero = nbd_can_zero(handle) > 0;
    facts.fast_zero = nbd_can_fast_zero(handle) > 0;
    facts.multi_conn = nbd_can_multi_conn(handle) > 0;
    facts.extents = nbd_can_meta_context(handle, kAllocation) > 0;
    return facts;
}

int begin(nbd_handle* handle, const NbdUri& uri) {
    if (nbd_set_export_name(handle, uri.name.c_str()) != 0) return -1;
    if (nbd_add_meta_context(handle, kAllocation) != 0) return -1;
    if (uri.address.kind == Address::Kind::unix_socket) return nbd_aio_connect_unix(handle, uri.address.path.c_str());
    const std::string host = uri.address.host.empty() ? "localhost" : uri.address.host;
    return nbd_aio_connect_tcp(handle, host.c_str(), std::to_string(uri.address.port).c_str());
}

}  // namespace

std::string nbd_error_text() {
    const char* text = nbd_get_error();
    std::string_view rest = text ? text : "no reason given";
    // "nbd_aio_connect_unix: connect: …"
    if (const std::size_t colon = rest.find(": "); rest.starts_with("nbd_") && colon != std::string_view::npos) rest.remove_prefix(colon + 2);
    return std::string{rest};
}

Result<NbdConnected> connect_nbd(const NbdUri& uri, const std::string& words, Nanoseconds patience, const std::atomic<bool>& stop) {
    using Clock = std::chrono::steady_clock;
    const auto give_up = Clock::now() + std::chrono::nanoseconds{patience};
    NbdHandle handle{nbd_create()};
    if (!handle) return fail(Errc::no_memory, fmt::format("{}: {}", words, nbd_error_text()));
    if (begin(handle.get(), uri) != 0) return failure(uri, words);
    while (nbd_aio_is_connecting(handle.get()) > 0) {
        if (Clock::now() >= give_up) {
            return fail(Errc::timed_out, fmt::format("{}: the server did not answer within {} s", words, patience / kSecond));
        }
        if (stop.load(std::memory_order_relaxed)) return fail(Errc::interrupted, fmt::format("{}: not waited for", words));
        constexpr int kStepMs = 50;
        if (nbd_poll(handle.get(), kStepMs) < 0) return failure(uri, words);
    }
    if (nbd_aio_is_ready(handle.get()) <= 0) return failure(uri, words);
    TRY(const NbdFacts facts, facts_of(handle.get(), words));
    watch_over(nbd_aio_get_fd(handle.get()));
    return NbdConnected{std::move(handle), facts};
}

}  // namespace udm
