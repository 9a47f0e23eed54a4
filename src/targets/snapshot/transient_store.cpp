#include "targets/snapshot/transient_store.hpp"

namespace udm::snapshot {

void TransientStore::sync(Waiter& waiter) noexcept {
    syncs_.push_back(waiter);
    reactor_.jobs().spawn(flush());
}

Job<void> TransientStore::flush() {
    List<Waiter> mine;
    mine.take_all(syncs_);
    IoWait wait{reactor_, *cow_, Op::flush, {}};
    const IoStatus status = co_await wait;
    while (Waiter* waiter = mine.pop_front_or_null()) waiter->woken(status);
}

}  // namespace udm::snapshot
