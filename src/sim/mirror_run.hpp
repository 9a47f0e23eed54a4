// One history of the story "mirror", lived through: legs and a log, one mapped device on them, clients, and an administrator
// who suspends, resumes and reloads, one thing at a time, as jobs on the machine. It knows the mirror by its table, its
// status line and what it leaves on its disks.
//
// What must hold:
//   - every read brings what the volume's shadow allows, and two reads of a sector after a crash agree;
//   - legs are equal in each region that the log's bytes call clean, at every cut and whenever all is at rest;
//   - once all is said to be in sync, every leg holds what the shadow allows: what was flushed is on all of them;
//   - as long as one leg never failed, the table asks for it, and the log is well, no request fails;
//   - where sectors of a leg were changed behind everybody's back (the story "scrub"), a check reports these and no others, and a repair
//     leaves the legs equal, with the clients' data;
//   - everything ends, and once faults are over all regions come back into sync.
#pragma once

#include <array>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "sim/administrator.hpp"
#include "sim/clients.hpp"
#include "sim/machine.hpp"
#include "sim/mirror_setup.hpp"
#include "sim/story.hpp"

namespace udm {

class MirrorRun {
  public:
    MirrorRun(World& world, const History& history, Outcome& outcome);
    ~MirrorRun();
    void run();

  private:
    class MirrorVolume final : public Volume {
      public:
        MirrorVolume(MirrorRun& run, ShadowDisk shadow) : Volume{"mirror", std::move(shadow)}, run_{run} {}
        std::uint64_t causes() const override { return run_.causes(); }
        bool excuses(Op op, IoStatus status, std::uint64_t causes_at_begin) const override;

      private:
        MirrorRun& run_;
    };
    // What the mirror says of itself.
    struct Words {
        std::uint64_t in_sync = 0, total = 0;
        std::string health;
        char log = 'A';
        bool all_well() const noexcept {
            return in_sync == total && log == 'A' && health.find_first_not_of('A') == std::string::npos;
        }
    };

    void prepare_disks();
    void step(const Step& step);
    void power_cut(const Step& step);
    void heal_after_cut(const Step& step);
    void start_boot();
    bool finish_boot();
    void heal_all();

    // mirror_check.cpp
    std::optional<Words> words() const;
    bool at_rest() const noexcept;
    bool all_is_told();
    bool wait_for_rest();
    void look_at_rest();
    void compare_clean_regions(const char* when);
    void compare_legs(const char* when);
    void compare_volume();
    bool wait_until_in_sync();
    void check_liveness();
    void the_end();
    void remove_everything();

    // mirror_scrub.cpp
    struct ScrubWords {
        std::string mode, state;
        std::uint64_t unrepaired = 0, left = 0, unlisted = 0;
        std::set<std::uint64_t> places, repaired;    // sectors, from the mirror's start
    };
    ScrubWords scrub_words() const;
    bool legs_differ(std::uint64_t sector) const;
    void rot(const Step& step);
    void scrub_begins();
    void judge_scrub();
    void look_at_scrub(std::uint64_t events);
    void repair_all();
    Job<void> scrub(steps::ScrubWord word);
    Job<void> keep_scrub();
    Job<void> keep_scrub_now();
    Job<void> restore_scrub();

    // The administrator.
    Job<void> boot();
    Job<void> cycle(bool noflush, Nanoseconds stay);
    Job<void> reload();
    Job<void> change_legs(steps::LegChange how, std::uint64_t goes, std::uint64_t comes);
    Job<void> remove_all();
    Job<void> say(steps::MirrorWord word, std::uint64_t number);
    Job<void> call_legs_back();
    // A message; what it says against it is somebody else's matter.
    Job<bool> tell(const std::string* text);
    Job<bool> tell_words(const std::vector<std::string>* words);
    Job<void> set_up();
    std::string table() const { return table(members_); }
    std::string table(const std::vector<std::size_t>& members) const;
    void everything_is_suspended(bool noflush, std::uint64_t causes_before);

    SimDisk& leg(std::uint64_t index) const noexcept { return *legs_[index]; }
    bool has_log() const noexcept { return log_ != nullptr; }
    static std::uint64_t faulted(const SimDisk& disk) noexcept { return disk.counters().faulted; }
    std::uint64_t leg_faults() const noexcept;
    std::uint64_t causes() const noexcept { return leg_faults() + (has_log() ? faulted(*log_) : 0); }
    bool holds_writes() const noexcept { return setup_.handle_errors != 0 && setup_.keep_log == 0; }
    // Errors since all was known to be well, and the log is nowhere that would survive this table.
    bool would_forget() const noexcept { return !has_log() && causes() != causes_when_well_; }
    bool must_succeed() const noexcept;
    void not_known_to_be_well() noexcept { known_well_ = false; }

    World& world_;
    const History& history_;
    Outcome& outcome_;
    MirrorSetup setup_;
    Clients clients_;
    Administrator admin_{world_};
    SimDisk* log_ = nullptr;
    SimDisk* front_ = nullptr;
    std::vector<SimDisk*> legs_;         // and what may become one
    std::vector<std::size_t> members_;   // of legs_: those of the table that a restart would load, in its order
    std::unique_ptr<MirrorVolume> volume_;
    Machine::Mapped* mapped_ = nullptr;
    bool was_made_ = false;          // some table of it went live once
    bool syncs_always_ = false;      // the table has the word `sync`: nothing is in sync at each resume
    bool booted_ = false;
    bool gave_up_ = false;           // something is stuck: no use in going on
    bool known_well_ = false;        // all legs were equal and all was quiet at some moment since the last cut:
    std::vector<std::optional<std::uint64_t>> leg_faults_when_well_;    // since then, of those that were legs
    std::uint64_t causes_when_well_ = 0;                 // or since the boot
    std::uint64_t log_faults_at_load_ = 0;
    // Of the story "scrub". Sectors count from the mirror's start.
    std::set<std::uint64_t> rotten_;          // changed behind everybody's back, and not known to be repaired
    std::set<std::uint64_t> rotten_since_;    // since the last check or repair began
    std::set<std::uint64_t> may_be_found_;    // by it
    std::set<std::uint64_t> must_be_found_;   // by it, if they still differ at its end
    std::uint64_t rots_ = 0;
    bool rot_may_count_ = false;              // on the leg that is the source, or may have become it
    bool scrub_judged_ = true;
    std::string kept_scrub_;                  // what the control plane has in its state
    mutable bool owes_flush_error_ = false;    // of a suspend, to the next flush from above
};

}  // namespace udm
