// The exports of the daemon: which device is served where, kept in the state (decisions 12 and 22).
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "ctl/devices.hpp"
#include "ctl/host.hpp"

namespace udm::ctl {

class Exports final : private RemovalWatcher {
  public:
    Exports(Devices& devices, ExportServer* server) : devices_{devices}, server_{server} {
        devices_.set_removal_watcher(this);
    }
    ~Exports() { devices_.set_removal_watcher(nullptr); }

    struct Request {
        std::string uri;
        unsigned mode = 0600;
        std::string group;
        bool read_only = false;
        std::vector<std::string> numbers{};    // of the URI's host, when it was looked up
    };
    // All throw Failure. The URI as a client would use it.
    std::string add(const DeviceKey& key, const Request& request);
    // The one with this URI, or all of the device; clients get the answers to what is under way, then the
    // connection ends. The URIs removed.
    std::vector<std::string> remove(const DeviceKey& key, const std::optional<std::string>& uri);
    // In the order of URIs: those after `after`, `most` of them.
    Json list(const std::optional<DeviceKey>& key, const std::optional<std::string>& after = {},
              std::uint64_t most = ~std::uint64_t{0}) const;
    std::set<std::string> uris_of(const Record& record) const;
    std::size_t size() const;

    // Once: opens what the state has, as far as the devices are there and not held; the others wait. What the state has
    // of a device that is gone is forgotten: its number will be another's. `patience`: how long in all to wait for
    // sockets that are in use.
    void restore(std::chrono::milliseconds patience);
    // Tries those that wait again: a device may have come up.
    void serve_waiting();
    // The end of the daemon; the state stays as it is. First, without waiting: all of them begin to end, and
    // requests that a suspended device holds back end with their connection, unanswered, so that clients try them again
    // when the daemon is back. Without that nothing could end them any more.
    void begin_stop();
    // Waits until all have ended in order.
    void stop();
    std::vector<std::string> warnings() const;

  private:
    struct Entry {
        RecordPtr record;
        Request request;
        std::unique_ptr<Served> served;
    };
    struct Waiting {
        std::uint32_t minor;
        std::string why;
    };
    std::vector<State::Change> changes_at_removal(const Record& record) const override;
    void removed(const Record& record) override;
    void serve_waiting(Patience& patience);
    // What keeps it from being served; empty: it is served now.
    std::string serve_kept(const std::string& uri, std::uint32_t minor, const std::vector<std::string>& numbers,
                           Patience& patience);
    std::vector<std::string> look_up(const std::string& uri) const;
    std::unique_ptr<Served> serve(const RecordPtr& record, const Request& request);
    std::unique_ptr<Served> serve_patiently(const RecordPtr& record, const Request& request,
                                            Patience& patience);
    void keep(const std::string& uri, Entry entry);
    std::set<std::string> uris_locked(const Record& record) const;
    void finish(Entry entry);
    static State::Change change_of(const std::string& uri, const Record& record, const Request& request);
    void publish(const Record& record, const std::string& what) const;

    Devices& devices_;
    ExportServer* server_;
    std::mutex changing_;  // held while exports come, and while they are taken out of the state; before mutex_
    mutable std::mutex mutex_;
    std::map<std::string, Entry> entries_;    // by URI
    std::map<std::uint64_t, std::set<std::string>> by_serial_;  // URIs of a device
    std::map<std::string, Waiting> waiting_;  // by URI: in the state and not served
};

}  // namespace udm::ctl
