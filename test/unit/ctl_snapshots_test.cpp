// snapshot.take, drop and list: the dance, and the way back from every step of it.
#include <sys/stat.h>

#include <semaphore>
#include <set>
#include <thread>

#include "ctl/cow_file.hpp"
#include "test/unit/ctl_world.hpp"

namespace udm::ctl {
namespace {

class Taking : public World {
  protected:
    Json take(std::vector<std::string> origins, bool redirect = false, const std::string& first_name = "") {
        Snapshots::Request request;
        for (const std::string& origin : origins) request.origins.push_back({named(origin), std::nullopt, std::nullopt});
        if (!first_name.empty()) request.origins[0].snapshot = first_name;
        request.redirect = redirect;
        return snapshots->take(request);
    }
    std::size_t files() const {
        std::size_t n = 0;
        for (const auto& entry : std::filesystem::recursive_directory_iterator{folder.path()}) n += entry.path().extension() == ".cow";
        return n;
    }
    const std::string disk = file("disk");
    const std::string plain = "0 2048 linear " + disk + " 0";
};

TEST_F(Taking, MakesAnOriginOfALinearDeviceOverWhatItStandsOn) {
    create("vol", plain);
    ASSERT_EQ(write("vol", 0, 'A'), IoStatus::ok);
    const Json taken = take({"vol"}, false, "snap");
    EXPECT_EQ(taken[0]["cow"], folder / "snap.cow");
    EXPECT_EQ(taken[0]["chunk"], 4096);
    EXPECT_LT(taken[0]["pause_us"], 1'000'000);
    EXPECT_EQ(table("vol"), "0 2048 snapshot-origin " + disk);
    EXPECT_EQ(table("snap"), "0 2048 snapshot " + disk + " " + (folder / "snap.cow") + " P 8");
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    EXPECT_EQ(read("snap", 0), 'A');
    EXPECT_EQ(read("vol", 0), 'B');
    EXPECT_EQ(std::filesystem::file_size(folder / "snap.cow"), useful_cow_bytes(Sectors{2048}, 4096));
    restart();
    EXPECT_EQ(read("snap", 0), 'A');
    EXPECT_EQ(read("vol", 0), 'B');
}

TEST_F(Taking, MovesAnyOtherTableToADeviceOfItsOwn) {
    create("vol", "0 1024 linear " + disk + " 512\n1024 1024 zero");
    ASSERT_EQ(write("vol", 0, 'A'), IoStatus::ok);
    take({"vol"}, false, "snap");
    EXPECT_EQ(table("vol"), "0 2048 snapshot-origin udm:vol-real");
    EXPECT_EQ(table("vol-real"), "0 1024 linear " + disk + " 512\n1024 1024 zero ");
    EXPECT_EQ(info("vol-real")["internal"], true);
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    EXPECT_EQ(read("snap", 0), 'A');
    take({"vol"}, false, "second");
    EXPECT_EQ(read("second", 0), 'B');
    EXPECT_EQ(devices->registry().size(), 4u);
    devices->remove_all({});
    while (devices->registry().size() != 0) std::this_thread::yield();    // vol-real goes with its last user
}

TEST_F(Taking, NamesTheSnapshotAfterOriginAndTime) {
    create("vol", plain);
    const std::string first = take({"vol"})[0]["snapshot"], second = take({"vol"})[0]["snapshot"];
    EXPECT_TRUE(first.starts_with("vol-20") && first.ends_with("Z")) << first;
    EXPECT_NE(first, second);
    const Json list = snapshots->list(named("vol"));
    ASSERT_EQ(list.size(), 2u);
    EXPECT_EQ(list[0]["origin"], "vol");
    EXPECT_EQ(list[0]["state"], "active");
    EXPECT_EQ(list[0]["allocated"], 16);
    EXPECT_EQ(list[0]["redirect"], false);
}

TEST_F(Taking, TakesSeveralAtOneInstant) {
    create("a", plain);
    create("b", "0 2048 linear " + file("other") + " 0");
    // A writer that always writes a before b: no pair of snapshots may have b without a.
    std::atomic<bool> enough = false;
    std::thread writer{[&] {
        for (int i = 1; !enough; ++i) {
            const char letter = static_cast<char>('A' + i % 20);
            ASSERT_EQ(write("a", 0, letter), IoStatus::ok);
            ASSERT_EQ(write("b", 0, letter), IoStatus::ok);
        }
    }};
    for (int round = 0; round < 5; ++round) {
        const Json taken = take({"a", "b"});
        const char of_a = read(taken[0]["snapshot"], 0), of_b = read(taken[1]["snapshot"], 0);
        const int ahead = of_a == '\0' ? 0 : of_b == '\0' ? 1 : (of_a - of_b + 20) % 20;
        EXPECT_TRUE(ahead == 0 || ahead == 1) << of_a << of_b;
    }
    enough = true;
    writer.join();
}

TEST_F(Taking, LeavesNothingBehindWhenOneOfSeveralCannotBe) {
    create("a", plain);
    create("b", "0 8 zero");
    devices->suspend(named("b"), false);
    EXPECT_EQ(refusal([&] { take({"a", "b"}); }).code, Errc::bad_argument);
    devices->resume(named("b"));
    // A name that is taken shows late: a's part is done by then.
    bare("taken");
    Snapshots::Request request;
    request.cow_dir = folder.path();
    request.origins = {{named("a"), "first", std::nullopt}, {named("b"), "taken", std::nullopt}};
    EXPECT_EQ(refusal([&] { snapshots->take(request); }).code, Errc::busy);
    EXPECT_EQ(devices->registry().size(), 3u);
    EXPECT_EQ(table("a"), plain);
    EXPECT_EQ(info("a")["state"], "active");
    EXPECT_EQ(info("a")["inactive_table"], false);
    EXPECT_EQ(files(), 0u);
    restart();
    EXPECT_EQ(devices->registry().size(), 3u);
    EXPECT_EQ(table("a"), plain);
}

TEST_F(Taking, GivesAStoreItsSpaceAtOnceIfAsked) {
    create("vol", plain);
    const auto on_disk = [&](const char* snapshot, bool reserve) {
        Snapshots::Request request;
        request.cow_dir = folder.path();
        request.origins = {{named("vol"), snapshot, std::nullopt}};
        request.reserve = reserve;
        const std::string cow = snapshots->take(request)[0]["cow"];
        struct stat about {};
        EXPECT_EQ(::stat(cow.c_str(), &about), 0);
        return static_cast<double>(about.st_blocks) * 512 / static_cast<double>(about.st_size);
    };
    EXPECT_LT(on_disk("sparse", false), 0.5);
    EXPECT_GT(on_disk("reserved", true), 0.8);  // what the list begins with may be a hole again
}

TEST_F(Taking, RefusesWhatMakesNoSense) {
    create("vol", plain);
    create("private", "0 2048 linear ram:1M 0");
    bare("empty");
    EXPECT_EQ(refusal([&] { take({"nosuch"}); }).code, Errc::not_found);
    EXPECT_EQ(refusal([&] { take({"empty"}); }).code, Errc::bad_argument);
    EXPECT_EQ(refusal([&] { take({"vol", "vol"}); }).code, Errc::bad_argument);
    EXPECT_NE(refusal([&] { take({"private"}); }).message.find("ram:NAME:SIZE"), std::string::npos);
    take({"vol"}, false, "snap");
    EXPECT_EQ(refusal([&] { take({"snap"}); }).code, Errc::bad_argument);
    Snapshots::Request odd;
    odd.origins.push_back({named("vol"), std::nullopt, std::nullopt});
    odd.chunk = 5000;
    EXPECT_EQ(refusal([&] { snapshots->take(odd); }).code, Errc::bad_argument);
    odd.chunk = 4096;
    odd.size = "much";
    EXPECT_EQ(refusal([&] { snapshots->take(odd); }).code, Errc::bad_argument);
    odd.size.reset();
    odd.origins[0].cow = disk;    // the image itself
    EXPECT_EQ(refusal([&] { snapshots->take(odd); }).code, Errc::busy);
    EXPECT_EQ(files(), 1u);
}

TEST_F(Taking, DroppingRemovesTheFileItMade) {
    create("vol", plain);
    take({"vol"}, false, "snap");
    EXPECT_EQ(files(), 1u);
    const Json dropped = snapshots->drop(named("snap"));
    EXPECT_EQ(dropped["cow"], folder / "snap.cow");
    EXPECT_EQ(files(), 0u);
    EXPECT_EQ(refusal([&] { info("snap"); }).code, Errc::not_found);
    EXPECT_EQ(refusal([&] { snapshots->drop(named("vol")); }).code, Errc::bad_argument);
    take({"vol"}, false, "snap");    // under the same name and file
    EXPECT_EQ(status("snap"), "0 2048 snapshot 16/2072 16");
}

TEST_F(Taking, ARedirectedVolumeWritesToLayersOverStillImages) {
    create("vol", plain);
    ASSERT_EQ(write("vol", 0, 'A'), IoStatus::ok);
    take({"vol"}, true, "first");
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    take({"vol"}, true, "second");
    ASSERT_EQ(write("vol", 0, 'C'), IoStatus::ok);
    flush("vol");
    const auto expect_all = [&] {
        EXPECT_EQ(read("first", 0), 'A');
        EXPECT_EQ(read("second", 0), 'B');
        EXPECT_EQ(read("vol", 0), 'C');
        EXPECT_EQ(table("vol"), "0 2048 linear udm:vol-live 0");
        EXPECT_EQ(info("first")["read_only"], true);
        EXPECT_EQ(info("second")["read_only"], true);
    };
    expect_all();
    restart();
    expect_all();
    EXPECT_EQ(refusal([&] { create("w", "0 2048 linear udm:second 0"); }).code, Errc::denied);
    EXPECT_EQ(refusal([&] { devices->load(named("second"), lines_of_text("0 2048 zero"), false); }).code, Errc::not_permitted);
    const Json list = snapshots->list(named("vol"));
    ASSERT_EQ(list.size(), 2u);
    EXPECT_EQ(list[0]["snapshot"], "first");
    EXPECT_EQ(list[0]["redirect"], true);
    EXPECT_EQ(list[0]["cow"], folder / "first.cow");
    // What was written since goes into the image's place, and the volume never notices.
    EXPECT_EQ(snapshots->drop(named("first"))["merging"], "second");
    while (devices->registry().try_find(named("first")) || files() != 1) std::this_thread::yield();
    EXPECT_EQ(read("second", 0), 'B');
    EXPECT_EQ(read("vol", 0), 'C');
    EXPECT_EQ(files(), 1u);
    restart();
    EXPECT_EQ(read("vol", 0), 'C');
}

TEST_F(Taking, SixteenLayersWork) {
    create("vol", plain);
    for (int i = 0; i < 16; ++i) {
        ASSERT_EQ(write("vol", static_cast<std::uint64_t>(i) * 8, static_cast<char>('A' + i)), IoStatus::ok);
        take({"vol"}, true, "s" + std::to_string(i));
    }
    flush("vol");
    restart();
    for (int i = 0; i < 16; ++i) {
        EXPECT_EQ(read("vol", static_cast<std::uint64_t>(i) * 8), static_cast<char>('A' + i));
        EXPECT_EQ(read("s3", static_cast<std::uint64_t>(i) * 8), i <= 3 ? static_cast<char>('A' + i) : '\0');
    }
}

TEST_F(Taking, AnUndoneRedirectGivesNamesBack) {
    create("vol", plain);
    take({"vol"}, true, "first");
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    std::ofstream{folder / "second.cow"} << "in the way";
    EXPECT_EQ(refusal([&] { take({"vol"}, true, "second"); }).code, Errc::exists);
    EXPECT_EQ(devices->registry().size(), 3u);
    EXPECT_EQ(info("vol-live")["internal"], true);
    EXPECT_EQ(info("vol-live")["read_only"], false);
    EXPECT_EQ(read("vol", 0), 'B');
    std::filesystem::remove(folder / "second.cow");
    take({"vol"}, true, "second");
    EXPECT_EQ(read("second", 0), 'B');
}

TEST_F(Taking, AMissingLayerIsHeldAndNotGivenUp) {
    create("vol", plain);
    take({"vol"}, true, "first");
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    flush("vol");
    stop();
    const std::string cow = folder / "first.cow";
    std::filesystem::rename(cow, cow + ".away");
    start();
    EXPECT_EQ(info("vol")["live_table"], false);
    EXPECT_EQ(read("first", 0), '\0');
    std::filesystem::rename(cow + ".away", cow);
    devices->resume(named("vol"));
    EXPECT_EQ(read("vol", 0), 'B');
}

class Heard final : public EventSink {
  public:
    explicit Heard(EventHub& hub) : hub_{hub} { hub_.add(*this); }
    ~Heard() { hub_.remove(*this); }
    bool removed(const std::string& name) {
        const std::lock_guard lock{mutex_};
        return removed_.contains(name);
    }

  private:
    void event(const Event& event, const std::string&) noexcept override {
        const std::lock_guard lock{mutex_};
        if (event.kind == "removed") removed_.emplace(event.device);
    }
    EventHub& hub_;
    std::mutex mutex_;
    std::set<std::string> removed_;
};

TEST_F(Taking, AMergeSaysThatDevicesWent) {
    create("vol", plain);
    take({"vol"}, false, "snap");
    Heard heard{hub};
    snapshots->merge(named("snap"));
    EXPECT_TRUE(heard.removed("snap"));    // or who waits for its events would wait for ever
    while (table("vol").find("snapshot-origin") == std::string::npos) std::this_thread::yield();
    take({"vol"}, true, "still");
    snapshots->drop(named("still"));
    while (!heard.removed("still")) std::this_thread::yield();
}

TEST_F(Taking, AnInvalidSnapshotIsNotMerged) {
    create("vol", "0 2048 snapshot-origin " + disk);
    create("snap", "0 2048 snapshot " + disk + " " + file("cow", 16 << 10) + " P 8");
    for (std::uint64_t sector = 0; sector < 80; sector += 8) ASSERT_EQ(write("vol", sector, 'A'), IoStatus::ok);
    ASSERT_EQ(status("snap"), "0 2048 snapshot Invalid");
    EXPECT_NE(refusal([&] { snapshots->merge(named("snap")); }).message.find("invalid"), std::string::npos);
    EXPECT_EQ(table("vol"), "0 2048 snapshot-origin " + disk);
    EXPECT_EQ(devices->registry().size(), 2u);
}

TEST_F(Taking, StillImagesAreDroppedUnderTheNamesTheyHaveNow) {
    create("vol", plain);
    for (const auto& [name, letter] : {std::pair{"a", 'A'}, std::pair{"b", 'B'}}) {
        take({"vol"}, true, name);
        ASSERT_EQ(write("vol", 0, letter), IoStatus::ok);
    }
    devices->rename(named("a"), "first");
    for (const char* name : {"b", "first"}) {
        snapshots->drop(named(name));
        while (devices->registry().try_find(named(name))) std::this_thread::yield();
        EXPECT_EQ(read("vol", 0), 'B');
    }
    while (files() != 0) std::this_thread::yield();
}

TEST_F(Taking, AStillImageThatEndsIsNobodyElses) {
    create("vol", plain);
    take({"vol"}, true, "a");
    const RecordPtr still = devices->registry().find(named("a"));
    {
        const std::lock_guard lock{devices->registry().mutex};
        still->merging = {{"layer", 100}};
    }
    EXPECT_EQ(refusal([&] { create("over", "0 2048 linear udm:a 0"); }).code, Errc::busy);
}

TEST_F(Taking, AFailedDropLeavesTheStillImageAsItWas) {
    create("vol", plain);
    take({"vol"}, true, "a");
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    const RecordPtr still = devices->registry().find(named("a"));
    const auto is_read_only = [&] {    // its table, not what it is shown as
        const std::lock_guard lock{devices->registry().mutex};
        return still->live->read_only;
    };
    {
        const FullState full{*state};
        refusal([&] { snapshots->drop(named("a")); });
    }
    EXPECT_TRUE(is_read_only());
    EXPECT_EQ(refusal([&] { create("w", "0 2048 linear udm:a 0"); }).code, Errc::denied);
    devices->create({.name = "r", .uuid = "", .minor = {}, .read_only = true, .table = lines_of_text("0 2048 linear udm:a 0")});
    EXPECT_EQ(read("r", 0), '\0');
    EXPECT_EQ(refusal([&] { snapshots->drop(named("a")); }).code, Errc::busy);
    EXPECT_TRUE(is_read_only());
    devices->remove(named("r"), {});
    snapshots->drop(named("a"));
    while (devices->registry().try_find(named("a"))) std::this_thread::yield();
    EXPECT_EQ(read("vol", 0), 'B');
}

TEST_F(Taking, AMergeThatCannotEndLeavesTheVolumeInUse) {
    create("vol", plain);
    take({"vol"}, true, "a");
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    Registry& registry = devices->registry();
    const RecordPtr layer = registry.find(named("vol-live")), still = registry.find(named("a"));
    std::atomic<bool> failed = false;
    host->asked = [&] {    // the layer is suspended for its new table, and the still image is about to be
        if (failed) return;
        {
            const std::lock_guard lock{registry.mutex};
            if (!layer->suspended || still->suspended) return;
        }
        failed = true;
        throw Failure{Errc::io, "for a test"};
    };
    snapshots->drop(named("a"));
    while (!failed) std::this_thread::yield();
    settle();
    host->asked = nullptr;
    ASSERT_EQ(info("vol-live")["state"], "active");    // or the volume would hang
    EXPECT_EQ(read("vol", 0), 'B');
    devices->suspend(named("vol-live"), false);
    devices->resume(named("vol-live"));    // which tries again
    while (registry.try_find(named("a"))) std::this_thread::yield();
    EXPECT_EQ(read("vol", 0), 'B');
}

TEST_F(Taking, AMergeWhoseEndTheStateCannotTakeEndsWhenItCan) {
    create("vol", plain);
    take({"vol"}, true, "a");
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    std::binary_semaphore go_on{0};
    devices->worker().post([&] { go_on.acquire(); });
    snapshots->drop(named("a"));
    while (!has_metadata_only(devices->status(named("vol-live"), false)[0]["text"].get<std::string>())) std::this_thread::yield();
    {
        const FullState full{*state};
        go_on.release();
        settle();
        EXPECT_EQ(info("a")["state"], "active");    // not half gone
        EXPECT_EQ(info("vol-live")["inactive_table"], false);
        EXPECT_EQ(read("vol", 0), 'B');
    }
    devices->suspend(named("vol-live"), false);
    devices->resume(named("vol-live"));    // which tries again
    while (files() != 0) std::this_thread::yield();
    EXPECT_FALSE(devices->registry().try_find(named("a")));
    EXPECT_EQ(read("vol", 0), 'B');
    while (devices->registry().size() != 1) std::this_thread::yield();    // the layer goes with its last still image
    EXPECT_EQ(table("vol"), plain);
    restart();
    EXPECT_EQ(read("vol", 0), 'B');
    EXPECT_EQ(devices->registry().size(), 1u);
}

TEST_F(Taking, AVolumeThatIsRemovedDuringItsMergeGoesWhenThatIsDone) {
    create("vol", plain);
    take({"vol"}, true, "a");
    for (const std::uint64_t sector : {0, 64, 128}) ASSERT_EQ(write("vol", sector, 'B'), IoStatus::ok);
    const RecordPtr layer = devices->registry().find(named("vol-live"));
    {
        const std::lock_guard lock{devices->registry().mutex};
        layer->settings["merge_rate"] = "512";    // 8 s from the first chunk to the second
    }
    snapshots->drop(named("a"));
    devices->remove(named("vol"), {});
    settle();
    EXPECT_EQ(status("vol-live").find("snapshot-merge"), 7u);
    devices->set(named("vol-live"), Json{{"merge_rate", nullptr}});
    while (devices->registry().size() != 0) std::this_thread::yield();
    std::ifstream image{disk};
    image.seekg(128 * 512);
    EXPECT_EQ(image.get(), 'B');
}

TEST_F(Taking, AnUndoneRedirectOfSeveralLeavesNothing) {
    create("a", plain);
    create("b", "0 1024 linear " + file("other") + " 0\n1024 1024 zero");
    std::ofstream{folder / "second.cow"} << "in the way";
    Snapshots::Request request;
    request.cow_dir = folder.path();
    request.redirect = true;
    request.origins = {{named("a"), "first", std::nullopt}, {named("b"), "second", std::nullopt}};
    EXPECT_EQ(refusal([&] { snapshots->take(request); }).code, Errc::exists);
    EXPECT_EQ(devices->registry().size(), 2u);
    EXPECT_EQ(table("a"), plain);
    EXPECT_EQ(files(), 1u);
    std::filesystem::remove(folder / "second.cow");
    snapshots->take(request);
    EXPECT_EQ(devices->registry().size(), 6u);
}

TEST_F(Taking, WhatTheStateStillSpeaksOfKeepsItsStore) {
    create("vol", plain);
    ASSERT_EQ(write("vol", 0, 'A'), IoStatus::ok);
    const std::uint64_t before = state->bytes_written();
    std::optional<FullState> full;
    host->asked = [&] {    // what is to come is in the state; then everything goes wrong
        if (full || state->bytes_written() == before) return;
        full.emplace(*state);
        throw Failure{Errc::io, "for a test"};
    };
    refusal([&] { take({"vol"}, true, "first"); });
    host->asked = nullptr;
    EXPECT_EQ(table("vol"), plain);
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    full.reset();
    restart();
    EXPECT_EQ(info("vol")["state"], "active");
    EXPECT_EQ(read("vol", 0), 'B');
}

TEST_F(Taking, AStoreThatIsMadeAnewIsTrustedWhateverItsPath) {
    create("vol", plain);
    std::filesystem::create_directory(folder / "with blanks");
    const std::string cow = (folder / "with blanks") + "/snap.cow";
    LostStoreList& lost = devices->lost_stores();
    const auto lose = [&] { lost.note_lost(lost.change_for(cow, {DiskId::Kind::file, 1, 2})); };
    Snapshots::Request request;
    request.cow_dir = folder / "with blanks";
    request.origins = {{named("vol"), "snap", std::nullopt}};
    lose();
    snapshots->take(request);
    EXPECT_EQ(status("snap"), "0 2048 snapshot 16/2072 16");
    EXPECT_TRUE(lost.all().empty());
    lose();
    snapshots->drop(named("snap"));
    EXPECT_TRUE(lost.all().empty());
    snapshots->take(request);
    lose();
    snapshots->merge(named("snap"));
    while (!lost.all().empty()) std::this_thread::yield();
}

TEST_F(Taking, AStoreIsMadeWhereNothingElseIs) {
    create("vol", plain);
    create("store", "0 2048 linear " + file("store") + " 0");
    const auto take_on = [&](const std::string& cow, bool redirect = false) {
        Snapshots::Request request;
        request.origins = {{named("vol"), "snap", cow}};
        request.redirect = redirect;
        return snapshots->take(request);
    };
    EXPECT_EQ(refusal([&] { take_on("relative.cow"); }).code, Errc::bad_argument);
    EXPECT_EQ(refusal([&] { take_on("udm:vol"); }).code, Errc::bad_argument);
    for (const std::string store : {"udm:store", "ram:store:1M"}) {
        take_on(store);
        EXPECT_NE(refusal([&] {
            Snapshots::Request again;
            again.origins = {{named("vol"), "again", store}};
            snapshots->take(again);
        }).message.find("stands on it"), std::string::npos);
        ASSERT_EQ(write("vol", 0, 'A'), IoStatus::ok);    // its old content goes to the store
        snapshots->drop(named("snap"));
        if (store.starts_with("ram:")) continue;    // that went with its last user
        for (const bool redirect : {false, true}) {
            const Error refused = refusal([&] { take_on(store, redirect); });
            EXPECT_EQ(refused.code, Errc::exists) << refused.message;
            EXPECT_EQ(read("vol", 0), 'A');
            EXPECT_FALSE(devices->registry().try_find(named("snap")));
        }
    }
    Snapshots::Request transient;
    transient.origins = {{named("vol"), "snap", std::nullopt}};
    transient.redirect = true;
    transient.persistent = false;
    EXPECT_EQ(refusal([&] { snapshots->take(transient); }).code, Errc::bad_argument);
    transient.redirect = false;
    snapshots->take(transient);
}

TEST_F(Taking, AStoreThatWentToAnotherIsNotDeleted) {
    create("vol", plain);
    take({"vol"}, false, "snap");
    const std::string line = table("snap");
    bare("heir");
    devices->load(named("heir"), lines_of_text(line), false);
    devices->suspend(named("snap"), false);
    devices->resume(named("heir"));
    EXPECT_TRUE(snapshots->drop(named("snap"))["cow"].is_null());
    EXPECT_EQ(files(), 1u);
}

// The worker may be in the middle of ending a merge, waiting for a write that waits for the record.
TEST_F(Taking, ALostStoreIsRecordedWhateverTheWorkerWaitsFor) {
    class Answer final : public LostStores::Recorded {
      public:
        void recorded(IoStatus) noexcept override { done.release(); }
        std::binary_semaphore done{0};
    } answer;
    std::binary_semaphore go_on{0};
    devices->worker().post([&] { go_on.acquire(); });
    run_on(host->env(0).reactor, [&] { devices->lost_stores().record({DiskId::Kind::file, 1, 2}, "words", answer); });
    EXPECT_TRUE(answer.done.try_acquire_for(std::chrono::seconds{10}));
    go_on.release();
    stop();
}

TEST(CowFile, IsNeverLargerThanUseful) {
    EXPECT_EQ(useful_cow_bytes(Sectors{2048}, 4096), (1 + 256 + 2) * 4096u);
    EXPECT_EQ(cow_bytes(std::nullopt, Sectors{2048}, 4096), 259 * 4096u);
    EXPECT_EQ(cow_bytes("100G", Sectors{2048}, 4096), 259 * 4096u);
    EXPECT_EQ(cow_bytes("16K", Sectors{2048}, 4096), 4 * 4096u);
    EXPECT_EQ(cow_bytes("3%", Sectors{2048}, 4096), 8 * 4096u);
    EXPECT_THROW(cow_bytes("15K", Sectors{2048}, 4096), Failure);
    EXPECT_THROW(cow_bytes("1%", Sectors{2048}, 4096), Failure);
    EXPECT_EQ(cow_bytes("50%", Sectors{2048}, 4096), 128 * 4096u);
    EXPECT_THROW(cow_bytes("%", Sectors{2048}, 4096), Failure);
    EXPECT_THROW(cow_bytes("-1", Sectors{2048}, 4096), Failure);
}

}  // namespace
}  // namespace udm::ctl
