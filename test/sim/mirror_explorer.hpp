// Every state that a small mirror can reach. In each, every choice is tried: which request of a disk ends next, well or
// badly, whether a client's request comes, whether time passes. What a state is can be seen from outside: contents and caches of the
// disks, requests under way, the status line, what clients may read; so each is visited once. That no more belongs to it is
// tested by sample: a state that is met again must go on as before.
//
// In every state power is cut, too. A region that may be clean in the log must be equal on all legs, whatever is left of their
// caches; and for each content of the disks that can be left the mirror is brought up, read, recovered and read again, in one
// order, with further cuts at every step.
#pragma once

#include <cstring>
#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "test/sim/small_mirror.hpp"

namespace udm::small_mirror {

constexpr std::uint64_t kCompareEach = 50;    // of the states that are met again

// A choice: what happens next.
struct Choice {
    enum class Kind : std::uint8_t { submit, tick, end, fail } kind;
    std::uint8_t disk = 0, which = 0;
};

class Explorer {
  public:
    explicit Explorer(Scenario scenario, std::uint64_t states_max = 5'000'000) : scenario_{std::move(scenario)}, states_max_{states_max} {}

    void run() {
        auto first = rebuild();
        visit(std::move(first));
        while (!left_.empty() && violation_.empty()) {
            Left left = std::move(left_.back());
            left_.pop_back();
            bring_up(left);
        }
    }
    std::size_t states() const noexcept { return seen_.size(); }
    std::uint64_t edges() const noexcept { return edges_; }
    std::size_t after_cuts() const noexcept { return seen_left_.size(); }
    std::uint64_t met_again() const noexcept { return met_again_; }
    std::uint64_t compared() const noexcept { return compared_; }
    std::uint64_t ambiguous() const noexcept { return ambiguous_; }
    bool complete() const noexcept { return complete_; }    // not more states than it was to visit
    const std::string& violation() const noexcept { return violation_; }

  private:
    struct Left {    // by a power cut
        Disks disks;
        ShadowDisk shadow;
    };

    std::unique_ptr<Uptime> rebuild() {
        ShadowDisk shadow{Sectors{kSectors}};
        shadow.set_all(kFirstContent);
        auto up = std::make_unique<Uptime>(scenario_, first_disks(scenario_), std::move(shadow));
        up->drain();
        up->go_on_until([&] { return up->booted(); }, [] {});
        if (!up->booted()) violate("it does not come up: " + up->error());
        for (const Choice& choice : path_) apply(*up, choice);
        return up;
    }
    static void apply(Uptime& up, const Choice& choice) {
        switch (choice.kind) {
            case Choice::Kind::submit: up.submit_next(); break;
            case Choice::Kind::tick: up.tick(); break;
            case Choice::Kind::end: up.end(choice.disk, choice.which, IoStatus::ok); break;
            case Choice::Kind::fail:
                up.count_fault();
                up.end(choice.disk, choice.which, IoStatus::io_error);
                break;
        }
    }
    std::vector<Choice> choices(Uptime& up) const {
        std::vector<Choice> list;
        for (std::size_t d = 0; d < up.disk_count(); ++d) {
            for (std::size_t i = 0; i < up.disk(d).pending(); ++i) {
                const auto disk = static_cast<std::uint8_t>(d), which = static_cast<std::uint8_t>(i);
                list.push_back({Choice::Kind::end, disk, which});
                if (d != 0 && up.failed() < scenario_.faults) list.push_back({Choice::Kind::fail, disk, which});
            }
        }
        if (up.submitted() < scenario_.ios.size()) list.push_back({Choice::Kind::submit});
        if (up.can_tick()) list.push_back({Choice::Kind::tick});
        return list;
    }

    void violate(const std::string& text) {
        if (!violation_.empty()) return;
        violation_ = text + "\n  after";
        ShadowDisk shadow{Sectors{kSectors}};
        shadow.set_all(kFirstContent);
        Uptime up{scenario_, first_disks(scenario_), std::move(shadow)};
        up.drain();
        up.go_on_until([&] { return up.booted(); }, [] {});
        for (const Choice& choice : path_) {
            switch (choice.kind) {
                case Choice::Kind::submit: {
                    const ClientIo& io = scenario_.ios[up.submitted()];
                    violation_ += std::string{" | client "} + to_string(io.op) + " " + std::to_string(io.extent.first.v) + "+" +
                                  std::to_string(io.extent.length.v);
                    break;
                }
                case Choice::Kind::tick: violation_ += " | time"; break;
                case Choice::Kind::end: violation_ += " | " + up.disk(choice.disk).describe(choice.which); break;
                case Choice::Kind::fail: violation_ += " | FAILS " + up.disk(choice.disk).describe(choice.which); break;
            }
            apply(up, choice);
        }
        violation_ += " | " + up.status();
    }

    void visit(std::unique_ptr<Uptime> up) {
        if (!violation_.empty()) return;
        if (seen_.size() >= states_max_) {
            complete_ = false;
            return;
        }
        if (!up->violations().empty()) {
            violate(up->violations().front());
            return;
        }
        const std::uint64_t state = up->fingerprint();
        const std::vector<Choice> list = choices(*up);
        const auto [known, fresh] = seen_.try_emplace(state);
        if (!fresh) {
            ++met_again_;
            if (met_again_ % kCompareEach == 0) compare(state, list);
            return;
        }
        cut(*up);
        on_the_way_.insert(state);
        if (list.empty() && up->submitted() == scenario_.ios.size() && !up->quiet()) violate("nothing more happens");
        for (std::size_t i = 0; i < list.size() && violation_.empty(); ++i) {
            ++edges_;
            std::unique_ptr<Uptime> next = i + 1 < list.size() ? rebuild() : std::move(up);
            apply(*next, list[i]);
            path_.push_back(list[i]);
            seen_[state] += next->fingerprint();
            visit(std::move(next));
            path_.pop_back();
        }
        on_the_way_.erase(state);
    }

    // Two states that look the same must go on the same way, or there is more to a state than can be seen of it.
    void compare(std::uint64_t state, const std::vector<Choice>& list) {
        std::uint64_t sum = 0;
        for (const Choice& choice : list) {
            const auto next = rebuild();
            apply(*next, choice);
            sum += next->fingerprint();
        }
        // One that is being visited has not been everywhere yet.
        if (on_the_way_.count(state) != 0) return;
        ++compared_;
        if (seen_[state] != sum) ++ambiguous_;
    }

    // Power is cut here. Each sector is one of those that are possible, by itself: so a region that may be clean in the log
    // must be the same on all legs whatever is left of what.
    void cut(Uptime& up) {
        std::vector<std::vector<Block>> logs(kLogSectors);
        std::size_t versions = 1;
        for (std::uint64_t s = 0; s < kLogSectors; ++s) {
            logs[s] = up.disk(0).after_cut(s);
            versions *= logs[s].size();
        }
        ShadowDisk shadow = up.shadow();
        shadow.cut();
        for (std::size_t version = 0; version < versions && violation_.empty(); ++version) {
            Disks disks;
            std::size_t rest = version;
            for (std::uint64_t s = 0; s < kLogSectors; ++s) {
                disks.log.push_back(logs[s][rest % logs[s].size()]);
                rest /= logs[s].size();
            }
            check_clean(up, disks.log);
            // Of the legs: each wholly old or wholly as written last, in all combinations.
            const std::size_t combinations = std::size_t{1} << (up.disk_count() - 1);
            for (std::size_t c = 0; c < combinations; ++c) {
                disks.legs.assign(up.disk_count() - 1, {});
                for (std::size_t leg = 0; leg < disks.legs.size(); ++leg) {
                    for (std::uint64_t s = 0; s < kSectors; ++s) {
                        const auto may = up.disk(leg + 1).after_cut(s);
                        disks.legs[leg].push_back((c >> leg & 1) != 0 ? may.back() : may.front());
                    }
                }
                Trace key;
                for (const Block& block : disks.log) key.add(hash_of(block));
                for (const auto& leg : disks.legs) {
                    for (const Block& block : leg) key.add(hash_of(block));
                }
                Uptime::add_shadow(key, shadow);
                key.add(up.failed());
                if (seen_left_.insert(key.hash()).second) left_.push_back({disks, shadow});
            }
        }
    }
    void check_clean(Uptime& up, const std::vector<Block>& log) {
        std::vector<std::byte> bytes(kLogSectors * kSectorSize);
        for (std::uint64_t s = 0; s < kLogSectors; ++s) std::memcpy(bytes.data() + s * kSectorSize, log[s].data(), kSectorSize);
        const MirrorLogBytes words = MirrorLogBytes::parse(bytes, kRegions);
        for (std::uint64_t s = 0; s < kSectors; ++s) {
            if (!words.known || !words.clean[s / kRegionSectors]) continue;
            const auto first = up.disk(1).after_cut(s);
            bool equal = first.size() == 1;
            for (std::size_t leg = 1; leg + 1 < up.disk_count(); ++leg) equal = equal && up.disk(leg + 1).after_cut(s) == first;
            if (equal) continue;
            violate("power cut: region " + std::to_string(s / kRegionSectors) + " may be clean in the log, and legs differ in sector " +
                    std::to_string(s));
            return;
        }
    }

    // After a cut: in one order, with further cuts at every step.
    void bring_up(Left& left) {
        Uptime up{scenario_, left.disks, left.shadow};
        const auto each = [&] {
            if (violation_.empty()) cut(up);
        };
        const auto check = [&](bool holds, const char* what) {
            if (!up.violations().empty()) violate("after a cut: " + up.violations().front());
            else if (!holds) violate(std::string{"after a cut: "} + what + up.error() + " " + up.status());
        };
        const auto read_all = [&] {
            for (std::uint64_t s = 0; s < kSectors; s += kRegionSectors) up.submit({Op::read, {{s}, {kRegionSectors}}});
        };
        up.drain();
        check(up.go_on_until([&] { return up.booted(); }, each), "it does not come up ");
        read_all();
        check(up.go_on_until([&] { return up.all_in_sync() && up.quiet(); }, each), "not all comes back into sync ");
        read_all();
        check(up.go_on_until([&] { return up.quiet(); }, each), "reads do not end ");
        for (std::size_t leg = 1; leg < up.disk_count() && violation_.empty(); ++leg) {
            std::vector<std::byte> bytes(kSectors * kSectorSize);
            for (std::uint64_t s = 0; s < kSectors; ++s) std::memcpy(bytes.data() + s * kSectorSize, up.disk(leg).now(s).data(), kSectorSize);
            ShadowDisk::Violation violation;
            const Extent whole{{0}, {kSectors}};
            if (!up.shadow().end_read(up.shadow().begin_read(whole), IoStatus::ok, bytes.data(), violation)) {
                violate("after a cut: all is in sync, but leg " + std::to_string(leg - 1) + " holds " + violation.found + " in sector " +
                        std::to_string(violation.sector.v) + ", which may hold " + violation.expected);
            }
        }
    }

    Scenario scenario_;
    std::uint64_t states_max_;
    std::vector<Choice> path_;
    std::unordered_map<std::uint64_t, std::uint64_t> seen_;    // with the sum of those that come next
    std::unordered_set<std::uint64_t> on_the_way_;
    std::unordered_set<std::uint64_t> seen_left_;
    std::vector<Left> left_;
    std::uint64_t edges_ = 0, met_again_ = 0, compared_ = 0, ambiguous_ = 0;
    std::string violation_;
    bool complete_ = true;
};

}  // namespace udm::small_mirror
