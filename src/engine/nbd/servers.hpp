// The NBD exports that the daemon's tables name, each with one client (client.hpp), however many devices of however many
// reactors use it.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>

#include "engine/loop.hpp"
#include "engine/nbd/settings.hpp"
#include "port/disk.hpp"
#include "port/nbd_uri.hpp"

namespace udm {

class NbdClient;
struct NbdConnected;

class NbdServers {
  public:
    NbdServers() : connectors_{kConnectors} {}
    ~NbdServers() { stop(); }

    // As DeviceOpener::open(), for `loop`. Connects first where no table has the export open: blocks for as long as an attempt
    // may take. Errors: bad_argument, unsupported (TLS), no_device, io, timed_out, read_only.
    Result<std::unique_ptr<OpenDevice>> open(Loop& loop, const std::string& words, OpenMode mode);
    // As DeviceOpener::open_away(): asks nobody. An export that is open already is joined, away or not.
    Result<std::unique_ptr<OpenDevice>> open_away(Loop& loop, const std::string& words, Sectors size);
    // The same for the same export, over restarts too; nobody is asked.
    static Result<DiskId> identify(std::string_view words);
    NbdSettings& settings() noexcept { return settings_; }
    void stop_connecting() noexcept { stopping_.store(true); }
    // After the loops: ends the threads that connect.
    void stop() noexcept;

  private:
    static constexpr unsigned kConnectors = 64;    // each waits for one server, mostly
    struct Entry {
        std::mutex opening;    // one connects, the others wait for what comes of it
        std::weak_ptr<NbdClient> client;
        std::uint32_t number = 0;
    };
    Result<std::shared_ptr<NbdClient>> client_of(Entry& entry, Loop& loop, const NbdUri& uri, const std::string& words);
    std::shared_ptr<NbdClient> begin_client(Entry& entry, Loop& loop, const NbdUri& uri, const std::string& words, NbdConnected first);
    Entry& entry_of(const std::string& key);

    NbdSettings settings_;
    std::atomic<bool> stopping_{false};
    std::mutex mutex_;    // of the map; entries stay
    std::map<std::string, Entry> entries_;
    Workers connectors_;
};

}  // namespace udm
