// Puts a device between an origin, with its snapshots, and the file they stand on: NAME-real, `linear FILE 0`, so that what is below
// can change without any of them noticing.
//
// Snapshots take their stores over only from tables over the same base, so here each is let go and read in again, while its
// device holds all requests back: nobody sees the moment in between. The state is written once, for all together,
// when nothing is under way any more.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <vector>

#include "ctl/devices.hpp"

namespace udm::ctl {

class Interposing {
  public:
    // Locks the origin and its snapshots as long as it lives; makes NAME-real beside them. Throws Failure where one of them is not to be
    // touched now, or somebody else uses the file.
    Interposing(Devices& devices, const RecordPtr& origin);
    Interposing(const Interposing&) = delete;
    Interposing& operator=(const Interposing&) = delete;
    ~Interposing();    // without a commit() that has returned NAME-real goes, and nothing has changed

    const RecordPtr& below() const noexcept { return below_; }    // NAME-real, locked, too
    void commit();

  private:
    struct Member {
        RecordPtr record;
        SlotText before;
        std::vector<TableLine> after;
        bool let_go = false;    // has, or had, an error table
    };

    void add(const RecordPtr& record);
    void let_go(Member& member);
    void load(Member& member, const std::vector<TableLine>& lines, const SlotText& like);
    void take_back() noexcept;
    State::Change change_of(const Member& member) const;

    Devices& devices_;
    std::vector<Member> members_;    // snapshots, and the origin last
    std::vector<std::unique_lock<std::mutex>> operations_;
    RecordPtr below_;
    std::map<std::string, std::uint32_t> minors_;    // of the new tables
    bool committed_ = false;
};

}  // namespace udm::ctl
