// What a mirror knows of its legs goes to the mirror that takes its place (decision 10): a table that a resume puts in the place of
// another, for the same device, with the same log, regions of the same size and some of the same legs.
//
// Legs that both have keep what they have. A leg that is new lacks everything, and only it is copied to. A leg that is gone no
// longer counts. One that has everything must stay; if the source goes, such a one becomes the source before, durably.
//
// Where another leg comes first, the log says the same until the new table runs: who counts without a record would be another one.
//
// A mirror that did not start has its legs by the log alone: a table that takes its place may lack some of them, and has a new one only
// if everything is copied (`sync`).
//
// A new leg must not be taken for in sync by anybody who reads the log after a crash, and the table that names it may be on record
// before it is resumed. So the log says that nothing is clean before the load of that table returns, and until it is resumed
// or gone; and it says which leg is the source, by what the mirror knows its legs by.
#pragma once

#include <string>
#include <vector>

#include "targets/mirror/failures.hpp"

namespace udm::mirror {

class Succession;

// The mirrors of one reactor that are loaded.
class Successions {
  public:
    void join(Succession& mirror) { mirrors_.push_back(&mirror); }
    void leave(Succession& mirror) noexcept { std::erase(mirrors_, &mirror); }
    // The one that the device works with, or did until it was suspended; null: none.
    Succession* in_use(const DeviceEvents& device, const Extent& extent) const noexcept;
    // The last one that the device was to work with, and that did not start.
    Succession* not_started(const DeviceEvents& device, const Extent& extent) const noexcept;

  private:
    std::vector<Succession*> mirrors_;
};

class Succession {
  public:
    Succession(Set& set, Failures& failures, Successions& all) noexcept : set_{set}, failures_{failures}, all_{all} {}
    ~Succession();

    // Last in load(): pairs with the mirror in use, and refuses what cannot be.
    Job<Result<void>> load();
    // Nothing is under way: the source makes way for one that stays, which is to be settled. True: another table is to come, and
    // the source stays what it is until then.
    bool postsuspend() noexcept;
    // Before and after the log is resumed.
    Result<void> before_resume();
    void resumed();
    void not_resumed() noexcept { in_use_ = false; }    // something else kept it from that
    bool in_use() const noexcept { return in_use_; }
    bool was_tried() const noexcept { return tried_; }
    const Set& set() const noexcept { return set_; }

  private:
    static constexpr unsigned kNew = kLegsMax;

    struct KnownLeg {
        DiskId id;
        std::string words;
        Sector start;
    };
    std::vector<KnownLeg> own_legs() const;
    Result<void> come_after(const Succession& not_started);
    Result<void> match();
    Job<Result<void>> doubt(LegMask fresh);
    void no_doubt() noexcept;
    void keep(const Succession& from);
    bool same_leg(unsigned leg, unsigned theirs) const noexcept;
    LegMask kept() const noexcept;       // of the mirror before
    LegMask fresh() const noexcept;      // of this one
    // Without a record the first leg counts, which is another one in this table.
    bool reordered() const noexcept;
    Result<void> match_names() const;
    std::unexpected<Error> new_first_leg() const;
    std::unexpected<Error> refuse(std::string why);

    Set& set_;
    Failures& failures_;
    Successions& all_;
    bool in_use_ = false;                // was resumed, and nobody took its place
    bool tried_ = false;                 // was to be resumed
    std::vector<KnownLeg> logged_;       // those that have what the log calls clean
    bool nothing_clean_ = false;         // says the log
    bool takes_ = false;                 // what the one before knows
    Succession* before_ = nullptr;       // in use when this was loaded
    std::vector<Succession*> heirs_;     // loaded meanwhile; the last one counts
    bool doubts_ = false;                // had the log of the one before doubted
    std::array<unsigned, kLegsMax> from_{};    // the leg's number in the one before, or kNew
    std::string refused_;
    // From before_resume() to resumed(): what each leg has, and the source.
    std::vector<dirty_log::Bitmap> known_;
    unsigned source_ = 0;
};

}  // namespace udm::mirror
