// What comes back after a restart, and what is held instead (decision 12).
#include "test/unit/ctl_world.hpp"

namespace udm::ctl {
namespace {

using Restart = World;

TEST_F(Restart, BringsDevicesBackFromBelow) {
    const std::string disk = file("disk");
    // Names and numbers are in no order that would help.
    devices->create({.name = "z-low", .uuid = "U-1", .minor = 9, .read_only = false, .table = lines_of_text("0 2048 linear " + disk + " 0")});
    create("mid", "0 2048 linear udm:z-low 0");
    create("a-high", "0 1024 linear 253:0 0\n1024 1024 zero");
    bare("empty");
    ASSERT_EQ(write("a-high", 3, 'A'), IoStatus::ok);
    flush("a-high");
    devices->suspend(named("mid"), false);    // not kept: a script that died is no reason to hang
    devices->load(named("mid"), lines_of_text("0 2048 zero"), false);
    restart();
    EXPECT_EQ(devices->registry().size(), 4u);
    EXPECT_EQ(info("z-low")["minor"], 9);
    EXPECT_EQ(info("z-low")["uuid"], "U-1");
    EXPECT_EQ(info("mid")["state"], "active");
    EXPECT_EQ(info("mid")["inactive_table"], false);
    EXPECT_EQ(table("mid"), "0 2048 linear udm:z-low 0");
    EXPECT_EQ(read("a-high", 3), 'A');
    EXPECT_EQ(info("empty")["live_table"], false);
    EXPECT_TRUE(devices->warnings().empty());
}

TEST_F(Restart, WordsKeepTheirMeaningOverARename) {
    create("low", "0 2048 linear " + file("disk") + " 0");
    create("high", "0 2048 linear udm:low 0");
    ASSERT_EQ(write("high", 0, 'A'), IoStatus::ok);
    devices->rename(named("low"), "renamed");
    create("low", "0 2048 zero");    // somebody else
    restart();
    EXPECT_EQ(read("high", 0), 'A');
    EXPECT_EQ(info("renamed")["open_count"], 1);
    EXPECT_EQ(info("low")["open_count"], 0);
}

TEST_F(Restart, RemovalsAndSwapsAreRemembered) {
    create("gone", "0 8 zero");
    create("swapped", "0 8 zero");
    devices->remove(named("gone"), {});
    devices->load(named("swapped"), lines_of_text("0 8 error"), true);
    devices->resume(named("swapped"));
    restart();
    EXPECT_EQ(devices->registry().size(), 1u);
    EXPECT_EQ(table("swapped"), "0 8 error ");
    EXPECT_EQ(info("swapped")["read_only"], true);
}

TEST_F(Restart, HoldsWhatCannotComeUpAndWhatStandsOnItUntilItCan) {
    const std::string disk = file("disk");
    create("low", "0 2048 linear " + disk + " 0");
    create("high", "0 2048 linear udm:low 0");
    create("other", "0 8 zero");
    ASSERT_EQ(write("high", 0, 'A'), IoStatus::ok);
    stop();
    std::filesystem::rename(disk, disk + ".away");
    start();
    EXPECT_EQ(info("other")["state"], "active");
    EXPECT_EQ(info("low")["state"], "suspended");
    EXPECT_NE(info("low")["held_because"].get<std::string>().find(disk), std::string::npos);
    EXPECT_EQ(info("high")["held_because"], "it stands on low, which is held");
    EXPECT_EQ(devices->warnings().size(), 2u);
    EXPECT_EQ(refusal([&] { devices->resume(named("high")); }).code, Errc::no_device);
    restart();    // still kept
    std::filesystem::rename(disk + ".away", disk);
    devices->resume(named("high"));
    EXPECT_EQ(info("low")["state"], "active");
    EXPECT_EQ(info("high")["held_because"], nullptr);
    EXPECT_EQ(read("high", 0), 'A');
    EXPECT_TRUE(devices->warnings().empty());
}

// The log calls every region clean, and nothing says which legs it means but the table on record.
TEST_F(Restart, AHeldMirrorsNewLegIsNotTakenForInSync) {
    const std::string a = file("a"), b = file("b"), log = file("log"), spare = file("spare");
    const auto mirror = [](const std::string& log_words, const std::string& one, const std::string& other) {
        return "0 2048 mirror disk " + log_words + " 2 " + one + " 0 " + other + " 0 2 handle_errors keep_log";
    };
    create("m", mirror("3 " + log + " 128 nosync", a, b));
    ASSERT_EQ(write("m", 9, 'A'), IoStatus::ok);
    flush("m");
    stop();
    std::filesystem::remove(a);
    start();
    ASSERT_NE(info("m")["held_because"], nullptr);
    const auto load = [&](const std::string& table) {
        return [this, table] { devices->load(named("m"), lines_of_text(table), false); };
    };
    EXPECT_NE(refusal(load(mirror("2 " + log + " 128", b, spare))).message.find(spare + " is new"), std::string::npos);
    EXPECT_NE(refusal(load(mirror("3 " + log + " 128 sync", spare, b))).message.find("list it behind"), std::string::npos);
    load(mirror("3 " + log + " 128 sync", b, spare))();
    devices->resume(named("m"));
    EXPECT_EQ(info("m")["held_because"], nullptr);
    for (int i = 0; i < 20; ++i) EXPECT_EQ(read("m", 9), 'A');
}

TEST_F(Restart, NeverShowsABlankDeviceForOneThatWasInMemory) {
    create("low", "0 2048 linear ram:1M 0");
    create("high", "0 2048 linear udm:low 0");
    restart();
    EXPECT_EQ(info("low")["state"], "suspended");
    EXPECT_EQ(info("low")["live_table"], false);
    EXPECT_NE(info("low")["held_because"].get<std::string>().find("memory"), std::string::npos);
    EXPECT_NE(info("high")["held_because"].get<std::string>().find("low"), std::string::npos);
    EXPECT_EQ(refusal([&] { devices->resume(named("low")); }).code, Errc::no_device);
    // A table of one's own choice helps.
    devices->load(named("low"), lines_of_text("0 2048 zero"), false);
    devices->resume(named("low"));
    EXPECT_EQ(info("low")["held_because"], nullptr);
    devices->resume(named("high"));
    EXPECT_EQ(read("high", 0), '\0');
}

class RestartWithSnapshots : public World {
  protected:
    // An origin with 'O' in sector 0, two snapshots of it, and 'N' in sector 0 of the origin since.
    void make() {
        create("origin", "0 2048 snapshot-origin " + base);
        ASSERT_EQ(write("origin", 0, 'O'), IoStatus::ok);
        create("snap", "0 2048 snapshot " + base + " " + cow + " P 8");
        create("second", "0 2048 snapshot " + base + " " + file("cow2") + " P 8");
        ASSERT_EQ(write("origin", 0, 'N'), IoStatus::ok);
        flush("origin");
    }
    void expect_lost(const std::string& name) {
        EXPECT_EQ(table(name), "0 2048 error ");
        EXPECT_NE(info(name)["held_because"].get<std::string>().find("lost"), std::string::npos);
        char letter = 0;
        EXPECT_EQ(transfer(name, Op::read, 0, letter), IoStatus::io_error);
    }
    const std::string base = file("base"), cow = file("cow");
};

TEST_F(RestartWithSnapshots, BringsThemBack) {
    make();
    restart();
    EXPECT_EQ(read("origin", 0), 'N');
    EXPECT_EQ(read("snap", 0), 'O');
    EXPECT_EQ(read("second", 0), 'O');
    ASSERT_EQ(write("origin", 8, 'M'), IoStatus::ok);
    EXPECT_EQ(read("snap", 8), '\0');
}

TEST_F(RestartWithSnapshots, SettingsReachTheTargetsAgain) {
    make();
    EXPECT_EQ(devices->set(named("snap"), Json{{"thresholds", "30"}}), (Json{{"thresholds", "30"}}));
    devices->message(named("snap"), Sector{0}, "set auto_extend 64K,1M");    // the same, in other words
    EXPECT_EQ(info("snap")["settings"], (Json{{"thresholds", "30"}, {"auto_extend", "64K,1M"}}));
    devices->message(named("snap"), Sector{0}, "set auto_extend default");
    restart();
    EXPECT_EQ(info("snap")["settings"], (Json{{"thresholds", "30"}}));
    const auto before = devices->registry().find(named("snap"))->event_number;
    for (std::uint64_t i = 8; i < 1024; i += 8) ASSERT_EQ(write("origin", i, 'X'), IoStatus::ok);
    EXPECT_EQ(devices->registry().find(named("snap"))->event_number, before + 1);
}

// Between the handover and the removal of the device that had the store before.
TEST_F(RestartWithSnapshots, AStoreThatWasHandedOverIsTheHeirs) {
    make();
    const std::string line = table("snap");
    bare("heir");
    devices->load(named("heir"), lines_of_text(line), false);
    devices->suspend(named("snap"), false);
    devices->resume(named("heir"));
    ASSERT_EQ(write("heir", 16, 'H'), IoStatus::ok);
    flush("heir");
    restart();
    EXPECT_TRUE(devices->warnings().empty());
    EXPECT_TRUE(devices->lost_stores().all().empty());
    EXPECT_EQ(table("heir"), line);
    EXPECT_EQ(read("heir", 0), 'O');
    EXPECT_EQ(read("heir", 16), 'H');
    EXPECT_EQ(table("snap"), "0 2048 error ");
    // And on to a third, in one step.
    devices->remove(named("snap"), {});
    devices->suspend(named("heir"), false);
    create("snap", line);
    restart();
    EXPECT_EQ(read("snap", 16), 'H');
    EXPECT_EQ(table("heir"), "0 2048 error ");
}

TEST_F(RestartWithSnapshots, ARefusedHandoverTakesNothing) {
    make();
    const std::string line = table("snap");
    bare("heir");
    devices->load(named("heir"), lines_of_text(line), false);
    EXPECT_NE(refusal([&] { devices->resume(named("heir")); }).message.find("until source is suspended"), std::string::npos);
    devices->suspend(named("snap"), false);
    devices->resume(named("heir"));    // the second time without a new table
    restart();
    EXPECT_EQ(read("heir", 0), 'O');
    EXPECT_EQ(table("snap"), "0 2048 error ");
}

// The state names two owners: whoever comes second is held, and the store is not taken for lost.
TEST_F(RestartWithSnapshots, AStoreThatAnotherHasIsNotLost) {
    make();
    const std::string line = table("snap");
    bare("heir");
    devices->load(named("heir"), lines_of_text(line), false);
    refusal([&] { devices->resume(named("heir")); });
    restart();
    EXPECT_TRUE(devices->lost_stores().all().empty());
    EXPECT_EQ(read("snap", 0), 'O');
    EXPECT_EQ(info("heir")["state"], "suspended");
    restart();
    EXPECT_EQ(read("snap", 0), 'O');
}

TEST_F(RestartWithSnapshots, AMergeBegunByHandGoesOn) {
    make();
    const std::string line = table("snap");
    devices->load(named("origin"), lines_of_text("0 2048 snapshot-merge " + base + " " + cow + " P 8"), false);
    devices->suspend(named("snap"), false);
    devices->resume(named("origin"));
    EXPECT_EQ(read("origin", 0), 'O');
    restart();
    EXPECT_TRUE(devices->warnings().empty());
    EXPECT_EQ(info("origin")["state"], "active");
    EXPECT_EQ(read("origin", 0), 'O');
    EXPECT_EQ(read("second", 0), 'O');
    EXPECT_EQ(table("snap"), "0 2048 error ");
}

TEST_F(RestartWithSnapshots, AMissingStoreIsLostForGood) {
    make();
    stop();
    std::filesystem::rename(cow, cow + ".away");
    start();
    expect_lost("snap");
    EXPECT_EQ(read("second", 0), 'O');
    EXPECT_EQ(read("origin", 0), 'N');
    ASSERT_EQ(write("origin", 16, 'M'), IoStatus::ok);
    stop();
    std::filesystem::rename(cow + ".away", cow);    // too late
    start();
    expect_lost("snap");
    devices->remove(named("snap"), {});
    // Nor by hand, nor under another name of the file, once it was seen.
    create("again", "0 2048 snapshot " + base + " " + cow + " P 8");
    EXPECT_EQ(status("again"), "0 2048 snapshot Invalid");
}

TEST_F(RestartWithSnapshots, ABlankStoreIsNotANewOne) {
    make();
    stop();
    std::filesystem::resize_file(cow, 0);
    std::filesystem::resize_file(cow, 1 << 20);
    start();
    expect_lost("snap");
    EXPECT_EQ(read("second", 0), 'O');
    // Made by hand it is one, from here on, and stays one over a restart.
    devices->remove(named("snap"), {});
    create("again", "0 2048 snapshot " + base + " " + cow + " P 8");
    EXPECT_EQ(status("again"), "0 2048 snapshot 16/2048 16");
    EXPECT_TRUE(devices->lost_stores().all().empty());
    ASSERT_EQ(write("origin", 0, 'L'), IoStatus::ok);
    restart();
    EXPECT_EQ(read("again", 0), 'N');
}

TEST_F(RestartWithSnapshots, ADamagedStoreIsLost) {
    make();
    stop();
    std::ofstream{cow, std::ios::binary | std::ios::in} << "what is this";
    start();
    expect_lost("snap");
}

TEST_F(RestartWithSnapshots, ATransientStoreIsLost) {
    create("origin", "0 2048 snapshot-origin " + base);
    create("snap", "0 2048 snapshot " + base + " " + cow + " N 8");
    restart();
    EXPECT_NE(info("snap")["held_because"].get<std::string>().find("transient"), std::string::npos);
    EXPECT_EQ(table("snap"), "0 2048 error ");
}

TEST_F(RestartWithSnapshots, NothingIsLostWhileTheOriginIsAwayToo) {
    make();
    stop();
    std::filesystem::rename(cow, cow + ".away");
    std::filesystem::rename(base, base + ".away");
    start();
    EXPECT_EQ(info("snap")["live_table"], false);
    EXPECT_EQ(info("origin")["live_table"], false);
    std::filesystem::rename(cow + ".away", cow);
    std::filesystem::rename(base + ".away", base);
    devices->resume(named("origin"));
    EXPECT_EQ(read("snap", 0), 'O');
    EXPECT_EQ(read("origin", 0), 'N');
}

TEST_F(RestartWithSnapshots, AHeldSnapshotIsLostOnceItsOriginIsLetGoByHand) {
    make();
    stop();
    std::filesystem::rename(cow, cow + ".away");
    std::filesystem::rename(base, base + ".away");
    start();
    std::filesystem::rename(base + ".away", base);
    devices->resume(named("origin"));
    while (info("snap")["live_table"] == false) std::this_thread::yield();
    expect_lost("snap");
    EXPECT_EQ(read("second", 0), 'O');
}

TEST_F(Restart, ADamagedStateBringsNothingUp) {
    create("vol", "0 8 zero");
    stop();
    {
        std::fstream log{folder / "state/state.log", std::ios::in | std::ios::out | std::ios::binary};
        log.seekp(60);
        log.put('#');
    }
    start();
    EXPECT_EQ(devices->registry().size(), 0u);
    ASSERT_EQ(devices->warnings().size(), 1u);
    EXPECT_NE(devices->warnings()[0].find("damaged"), std::string::npos);
}

TEST_F(Restart, WhatWasToGoGoes) {
    create("low", "0 8 zero");
    create("high", "0 8 linear udm:low 0");
    devices->remove(named("low"), {.deferred = true});
    restart();
    EXPECT_EQ(info("low")["deferred_remove"], true);
    devices->remove(named("high"), {});
    while (devices->registry().try_find(named("low"))) std::this_thread::yield();
}

}  // namespace
}  // namespace udm::ctl
