#include "targets/snapshot/copies.hpp"

#include <algorithm>

#include "targets/snapshot/snapshot.hpp"

namespace udm::snapshot {

Copies::~Copies() {
    if (Abandoning::now()) return;
    if (linked()) unlink();
    env_.reactor.cancel(*this);
}

Copies::Verdict Copies::judge(const StoreAccount& store, std::uint64_t bytes, std::uint64_t more, bool copies_data) noexcept {
    if (store.copies_ >= std::max<std::uint64_t>(limits.per_store, 1)) return Verdict::store_has_its_share;
    const std::uint64_t left = limits.bytes > bytes_ ? limits.bytes - bytes_ : 0;
    if (bytes_ != 0 || !env_.chaos.keeps("snapshot.one_copy_may_begin")) {
        if (store.bytes_ != 0 && bytes != 0 && store.bytes_ + bytes > left) return Verdict::store_has_its_share;
        if (more > left) return Verdict::no_memory;
    }
    if (copies_data && limits.percent < 100) {
        if (const Nanoseconds rest = must_rest(); rest != 0) {
            if (!armed()) env_.reactor.arm(*this, env_.reactor.now() + rest);
            return Verdict::too_busy;
        }
    }
    return Verdict::admitted;
}

bool Copies::admits(StoreAccount& store, std::uint64_t bytes, std::uint64_t more, bool copies_data) noexcept {
    if (!store.waiting_.empty() || (short_ && more != 0)) return false;
    return judge(store, bytes, more, copies_data) == Verdict::admitted;
}

void Copies::start(CopyJob& job) noexcept {
    const std::uint64_t bytes = job.memory();
    if (admits(job.lead(), bytes, bytes, job.copies_data())) {
        job.admitted();
        job.start();
    } else {
        wait(job);
    }
}

void Copies::wait(CopyJob& job) noexcept {
    StoreAccount& store = job.lead();
    store.waiting_.push_back(job);
    if (!store.linked()) in_line_.push_back(store);
}

void Copies::look_again() noexcept {
    if (!in_line_.empty() && !linked()) env_.reactor.post(*this);
}

void Copies::run() noexcept {
    short_ = false;
    for (bool some = true; some && !short_;) {
        some = false;
        List<StoreAccount> round;    // one for each store, in turn
        round.take_all(in_line_);
        while (StoreAccount* store = round.pop_front_or_null()) {
            CopyJob& job = store->waiting_.front();
            Verdict verdict = Verdict::admitted;
            if (!job.pointless()) verdict = judge(*store, job.memory(), job.memory(), job.copies_data());
            if (verdict == Verdict::no_memory) {
                short_ = true;
                List<StoreAccount> line;
                line.push_back(*store);
                line.take_all(round);
                line.take_all(in_line_);
                in_line_.take_all(line);
                break;
            }
            if (verdict == Verdict::admitted) {
                some = true;
                store->waiting_.pop_front();
            }
            if (!store->waiting_.empty()) in_line_.push_back(*store);
            if (verdict == Verdict::admitted) {
                job.admitted();
                job.start();
            }
        }
    }
}

void Copies::begin(StoreAccount& store, std::uint64_t bytes) noexcept {
    ++store.copies_;
    store.bytes_ += bytes;
}

void Copies::end(StoreAccount& store, std::uint64_t bytes) noexcept {
    ASSERT(store.copies_ > 0 && store.bytes_ >= bytes);
    --store.copies_;
    store.bytes_ -= bytes;
    look_again();
}

void Copies::give(std::uint64_t bytes) noexcept {
    ASSERT(bytes_ >= bytes);
    bytes_ -= bytes;
    look_again();
}

void Copies::copying(bool begins) noexcept {
    if (begins) {
        if (copying_++ == 0 && limits.percent < 100) busy_since_ = env_.reactor.now();
    } else if (--copying_ == 0 && busy_since_ != 0) {
        busy_ += env_.reactor.now() - busy_since_;
        busy_since_ = 0;
    }
}

// How long no copy may begin, at most 100 ms; then one asks again.
Nanoseconds Copies::must_rest() noexcept {
    const Nanoseconds now = env_.reactor.now();
    if (now - window_start_ > 10 * kSecond) {    // nothing was asked for long
        window_start_ = now;
        busy_ = 0;
    }
    if (copying_ != 0 && busy_since_ == 0) busy_since_ = now;    // the limit is new
    const auto so_far = [&] { return busy_ + (copying_ != 0 ? now - std::max(busy_since_, window_start_) : 0); };
    if (now - window_start_ > kSecond) {
        busy_ = so_far() / 2;
        if (copying_ != 0) busy_since_ = now;
        window_start_ = now - (now - window_start_) / 2;
    }
    const auto allowed_after = so_far() * 100 / static_cast<Nanoseconds>(std::max<std::uint64_t>(limits.percent, 1));
    const Nanoseconds passed = now - window_start_;
    if (allowed_after <= passed) return 0;
    return std::clamp<Nanoseconds>(allowed_after - passed, kMillisecond, 100 * kMillisecond);
}

}  // namespace udm::snapshot
