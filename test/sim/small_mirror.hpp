// A mirror of 3 regions on disks whose requests end when a test says so: from one power on to the next cut.
#pragma once

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/abandon.hpp"
#include "core/device.hpp"
#include "sim/machine.hpp"
#include "sim/mirror_log_bytes.hpp"
#include "sim/shadow_disk.hpp"
#include "sim/sim_opener.hpp"
#include "targets/all.hpp"
#include "test/sim/choice_disk.hpp"

namespace udm::small_mirror {

constexpr std::uint64_t kRegions = 3, kRegionSectors = 2, kSectors = kRegions * kRegionSectors, kLogSectors = 3;
constexpr std::uint64_t kFirstContent = 1000;
constexpr unsigned kOrderBits = 16;
constexpr Nanoseconds kRested = 5 * kSecond;
constexpr unsigned kTimersMost = 64;    // that expire before something is to be seen

struct ClientIo {
    Op op;
    Extent extent;
    bool fua = false;
};

struct Scenario {
    unsigned legs = 2;
    std::vector<bool> clean{true, true, true};    // of the log at first; legs differ elsewhere
    std::vector<ClientIo> ios{};
    unsigned faults = 0;                          // requests of legs that may fail, at any moment
    std::string without{};                        // a care
    std::string features = "2 handle_errors keep_log";
};

struct Disks {
    std::vector<Block> log;
    std::vector<std::vector<Block>> legs;
};

inline std::vector<Block> leg_content(const Scenario& scenario, std::uint64_t leg) {
    std::vector<Block> blocks(kSectors);
    for (std::uint64_t s = 0; s < kSectors; ++s) {
        const bool right = leg == 0 || scenario.clean[s / kRegionSectors];
        ShadowDisk::fill({{s}, {1}}, right ? kFirstContent : kFirstContent + 1 + leg, blocks[s].data());
    }
    return blocks;
}

inline Disks first_disks(const Scenario& scenario) {
    Disks disks;
    const auto bytes = MirrorLogBytes::make(scenario.clean);
    disks.log.resize(kLogSectors);
    std::memcpy(disks.log[0].data(), bytes.data(), bytes.size());
    for (unsigned i = 0; i < scenario.legs; ++i) disks.legs.push_back(leg_content(scenario, i));
    return disks;
}

class SmallChaos final : public Chaos {
  public:
    explicit SmallChaos(std::string without) : without_{std::move(without)} {}
    bool keeps(const char* care) noexcept override { return without_ != care; }

  private:
    std::string without_;
};

// The mirror from one power on to the next cut.
class Uptime {
  public:
    Uptime(const Scenario& scenario, const Disks& disks, ShadowDisk shadow)
        : scenario_{scenario}, shadow_{std::move(shadow)}, chaos_{scenario.without}, clients_(scenario.ios.size() + 8) {
        reactor_.enter();
        add_all_targets(types_, env_);
        disks_.push_back(std::make_unique<ChoiceDisk>("log", disks.log, order_));
        for (std::size_t i = 0; i < disks.legs.size(); ++i) {
            disks_.push_back(std::make_unique<ChoiceDisk>("leg" + std::to_string(i), disks.legs[i], order_));
        }
        opener_.add("log", *disks_[0]);
        for (std::size_t i = 1; i < disks_.size(); ++i) opener_.add("leg" + std::to_string(i - 1), *disks_[i]);
        const DiskId id = opener_.next_mapped();
        device_ = std::make_unique<Device>(env_, "mirror", id);
        opener_.add_mapped("mirror", *device_, id);
        reactor_.jobs().spawn(boot());
    }
    ~Uptime() {
        reactor_.enter();
        const Abandoning abandoning;
        reactor_.cut();
        device_.reset();
    }

    // Whatever is ready happens, without time passing.
    void drain() {
        order_ = ((order_ >> kOrderBits) + 1) << kOrderBits;
        for (unsigned n = 0; reactor_.timeline().step_until(reactor_.now()); ++n) ASSERT(n < 100'000);
    }
    bool booted() const noexcept { return booted_; }
    const std::string& error() const noexcept { return error_; }
    std::size_t disk_count() const noexcept { return disks_.size(); }
    ChoiceDisk& disk(std::size_t which) noexcept { return *disks_[which]; }
    unsigned submitted() const noexcept { return submitted_; }
    unsigned failed() const noexcept { return failed_; }
    void count_fault() noexcept {
        ++failed_;
        failed_at_ = reactor_.now();
    }
    // Time passes until something can be seen of it: a timer alone is nothing. False: nothing will happen.
    bool tick() {
        reactor_.enter();    // others of these may be about
        const std::uint64_t before = fingerprint(false);
        for (unsigned n = 0; n < kTimersMost && !reactor_.timeline().idle(); ++n) {
            reactor_.timeline().step();
            drain();
            if (fingerprint(false) != before) return true;
        }
        return false;
    }
    // A write of a leg takes less time than regions rest and legs wait for.
    bool can_tick() const noexcept {
        for (std::size_t d = 1; d < disks_.size(); ++d) {
            for (std::size_t i = 0; i < disks_[d]->pending(); ++i) {
                if (disks_[d]->op(i) != Op::flush && disks_[d]->op(i) != Op::read) return false;
            }
        }
        return !reactor_.timeline().idle();
    }
    void submit(const ClientIo& what) {
        reactor_.enter();
        Client& client = clients_[submitted_];
        client.owner = this;
        client.io = what;
        client.write = submitted_ + 1;
        client.ended_before = ended_;
        client.state = 1;
        client.order = ++order_;
        client.since = reactor_.now();
        client.log_ended = log_ended_;
        client.memory.resize(what.extent.length.v);
        Io& io = reactor_.take_io();
        io.op = what.op;
        io.extent = what.extent;
        io.flags.fua = what.fua;
        switch (what.op) {
            case Op::read: client.ticket = shadow_.begin_read(what.extent); break;
            case Op::write:
                ShadowDisk::fill(what.extent, client.write, client.memory[0].data());
                client.ticket = shadow_.begin_write(what.extent, client.write, what.fua);
                break;
            case Op::flush: client.ticket = shadow_.begin_flush(); break;
            case Op::write_zeroes: client.ticket = shadow_.begin_write(what.extent, 0, what.fua); break;
            default: client.ticket = shadow_.begin_discard(what.extent); break;
        }
        if (what.op == Op::read || what.op == Op::write) io.set_memory(client.memory[0].data(), to_bytes(what.extent.length));
        ++submitted_;
        ++in_flight_;
        io.push(client);
        device_->submit(io);
        drain();
    }
    void submit_next() { submit(scenario_.ios[submitted_]); }
    void end(std::size_t which_disk, std::size_t which, IoStatus status) {
        reactor_.enter();
        disks_[which_disk]->end(which, status);
        if (which_disk == 0) ++log_ended_;
        drain();
    }
    // Requests end first in, first out, and time passes, until it is so.
    template <class F, class Each>
    bool go_on_until(F&& done, Each&& each) {
        for (unsigned n = 0; n < 10'000; ++n) {
            if (done()) return true;
            bool any = false;
            for (std::size_t d = 0; d < disks_.size() && !any; ++d) {
                if (disks_[d]->pending() == 0) continue;
                end(d, 0, IoStatus::ok);
                any = true;
            }
            if (!any && !tick()) return done();
            each();
        }
        return false;
    }
    bool quiet() const noexcept {
        for (const auto& one : disks_) {
            if (one->pending() != 0) return false;
        }
        return in_flight_ == 0;
    }
    std::string status() const {
        Table* live = device_->live();
        return live ? live->entries()[0].target->status() : std::string{};
    }
    bool all_in_sync() const { return status().find(" 3/3 1 ") != std::string::npos; }

    ShadowDisk& shadow() noexcept { return shadow_; }
    const std::vector<std::string>& violations() const noexcept { return violations_; }

    std::uint64_t fingerprint(bool with_time = true) const {
        Trace hash;
        for (const auto& one : disks_) one->add_to(hash);
        hash.add(submitted_ << 8 | failed_);
        for (unsigned i = 0; i < submitted_; ++i) {
            hash.add(clients_[i].state);
            if (clients_[i].state == 1) hash.add(clients_[i].ended_before);
        }
        std::vector<std::pair<std::uint64_t, std::uint64_t>> flushes;
        for (std::size_t d = 0; d < disks_.size(); ++d) disks_[d]->add_flushes(flushes, d);
        for (unsigned i = 0; i < submitted_; ++i) {
            if (clients_[i].state == 1 && clients_[i].io.op == Op::flush) flushes.push_back({clients_[i].order, 100 + i});
        }
        std::sort(flushes.begin(), flushes.end());
        for (std::size_t i = 0; i < flushes.size(); ++i) {
            const bool together = i != 0 && flushes[i].first >> kOrderBits == flushes[i - 1].first >> kOrderBits;
            hash.add(flushes[i].second << 1 | together);
        }
        // How long ago it was: regions rest, legs wait.
        if (with_time && failed_ != 0) hash.add(age(failed_at_));
        for (unsigned i = 0; with_time && i < submitted_; ++i) {
            hash.add(age(clients_[i].since) << 1 | (log_ended_ != clients_[i].log_ended));
        }
        hash.add(status());
        Nanoseconds next = 0;
        hash.add(reactor_.timeline().time_to_next(next));
        add_shadow(hash, shadow_);
        ShadowDisk after = shadow_;
        after.cut();
        add_shadow(hash, after);
        return hash.hash();
    }
    // Just now, some time ago, or long enough for what waits.
    std::uint64_t age(Nanoseconds since) const noexcept {
        const Nanoseconds passed = reactor_.now() - since;
        return passed == 0 ? 0 : passed < kRested ? 1 : 2;
    }
    static void add_shadow(Trace& hash, const ShadowDisk& shadow) {
        for (std::uint64_t s = 0; s < kSectors; ++s) hash.add(shadow.expectation({s}));
    }

  private:
    struct Client final : Layer {
        void on_complete(Io& request, Frame&) noexcept override { owner->ended(*this, request); }
        Uptime* owner = nullptr;
        ClientIo io{};
        std::uint64_t write = 0;
        std::uint64_t ended_before = 0;    // which had ended when it came
        ShadowDisk::Ticket ticket = 0;
        std::uint64_t order = 0;
        Nanoseconds since = 0;             // it has its state
        std::uint64_t log_ended = 0;       // requests of the log before that
        unsigned state = 0;                // 1 under way, 2 ended well, 3 badly
        std::vector<Block> memory;
    };
    void ended(Client& client, Io& io) {
        const IoStatus status = io.status;
        reactor_.give_io(io);
        --in_flight_;
        client.state = status == IoStatus::ok ? 2 : 3;
        client.since = reactor_.now();
        client.log_ended = log_ended_;
        ended_ |= std::uint64_t{1} << (&client - clients_.data());
        if (status != IoStatus::ok && failed_ == 0) violations_.push_back("a request fails though nothing failed");
        if (client.io.op == Op::read) {
            ShadowDisk::Violation violation;
            if (!shadow_.end_read(client.ticket, status, client.memory[0].data(), violation)) {
                violations_.push_back("a read brings " + violation.found + " of sector " + std::to_string(violation.sector.v) +
                                      ", which may hold " + violation.expected);
            }
        } else if (client.io.op == Op::flush) {
            shadow_.end_flush(client.ticket, status);
        } else {
            shadow_.end_write(client.ticket, status);
        }
    }
    Job<void> boot() {
        const std::string text = "0 " + std::to_string(kSectors) + " mirror disk 2 sim:log " + std::to_string(kRegionSectors) + " " + legs_words() +
                                 " " + scenario_.features;
        auto lines = Machine::parse(text);
        ASSERT(lines.has_value());
        const Table::Context context{.env = env_, .types = types_, .opener = opener_, .events = *device_, .lost_stores = nullptr,
                                     .device_name = "mirror", .self = device_->id(), .major = 253, .minor = 0};
        auto table = Table::build(*lines, TableMode::read_write, context);
        if (!table) {
            error_ = table.error().message;
            co_return;
        }
        auto loading = (*table)->load();
        auto loaded = co_await loading;
        if (!loaded) {
            error_ = loaded.error().message;
            co_return;
        }
        device_->set_inactive(std::move(*table));
        auto resuming = device_->resume();
        const auto resumed = co_await resuming;
        if (!resumed) error_ = resumed.error().message;
        booted_ = resumed.has_value();
    }
    std::string legs_words() const {
        std::string text = std::to_string(disks_.size() - 1);
        for (std::size_t i = 1; i < disks_.size(); ++i) text += " sim:leg" + std::to_string(i - 1) + " 0";
        return text;
    }

    const Scenario& scenario_;
    ShadowDisk shadow_;
    std::uint64_t order_ = 0;    // of what begins; the upper bits: in which turn
    std::vector<std::unique_ptr<ChoiceDisk>> disks_;
    mutable SimReactor reactor_;    // asked for its timeline
    Prng random_{1};
    SmallChaos chaos_;
    Env env_{reactor_, random_, chaos_};
    SimOpener opener_;
    TargetTypes types_;
    std::unique_ptr<Device> device_;
    std::vector<Client> clients_;
    unsigned submitted_ = 0, failed_ = 0, in_flight_ = 0;
    std::uint64_t ended_ = 0;
    std::uint64_t log_ended_ = 0;
    Nanoseconds failed_at_ = 0;
    bool booted_ = false;
    std::string error_;
    std::vector<std::string> violations_;
};

}  // namespace udm::small_mirror
