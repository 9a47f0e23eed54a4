// The exports of the daemon: which device is served where, kept in the state (decisions 12 and 22).
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "ctl/devices.hpp"
#include "ctl/host.hpp"

namespace udm::ctl {

class Exports {
  public:
    Exports(Devices& devices, ExportServer* server) : devices_{devices}, server_{server} {}

    struct Request {
        std::string uri;
        unsigned mode = 0600;
        std::string group;
        bool read_only = false;
    };
    // All throw Failure. The URI as a client would use it.
    std::string add(const DeviceKey& key, const Request& request);
    // The one with this URI, or all of the device; clients get the answers to what is under way, then the
    // connection ends. The URIs removed.
    std::vector<std::string> remove(const DeviceKey& key, const std::optional<std::string>& uri);
    Json list(const std::optional<DeviceKey>& key) const;
    std::vector<std::string> uris_of(const Record& record) const;
    std::size_t size() const;

    // Opens what the state has, as far as the devices are there; again after a held device came up.
    // `patience`: how long in all to wait for sockets that are in use.
    void restore(std::chrono::milliseconds patience = {});
    // Ends all of them in order; the state stays as it is.
    void stop();
    std::vector<std::string> warnings() const;

  private:
    struct Entry {
        RecordPtr record;
        Request request;
        std::unique_ptr<Served> served;
    };
    std::unique_ptr<Served> serve(const RecordPtr& record, const Request& request);
    std::unique_ptr<Served> serve_patiently(const RecordPtr& record, const Request& request,
                                            Patience& patience);
    void finish(Entry entry);
    static State::Change change_of(const std::string& uri, const Record& record, const Request& request);
    void publish(const Record& record, const std::string& what) const;

    Devices& devices_;
    ExportServer* server_;
    mutable std::mutex mutex_;
    std::map<std::string, Entry> entries_;        // by URI
    std::map<std::string, std::string> waiting_;  // URI in the state that isn't served → why
};

}  // namespace udm::ctl
