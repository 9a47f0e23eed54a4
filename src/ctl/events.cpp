#include "ctl/events.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "ctl/json.hpp"
#include "ctl/time_text.hpp"

namespace udm::ctl {

void EventHub::add(EventSink& sink) {
    const std::lock_guard lock{mutex_};
    sinks_.push_back(&sink);
}

void EventHub::remove(EventSink& sink) {
    const std::lock_guard lock{mutex_};
    std::erase(sinks_, &sink);
}

void EventHub::publish(const Event& event) noexcept {
    const std::lock_guard lock{mutex_};
    if (sinks_.empty()) return;
    const Json notification = {{"jsonrpc", "2.0"},
                               {"method", "event"},
                               {"params",
                                {{"device", event.device},
                                 {"event_number", event.event_number},
                                 {"kind", event.kind},
                                 {"what", event.what},
                                 {"time", time_text(std::chrono::system_clock::now())}}}};
    const std::string line = to_line(notification) + '\n';
    for (EventSink* sink : sinks_) sink->event(event, line);
}

}  // namespace udm::ctl
