#include "exports/nbd/budget.hpp"

#include "base/assert.hpp"

namespace udm::nbd {

MemoryBudget::MemoryBudget(Reactor& reactor, const Bounds& bounds) noexcept
    : reactor_{reactor}, bounds_{bounds}, left_{bounds.shared} {
    ASSERT(bounds.session >= bounds.own);
    // Else the largest request could wait for ever.
    ASSERT(bounds.session - bounds.own <= bounds.shared);
}

MemoryBudget::~MemoryBudget() { ASSERT(left_ == bounds_.shared); }

void MemoryBudget::serve() noexcept {
    while (!waiting_.empty()) {
        Account& first = *waiting_.front().account;
        if (first.needs(first.wanted_) > left_) return;
        first.place_.unlink();
        first.set_aside_ = first.wanted_;
        first.wanted_ = 0;
        first.add(first.set_aside_);
        first.owner_.memory_freed();
    }
    reactor_.cancel(*this);
}

void MemoryBudget::watch() noexcept {
    if (!armed()) reactor_.arm(*this, reactor_.now() + bounds_.stalled / 4);
}

void MemoryBudget::expired() noexcept {
    if (waiting_.empty()) return;
    const Nanoseconds now = reactor_.now();
    for (auto at = accounts_.begin(); at != accounts_.end();) {
        Account& account = *at;
        ++at;
        const Nanoseconds since = account.owner_.waits_for_client_since();
        if (account.taken_ > bounds_.own && since != 0 && now >= since + bounds_.stalled)
            account.owner_.evict();
    }
    if (!waiting_.empty()) watch();
}

Account::Account(MemoryBudget& budget, Owner& owner) noexcept
    : budget_{budget}, owner_{owner}, own_{budget.bounds_.own} {
    place_.account = this;
    budget_.accounts_.push_back(*this);
}

Account::~Account() {
    forget();
    ASSERT(taken_ == 0);
    unlink();
}

std::size_t Account::needs(std::size_t bytes) const noexcept {
    const std::size_t shared_now = taken_ > own_ ? taken_ - own_ : 0;
    const std::size_t shared_then = taken_ + bytes > own_ ? taken_ + bytes - own_ : 0;
    return shared_then - shared_now;
}

void Account::add(std::size_t bytes) noexcept {
    const std::size_t shared = needs(bytes);
    ASSERT(shared <= budget_.left_);
    budget_.left_ -= shared;
    taken_ += bytes;
}

void Account::subtract(std::size_t bytes) noexcept {
    ASSERT(bytes <= taken_);
    taken_ -= bytes;
    budget_.left_ += needs(bytes);
}

bool Account::take_shared(std::size_t bytes) noexcept {
    ASSERT(bytes != 0);
    if (set_aside_ == bytes) {
        set_aside_ = 0;
        return true;
    }
    if (place_.linked() && wanted_ == bytes) return false;  // asked again before its turn: it keeps its place
    forget();
    ASSERT(bytes <= budget_.bounds_.session);
    if (taken_ + bytes > budget_.bounds_.session) {
        wanted_ = bytes;  // give() of our own will do
        return false;
    }
    const std::size_t shared = needs(bytes);
    if (shared != 0 && (shared > budget_.left_ || !budget_.waiting_.empty())) {
        wanted_ = bytes;
        budget_.waiting_.push_back(place_);
        budget_.watch();
        return false;
    }
    add(bytes);
    return true;
}

void Account::give_shared(std::size_t bytes) noexcept {
    subtract(bytes);
    if (wanted_ != 0 && !place_.linked() && taken_ + wanted_ <= budget_.bounds_.session) {
        wanted_ = 0;
        owner_.memory_freed();
    }
    if (!budget_.waiting_.empty()) budget_.serve();
}

void Account::forget() noexcept {
    if (wanted_ == 0 && set_aside_ == 0) return;
    wanted_ = 0;
    if (place_.linked()) place_.unlink();
    if (set_aside_ != 0) {
        subtract(set_aside_);
        set_aside_ = 0;
    }
    if (!budget_.waiting_.empty()) {
        budget_.serve();
    } else {
        budget_.reactor_.cancel(budget_);
    }
}

}  // namespace udm::nbd
