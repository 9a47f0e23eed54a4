// The judge must be right before it judges: what it allows after crashes, and what not.
#include "test/system/crash_load/model.hpp"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "test/system/crash_load/journal.hpp"

namespace crash {
namespace {

using Sector = std::array<unsigned char, kSectorSize>;

Sector content(Seq seq, std::uint64_t sector) {
    Sector s;
    fill_sector(s.data(), seq, sector);
    return s;
}

class CrashModel : public testing::Test {
  protected:
    void write(Volume& v, Seq seq, std::uint64_t sector, bool fua = false) {
        model.sent(v, seq, sector, 1);
        model.acknowledged(v, seq, sector, 1, fua);
    }
    void flush(Volume& v) { model.flushed(v, model.flush_mark(v)); }
    bool allows(Volume& v, std::uint64_t sector, Seq seq) {
        const Sector data = content(seq, sector);
        try {
            model.check(v, sector, data, [](std::uint64_t, Seq) {});
            return true;
        } catch (const Violation&) {
            return false;
        }
    }
    Model model;
    Volume& origin = model.add_volume("origin", 8);
};

TEST_F(CrashModel, DemandsTheLastAcknowledgedWriteWhileTheServerLives) {
    write(origin, 1, 3);
    write(origin, 2, 3);
    EXPECT_TRUE(allows(origin, 3, 2));
    EXPECT_FALSE(allows(origin, 3, 1));
    EXPECT_TRUE(allows(origin, 4, 0));
    EXPECT_FALSE(allows(origin, 4, 2));
}

TEST_F(CrashModel, AllowsUnflushedWritesToBeLostInACrashButNotFlushedOnes) {
    write(origin, 1, 3);
    flush(origin);
    write(origin, 2, 3);
    model.sent(origin, 3, 3, 1);
    for (Seq found : {1, 2, 3}) {
        Model again;
        Volume& v = again.add_volume("v", 8);
        again.sent(v, 1, 3, 1);
        again.acknowledged(v, 1, 3, 1, false);
        again.flushed(v, again.flush_mark(v));
        again.sent(v, 2, 3, 1);
        again.acknowledged(v, 2, 3, 1, false);
        again.sent(v, 3, 3, 1);
        again.lost();
        const Sector data = content(found, 3);
        EXPECT_NO_THROW(again.check(v, 3, data, [](std::uint64_t, Seq) {})) << found;
    }
    model.lost();
    EXPECT_FALSE(allows(origin, 3, 0));
}

TEST_F(CrashModel, DemandsAFuaWriteAfterACrash) {
    write(origin, 1, 3, true);
    model.lost();
    EXPECT_FALSE(allows(origin, 3, 0));
    EXPECT_TRUE(allows(origin, 3, 1));
}

TEST_F(CrashModel, AFlushDoesNotCoverWhatWasAcknowledgedAfterItWasSent) {
    const auto mark = model.flush_mark(origin);
    write(origin, 1, 3);
    model.flushed(origin, mark);
    model.lost();
    EXPECT_TRUE(allows(origin, 3, 0));
}

TEST_F(CrashModel, AFlushAfterACrashDoesNotCoverWhatWasAcknowledgedBeforeIt) {
    write(origin, 1, 3);
    model.lost();
    write(origin, 2, 4);
    flush(origin);
    EXPECT_TRUE(allows(origin, 3, 0));
}

TEST_F(CrashModel, HoldsTheServerToItsFirstAnswerAfterACrash) {
    write(origin, 1, 3);
    model.lost();
    EXPECT_TRUE(allows(origin, 3, 0));
    EXPECT_FALSE(allows(origin, 3, 1));
    model.lost();
    EXPECT_FALSE(allows(origin, 3, 1));
    EXPECT_TRUE(allows(origin, 3, 0));
}

TEST_F(CrashModel, ASnapshotHasWhatWasAcknowledgedBeforeItAndNothingSentAfterIt) {
    write(origin, 1, 3);
    model.sent(origin, 2, 4, 1);
    model.take_begins("snap", origin);
    write(origin, 3, 5);
    Volume& snap = model.take_ends("snap");
    write(origin, 4, 3);
    EXPECT_FALSE(allows(snap, 3, 4));
    EXPECT_FALSE(allows(snap, 3, 0));
    EXPECT_TRUE(allows(snap, 3, 1));
    EXPECT_TRUE(allows(snap, 4, 2));   // in flight when the take began: in or out,
    EXPECT_FALSE(allows(snap, 4, 0));  // but then always the same
    EXPECT_TRUE(allows(snap, 5, 0));
    EXPECT_FALSE(allows(snap, 5, 3));
    model.lost();
    EXPECT_TRUE(allows(snap, 3, 1));
}

TEST_F(CrashModel, ATakeAroundACrashMayHaveEitherSide) {
    write(origin, 1, 3);
    model.take_begins("snap", origin);
    model.lost();
    Volume& snap = model.take_ends("snap");
    EXPECT_TRUE(allows(snap, 3, 0));
    EXPECT_FALSE(allows(snap, 3, 1));
}

class CrashModelRevert : public CrashModel {
  protected:
    // The snapshot has write 1 of sector 3, a write 9 of its own in sector 6, and the origin has gone on.
    void SetUp() override {
        write(origin, 1, 3);
        model.take_begins("snap", origin);
        write(model.take_ends("snap"), 9, 6);
        write(origin, 2, 3);
        write(origin, 3, 4);
        flush(origin);
    }
};

TEST_F(CrashModelRevert, ShowsEitherSideWhileItIsUnderWayAndOnlyTheSnapshotAfterwards) {
    model.revert_begins("snap", origin);
    for (const Seq found : {2, 1, 2}) EXPECT_TRUE(allows(origin, 3, found)) << found;
    EXPECT_FALSE(allows(origin, 3, 0));
    EXPECT_TRUE(allows(origin, 6, 9));
    model.revert_ends("snap");
    EXPECT_EQ(model.find("snap"), nullptr);
    EXPECT_FALSE(allows(origin, 3, 2));
    EXPECT_TRUE(allows(origin, 3, 1));
    EXPECT_FALSE(allows(origin, 4, 3));
    EXPECT_TRUE(allows(origin, 4, 0));
    EXPECT_FALSE(allows(origin, 6, 0));
    EXPECT_TRUE(allows(origin, 6, 9));
    model.lost();
    EXPECT_FALSE(allows(origin, 3, 2));
    EXPECT_TRUE(allows(origin, 3, 1));
    write(origin, 10, 3);
    EXPECT_FALSE(allows(origin, 3, 1));
}

TEST_F(CrashModelRevert, WhatIsWrittenMeanwhileIsThereOrGoneAndThenStaysSo) {
    model.sent(origin, 4, 4, 1);
    model.revert_begins("snap", origin);
    model.acknowledged(origin, 4, 4, 1, true);
    write(origin, 5, 5);
    EXPECT_TRUE(allows(origin, 5, 5));
    EXPECT_TRUE(allows(origin, 5, 0));  // the volume has gone back in between
    model.revert_ends("snap");
    EXPECT_FALSE(allows(origin, 4, 3));
    EXPECT_TRUE(allows(origin, 4, 4));
    EXPECT_FALSE(allows(origin, 4, 0));
    EXPECT_TRUE(allows(origin, 5, 0));
    EXPECT_FALSE(allows(origin, 5, 5));
}

TEST_F(CrashModelRevert, ThatDidNotComeToBeChangesNothing) {
    model.revert_begins("snap", origin);
    write(origin, 5, 5);
    model.lost();
    EXPECT_TRUE(allows(origin, 3, 1));
    model.revert_failed("snap");
    EXPECT_FALSE(allows(origin, 3, 1));
    EXPECT_TRUE(allows(origin, 3, 2));
    EXPECT_TRUE(allows(origin, 5, 5));
    EXPECT_FALSE(allows(origin, 5, 0));
    EXPECT_TRUE(allows(*model.find("snap"), 3, 1));
}

TEST_F(CrashModelRevert, AroundACrashMayHaveLostWhatTheSnapshotHadNotFlushed) {
    model.revert_begins("snap", origin);
    model.lost();
    model.revert_ends("snap");
    EXPECT_FALSE(allows(origin, 3, 2));
    EXPECT_TRUE(allows(origin, 6, 0));
    EXPECT_FALSE(allows(origin, 6, 9));
}

TEST_F(CrashModel, SeesZeroesOnlyWhereZeroesWereWritten) {
    write(origin, 1 | kZero, 3);
    EXPECT_TRUE(allows(origin, 3, 1 | kZero));
    EXPECT_FALSE(allows(origin, 4, 1 | kZero));
}

TEST_F(CrashModel, NamesTheSectorWhatWasFoundAndWhatIsAllowed) {
    write(origin, 1, 3);
    Sector data = content(1, 3);
    data[100] ^= 1;
    try {
        model.check(origin, 3, data, [](std::uint64_t, Seq) {});
        FAIL() << "a damaged sector was accepted";
    } catch (const Violation& v) {
        EXPECT_NE(v.what.find("origin: sector 3 (byte 1536)"), std::string::npos) << v.what;
        EXPECT_NE(v.what.find("damaged from its byte 100 on"), std::string::npos) << v.what;
        EXPECT_NE(v.what.find("allowed: write 1"), std::string::npos) << v.what;
    }
}

TEST(CrashJournal, ReplaysToTheSameJudgement) {
    const std::string path = testing::TempDir() + "/crash_journal";
    std::remove(path.c_str());
    {
        Model model;
        Journal journal{path, model};
        journal.volume("origin", 8);
        Volume& v = *model.find("origin");
        journal.sent(v, 1, 3, 2);
        journal.acknowledged(v, 1, 3, 2, false);
        journal.flushed(v, model.flush_mark(v));
        journal.take_begins("snap", v);
        journal.take_ends("snap");
        journal.sent(v, 2, 3, 1);
        journal.write_out();
    }
    Model model;
    EXPECT_EQ(replay(path, model), 2u);
    const auto none = [](std::uint64_t, Seq) {};
    EXPECT_NO_THROW(model.check(*model.find("snap"), 3, content(1, 3), none));
    EXPECT_THROW(model.check(*model.find("snap"), 4, content(0, 4), none), Violation);
    EXPECT_NO_THROW(model.check(*model.find("origin"), 3, content(2, 3), none));
    std::remove(path.c_str());
}

TEST(CrashJournal, ReplaysAReturnToASnapshot) {
    const std::string path = testing::TempDir() + "/crash_journal_revert";
    std::remove(path.c_str());
    {
        Model model;
        Journal journal{path, model};
        journal.volume("origin", 8);
        Volume& v = *model.find("origin");
        for (const char* name : {"kept", "gone"}) {
            journal.take_begins(name, v);
            journal.take_ends(name);
        }
        journal.sent(v, 1, 3, 1);
        journal.acknowledged(v, 1, 3, 1, true);
        journal.revert_begins("kept", v);
        journal.revert_failed("kept");
        journal.revert_begins("gone", v);
        journal.sent(v, 2, 4, 1);
        journal.acknowledged(v, 2, 4, 1, true);
        journal.revert_ends("gone");
    }
    Model model;
    EXPECT_EQ(replay(path, model), 2u);
    const auto none = [](std::uint64_t, Seq) {};
    EXPECT_EQ(model.find("gone"), nullptr);
    EXPECT_NE(model.find("kept"), nullptr);
    EXPECT_THROW(model.check(*model.find("origin"), 3, content(1, 3), none), Violation);
    EXPECT_NO_THROW(model.check(*model.find("origin"), 3, content(0, 3), none));
    EXPECT_NO_THROW(model.check(*model.find("origin"), 4, content(2, 4), none));
    std::remove(path.c_str());
}

}  // namespace
}  // namespace crash
