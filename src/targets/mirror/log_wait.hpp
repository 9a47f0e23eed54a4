// co_await that all that was noted in the log is durable: `LogWait wait{reactor, log}; const IoStatus s = co_await wait;`
#pragma once

#include "port/job.hpp"
#include "services/dirty_log/dirty_log.hpp"

namespace udm::mirror {

class LogWait final : dirty_log::DirtyLog::Waiter {
  public:
    LogWait(Reactor& reactor, dirty_log::DirtyLog& log) noexcept : reactor_{reactor}, log_{log}, wake_{*this} {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) noexcept {
        awaiting_ = awaiting;
        log_.flush(*this);
    }
    IoStatus await_resume() const noexcept { return status_; }

  private:
    // Goes on outside of the log, which is not to be called from flushed().
    class Wake final : public Task {
      public:
        explicit Wake(LogWait& wait) noexcept : wait_{wait} {}
        void run() noexcept override { wait_.awaiting_.resume(); }

      private:
        LogWait& wait_;
    };
    void flushed(IoStatus status) noexcept override {
        status_ = status;
        reactor_.post(wake_);
    }
    Reactor& reactor_;
    dirty_log::DirtyLog& log_;
    Wake wake_;
    IoStatus status_{IoStatus::ok};
    std::coroutine_handle<> awaiting_;
};

}  // namespace udm::mirror
