#include "engine/listener.hpp"

#include <unistd.h>

#include <cerrno>
#include <semaphore>

namespace udm {
namespace {
// No descriptors left, for instance: accepting again at once would only burn time.
constexpr Nanoseconds kPause = 100 * kMillisecond;
}  // namespace

// Lives until the last completion of its operation, which may be after the listener; the loop has it until
// then.
class SocketListener::Acceptor final : public Operation, public Loop::Leftover {
  public:
    Acceptor(Loop& own_loop, ListenSocket socket, Handler& handler)
        : loop_{own_loop}, socket_{std::move(socket)}, handler_{&handler} {
        kind = Kind::accept;
        listening_.fd = socket_.fd;
        file = &listening_;
    }
    ~Acceptor() override {
        if (pause_.armed()) loop_.cancel(pause_);
        if (loop_.is_current()) loop_.detach(listening_);
        close_listen_socket(socket_);
        if (gone_) gone_->release();
    }

    void begin() { loop_.post_remote(start_); }
    // On the loop. From here on nobody can connect.
    void end() noexcept {
        if (static_cast<Task&>(start_).linked()) start_.unlink();
        handler_ = nullptr;
        stop_listening(socket_);
        if (active_) loop_.cancel(*this);
        if (active_ || calling_) {
            loop_.leave(*this);  // done() is the end
        } else {
            delete this;
        }
    }
    // Any thread but the loop's; waits until all is over.
    void end_from_outside() noexcept {
        struct Ending final : Task {
            explicit Ending(Acceptor& a) noexcept : acceptor{a} {}
            void run() noexcept override { acceptor.end(); }
            Acceptor& acceptor;
        };
        if (!loop_.running()) {
            delete this;
            return;
        }
        std::binary_semaphore gone{0};
        gone_ = &gone;
        Ending ending{*this};
        loop_.post_remote(ending);
        gone.acquire();
    }
    bool on_loop() const noexcept { return loop_.is_current(); }

    void done(int n) noexcept override {
        active_ = more;
        if (n >= 0 && handler_) {
            calling_ = true;
            handler_->accepted(n);  // may end the listener
            calling_ = false;
        } else if (n >= 0) {
            ::close(n);
        }
        if (active_) return;
        if (!handler_) {
            delete this;
            return;
        }
        const bool shortage = n == -EMFILE || n == -ENFILE || n == -ENOBUFS || n == -ENOMEM;
        if (shortage) {
            loop_.arm(pause_, loop_.now() + kPause);
        } else {
            accept();
        }
    }

  private:
    class Start final : public Task {
      public:
        explicit Start(Acceptor& acceptor) noexcept : acceptor_{acceptor} {}
        void run() noexcept override { acceptor_.accept(); }

      private:
        Acceptor& acceptor_;
    };
    class Pause final : public Timer {
      public:
        explicit Pause(Acceptor& acceptor) noexcept : acceptor_{acceptor} {}
        void expired() noexcept override { acceptor_.accept(); }

      private:
        Acceptor& acceptor_;
    };
    void accept() noexcept {
        active_ = true;
        loop_.start(*this);
    }

    Loop& loop_;
    ListenSocket socket_;
    Handler* handler_;  // null: the listener is gone
    File listening_{};
    bool active_ = false;
    bool calling_ = false;
    std::binary_semaphore* gone_ = nullptr;
    Start start_{*this};
    Pause pause_{*this};
};

SocketListener::SocketListener(Loop& loop, ListenSocket socket, Handler& handler)
    : acceptor_{nullptr}, port_{socket.port} {
    acceptor_ = new Acceptor{loop, std::move(socket), handler};
    acceptor_->begin();
}

SocketListener::~SocketListener() {
    if (acceptor_->on_loop()) {
        acceptor_->end();
    } else {
        acceptor_->end_from_outside();
    }
}

}  // namespace udm
