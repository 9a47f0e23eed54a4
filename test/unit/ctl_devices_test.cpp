// What one can do with devices by name: Linux's rules (substrate.md 5.1), and what the registry adds.
#include <atomic>
#include <barrier>
#include <set>
#include <thread>

#include "test/unit/ctl_world.hpp"

namespace udm::ctl {
namespace {

using DevicesOf = World;

TEST_F(DevicesOf, AFreshDeviceIsActiveWithoutATable) {
    bare("vol");
    const Json fresh = info("vol");
    EXPECT_EQ(fresh["state"], "active");
    EXPECT_EQ(fresh["live_table"], false);
    EXPECT_EQ(fresh["minor"], 0);
    EXPECT_EQ(fresh["home"], nullptr);
    devices->resume(named("vol"));    // nothing to do, and no error, as in Linux
    devices->suspend(named("vol"), false);
    EXPECT_EQ(refusal([&] { devices->resume(named("vol")); }).code, Errc::bad_argument);
}

TEST_F(DevicesOf, NamesUuidsAndNumbersAreUnique) {
    const auto create_with = [&](const std::string& name, const std::string& uuid, std::optional<std::uint32_t> minor) {
        devices->create({.name = name, .uuid = uuid, .minor = minor, .read_only = false, .table = {}});
    };
    create_with("a", "U", 5);
    EXPECT_EQ(refusal([&] { create_with("a", "", {}); }).code, Errc::busy);
    EXPECT_EQ(refusal([&] { create_with("b", "U", {}); }).code, Errc::busy);
    EXPECT_EQ(refusal([&] { create_with("b", "", 5); }).code, Errc::busy);
    create_with("b", "", {});
    create_with("c", "", {});
    EXPECT_EQ(info("b")["minor"], 0);    // the lowest free one
    EXPECT_EQ(info("c")["minor"], 1);
    devices->remove(named("b"), {});
    create_with("d", "", {});
    EXPECT_EQ(info("d")["minor"], 0);
}

TEST_F(DevicesOf, OddNamesAreRefused) {
    for (const std::string& name : {std::string{}, std::string(128, 'x'), std::string{"a/b"}, std::string{"control"}, std::string{"."},
                                    std::string{".."}, std::string{"a\nb"}}) {
        EXPECT_EQ(refusal([&] { bare(name); }).code, Errc::bad_argument) << name;
    }
    bare(std::string(127, 'x'));
    const auto create_with = [&](const std::string& uuid) {
        devices->create({.name = "u", .uuid = uuid, .minor = {}, .read_only = false, .table = {}});
    };
    EXPECT_EQ(refusal([&] { create_with(std::string(129, 'u')); }).code, Errc::bad_argument);
    create_with(std::string(128, 'u'));
}

TEST_F(DevicesOf, UnknownOnesAreENXIO) {
    const Error error = refusal([&] { devices->suspend(named("nosuch"), false); });
    EXPECT_EQ(error.code, Errc::not_found);
    EXPECT_NE(error.message.find("nosuch"), std::string::npos);
}

TEST_F(DevicesOf, ATableIsLiveAfterResume) {
    create("vol", "0 8 zero\n8 8 error");
    EXPECT_EQ(table("vol"), "0 8 zero \n8 8 error ");
    EXPECT_EQ(read("vol", 0), '\0');
    char letter = 0;
    EXPECT_EQ(transfer("vol", Op::read, 8, letter), IoStatus::io_error);
    devices->load(named("vol"), lines_of_text("0 16 zero"), false);
    EXPECT_EQ(table("vol", true), "0 16 zero ");
    EXPECT_EQ(info("vol")["inactive_table"], true);
    devices->clear(named("vol"));
    EXPECT_EQ(info("vol")["inactive_table"], false);
    devices->load(named("vol"), lines_of_text("0 16 zero"), true);
    devices->resume(named("vol"));
    EXPECT_EQ(table("vol"), "0 16 zero ");
    EXPECT_EQ(info("vol")["read_only"], true);
    EXPECT_EQ(info("vol")["targets"], 1);
}

TEST_F(DevicesOf, CreatingWithABadTableLeavesNothing) {
    const Error error = refusal([&] { create("vol", "0 8 linear /no/such/disk 0"); });
    EXPECT_EQ(error.code, Errc::no_device);
    EXPECT_TRUE(error.message.starts_with("table: 253:0: linear: Device lookup failed: ")) << error.message;
    EXPECT_EQ(devices->registry().size(), 0u);
    EXPECT_TRUE(state->all("").empty());
    EXPECT_EQ(refusal([&] { create("vol", "8 8 zero"); }).message.substr(0, 32), "table: 253:0: zero: Gap in table");
}

TEST_F(DevicesOf, RenameRefusesTakenNamesInTheKernelsWords) {
    create("two", "0 8 zero");
    bare("three");
    EXPECT_EQ(refusal([&] { devices->rename(named("two"), "three"); }).message,
              "ioctl: Unable to change name on mapped device two to one that already exists: three");
    devices->set_uuid(named("two"), "ABC-1");
    EXPECT_EQ(refusal([&] { devices->set_uuid(named("two"), "ABC-2"); }).message,
              "ioctl: Unable to change uuid of mapped device two to ABC-2 because uuid is already set to ABC-1");
    EXPECT_EQ(info("two")["event_number"], 1);    // Linux counts these
    devices->rename(named("two"), "four");
    EXPECT_EQ(info("four")["event_number"], 2);
    EXPECT_EQ(refusal([&] { info("two"); }).code, Errc::not_found);
}

TEST_F(DevicesOf, OneInUseIsBusyAndItsUsersAreNamed) {
    create("low", "0 8 zero");
    create("high", "0 8 linear udm:low 0");
    EXPECT_EQ(info("low")["open_count"], 1);
    const Error error = refusal([&] { devices->remove(named("low"), {}); });
    EXPECT_EQ(error.code, Errc::busy);
    EXPECT_NE(error.message.find("high"), std::string::npos);
    devices->remove(named("high"), {});
    EXPECT_EQ(info("low")["open_count"], 0);
    devices->remove(named("low"), {});
}

TEST_F(DevicesOf, OneCanBeNamedInTablesInEveryWay) {
    create("low", "0 8 zero");
    create("a", "0 8 linear udm:low 0");
    create("b", "0 8 linear /dev/mapper/low 0");
    create("c", "0 8 linear 253:0 0");
    EXPECT_EQ(info("low")["open_count"], 3);
    const Json deps = devices->dependencies(named("b"), false);
    ASSERT_EQ(deps.size(), 1u);
    EXPECT_EQ(deps[0], Json::parse(R"({"major":253,"minor":0,"words":"/dev/mapper/low","name":"low"})"));
    EXPECT_EQ(refusal([&] { create("d", "0 8 linear udm:none 0"); }).code, Errc::no_device);
}

TEST_F(DevicesOf, DeferredRemovalHappensWhenTheLastUserGoes) {
    create("low", "0 8 zero");
    create("high", "0 8 linear udm:low 0");
    EXPECT_TRUE(devices->remove(named("low"), {.deferred = true}));
    EXPECT_EQ(info("low")["deferred_remove"], true);
    EXPECT_FALSE(devices->remove(named("high"), {.deferred = true}));
    // It is not found any more before the state has forgotten it; both happen on another thread.
    const auto patience = std::chrono::steady_clock::now() + std::chrono::seconds{20};
    while (!state->all("device/").empty() && std::chrono::steady_clock::now() < patience) std::this_thread::yield();
    EXPECT_TRUE(state->all("device/").empty());
    EXPECT_EQ(refusal([&] { info("low"); }).code, Errc::not_found);
}

TEST_F(DevicesOf, AStoreHasOneOwnerThoughTwoAskForItAtOnce) {
    create("one", "0 2048 snapshot-origin " + file("one.img"));
    create("two", "0 2048 snapshot-origin " + file("two.img"));
    ASSERT_NE(info("one")["home"], info("two")["home"]);
    for (int round = 0; round < 60; ++round) {
        const std::string cow = file("cow" + std::to_string(round));
        std::barrier together{2};
        std::atomic<int> loaded = 0;
        const auto take = [&](const std::string& name, const std::string& origin) {
            together.arrive_and_wait();
            try {
                create(name, "0 2048 snapshot " + (folder / origin) + " " + cow + " P 16");
                ++loaded;
            } catch (const Failure& failure) {
                EXPECT_NE(failure.error().message.find("is the store of"), std::string::npos) << failure.what();
            }
        };
        std::thread other{[&] { take("b", "two.img"); }};
        take("a", "one.img");
        other.join();
        ASSERT_LE(loaded, 1) << "round " << round;
        for (const char* name : {"a", "b"}) {
            if (devices->registry().try_find(named(name))) devices->remove(named(name), {});
        }
    }
}

// The sanitizers see what goes wrong here.
TEST_F(DevicesOf, CanBeAskedWhileTheyFindAnotherHome) {
    create("one", "0 8 linear " + file("one.img") + " 0");
    create("two", "0 8 linear " + file("two.img") + " 0");
    ASSERT_NE(info("one")["home"], info("two")["home"]);
    bare("moves");
    std::atomic<bool> over = false;
    std::thread asking{[&] {
        while (!over) {
            status("moves");
            devices->counters({});
            devices->dependencies(named("moves"), true);
        }
    }};
    std::set<unsigned> homes;
    for (int round = 0; round < 100; ++round) {
        devices->load(named("moves"), lines_of_text(round % 2 ? "0 8 linear udm:one 0" : "0 8 linear udm:two 0"), false);
        homes.insert(info("moves")["home"].get<unsigned>());
        devices->clear(named("moves"));
    }
    over = true;
    asking.join();
    EXPECT_EQ(homes.size(), 2u);
}

TEST_F(DevicesOf, ANameIsFreeWhenTheStateForgotItAndANumberWhenItsDeviceIsGone) {
    Registry& registry = devices->registry();
    const RecordPtr first = registry.create("vol", "uuid", {});
    registry.begin_removal(*first);
    EXPECT_EQ(registry.try_find(named("vol")), nullptr);
    EXPECT_EQ(registry.size(), 0u);
    EXPECT_EQ(refusal([&] { registry.create("vol", "", {}); }).code, Errc::busy);
    EXPECT_EQ(refusal([&] { registry.create("other", "uuid", {}); }).code, Errc::busy);
    registry.free_names(*first);
    const RecordPtr second = registry.create("vol", "uuid", {});
    EXPECT_EQ(second->minor, 1u);
    registry.end_removal(*first);
    EXPECT_EQ(registry.find(named("vol")), second);
    EXPECT_EQ(registry.create("third", "", {})->minor, 0u);
}

TEST_F(DevicesOf, DeferredRemovalCanBeCalledOff) {
    create("low", "0 8 zero");
    create("high", "0 8 linear udm:low 0");
    devices->remove(named("low"), {.deferred = true});
    devices->message(named("low"), Sector{0}, "@cancel_deferred_remove");
    EXPECT_EQ(info("low")["deferred_remove"], false);
    devices->remove(named("high"), {});
    EXPECT_EQ(info("low")["open_count"], 0);
}

TEST_F(DevicesOf, ForcedRemovalPutsAnErrorTableInFirst) {
    create("low", "0 8 zero");
    create("high", "0 8 linear udm:low 0");
    EXPECT_EQ(refusal([&] { devices->remove(named("low"), {.force = true}); }).code, Errc::busy);
    EXPECT_EQ(table("low"), "0 8 error ");
    char letter = 0;
    EXPECT_EQ(transfer("high", Op::read, 0, letter), IoStatus::io_error);
}

TEST_F(DevicesOf, RemoveAllTakesWholeStacks) {
    create("low", "0 8 zero");
    create("mid", "0 8 linear udm:low 0");
    create("high", "0 8 linear udm:mid 0");
    const Devices::Removed result = devices->remove_all({});
    EXPECT_EQ(result.removed.size(), 3u);
    EXPECT_TRUE(result.busy.empty());
    EXPECT_EQ(devices->registry().size(), 0u);
}

TEST_F(DevicesOf, LoopsAreRefusedHoweverLong) {
    create("a", "0 8 zero");
    create("b", "0 8 linear udm:a 0");
    create("c", "0 8 linear udm:b 0");
    for (const char* below : {"udm:a", "udm:b", "253:2"}) {
        const Error error = refusal([&] { devices->load(named("a"), lines_of_text(std::string{"0 8 linear "} + below + " 0"), false); });
        EXPECT_EQ(error.code, Errc::bad_argument) << below;
        EXPECT_NE(error.message.find("stand on itself"), std::string::npos) << error.message;
    }
    EXPECT_EQ(info("a")["inactive_table"], false);
    EXPECT_EQ(info("c")["open_count"], 0);
}

TEST_F(DevicesOf, NoStackIsTooHighWhicheverEndItGrowsAt) {
    const auto stack = [&](const std::string& stem, unsigned levels) {
        create(stem + "1", "0 8 zero");
        for (unsigned i = 2; i <= levels; ++i) create(stem + std::to_string(i), "0 8 linear udm:" + stem + std::to_string(i - 1) + " 0");
    };
    stack("a", 40);
    stack("b", 40);
    const auto refused = refusal([&] { devices->load(named("b1"), lines_of_text("0 8 linear udm:a25 0"), false); });
    EXPECT_EQ(refused.code, Errc::bad_argument);
    EXPECT_NE(refused.message.find("too many mapped devices on top of each other: 65, at most 64"), std::string::npos) << refused.message;
    EXPECT_EQ(info("b1")["inactive_table"], false);
    devices->load(named("b1"), lines_of_text("0 8 linear udm:a24 0"), false);
    devices->resume(named("b1"));
    EXPECT_EQ(read("b40", 0), '\0');
    EXPECT_EQ(refusal([&] { devices->load(named("a1"), lines_of_text("0 4 zero\n4 4 linear udm:top 0"), false); }).code, Errc::no_device);
    bare("bottom");
    EXPECT_EQ(refusal([&] { devices->load(named("a1"), lines_of_text("0 8 linear udm:bottom 0"), false); }).code, Errc::bad_argument);
}

TEST_F(DevicesOf, WhatCannotBeKeptInTheStateIsNotSet) {
    create("vol", "0 2048 snapshot-origin " + file("disk"));
    create("snap", "0 2048 snapshot " + (folder / "disk") + " " + file("cow", 64 << 10) + " P 8");
    DeviceKey by_uuid;
    by_uuid.uuid = "U";
    {
        const FullState full{*state};
        refusal([&] { devices->set_uuid(named("vol"), "U"); });
        refusal([&] { devices->set(named("snap"), Json{{"thresholds", "50"}}); });
    }
    EXPECT_FALSE(devices->registry().try_find(by_uuid));
    EXPECT_TRUE(devices->registry().find(named("snap"))->settings.empty());
    devices->set_uuid(named("snap"), "U");
    EXPECT_EQ(devices->registry().find(by_uuid)->name, "snap");
    restart();
    EXPECT_EQ(devices->registry().find(by_uuid)->name, "snap");
}

TEST_F(DevicesOf, AReadOnlyDeviceIsNotOpenedForWriting) {
    devices->create({.name = "low", .uuid = "", .minor = {}, .read_only = true, .table = lines_of_text("0 8 zero")});
    EXPECT_EQ(refusal([&] { create("high", "0 8 linear udm:low 0"); }).code, Errc::denied);
    devices->create({.name = "high", .uuid = "", .minor = {}, .read_only = true, .table = lines_of_text("0 8 linear udm:low 0")});
}

TEST_F(DevicesOf, MessagesGoToTheTargetOrSayWhyNot) {
    create("vol", "0 8 zero");
    EXPECT_TRUE(refusal([&] { devices->message(named("vol"), Sector{0}, "hello"); }).message.starts_with("Target type does not support messages"));
    EXPECT_TRUE(refusal([&] { devices->message(named("vol"), Sector{99}, "hello"); }).message.starts_with("Target message sector outside device."));
    EXPECT_EQ(refusal([&] { devices->message(named("vol"), Sector{0}, "  "); }).code, Errc::bad_argument);
    EXPECT_TRUE(refusal([&] { devices->message(named("vol"), Sector{0}, "@stats_create"); }).message.starts_with("Unsupported message sent to DM core"));
    bare("none");
    EXPECT_EQ(refusal([&] { devices->message(named("none"), Sector{0}, "hello"); }).code, Errc::bad_argument);
}

TEST_F(DevicesOf, TheDaemonsSettingsHoldForAllReactorsAndAreKept) {
    const auto value = [&](const std::string& name) {
        for (const auto& one : devices->daemon_settings()) {
            if (one.parameter.name == name) return one.value;
        }
        return std::uint64_t{0};
    };
    EXPECT_EQ(value("snapshot_cow_threshold"), 2048u);
    devices->set_daemon("snapshot_cow_threshold", 3, true);
    devices->set_daemon("snapshot_copy_memory", std::uint64_t{8} << 20, true);
    devices->set_daemon("snapshot_copy_throttle", 50, false);
    EXPECT_EQ(value("snapshot_copy_memory"), std::uint64_t{8} << 20);
    for (unsigned i = 0; i < host->reactor_count(); ++i) {
        run_on(host->env(i).reactor, [&] {
            for (const Parameter& one : host->types(i).parameters()) {
                if (one.name == "snapshot_cow_threshold") { EXPECT_EQ(one.value, 3u); }
                if (one.name == "snapshot_copy_memory") { EXPECT_EQ(one.value, (std::uint64_t{8} << 20) / host->reactor_count()); }
            }
        });
    }
    restart();
    EXPECT_EQ(value("snapshot_cow_threshold"), 3u);
    EXPECT_EQ(value("snapshot_copy_memory"), std::uint64_t{8} << 20);
    EXPECT_EQ(value("snapshot_copy_throttle"), 100u);
    devices->set_daemon("snapshot_cow_threshold", {}, true);
    EXPECT_EQ(value("snapshot_cow_threshold"), 2048u);
    EXPECT_NE(refusal([&] { devices->set_daemon("nonsense", 1, true); }).message.find("it has snapshot_cow_threshold, "), std::string::npos);
    EXPECT_NE(refusal([&] { devices->set_daemon("snapshot_copy_throttle", 0, true); }).message.find("it is from 1 to 100"), std::string::npos);
}

TEST_F(DevicesOf, SuspendHoldsBackUntilResume) {
    create("vol", "0 2048 linear " + file("disk") + " 0");
    ASSERT_EQ(write("vol", 0, 'A'), IoStatus::ok);
    devices->suspend(named("vol"), false);
    devices->suspend(named("vol"), false);
    EXPECT_EQ(info("vol")["state"], "suspended");
    std::thread writer{[&] { EXPECT_EQ(write("vol", 0, 'B'), IoStatus::ok); }};
    while (devices->counters({devices->registry().find(named("vol"))})[0]["held_back"] != 1) std::this_thread::yield();
    devices->load(named("vol"), lines_of_text("0 2048 linear " + file("other") + " 0"), false);
    devices->resume(named("vol"));
    writer.join();
    EXPECT_EQ(read("vol", 0), 'B');
    create("old", "0 2048 linear " + file("disk") + " 0");
    EXPECT_EQ(read("old", 0), 'A');
}

TEST_F(DevicesOf, WhatStacksSharesAHome) {
    create("a", "0 8 zero");
    create("b", "0 8 zero");
    EXPECT_NE(info("a")["home"], info("b")["home"]);    // spread
    create("on-a", "0 8 linear udm:a 0");
    create("on-b", "0 8 linear udm:b 0");
    EXPECT_EQ(info("on-a")["home"], info("a")["home"]);
    EXPECT_EQ(info("on-b")["home"], info("b")["home"]);
    const std::string disk = file("disk");
    create("c", "0 8 linear " + disk + " 0");
    create("d", "0 8 linear " + disk + " 8");
    EXPECT_EQ(info("c")["home"], info("d")["home"]);    // the same file
    const std::string link = folder / "link";
    std::filesystem::create_symlink(disk, link);
    create("e", "0 8 linear " + link + " 16");
    EXPECT_EQ(info("e")["home"], info("c")["home"]);    // by another name
}

TEST_F(DevicesOf, ATableMayReachOverReactors) {
    create("a", "0 2048 linear " + file("first") + " 0");
    create("b", "0 2048 linear " + file("second") + " 0");
    ASSERT_NE(info("a")["home"], info("b")["home"]);
    create("both", "0 2048 linear udm:a 0\n2048 2048 linear udm:b 0");
    ASSERT_EQ(write("both", 0, 'A'), IoStatus::ok);
    ASSERT_EQ(write("both", 2048, 'B'), IoStatus::ok);
    flush("both");
    EXPECT_EQ(read("both", 0), 'A');
    EXPECT_EQ(read("both", 2048), 'B');
    EXPECT_EQ(read("b", 0), 'B');
    // The far one changes under it.
    devices->load(named("b"), lines_of_text("0 2048 zero"), false);
    devices->resume(named("b"));
    EXPECT_EQ(read("both", 2048), '\0');
    devices->remove_all({});
    EXPECT_EQ(devices->registry().size(), 0u);
}

TEST_F(DevicesOf, AnOriginIsNotLoadedAwayFromItsSnapshots) {
    const std::string base = file("base"), other = file("other");
    create("x", "0 8 linear " + other + " 0");    // takes one home
    create("snap", "0 2048 snapshot " + base + " " + file("cow") + " P 8");
    ASSERT_NE(info("x")["home"], info("snap")["home"]);
    const Error error = refusal([&] { devices->load(named("x"), lines_of_text("0 2048 snapshot-origin " + base), false); });
    EXPECT_EQ(error.code, Errc::busy);
    EXPECT_NE(error.message.find("snap"), std::string::npos) << error.message;
    create("origin", "0 2048 snapshot-origin " + base);
    EXPECT_EQ(info("origin")["home"], info("snap")["home"]);
}

TEST_F(DevicesOf, AWaitEndsWithAnEventOrARemoval) {
    create("vol", "0 8 zero");
    const auto other_number = devices->wait(named("vol"), 99, {});
    ASSERT_TRUE(other_number->check().has_value());
    const auto pending = devices->wait(named("vol"), 0, {});
    EXPECT_FALSE(pending->check().has_value());
    devices->rename(named("vol"), "new");
    const auto found = pending->check();
    ASSERT_TRUE(found.has_value());
    EXPECT_EQ((*found)["event_number"], 1);
    const auto gone = devices->wait(named("new"), 1, 5);
    EXPECT_EQ(refusal([&] { gone->at_deadline(); }).code, Errc::timed_out);
    devices->remove(named("new"), {});
    EXPECT_EQ(refusal([&] { gone->check(); }).code, Errc::not_found);
}

TEST_F(DevicesOf, ManyClientsAtOnceLeaveThingsInOrder) {
    const std::string disk = file("disk");
    create("shared", "0 2048 linear " + disk + " 0");
    std::vector<std::thread> clients;
    for (int c = 0; c < 4; ++c) {
        clients.emplace_back([&, c] {
            const std::string mine = "mine" + std::to_string(c);
            for (int i = 0; i < 25; ++i) {
                create(mine, "0 1024 linear udm:shared 0");
                devices->suspend(named(mine), i % 2 == 0);
                try {
                    devices->suspend(named("shared"), false);
                    devices->load(named("shared"), lines_of_text("0 2048 linear " + disk + " 0"), false);
                    devices->resume(named("shared"));
                } catch (const Failure& failure) {
                    EXPECT_EQ(failure.error().code, Errc::bad_argument) << failure.what();
                }
                devices->resume(named(mine));
                devices->remove(named(mine), {});
                static_cast<void>(devices->counters({}));
            }
        });
    }
    for (std::thread& client : clients) client.join();
    EXPECT_EQ(info("shared")["open_count"], 0);
    EXPECT_EQ(devices->registry().size(), 1u);
}

}  // namespace
}  // namespace udm::ctl
