// How much memory the sessions of one reactor may have under way. Each has a small part of its own, so that
// none can be starved; beyond it they share. A client that neither reads its replies nor sends the payload it
// announced keeps its share only as long as nobody waits for it.
#pragma once

#include <cstddef>

#include "base/intrusive.hpp"
#include "base/units.hpp"
#include "port/reactor.hpp"

namespace udm::nbd {

class Account;
struct AccountPlace : ListHook {  // in the queue of those that wait
    Account* account = nullptr;
};

// One a reactor, for all servers whose exports live there. Made anywhere, used on that reactor, destroyed
// when its accounts are gone.
class MemoryBudget final : private Timer {
  public:
    struct Bounds {
        std::size_t shared = std::size_t{64} << 20;
        std::size_t own = std::size_t{1} << 20;  // of each session, beside what is shared
        std::size_t session = std::size_t{48}
                              << 20;         // of one session in all: one request of 32 MiB always fits
        Nanoseconds stalled = 10 * kSecond;  // without progress while others wait: the session ends
    };
    MemoryBudget(Reactor& reactor, const Bounds& bounds) noexcept;
    explicit MemoryBudget(Reactor& reactor) noexcept : MemoryBudget{reactor, Bounds{}} {}
    ~MemoryBudget();

    std::size_t shared_left() const noexcept { return left_; }

  private:
    friend class Account;
    void expired() noexcept override;
    // Sets aside what the first in the queue want, as far as it goes.
    void serve() noexcept;
    void watch() noexcept;

    Reactor& reactor_;
    Bounds bounds_;
    std::size_t left_;
    List<Account> accounts_;
    List<AccountPlace> waiting_;
};

// One session's part.
class Account final : public ListHook {
  public:
    class Owner {
      public:
        // A take() that had failed is worth another try. Called from some account's give().
        virtual void memory_freed() noexcept = 0;
        // Since when it waits for its client, 0 if it doesn't.
        virtual Nanoseconds waits_for_client_since() const noexcept = 0;
        // Others wait for what a stalled client holds.
        virtual void evict() noexcept = 0;

      protected:
        ~Owner() = default;
    };
    Account(MemoryBudget& budget, Owner& owner) noexcept;
    ~Account();  // all was given back

    // At most Bounds::session at a time. False: not now; memory_freed() follows, and what was wanted is set
    // aside until the next take(). First come, first served.
    bool take(std::size_t bytes) noexcept {
        // Within its own part, and waiting for nothing: nobody else is concerned.
        if (wanted_ == 0 && set_aside_ == 0 && taken_ + bytes <= own_) {
            taken_ += bytes;
            return true;
        }
        return take_shared(bytes);
    }
    void give(std::size_t bytes) noexcept {
        ASSERT(bytes <= taken_);
        if (wanted_ == 0 && taken_ <= own_) {
            taken_ -= bytes;
        } else {
            give_shared(bytes);
        }
    }
    // Wants nothing any more.
    void forget() noexcept;
    std::size_t taken() const noexcept { return taken_; }

  private:
    friend class MemoryBudget;
    bool take_shared(std::size_t bytes) noexcept;
    void give_shared(std::size_t bytes) noexcept;
    // What taking `bytes` more would need of the shared part.
    std::size_t needs(std::size_t bytes) const noexcept;
    void add(std::size_t bytes) noexcept;
    void subtract(std::size_t bytes) noexcept;

    MemoryBudget& budget_;
    Owner& owner_;
    const std::size_t own_;
    std::size_t taken_ = 0;   // with what was set aside
    std::size_t wanted_ = 0;  // 0: waits for nothing
    std::size_t set_aside_ = 0;
    AccountPlace place_;  // linked while it waits for others
};

}  // namespace udm::nbd
