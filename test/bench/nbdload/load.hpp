// Keeps `depth` requests in flight on each connection and counts what comes back.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "base/prng.hpp"
#include "test/bench/nbdload/histogram.hpp"
#include "test/bench/nbdload/options.hpp"
#include "test/bench/nbdload/process.hpp"
#include "test/support/nbd_client.hpp"

namespace load {

struct Result {
    std::uint64_t requests = 0, flushes = 0, bytes = 0, sends = 0, receives = 0;
    double seconds = 0;
    Histogram latency, flush_latency;
    Usage server_before, server_after;
    std::uint64_t client_cpu_ns = 0;
};

// Which block comes next.
class Plan {
  public:
    Plan(const Options& options, std::uint64_t export_size);  // throws std::invalid_argument
    bool next(std::uint64_t& offset) noexcept;
    std::uint64_t block_count() const noexcept { return blocks_; }

  private:
    std::uint64_t start_, size_, blocks_, issued_ = 0, limit_ = 0;
    bool random_;
    udm::Prng prng_;
    std::vector<std::uint32_t> order_;  // of firsttouch, again and discard
};

class Load {
  public:
    Load(const Options& options,
         const nbd::Uri& uri);  // connects; throws nbd::ConnectError, std::invalid_argument
    Result run();               // throws nbd::ConnectError

  private:
    static constexpr std::size_t kReceiveSize = 1 << 20;
    struct Slot {
        nbd::Request request;
        std::uint64_t sent_ns = 0;
        bool busy = false;
    };
    struct Peer {
        nbd::Connection connection;
        std::vector<Slot> slots;
        std::vector<std::uint32_t> free;
        std::vector<iovec> out;  // not yet taken by the socket, from `out_next` on
        std::size_t out_next = 0;
        std::unique_ptr<unsigned char[]> in;
        std::size_t in_fill = 0;
        std::uint64_t skip = 0;  // bytes of a payload still to come
        std::uint64_t writes_since_flush = 0;
        bool wants_out = false;
    };

    void fill(Peer& peer);
    bool flush_at_end();
    void add_request(Peer& peer, std::uint16_t type, std::uint64_t offset, std::uint64_t now);
    void send(Peer& peer);
    void receive(Peer& peer, bool may_wait);
    void parse(Peer& peer);
    void complete(Peer& peer, std::uint64_t handle, std::uint32_t error, std::uint64_t now);
    void start_counting();
    void watch_out(Peer& peer, bool on);

    Options options_;
    std::uint16_t command_;  // of all requests but flushes
    std::vector<Peer> peers_;
    std::unique_ptr<Plan> plan_;
    std::vector<unsigned char> payload_;
    int epoll_ = -1;
    std::uint64_t in_flight_ = 0, now_ns_ = 0, start_ns_ = 0, stop_ns_ = 0, client_cpu_start_ = 0;
    bool counting_ = false, issuing_ = true;
    Result result_;
};

}  // namespace load
