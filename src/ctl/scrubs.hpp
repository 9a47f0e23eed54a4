// Checks and repairs of mirrors (docs/protocol.md, mirror.scrub_*): begun and asked after by name, and kept in the state, so that they
// go on after a restart from where they were. A table that replaces another gets it from there (Devices::tell_scrub).
#pragma once

#include <condition_variable>
#include <map>
#include <mutex>
#include <string>
#include <thread>

#include "ctl/mirror_of.hpp"

namespace udm::ctl {

class Scrubs {
  public:
    explicit Scrubs(Devices& devices) : devices_{devices} {}
    ~Scrubs() { end(); }
    Scrubs(const Scrubs&) = delete;
    Scrubs& operator=(const Scrubs&) = delete;

    struct Wanted {
        std::string mode;            // check, repair
        std::uint64_t from = 0;      // bytes
    };
    // All throw Failure; all answer as status() does.
    Json start(const DeviceKey& key, const Wanted& wanted);
    Json tell(const DeviceKey& key, const char* message);    // scrub_stop, scrub_pause, scrub_resume
    Json status(const DeviceKey& key);

    // A message may have begun or ended one.
    void note(const RecordPtr& record);
    // After a restart.
    void find_unfinished();
    // Keeps where they are, before the devices stop. Idempotent.
    void end();

  private:
    static constexpr std::chrono::seconds kBetween{5};    // two notes of where they are

    std::string ask(const MirrorOf& mirror);
    bool keep(const RecordPtr& record);    // false: it needs no watching any more
    void run();

    Devices& devices_;
    std::mutex mutex_;
    std::condition_variable wake_;
    std::map<std::uint64_t, RecordPtr> watched_;    // by serial
    bool ending_ = false;
    std::thread thread_;    // while anything was ever watched
};

}  // namespace udm::ctl
