#include "sim/sim_disk.hpp"

#include <algorithm>
#include <cstring>

#include "sim/sim_reactor.hpp"

namespace udm {
namespace {
constexpr std::array<std::byte, kSectorSize> kZeroes{};

Limits plain_limits(Sectors size) {
    Limits limits;
    limits.size = size;
    limits.discard = true;
    limits.discard_granularity = kSectorSize;
    return limits;
}
}  // namespace

SimDisk::SimDisk(Timeline& timeline, const Options& options)
    : timeline_{timeline},
      options_{options},
      limits_{options.limits},
      size_after_refresh_{options.limits.size},
      random_{options.seed} {
    ASSERT(options_.latency_min <= options_.latency_max);
    Trace hash;
    hash.add(options_.name);
    name_hash_ = hash.hash();
}

SimDisk::SimDisk(SimReactor& reactor, const Options& options) : SimDisk{reactor.timeline(), options} {}

SimDisk::SimDisk(SimReactor& reactor, Sectors size) : SimDisk{reactor, Options{.limits = plain_limits(size)}} {}

SimDisk::~SimDisk() {
    for (Request* request : in_flight_) timeline_.cancel(*request);
}

void SimDisk::refresh() noexcept { limits_.size = size_after_refresh_; }

void SimDisk::resize(Sectors size) noexcept {
    if (size < size_after_refresh_) {
        size_once_ = std::max(size_once_, size_after_refresh_);
        fill_now({Sector{size.v}, size_after_refresh_ - size}, 0);
    }
    size_after_refresh_ = size;
}

void SimDisk::set_latency(Nanoseconds min, Nanoseconds max) noexcept {
    ASSERT(min <= max);
    options_.latency_min = min;
    options_.latency_max = max;
}

Nanoseconds SimDisk::draw_latency() noexcept {
    if (options_.latency_min == options_.latency_max) return options_.latency_min;
    return random_.between(options_.latency_min, options_.latency_max);
}

// --- content --------------------------------------------------------------------------------------------------------

std::byte* SimDisk::sector_to_write(std::uint64_t sector) noexcept {
    const std::uint64_t index = sector / kPageSectors;
    if (index >= pages_.size()) pages_.resize(index + 1);
    auto& page = pages_[index];
    if (!page) page = std::make_unique<Page>();
    return page->bytes.data() + (sector % kPageSectors) * kSectorSize;
}

const std::byte* SimDisk::sector_to_read(std::uint64_t sector) const noexcept {
    const std::uint64_t index = sector / kPageSectors;
    if (index >= pages_.size() || !pages_[index]) return kZeroes.data();
    return pages_[index]->bytes.data() + (sector % kPageSectors) * kSectorSize;
}

void SimDisk::set_stable_sector(std::uint64_t sector, const std::byte* data, std::uint64_t order) noexcept {
    const std::uint64_t index = sector / kPageSectors;
    if (index >= stable_.size()) stable_.resize(index + 1);
    auto& page = stable_[index];
    if (!page) page = std::make_unique<StablePage>();
    std::uint64_t& there = page->order[sector % kPageSectors];
    if (order < there) return;    // a later write is stable already
    there = order;
    std::memcpy(page->bytes.data() + (sector % kPageSectors) * kSectorSize, data, kSectorSize);
}

void SimDisk::read_now(Extent extent, void* to) const noexcept {
    auto* out = static_cast<std::byte*>(to);
    for (std::uint64_t s = extent.first.v; s < extent.end().v; ++s, out += kSectorSize) {
        std::memcpy(out, sector_to_read(s), kSectorSize);
    }
}

void SimDisk::write_now(Extent extent, const void* from) noexcept {
    const auto* data = static_cast<const std::byte*>(from);
    const std::uint64_t order = ++effects_;
    for (std::uint64_t s = extent.first.v; s < extent.end().v; ++s, data += kSectorSize) {
        std::memcpy(sector_to_write(s), data, kSectorSize);
        if (options_.tracks_cuts) set_stable_sector(s, data, order);
    }
}

void SimDisk::fill_now(Extent extent, std::uint8_t byte) noexcept {
    std::array<std::byte, kSectorSize> sector;
    sector.fill(std::byte{byte});
    for (std::uint64_t s = extent.first.v; s < extent.end().v; ++s) write_now({{s}, {1}}, sector.data());
}

// --- requests -------------------------------------------------------------------------------------------------------

void SimDisk::trace(char what, const Io& io, IoStatus status) noexcept {
    Trace& trace = timeline_.trace();
    trace.add(name_hash_ ^ static_cast<std::uint64_t>(what));
    trace.add(timeline_.now());
    trace.add((static_cast<std::uint64_t>(io.op) << 56) | (static_cast<std::uint64_t>(status) << 48) |
              (std::uint64_t{io.flags.fua} << 40) | io.extent.length.v);
    trace.add(io.extent.first.v);
    if (!trace.keeps_lines()) return;
    std::string line = std::to_string(timeline_.now()) + " " + options_.name + (what == 's' ? " < " : " > ") +
                       to_string(io.op);
    if (io.op != Op::flush) {
        line += " " + std::to_string(io.extent.first.v) + "+" + std::to_string(io.extent.length.v);
    }
    if (io.flags.fua) line += " fua";
    if (what != 's') line += std::string{" "} + to_string(status);
    trace.line(std::move(line));
}

IoStatus SimDisk::check(const Io& io) const noexcept {
    if (gone_) return IoStatus::removed;
    if (io.op == Op::flush) return IoStatus::ok;
    if (io.is_write() && limits_.read_only) return IoStatus::read_only;
    if (was_cut_off(io.extent)) return IoStatus::io_error;
    if (io.extent.length > limits_.size || io.extent.first.v > limits_.size.v - io.extent.length.v) {
        return IoStatus::invalid;
    }
    const std::uint64_t block = limits_.logical_block / kSectorSize;
    if (io.extent.first.v % block != 0 || io.extent.length.v % block != 0) return IoStatus::invalid;
    if (io.op == Op::discard && !limits_.discard) return IoStatus::unsupported;
    if (io.op == Op::write_zeroes) {
        if (!limits_.write_zeroes || (io.flags.fast_only && !limits_.fast_zeroes)) return IoStatus::unsupported;
    }
    const bool moves_data = io.op == Op::read || io.op == Op::write;
    if (moves_data && limits_.max_transfer && io.extent.length > limits_.max_transfer) return IoStatus::invalid;
    return IoStatus::ok;
}

const DiskFault* SimDisk::match(const Io& io) noexcept {
    for (DiskFault& fault : faults_) {
        if (!(fault.ops & op_bit(io.op)) || fault.times == 0) continue;
        if (io.op != Op::flush) {
            // By hand: the extent of a fault may reach the end of all numbers.
            const std::uint64_t from = fault.extent.first.v, length = fault.extent.length.v;
            const std::uint64_t last = io.extent.first.v + io.extent.length.v - 1;
            if (last < from || (io.extent.first.v >= from && io.extent.first.v - from >= length)) continue;
        }
        if (fault.skip != 0) {
            --fault.skip;
            continue;
        }
        if (fault.times != DiskFault::kAlways) --fault.times;
        return &fault;
    }
    return nullptr;
}

void SimDisk::submit(Io& io) noexcept {
    Reactor* reactor = Reactor::current();
    ASSERT(reactor != nullptr);
    Request& request = requests_.take(*this, io);
    request.reactor_ = reactor;
    request.submitted_ = ++moment_;
    request.slot_in_flight_ = in_flight_.size();
    in_flight_.push_back(&request);
    auto& count = counters_.by_op[static_cast<unsigned>(io.op)];
    ++count.requests;
    count.sectors += io.extent.length.v;
    counters_.in_flight_most = std::max(counters_.in_flight_most, ++counters_.in_flight);
    if (keeps_log_) {
        request.log_index_ = log_.size();
        log_.push_back({io.op, io.extent, io.flags, timeline_.now(), 0, IoStatus::ok});
    }
    trace('s', io, IoStatus::ok);

    request.status_ = check(io);
    request.faulted_ = request.status_ == IoStatus::io_error;
    if (request.status_ == IoStatus::ok) {
        if (const DiskFault* fault = match(io)) {
            ++counters_.faults;
            if (fault->kind == DiskFault::Kind::stall) {
                stalled_.push_back(&request);
                return;
            }
            request.status_ = fault->status;
            request.faulted_ = true;
        }
    }
    start(request);
}

void SimDisk::start(Request& request) noexcept {
    if (options_.wild && request.status_ == IoStatus::ok && random_.chance(1, 2)) {
        request.effect_at_once_ = true;
        if (request.io_.op == Op::read) read(request.io_);
        if (request.io_.is_write()) take_effect(request, false);
    }
    timeline_.schedule(request, timeline_.now() + draw_latency());
}

void SimDisk::finish(Request& request) noexcept {
    Io& io = request.io_;
    if (gone_) request.status_ = IoStatus::removed;
    if (request.status_ == IoStatus::ok && io.op != Op::flush && was_cut_off(io.extent)) {    // meanwhile
        request.status_ = IoStatus::io_error;
        request.faulted_ = true;
    }
    if (request.status_ != IoStatus::ok) {
        if (options_.wild && io.is_write() && check(io) == IoStatus::ok && random_.chance(1, 2)) take_effect(request, true);
        end(request, request.status_);
        return;
    }
    switch (io.op) {
        case Op::read:
            if (!request.effect_at_once_) read(io);
            break;
        case Op::flush:
            become_stable(request.submitted_);
            break;
        case Op::extent_status:
            answer_extent(io);
            break;
        case Op::write:
        case Op::write_zeroes:
        case Op::discard:
            if (!request.effect_at_once_) take_effect(request, false);
            break;
    }
    end(request, IoStatus::ok);
}

void SimDisk::end(Request& request, IoStatus status) noexcept {
    Io& io = request.io_;
    ++moment_;
    if (request.effect_ != 0 && options_.tracks_cuts) {
        for (std::size_t i = cached_.size(); i-- > 0;) {
            Cached& cached = cached_[i];
            if (cached.order != request.effect_) continue;
            cached.completed = moment_;
            if (status == IoStatus::ok && (io.flags.fua || !limits_.volatile_cache)) {
                make_stable(cached);
                cached_.erase(cached_.begin() + static_cast<std::ptrdiff_t>(i));
            }
            break;
        }
        if (cached_.empty()) cached_data_.clear();
    }
    if (status != IoStatus::ok) {
        auto& count = counters_.by_op[static_cast<unsigned>(io.op)];
        ++count.errors;
        if (request.faulted_ || status == IoStatus::removed) {
            ++count.faulted;
            ++counters_.faulted;
        }
        if (status == IoStatus::invalid && !request.faulted_) ++counters_.invalid;
    }
    --counters_.in_flight;
    if (keeps_log_ && request.log_index_ < log_.size()) {
        log_[request.log_index_].completed = timeline_.now();
        log_[request.log_index_].status = status;
    }
    trace('e', io, status);
    Reactor* reactor = request.reactor_;
    in_flight_[request.slot_in_flight_] = in_flight_.back();
    in_flight_[request.slot_in_flight_]->slot_in_flight_ = request.slot_in_flight_;
    in_flight_.pop_back();
    requests_.give(request);
    reactor->complete_later(io, status);
}

void SimDisk::read(const Io& io) noexcept {
    std::uint64_t sector = io.extent.first.v;
    std::uint64_t within = 0;
    io.buffers.for_each(to_bytes(io.extent.length), [&](std::byte* to, std::size_t bytes) {
        while (bytes != 0) {
            const std::size_t n = std::min<std::size_t>(bytes, kSectorSize - within);
            std::memcpy(to, sector_to_read(sector) + within, n);
            to += n;
            bytes -= n;
            within += n;
            if (within == kSectorSize) {
                within = 0;
                ++sector;
            }
        }
    });
}

void SimDisk::take_effect(Request& request, bool partly) noexcept {
    const Io& io = request.io_;
    ASSERT(request.effect_ == 0);
    if (!io.extent.length) return;
    request.effect_ = ++effects_;
    const bool some = partly || (io.op == Op::discard && options_.lazy_discard);
    const std::size_t bytes = static_cast<std::size_t>(to_bytes(io.extent.length));
    // The data as one piece: the cache needs a copy, and `cached_data_` keeps it when cuts are tracked.
    const std::size_t data = options_.tracks_cuts ? cached_data_.size() : 0;
    cached_data_.resize(data + bytes);
    std::byte* from = cached_data_.data() + data;
    if (io.op == Op::write) {
        io.buffers.copy_to(from, bytes);
    } else {
        std::memset(from, 0, bytes);
    }
    for (std::uint64_t i = 0; i < io.extent.length.v; ++i) {
        const std::uint64_t sector = io.extent.first.v + i;
        if (some && random_.chance(1, 2)) {
            // It stays as it is, and so it does in the cache.
            std::memcpy(from + i * kSectorSize, sector_to_read(sector), kSectorSize);
            continue;
        }
        std::memcpy(sector_to_write(sector), from + i * kSectorSize, kSectorSize);
    }
    if (options_.tracks_cuts) cached_.push_back({io.extent, request.effect_, kNever, data});
}

void SimDisk::make_stable(const Cached& cached) noexcept {
    const std::byte* data = cached_data_.data() + cached.data;
    for (std::uint64_t i = 0; i < cached.extent.length.v; ++i) {
        set_stable_sector(cached.extent.first.v + i, data + i * kSectorSize, cached.order);
    }
}

void SimDisk::become_stable(std::uint64_t completed_before) noexcept {
    if (!options_.tracks_cuts) return;
    std::size_t kept = 0;
    for (const Cached& cached : cached_) {
        if (cached.completed < completed_before) {
            make_stable(cached);
        } else {
            cached_[kept++] = cached;
        }
    }
    cached_.resize(kept);
    if (cached_.empty()) cached_data_.clear();
}

void SimDisk::answer_extent(Io& io) const noexcept {
    if (!io.extent.length) return;
    const auto untouched = [this](std::uint64_t sector) {
        const std::uint64_t index = sector / kPageSectors;
        return index >= pages_.size() || !pages_[index];
    };
    const bool hole = untouched(io.extent.first.v);
    std::uint64_t length = 1;
    while (length < io.extent.length.v && untouched(io.extent.first.v + length) == hole) ++length;
    io.answer = {{length}, hole, hole};
}

// --- faults ---------------------------------------------------------------------------------------------------------

void SimDisk::fail_nth(std::uint64_t n, unsigned ops, IoStatus status) {
    ASSERT(n > 0);
    add_fault({.ops = ops, .skip = n - 1, .times = 1, .status = status});
}

void SimDisk::fail_always(unsigned ops, IoStatus status) { add_fault({.ops = ops, .status = status}); }

void SimDisk::fail_from(Sector first, unsigned ops, IoStatus status) {
    add_fault({.ops = ops & ~op_bit(Op::flush), .extent = {first, {~std::uint64_t{0}}}, .status = status});
}

void SimDisk::fail_range(Extent extent, unsigned ops, IoStatus status) {
    add_fault({.ops = ops & ~op_bit(Op::flush), .extent = extent, .status = status});
}

void SimDisk::stall(unsigned ops) { add_fault({.kind = DiskFault::Kind::stall, .ops = ops}); }

bool SimDisk::stalls() const noexcept {
    return !stalled_.empty() || std::any_of(faults_.begin(), faults_.end(), [](const DiskFault& fault) {
        return fault.kind == DiskFault::Kind::stall;
    });
}

void SimDisk::release() noexcept {
    std::erase_if(faults_, [](const DiskFault& fault) { return fault.kind == DiskFault::Kind::stall; });
    std::vector<Request*> stalled = std::move(stalled_);
    stalled_.clear();
    for (Request* request : stalled) start(*request);
}

void SimDisk::power_cut() noexcept {
    ASSERT(options_.tracks_cuts);
    for (Request* request : in_flight_) {
        // What was under way and has no effect yet may still be there in part. Stalled or doomed to fail: the same.
        if (request->io_.is_write() && request->effect_ == 0 && check(request->io_) == IoStatus::ok) {
            take_effect(*request, false);
        }
        timeline_.cancel(*request);
        requests_.give(*request);
    }
    in_flight_.clear();
    stalled_.clear();
    counters_.in_flight = 0;

    // All lost, all kept, whole requests, and each sector for itself: extremes meet bugs that a fair coin misses.
    enum class Mood { lost, kept, whole, torn } const mood = static_cast<Mood>(random_.below(4));
    for (const Cached& cached : cached_) {
        const bool whole = random_.chance(1, 2);
        const std::byte* data = cached_data_.data() + cached.data;
        for (std::uint64_t i = 0; i < cached.extent.length.v; ++i) {
            bool there = false;
            switch (mood) {
                case Mood::lost: break;
                case Mood::kept: there = true; break;
                case Mood::whole: there = whole; break;
                case Mood::torn: there = random_.chance(1, 2); break;
            }
            if (there) set_stable_sector(cached.extent.first.v + i, data + i * kSectorSize, cached.order);
        }
    }
    // What may be read now is what is stable.
    for (const Cached& cached : cached_) {
        for (std::uint64_t i = 0; i < cached.extent.length.v; ++i) {
            const std::uint64_t sector = cached.extent.first.v + i;
            const std::uint64_t index = sector / kPageSectors;
            const std::byte* from = index < stable_.size() && stable_[index]
                                        ? stable_[index]->bytes.data() + (sector % kPageSectors) * kSectorSize
                                        : kZeroes.data();
            std::memcpy(sector_to_write(sector), from, kSectorSize);
        }
    }
    cached_.clear();
    cached_data_.clear();
    timeline_.trace().add(name_hash_ ^ static_cast<std::uint64_t>(mood));
}

void SimDisk::reset_counters() noexcept {
    const std::uint64_t in_flight = counters_.in_flight;
    counters_ = {};
    counters_.in_flight = counters_.in_flight_most = in_flight;
}

}  // namespace udm
