// Where devices may differ (core/comparison.hpp): every target that maps, and above all that no difference is missed.
#include "core/comparison.hpp"

#include <gtest/gtest.h>

#include <cstring>

#include "test/support/mapped_world.hpp"

namespace udm {
namespace {

struct Answered {
    IoStatus status{IoStatus::ok};
    ExtentAnswer answer{};
    Place place{};
    bool done = false;
};

// A request to a question.
class Ask final : Layer {
  public:
    Ask(Reactor& reactor, ExtentQuestion& question, Extent extent) : reactor_{reactor}, io_{reactor.take_io()} {
        io_.op = Op::extent_status;
        io_.extent = extent;
        io_.answer.place = &said_.place;
        io_.push(*this);
        question.ask(io_);
    }
    const Answered& said() const { return said_; }

  private:
    void on_complete(Io& io, Frame&) noexcept override {
        said_.status = io.status;
        said_.answer = io.answer;
        said_.done = true;
        reactor_.give_io(io);
    }
    Reactor& reactor_;
    Io& io_;
    Answered said_;
};

struct Compared : testing::Test {
    MappedWorld w;

    Device& make(const std::string& name, const std::string& table) { return w.start(name, table); }
    Answered ask(Disk& one, Disk& other, Extent extent) {
        Comparison comparison{w.reactor, one, other};
        Ask ask{w.reactor, comparison, extent};
        EXPECT_TRUE(w.reactor.run_until([&] { return ask.said().done; }));
        return ask.said();
    }
    // The extents that may differ, as "first+length first+length".
    std::string changed(Disk& one, Disk& other) {
        std::string text;
        const Sectors size = one.limits().size;
        Extent last{};
        const auto put = [&] {
            if (last.length) text += (text.empty() ? "" : " ") + std::to_string(last.first.v) + "+" + std::to_string(last.length.v);
        };
        for (Sector at{}; at.v < size.v;) {
            const Answered said = ask(one, other, {at, {size.v - at.v}});
            if (said.status != IoStatus::ok) return "failed at " + std::to_string(at.v);
            if (said.answer.flags & Comparison::kChanged) {
                if (last.length && last.end() == at) {
                    last.length += said.answer.length;
                } else {
                    put();
                    last = {at, said.answer.length};
                }
            }
            at += said.answer.length;
        }
        put();
        return text;
    }
    void write(Disk& disk, std::uint64_t first, std::uint64_t count, std::uint8_t fill) {
        ASSERT_EQ(w.write(disk, first, count, fill), IoStatus::ok);
    }
};

TEST_F(Compared, DevicesOnTheSameSectorsAreEqual) {
    w.disk("a", 1024);
    Device& one = make("one", "0 1024 linear a 0");
    Device& same = make("same", "0 512 linear a 0\n512 512 linear a 512");
    Device& moved = make("moved", "0 512 linear a 512\n512 512 linear a 0");
    Device& half = make("half", "0 512 linear a 0\n512 512 zero");
    EXPECT_EQ(changed(one, same), "");
    EXPECT_EQ(changed(one, moved), "0+1024");
    EXPECT_EQ(changed(one, half), "512+512");
    EXPECT_EQ(changed(half, half), "");    // zeroes are zeroes
}

TEST_F(Compared, ThroughStripesAndOtherMappedDevices) {
    w.disk("a", 1024);
    w.disk("b", 1024);
    make("low", "0 1024 linear a 0");
    Device& striped = make("striped", "0 1024 striped 2 8 low 0 b 0");
    Device& again = make("again", "0 1024 striped 2 8 a 0 b 0");
    Device& other = make("other", "0 1024 striped 2 8 a 8 b 8");
    EXPECT_EQ(changed(striped, again), "");
    EXPECT_EQ(changed(striped, other), "0+1024");
}

TEST_F(Compared, WhatGoesBeyondTheOtherOneDiffers) {
    w.disk("a", 1024);
    Device& one = make("one", "0 1024 linear a 0");
    Device& shorter = make("shorter", "0 512 linear a 0");
    EXPECT_EQ(ask(one, shorter, {{512}, {512}}).answer.flags, Comparison::kChanged);
    EXPECT_EQ(changed(shorter, one), "");
}

TEST_F(Compared, ASnapshotDiffersFromItsOriginWhereItHasExceptions) {
    w.disk("a", 4096);
    w.disk("cow", 8192);
    w.disk("cow2", 8192);
    Device& origin = make("origin", "0 4096 snapshot-origin a");
    Device& first = make("first", "0 4096 snapshot a cow P 8");
    EXPECT_EQ(changed(first, origin), "");
    write(origin, 17, 2, 1);       // chunk 2
    write(origin, 800, 16, 2);     // chunks 100 and 101
    EXPECT_EQ(changed(first, origin), "16+8 800+16");
    EXPECT_EQ(changed(origin, first), "16+8 800+16");
    Device& second = make("second", "0 4096 snapshot a cow2 P 16");
    EXPECT_EQ(changed(second, origin), "");
    EXPECT_EQ(changed(second, first), "16+8 800+16");
    write(second, 4000, 1, 3);
    EXPECT_EQ(changed(first, second), "16+8 800+16 4000+16");
    EXPECT_EQ(changed(second, origin), "4000+16");
    write(origin, 800, 8, 4);      // the second needs it, in its larger chunks
    EXPECT_EQ(changed(second, origin), "800+16 4000+16");
}

TEST_F(Compared, LayersOfARedirectedVolume) {
    w.disk("a", 1024);
    w.disk("cow1", 4096);
    w.disk("cow2", 4096);
    Device& monday = make("monday", "0 1024 linear a 0");
    Device& tuesday = make("tuesday", "0 1024 snapshot monday cow1 P 8");
    write(tuesday, 64, 8, 1);
    make("live", "0 1024 snapshot tuesday cow2 P 8");
    Device& volume = make("volume", "0 1024 linear live 0");
    write(volume, 64, 8, 2);
    write(volume, 512, 8, 3);
    EXPECT_EQ(changed(monday, tuesday), "64+8");
    EXPECT_EQ(changed(tuesday, volume), "64+8 512+8");
    EXPECT_EQ(changed(volume, monday), "64+8 512+8");
}

TEST_F(Compared, AnInvalidSnapshotSaysWhy) {
    w.disk("a", 4096);
    w.disk("cow", 32);
    Device& origin = make("origin", "0 4096 snapshot-origin a");
    Device& snapshot = make("snapshot", "0 4096 snapshot a cow P 8");
    for (std::uint64_t chunk = 0; chunk < 4; ++chunk) write(origin, chunk * 8, 8, 1);
    const Answered said = ask(origin, snapshot, {{0}, {4096}});
    EXPECT_EQ(said.status, IoStatus::io_error);
    EXPECT_EQ(said.answer.flags, 1u);
    EXPECT_STREQ(said.place.obstacle.data(), "the snapshot is invalid: the COW device is full and the origin is written");
    EXPECT_EQ(ask(snapshot, origin, {{0}, {8}}).answer.flags, 0u);
}

TEST_F(Compared, AnOverflowedSnapshotSaysWhy) {
    w.disk("a", 4096);
    w.disk("cow", 32);
    Device& origin = make("origin", "0 4096 snapshot-origin a");
    Device& snapshot = make("snapshot", "0 4096 snapshot a cow PO 8");
    for (std::uint64_t chunk = 0; chunk < 4; ++chunk) static_cast<void>(w.write(snapshot, chunk * 8, 8, 1));
    const Answered said = ask(snapshot, origin, {{0}, {4096}});
    EXPECT_EQ(said.status, IoStatus::io_error);
    EXPECT_TRUE(std::string_view{said.place.obstacle.data()}.starts_with("the snapshot overflowed"));
}

TEST_F(Compared, ADeviceThatCorruptsWhatIsReadProvesNothing) {
    w.disk("a", 64);
    Device& one = make("one", "0 64 linear a 0");
    Device& bad = make("bad", "0 64 flakey a 0 5 5 5 corrupt_bio_byte 1 r 7 0");
    EXPECT_EQ(changed(one, bad), "0+64");
}

// Random writes to an origin and to its snapshots, with questions in between and during them: what was once said to be the
// same of two snapshots that nobody writes is the same, byte for byte, at the end.
TEST_F(Compared, NoDifferenceIsMissedWhateverIsWrittenMeanwhile) {
    std::uint64_t said_equal = 0, said_changed = 0;
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        MappedWorld world;
        Prng random{seed};
        static constexpr std::uint64_t kSize = 512;
        world.disk("a", kSize).fill_now({{0}, {kSize}}, 9);
        Device& origin = world.start("origin", "0 512 snapshot-origin a");
        std::vector<Device*> snapshots;
        std::vector<std::unique_ptr<SimRequest>> writes;
        std::vector<std::unique_ptr<Memory>> memories;
        struct Asked {
            std::size_t one, other;
            Extent extent;
            std::unique_ptr<Comparison> comparison;
            std::unique_ptr<Ask> ask;
        };
        std::vector<Asked> asked;
        for (int step = 0; step < 200; ++step) {
            if (step % 50 == 0) {
                const std::string n = std::to_string(step);
                world.disk("cow" + n, 4096);
                snapshots.push_back(&world.start("s" + n, "0 512 snapshot a cow" + n + " P " + std::to_string(8u << random.between(0, 2))));
            }
            const std::uint64_t first = random.between(0, kSize - 1), count = random.between(1, std::min<std::uint64_t>(24, kSize - first));
            auto& memory = *memories.emplace_back(std::make_unique<Memory>(count, static_cast<std::uint8_t>(random.between(0, 255))));
            writes.push_back(std::make_unique<SimRequest>(world.reactor, origin, Op::write, Extent{{first}, {count}}, memory.at()));
            for (std::uint64_t turns = random.between(0, 3); turns > 0; --turns) world.reactor.run_for(random.between(1, 40) * 1000);
            if (snapshots.size() > 1) {
                Asked& a = asked.emplace_back();
                a.one = random.between(0, snapshots.size() - 1);
                a.other = random.between(0, snapshots.size() - 1);
                const std::uint64_t from = random.between(0, kSize - 1);
                a.extent = {{from}, {random.between(1, kSize - from)}};
                a.comparison = std::make_unique<Comparison>(world.reactor, *snapshots[a.one], *snapshots[a.other]);
                a.ask = std::make_unique<Ask>(world.reactor, *a.comparison, a.extent);
            }
        }
        world.reactor.run_until_idle();
        std::vector<Memory> content;
        for (Device* snapshot : snapshots) {
            Memory& memory = content.emplace_back(kSize);
            SimRequest read{world.reactor, *snapshot, Op::read, {{0}, {kSize}}, memory.at()};
            ASSERT_TRUE(world.reactor.run_until([&] { return read.done(); }));
            ASSERT_EQ(read.status(), IoStatus::ok);
        }
        for (const Asked& a : asked) {
            const Answered& said = a.ask->said();
            ASSERT_TRUE(said.done);
            ASSERT_EQ(said.status, IoStatus::ok);
            ASSERT_TRUE(said.answer.length && said.answer.length <= a.extent.length);
            if (said.answer.flags & Comparison::kChanged) {
                ++said_changed;
                continue;
            }
            ++said_equal;
            for (std::uint64_t s = a.extent.first.v; s < a.extent.first.v + said.answer.length.v; ++s) {
                ASSERT_EQ(0, std::memcmp(content[a.one].at(s), content[a.other].at(s), kSectorSize)) << "seed " << seed << ", sector " << s;
            }
        }
    }
    EXPECT_GT(said_equal, 1000u);
    EXPECT_GT(said_changed, 1000u);
}

// A merge takes chunks back to the origin and their exceptions off the list, and the other snapshot gets exceptions before.
// What both show does not change by it, and so nothing may be said to be the same that isn't.
TEST_F(Compared, NoDifferenceIsMissedDuringAMerge) {
    std::uint64_t equal = 0, changes_of_answers = 0;
    for (std::uint64_t seed = 1; seed <= 20; ++seed) {
        MappedWorld world;
        Prng random{seed};
        static constexpr std::uint64_t kSize = 2048;
        world.disk("a", kSize).fill_now({{0}, {kSize}}, 9);
        world.disk("cow1", 8192);
        world.disk("cow2", 8192);
        Device& merging = world.start("merging", "0 2048 snapshot a cow1 P 8");
        Device& other = world.start("other", "0 2048 snapshot a cow2 P 16");
        for (int i = 0; i < 40; ++i) {
            const std::uint64_t first = random.between(0, kSize - 9);
            ASSERT_EQ(world.write(merging, first, random.between(1, 8), static_cast<std::uint8_t>(i)), IoStatus::ok);
            if (i % 4 == 0) {
                ASSERT_EQ(world.write(other, random.between(0, kSize - 1), 1, static_cast<std::uint8_t>(100 + i)), IoStatus::ok);
            }
        }
        Memory shows_merging{kSize}, shows_other{kSize};
        ASSERT_EQ(world.io(merging, Op::read, 0, kSize, shows_merging.at()), IoStatus::ok);
        ASSERT_EQ(world.io(other, Op::read, 0, kSize, shows_other.at()), IoStatus::ok);
        world.start(merging, "0 2048 snapshot-merge a cow1 P 8");
        const bool from_merging = random.chance(1, 2);
        Comparison comparison{world.reactor, from_merging ? merging : other, from_merging ? other : merging};
        std::uint32_t last = 2;
        for (int round = 0; round < 400; ++round) {
            const Extent extent{{random.between(0, kSize - 1)}, {1}};
            Ask ask{world.reactor, comparison, extent};
            world.reactor.run_for(random.between(0, 20) * 1000);
            ASSERT_TRUE(world.reactor.run_until([&] { return ask.said().done; }));
            ASSERT_EQ(ask.said().status, IoStatus::ok);
            const std::uint32_t flags = ask.said().answer.flags;
            changes_of_answers += flags != last;
            last = flags;
            if (flags & Comparison::kChanged) continue;
            ++equal;
            ASSERT_EQ(0, std::memcmp(shows_merging.at(extent.first.v), shows_other.at(extent.first.v), kSectorSize))
                << "seed " << seed << ", sector " << extent.first.v;
        }
        world.reactor.run_until_idle();
        Memory after{kSize};
        ASSERT_EQ(world.io(merging, Op::read, 0, kSize, after.at()), IoStatus::ok);
        ASSERT_TRUE(after == shows_merging);
    }
    EXPECT_GT(equal, 500u);
    EXPECT_GT(changes_of_answers, 500u);
}

}  // namespace
}  // namespace udm
