// What a mirror's log needs when it is used without a mirror.
#pragma once

#include "core/target.hpp"
#include "services/dirty_log/dirty_log.hpp"

namespace udm::dirty_log::test {

// Legs that are always flushed.
struct QuietLegs final : Owner {
    Job<IoStatus> flush_legs() override { co_return IoStatus::ok; }
    void log_failed(std::string_view) noexcept override {}
    void log_recovered() noexcept override {}
};

struct NoEvents final : DeviceEvents {
    void raise(EventKind, std::string_view) noexcept override {}
};

struct TestWaiter final : DirtyLog::Waiter {
    bool done = false;
    IoStatus status{IoStatus::ok};
    void flushed(IoStatus s) noexcept override {
        done = true;
        status = s;
    }
};

}  // namespace udm::dirty_log::test
