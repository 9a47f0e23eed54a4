// Writes and reads volumes over NBD, survives the server's death, and checks all that it reads against the
// model.
#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <string>
#include <vector>

#include "base/prng.hpp"
#include "test/support/nbd_client.hpp"
#include "test/system/crash_load/journal.hpp"

namespace crash {

struct Settings {
    unsigned connections = 2;  // each volume
    unsigned depth = 16;       // each connection
    double patience_s = 60;    // how long a server may be away
    std::uint64_t seed = 1;
    bool flush_may_fail = false;    // it covers nothing then, and is no end of the load
};

// The server refused a request on a connection that stands.
struct RequestFailed {
    std::string what;
};
// The server did not come back in time.
struct StayedAway {
    std::string what;
};

struct Counters {
    std::uint64_t writes = 0, acknowledged = 0, reads = 0, flushes = 0, sectors_checked = 0, settled = 0,
                  losses = 0, failed_flushes = 0;
};

class Load {
  public:
    Load(const Settings& settings, Journal& journal, Model& model, Seq first_seq);
    ~Load();
    Load(const Load&) = delete;
    Load& operator=(const Load&) = delete;

    // A volume the journal knows; with `writes` it is written, too. Connected as soon as the server answers.
    void add(Volume& volume, const std::string& uri, bool writes);
    // Ends the connections of a volume once nothing of it is in flight; done when `has(name)` is false.
    void remove(const std::string& name);
    bool has(const std::string& name) const noexcept;

    void hold(bool on) noexcept { held_ = on; }  // nothing new is sent
    bool quiet() const noexcept;                 // nothing is in flight
    bool connected() const noexcept { return connected_; }

    // Reads every volume from end to end while writes are held; done when verifying() is false again. A crash
    // in between starts it anew.
    void verify() {
        verifying_ = true;
        restart_verify();
    }
    bool verifying() const noexcept { return verifying_; }

    // One turn: waits at most `timeout_ms` for sockets and for `other_fd`. Throws Violation, RequestFailed,
    // StayedAway. True if other_fd can be read.
    bool turn(int other_fd, int timeout_ms);

    const Counters& counters() const noexcept { return counters_; }

  private:
    struct Peer;
    struct Target;
    struct Slot;

    bool connect_all();
    void lose_all(const std::string& why);
    void restart_verify();
    void issue(Target& target, Peer& peer);
    bool issue_one(Target& target, Peer& peer);
    bool issue_verify(Target& target, Peer& peer);
    void request(Target& target, Peer& peer, Slot& slot);
    bool pick_range(Target& target, bool for_write, std::uint64_t& first, std::uint32_t& count);
    void send(Peer& peer);
    void receive(Target& target, Peer& peer);
    void complete(Target& target, Slot& slot, std::uint32_t error, const unsigned char* data);
    void release(Target& target, Slot& slot);

    Settings settings_;
    Journal& journal_;
    Model& model_;
    udm::Prng prng_;
    std::vector<std::unique_ptr<Target>> targets_;
    Counters counters_;
    Seq next_seq_;
    bool connected_ = true, held_ = false, verifying_ = false;
    double away_since_ = 0;
    std::string why_away_;
};

}  // namespace crash
