// snapshot.diff and the questions of exports, over the real engine; and questions that cross reactors.
#include "ctl/changes.hpp"

#include <set>

#include "ctl/record_disk.hpp"
#include "test/unit/ctl_world.hpp"

namespace udm::ctl {
namespace {

class ChangesTest : public World {
  protected:
    void take(const std::string& origin, const std::string& snapshot, bool redirect = false) {
        Snapshots::Request request;
        request.origins.push_back({named(origin), snapshot, std::nullopt});
        request.redirect = redirect;
        snapshots->take(request);
    }
    Json extents(const std::string& one, const std::string& other = "") {
        Changes::Request request{.device = named(one), .against = std::nullopt};
        if (!other.empty()) request.against = named(other);
        return Changes{*devices}.diff(request).at("extents");
    }
    const std::string disk = file("disk");
    const std::string plain = "0 2048 linear " + disk + " 0";
};

TEST_F(ChangesTest, ListsTheChunksASnapshotHasOfItsOwn) {
    create("vol", plain);
    take("vol", "snap");
    EXPECT_EQ(extents("snap"), Json::array());
    ASSERT_EQ(write("vol", 16, 'A'), IoStatus::ok);
    ASSERT_EQ(write("vol", 24, 'A'), IoStatus::ok);
    ASSERT_EQ(write("vol", 2040, 'A'), IoStatus::ok);
    EXPECT_EQ(extents("snap"), Json::parse("[[8192,8192],[1044480,4096]]"));
    EXPECT_EQ(extents("vol", "snap"), extents("snap", "vol"));
}

TEST_F(ChangesTest, LeavesTheRestForTheNextCall) {
    create("vol", plain);
    take("vol", "snap");
    for (std::uint64_t chunk = 0; chunk < 20; chunk += 2) ASSERT_EQ(write("vol", chunk * 8, 'A'), IoStatus::ok);
    const Changes changes{*devices};
    Changes::Request request{.device = named("snap"), .against = std::nullopt, .offset = 0, .limit = 3};
    Json all = Json::array();
    int calls = 0;
    for (Json next = 0; next.is_number(); ++calls) {
        request.offset = next;
        const Json page = changes.diff(request);
        EXPECT_LE(page["extents"].size(), 3u);
        all.insert(all.end(), page["extents"].begin(), page["extents"].end());
        next = page["next"];
    }
    EXPECT_EQ(calls, 4);
    EXPECT_EQ(all, extents("snap"));
    EXPECT_EQ(all.size(), 10u);
}

TEST_F(ChangesTest, RefusesWhatHasNothingInCommonOrNoTable) {
    create("vol", plain);
    create("other", "0 2048 zero");
    bare("bare");
    take("vol", "snap");
    EXPECT_EQ(refusal([&] { extents("snap", "other"); }).code, Errc::bad_argument);
    EXPECT_EQ(refusal([&] { extents("snap", "bare"); }).message, "bare has no table");
    EXPECT_EQ(refusal([&] { extents("snap", "snap"); }).message, "snap and snap are the same device");
    EXPECT_EQ(refusal([&] { extents("vol"); }).message, "vol is no snapshot: name what it is to be compared with");
    EXPECT_EQ(refusal([&] { extents("nobody"); }).code, Errc::not_found);
}

TEST_F(ChangesTest, AnExportIsAskedOfWhateverSharesItsDisk) {
    create("vol", plain);
    create("other", "0 2048 zero");
    take("vol", "a b");
    take("vol", "second");
    take("vol", "still", true);    // makes an internal device, which is nobody's business
    const auto questions = Changes{*devices}.questions_of(devices->registry().find(named("second")));
    EXPECT_EQ(questions->names(), (std::vector<std::string>{"udm:changed/a%20b", "udm:changed/still", "udm:changed/vol"}));
    for (const char* name : {"udm:changed/a%20b", "udm:changed/vol"}) EXPECT_TRUE(questions->has(name)) << name;
    for (const char* name : {"udm:changed/a b", "udm:changed/%61%20b", "udm:changed/second", "udm:changed/other", "udm:changed/", "udm:vol",
                             "udm:changed/%", "udm:changed/nobody"}) {
        EXPECT_FALSE(questions->has(name)) << name;
    }
}

// Snapshots of a base that nobody writes are spread over the reactors (decision 18).
TEST_F(ChangesTest, SnapshotsOnDifferentReactorsAreCompared) {
    for (std::uint64_t i = 0; i < 12; ++i) {
        const std::string name = "s" + std::to_string(i);
        create(name, "0 2048 snapshot " + disk + " " + file("cow" + std::to_string(i), 2 << 20) + " P 8");
        ASSERT_EQ(write(name, (i + 1) * 80, 'A'), IoStatus::ok);
    }
    std::set<unsigned> homes;
    for (std::uint64_t i = 0; i < 12; ++i) homes.insert(info("s" + std::to_string(i))["home"].get<unsigned>());
    ASSERT_EQ(homes.size(), 2u);
    for (std::uint64_t i = 0; i < 12; ++i) {
        for (std::uint64_t j = i + 1; j < 12; ++j) {
            const Json expected = {{(i + 1) * 80 * 512, 4096}, {(j + 1) * 80 * 512, 4096}};
            EXPECT_EQ(extents("s" + std::to_string(i), "s" + std::to_string(j)), expected) << i << " " << j;
            EXPECT_EQ(extents("s" + std::to_string(j), "s" + std::to_string(i)), expected) << j << " " << i;
        }
    }
}

// One question from any reactor, however the device does meanwhile.
struct Asked {
    Reactor* reactor;
    Disk* disk;
    Extent extent;
};
Job<IoStatus> ask(Asked* asked) {
    IoWait wait{*asked->reactor, *asked->disk, Op::extent_status, asked->extent};
    const IoStatus status = co_await wait;
    co_return status;
}

TEST_F(ChangesTest, ADeviceIsAskedFromEveryReactorUntilItIsGone) {
    create("vol", plain);
    const RecordPtr record = devices->registry().find(named("vol"));
    for (unsigned here = 0; here < host->reactor_count(); ++here) {
        Reactor& reactor = host->env(here).reactor;
        std::unique_ptr<RecordDisk> disk_of_record;
        run_on(reactor, [&] { disk_of_record = std::make_unique<RecordDisk>(reactor, *host, devices->registry(), record); });
        const auto answer = [&](std::uint64_t first, std::uint64_t count) {
            Asked asked{&reactor, disk_of_record.get(), {{first}, {count}}};
            return call_on(reactor, [&] { return ask(&asked); });
        };
        EXPECT_EQ(answer(0, 8), IoStatus::ok);
        EXPECT_EQ(answer(2040, 100), IoStatus::ok);    // as far as it goes
        EXPECT_EQ(answer(2048, 8), IoStatus::invalid);
        if (here + 1 == host->reactor_count()) {
            devices->remove(named("vol"), {});
            EXPECT_EQ(answer(0, 8), IoStatus::removed);
        }
        run_on(reactor, [&] { disk_of_record.reset(); });
    }
}

}  // namespace
}  // namespace udm::ctl
