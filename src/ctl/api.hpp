// The methods of docs/protocol.md: checks parameters, asks the devices, makes the answers.
#pragma once

#include <atomic>
#include <chrono>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "ctl/devices.hpp"
#include "ctl/exports.hpp"
#include "ctl/mirroring.hpp"
#include "ctl/moving.hpp"
#include "ctl/rpc.hpp"
#include "ctl/scrubs.hpp"
#include "ctl/snapshots.hpp"

namespace udm::ctl {

class Params;

class Api final : public Service {
  public:
    Api(Devices& devices, Exports& exports, std::function<void()> request_stop);

    Answer call(std::string_view method, const Json& params, Caller& caller) override;
    std::vector<std::string> method_names() const;
    // Once all that the state has is up: what was under way at the end of the last daemon goes on.
    void go_on() {
        snapshots_.go_on();
        scrubs_.find_unfinished();
        moving_.go_on();
        mirroring_.go_on();
    }
    // Before devices are stopped.
    void stop() {
        moving_.stop();
        scrubs_.end();
    }

  private:
    using Handler = std::function<Answer(Params&, Caller&)>;
    void add(std::string name, std::function<Json(Params&)> handler);
    void add_device_methods();
    void add_table_methods();
    void add_export_methods();
    void add_snapshot_methods();
    void add_move_methods();
    void add_mirror_methods();
    void add_leg_methods();
    void add_daemon_methods();
    Json info(const Record& record) const;

    Devices& devices_;
    Exports& exports_;
    Snapshots snapshots_;
    Scrubs scrubs_;
    Moving moving_;
    Mirroring mirroring_;
    std::function<void()> request_stop_;
    std::map<std::string, Handler, std::less<>> methods_;
    const std::chrono::steady_clock::time_point started_ = std::chrono::steady_clock::now();
};

}  // namespace udm::ctl
