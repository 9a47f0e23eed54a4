// Who hears of what happens to devices: subscribers (notifications) and those that wait for an event number.
#pragma once

#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

namespace udm::ctl {

// docs/protocol.md, `event`.
struct Event {
    std::string_view kind;  // created, removed, renamed, table, suspended, resumed, target, export
    std::string_view device;
    std::uint64_t serial = 0;  // of the device, never used twice
    std::uint32_t event_number = 0;
    std::string_view what;  // a few words for people
};

class EventSink {
  public:
    // Any thread, home reactors too: quick, and no call back into the hub. `line` is the notification's text.
    virtual void event(const Event& event, const std::string& line) noexcept = 0;

  protected:
    ~EventSink() = default;
};

class EventHub {
  public:
    void add(EventSink& sink);
    void remove(EventSink& sink);
    void publish(const Event& event) noexcept;

  private:
    std::mutex mutex_;
    std::vector<EventSink*> sinks_;
};

}  // namespace udm::ctl
