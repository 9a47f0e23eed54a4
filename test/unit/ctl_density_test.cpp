// Many snapshots of one base: on which reactor they live, and what the registry knows without looking at all of them.
#include <set>
#include <thread>

#include "ctl/free_numbers.hpp"
#include "test/unit/ctl_world.hpp"

namespace udm::ctl {
namespace {

TEST(FreeNumbers, AlwaysGivesTheLowest) {
    FreeNumbers numbers{9};
    std::set<std::uint32_t> taken;
    Prng random{7};
    for (int i = 0; i < 20'000; ++i) {
        const auto number = static_cast<std::uint32_t>(random.below(10));
        EXPECT_EQ(numbers.contains(number), !taken.contains(number));
        if (taken.insert(number).second) {
            numbers.take(number);
        } else {
            taken.erase(number);
            numbers.give(number);
        }
        std::optional<std::uint32_t> lowest;
        for (std::uint32_t n = 0; n <= 9 && !lowest; ++n) {
            if (!taken.contains(n)) lowest = n;
        }
        ASSERT_EQ(numbers.lowest([](std::uint32_t) { return false; }), lowest);
    }
}

class Fleet : public World {
  protected:
    static constexpr unsigned kMany = 24;
    std::string name(unsigned i) const { return "m" + std::to_string(i); }
    std::string line(unsigned i) { return "0 2048 snapshot " + base + " " + file(name(i) + ".cow") + " P 8"; }
    void make(unsigned count) {
        for (unsigned i = 0; i < count; ++i) create(name(i), line(i));
    }
    unsigned home(const std::string& device) { return info(device)["home"]; }
    std::vector<unsigned> per_home(unsigned count) {
        std::vector<unsigned> homes(2);
        for (unsigned i = 0; i < count; ++i) ++homes[home(name(i))];
        return homes;
    }
    const std::string base = file("base");
};

TEST_F(Fleet, SpreadsOverTheReactorsAndIsWrittenOnAllOfThemAtOnce) {
    make(kMany);
    const auto homes = per_home(kMany);
    EXPECT_EQ(homes[0], homes[1]);
    std::vector<std::thread> writers;
    for (unsigned half = 0; half < 2; ++half) {
        writers.emplace_back([this, half] {
            for (unsigned i = 0; i < kMany; ++i) {
                if (home(name(i)) != half) continue;
                for (std::uint64_t sector = 0; sector < 1024; sector += 8) {
                    ASSERT_EQ(write(name(i), sector, static_cast<char>('a' + i)), IoStatus::ok);
                }
                flush(name(i));
            }
        });
    }
    for (std::thread& writer : writers) writer.join();
    const auto check = [&] {
        for (unsigned i = 0; i < kMany; ++i) {
            EXPECT_EQ(read(name(i), 1016), static_cast<char>('a' + i));
            EXPECT_EQ(read(name(i), 1024), 0);
            EXPECT_EQ(status(name(i)), "0 2048 snapshot 1040/2048 16") << name(i);
        }
    };
    check();
    restart();
    EXPECT_EQ(per_home(kMany), homes);
    check();
}

TEST_F(Fleet, AnOriginIsRefusedOverASpreadBaseAndTheOthersAreNamed) {
    make(kMany);
    const Error refused = refusal([&] { create("vol", "0 2048 snapshot-origin " + base); });
    EXPECT_EQ(refused.code, Errc::busy);
    EXPECT_NE(refused.message.find("an origin and its snapshots share one reactor"), std::string::npos) << refused.message;
    EXPECT_NE(refused.message.find(" and 4 more on " + base + " live on another"), std::string::npos) << refused.message;
    const unsigned first = home(name(0));
    for (unsigned i = 0, named_ones = 0; i < kMany && named_ones < 8; ++i) {
        if (home(name(i)) == first) continue;
        ++named_ones;
        EXPECT_NE(refused.message.find(name(i)), std::string::npos) << refused.message;
    }
    EXPECT_EQ(devices->registry().size(), kMany);
    EXPECT_EQ(write(name(1), 0, 'x'), IoStatus::ok);    // those that are there are as they were
    for (unsigned i = 0; i < kMany; ++i) {
        if (home(name(i)) != first) devices->remove(named(name(i)), {});
    }
    create("vol", "0 2048 snapshot-origin " + base);
    EXPECT_EQ(home("vol"), first);
    EXPECT_EQ(write("vol", 0, 'y'), IoStatus::ok);
    EXPECT_EQ(read(name(0), 0), 0);
}

TEST_F(Fleet, AFewStayTogetherSoThatAnOriginCanFollow) {
    make(Registry::kFewSnapshots);
    EXPECT_EQ(per_home(Registry::kFewSnapshots)[home(name(0))], Registry::kFewSnapshots);
    create("vol", "0 2048 snapshot-origin " + base);
    EXPECT_EQ(home("vol"), home(name(0)));
    EXPECT_EQ(write("vol", 0, 'y'), IoStatus::ok);
    for (unsigned i = 0; i < Registry::kFewSnapshots; ++i) EXPECT_EQ(read(name(i), 0), 0);
}

TEST_F(Fleet, AllLiveWithTheirOriginAlsoAfterARestart) {
    create("vol", "0 2048 snapshot-origin " + base);
    make(kMany);
    EXPECT_EQ(per_home(kMany)[home("vol")], kMany);
    restart();    // snapshots come up before their origin
    EXPECT_EQ(info("vol")["held_because"], nullptr);
    EXPECT_EQ(per_home(kMany)[home("vol")], kMany);
    ASSERT_EQ(write("vol", 0, 'y'), IoStatus::ok);
    for (unsigned i = 0; i < kMany; ++i) EXPECT_EQ(read(name(i), 0), 0);
}

TEST_F(Fleet, OfABaseThatSomebodyWritesStaysWithTheWriter) {
    create("writer", "0 2048 linear " + base + " 0");
    make(kMany);
    EXPECT_EQ(per_home(kMany)[home("writer")], kMany);
}

TEST_F(Fleet, ATakeOfAReadOnlyVolumeBringsTheSnapshotToIt) {
    devices->create({.name = "vol", .uuid = "", .minor = {}, .read_only = true, .table = lines_of_text("0 2048 linear " + base + " 0")});
    for (unsigned i = 0; i < 6; ++i) create("z" + std::to_string(i), "0 8 zero");    // one reactor has more to do than the other
    const std::string fourth = "w";
    create(fourth, "0 8 linear " + file("other") + " 0");
    for (unsigned i = 0; i < 3; ++i) {
        Snapshots::Request request;
        request.origins.push_back({named("vol"), name(i), std::nullopt});
        snapshots->take(request);
        EXPECT_EQ(home(name(i)), home("vol"));
    }
    EXPECT_EQ(write(name(1), 0, 'x'), IoStatus::ok);
    EXPECT_EQ(read(name(0), 0), 0);
}

// Whoever comes second is refused, or comes to the same home: never do an origin and a snapshot miss each other.
TEST_F(Fleet, AnOriginAndSnapshotsThatComeAtTheSameTimeShareAHomeOrAreRefused) {
    for (unsigned round = 0; round < 20; ++round) {
        const auto attempt = [this](const std::string& device, const std::string& table) {
            try {
                create(device, table);
            } catch (const Failure& failure) {
                EXPECT_EQ(failure.error().code, Errc::busy) << failure.what();
            }
        };
        std::vector<std::string> lines;
        for (unsigned i = 0; i < 4; ++i) lines.push_back(line(i));
        std::vector<std::thread> threads;
        for (unsigned i = 0; i < 4; ++i) threads.emplace_back([&, i] { attempt(name(i), lines[i]); });
        threads.emplace_back([&] { attempt("vol", "0 2048 snapshot-origin " + base); });
        for (std::thread& thread : threads) thread.join();
        DeviceKey vol = named("vol");
        if (devices->registry().try_find(vol)) {
            for (unsigned i = 0; i < 4; ++i) {
                if (devices->registry().try_find(named(name(i)))) {
                    EXPECT_EQ(home(name(i)), home("vol"));
                }
            }
        }
        devices->remove_all({.deferred = true});
        ASSERT_EQ(devices->registry().size(), 0u);
    }
}

TEST_F(Fleet, ABaseInUseNamesAFewOfItsUsers) {
    create("base", "0 2048 linear " + base + " 0");
    for (unsigned i = 0; i < 12; ++i) create("u" + std::to_string(i), "0 8 linear udm:base 0");
    const Error refused = refusal([&] { devices->remove(named("base"), {}); });
    EXPECT_EQ(refused.message, "base is in use: used by u0, u1, u2, u3, u4, u5, u6, u7 and 4 more");
    EXPECT_EQ(devices->registry().users_of(*devices->registry().find(named("base"))).size(), 12u);
}

TEST_F(Fleet, ListsInPartsAreTheWholeList) {
    create("vol", "0 2048 linear " + base + " 0");
    for (unsigned i = 0; i < 10; ++i) {
        Snapshots::Request request;
        request.origins.push_back({named("vol"), name(i), std::nullopt});
        snapshots->take(request);
    }
    const Json whole = snapshots->list({});
    ASSERT_EQ(whole.size(), 10u);
    EXPECT_EQ(snapshots->list(named("vol")), whole);
    for (const std::uint64_t most : {1u, 3u, 10u, 11u}) {
        Json parts = Json::array();
        std::optional<std::string> after;
        for (Json part; !(part = snapshots->list(named("vol"), after, most)).empty();) {
            EXPECT_LE(part.size(), most);
            EXPECT_EQ(part, snapshots->list({}, after, most));
            for (const Json& one : part) parts.push_back(one);
            after = parts.back()["snapshot"].get<std::string>();
        }
        EXPECT_EQ(parts, whole);
    }
}

}  // namespace
}  // namespace udm::ctl
