// A disk in memory on virtual time. Plain: every request takes a fixed time and ends well. Beyond that, each as asked
// for: latencies drawn from a generator, so that completions change places; a volatile cache and power cuts; requests
// that fail, stall, or find the disk gone.
//
// The disk belongs to the world and not to the machine: it outlives a power cut. One disk may serve several reactors;
// each request ends on the reactor that was current at its submit().
//
// Cache model (Options::tracks_cuts). A write takes effect at a moment between its submission and its completion,
// drawn for each: then reads see it. On stable media it is
//   - certainly, after a flush that was submitted after the write completed has completed, or once it completed with
//     FUA, or once it completed on a disk whose limits have no volatile cache;
//   - perhaps, each 512-byte sector for itself, at any time from submission on: power_cut() draws for each sector
//     between what certainly is there and any of the writes since.
// A write that fails may be there wholly, partly, or not at all. Discard and write_zeroes are writes of zeroes; with
// Options::lazy_discard a discard zeroes only some of its sectors.
#pragma once

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "base/pool.hpp"
#include "base/prng.hpp"
#include "port/disk.hpp"
#include "port/reactor.hpp"
#include "sim/timeline.hpp"

namespace udm {

class SimReactor;

constexpr unsigned op_bit(Op op) { return 1U << static_cast<unsigned>(op); }

// Requests that do not end well. What matches the first rule of the list is dealt with by it.
struct DiskFault {
    static constexpr unsigned kReads = op_bit(Op::read) | op_bit(Op::extent_status);
    static constexpr unsigned kWrites =
        op_bit(Op::write) | op_bit(Op::write_zeroes) | op_bit(Op::discard) | op_bit(Op::flush);
    static constexpr unsigned kAll = kReads | kWrites;

    enum class Kind : std::uint8_t {
        fail,     // ends with `status`
        stall,    // does not end before release()
    } kind = Kind::fail;
    static constexpr std::uint64_t kAlways = ~std::uint64_t{0};

    unsigned ops = kAll;                        // bits of Op
    Extent extent{{0}, {~std::uint64_t{0}}};    // what touches it; flushes touch nothing and match by `ops` alone
    std::uint64_t skip = 0;                     // matching requests that are let through first
    std::uint64_t times = kAlways;              // matching requests dealt with after that
    IoStatus status = IoStatus::io_error;

};

class SimDisk final : public Disk {
  public:
    struct Options {
        Limits limits{};
        Nanoseconds latency_min = 100'000;
        Nanoseconds latency_max = 100'000;
        std::uint64_t seed = 1;       // of everything the disk draws
        bool tracks_cuts = false;     // power_cut() may be called; costs a second copy of the content
        bool wild = false;            // effects at any moment, failed writes partly there; else at completion, not there
        bool lazy_discard = false;
        std::string name = "disk";    // for the trace
    };
    struct Counters {
        struct PerOp {
            std::uint64_t requests = 0, sectors = 0, errors = 0;
            std::uint64_t faulted = 0;    // of the errors: due to a rule, or because the disk was gone
        };
        std::array<PerOp, 6> by_op{};    // index: Op
        std::uint64_t in_flight = 0, in_flight_most = 0;
        std::uint64_t faults = 0;        // requests a rule has dealt with
        std::uint64_t faulted = 0;       // the sum of by_op's
        std::uint64_t invalid = 0;       // requests that no layer above should have sent
        const PerOp& operator[](Op op) const noexcept { return by_op[static_cast<unsigned>(op)]; }
    };
    struct Logged {    // of one request, in the order of submission
        Op op;
        Extent extent;
        IoFlags flags;
        Nanoseconds submitted, completed;    // 0: not yet
        IoStatus status;
    };

    SimDisk(Timeline& timeline, const Options& options);
    SimDisk(SimReactor& reactor, const Options& options);
    SimDisk(SimReactor& reactor, Sectors size);    // plain, of this size, discards allowed
    ~SimDisk() override;

    void submit(Io& io) noexcept override;
    const Limits& limits() const noexcept override { return limits_; }
    void refresh() noexcept override;
    Limits& limits_to_set() noexcept { return limits_; }
    // The size that refresh() will find. Larger, it is zeroes. Smaller, what was behind is lost, and requests there fail from
    // now on.
    void resize(Sectors size) noexcept;
    Sectors size_to_come() const noexcept { return size_after_refresh_; }

    // --- content, past all requests and caches ------------------------------------------------------------------
    void read_now(Extent extent, void* to) const noexcept;
    void write_now(Extent extent, const void* from) noexcept;    // and stable
    void fill_now(Extent extent, std::uint8_t byte) noexcept;

    // --- faults -------------------------------------------------------------------------------------------------
    void add_fault(const DiskFault& fault) { faults_.push_back(fault); }
    void clear_faults() noexcept { faults_.clear(); }
    // The n-th request from now on (1: the next) of those kinds fails, once.
    void fail_nth(std::uint64_t n, unsigned ops = DiskFault::kAll, IoStatus status = IoStatus::io_error);
    void fail_always(unsigned ops = DiskFault::kAll, IoStatus status = IoStatus::io_error);
    // These two leave flushes alone.
    void fail_from(Sector first, unsigned ops = DiskFault::kAll, IoStatus status = IoStatus::io_error);
    void fail_range(Extent extent, unsigned ops = DiskFault::kAll, IoStatus status = IoStatus::io_error);
    void stall(unsigned ops = DiskFault::kAll);    // from now on
    // Takes the stalls away; what was stalled goes on.
    void release() noexcept;
    std::size_t stalled() const noexcept { return stalled_.size(); }
    bool stalls() const noexcept;    // something is stalled, or would be
    // Every request ends with `removed`, also those under way, until come_back().
    void go_away() noexcept { gone_ = true; }
    void come_back() noexcept { gone_ = false; }
    bool gone() const noexcept { return gone_; }
    void set_latency(Nanoseconds min, Nanoseconds max) noexcept;

    // Everything under way is forgotten, and the content becomes one of those that the rules above allow. Call it
    // before the machine goes, as long as the memory of its requests is there.
    void power_cut() noexcept;

    // --- what was asked of it -----------------------------------------------------------------------------------
    const Counters& counters() const noexcept { return counters_; }
    const Counters::PerOp& count(Op op) const noexcept { return counters_[op]; }
    void reset_counters() noexcept;    // but not those under way
    void keep_log(bool keep) noexcept { keeps_log_ = keep; }
    const std::vector<Logged>& log() const noexcept { return log_; }
    void clear_log() noexcept { log_.clear(); }
    const std::string& name() const noexcept { return options_.name; }

  private:
    static constexpr std::uint64_t kPageSectors = 32;
    static constexpr std::size_t kPageBytes = kPageSectors * kSectorSize;
    struct Page {
        std::array<std::byte, kPageBytes> bytes;
    };
    // What certainly is on stable media, and of which write.
    struct StablePage {
        std::array<std::byte, kPageBytes> bytes;
        std::array<std::uint64_t, kPageSectors> order;
    };
    // A write that took effect and is not certainly stable.
    struct Cached {
        Extent extent;
        std::uint64_t order;         // of effects
        std::uint64_t completed;     // when, in moments; kNever: under way
        std::size_t data;            // index into cached_data_
    };
    static constexpr std::uint64_t kNever = ~std::uint64_t{0};
    class Request final : public SimEvent {
      public:
        Request(SimDisk& disk, Io& io) noexcept : disk_{disk}, io_{io} {}
        void happen() noexcept override { disk_.finish(*this); }
        SimDisk& disk_;
        Io& io_;
        Reactor* reactor_ = nullptr;
        IoStatus status_{IoStatus::ok};
        std::uint64_t submitted_ = 0;     // moment
        std::uint64_t effect_ = 0;        // order, 0: none yet
        bool effect_at_once_ = false;
        bool faulted_ = false;
        std::size_t slot_in_flight_ = 0;
        std::size_t log_index_ = 0;
    };

    void start(Request& request) noexcept;
    void finish(Request& request) noexcept;
    void end(Request& request, IoStatus status) noexcept;
    IoStatus check(const Io& io) const noexcept;
    bool was_cut_off(Extent extent) const noexcept {
        return size_once_ && extent.end() > Sector{size_after_refresh_.v} && extent.end() <= Sector{size_once_.v};
    }
    const DiskFault* match(const Io& io) noexcept;
    Nanoseconds draw_latency() noexcept;
    void take_effect(Request& request, bool partly) noexcept;
    void become_stable(std::uint64_t completed_before) noexcept;
    void make_stable(const Cached& cached) noexcept;
    void drop_stable_prefix() noexcept;
    void read(const Io& io) noexcept;
    void answer_extent(Io& io) const noexcept;
    std::byte* sector_to_write(std::uint64_t sector) noexcept;
    const std::byte* sector_to_read(std::uint64_t sector) const noexcept;
    void set_stable_sector(std::uint64_t sector, const std::byte* data, std::uint64_t order) noexcept;
    void trace(char what, const Io& io, IoStatus status) noexcept;

    Timeline& timeline_;
    Options options_;
    Limits limits_;
    Sectors size_after_refresh_;
    Sectors size_once_{};    // before it was made smaller; 0: it never was
    Prng random_;
    std::uint64_t name_hash_ = 0;
    std::vector<std::unique_ptr<Page>> pages_;              // as reads see it; missing: zeroes
    std::vector<std::unique_ptr<StablePage>> stable_;       // missing: zeroes
    std::vector<Cached> cached_;
    std::vector<std::byte> cached_data_;
    std::uint64_t moment_ = 0;      // counts submissions and completions
    std::uint64_t effects_ = 0;
    Pool<Request> requests_;
    std::vector<Request*> in_flight_;
    std::vector<Request*> stalled_;
    std::vector<DiskFault> faults_;
    bool gone_ = false;
    bool keeps_log_ = false;
    Counters counters_;
    std::vector<Logged> log_;
};

}  // namespace udm
