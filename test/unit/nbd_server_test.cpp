// The NBD server as a whole: several exports and homes, sessions that move, removal, limits and clients that
// stall.
#include "test/unit/nbd_fixture.hpp"

namespace udm::test {
namespace {

class NbdServer : public NbdWorld {};

class NbdServerOnThree : public NbdWorld {
  protected:
    NbdServerOnThree() : NbdWorld{3} {}
};

TEST_F(NbdServerOnThree, ASessionMovesToTheHomeOfItsExport) {
    serve("one", 1);
    serve("two", 2);
    Wire& wire = connect("two");
    EXPECT_EQ(wire.moves, 1u);
    EXPECT_EQ(ask(wire, request(kRead, 1, 4096, 512), 512).data, pattern(4096, 512));
    EXPECT_EQ(server->connections("two"), 1u);
    EXPECT_EQ(server->connections("one"), 0u);
    wire.write(request(kDisc, 1, 0, 0));
    run();
    EXPECT_EQ(server->connections(), 0u);
    EXPECT_EQ(server->connections("two"), 0u);
}

TEST_F(NbdServerOnThree, QuestionsAboutOtherExportsAreAnsweredAtTheirHomes) {
    serve("one", 1);
    serve("two", 2);
    serve("here", 0);
    Wire& wire = connect();
    wire.write(client_flags() + structured() + option(6, info_data("one")) + option(3) +
               option(6, info_data("none")) + option(6, info_data("two")) +
               set_meta("one", {"base:allocation"}) + go("one"));
    run();
    WireReader reader{wire.take()};
    EXPECT_EQ(read_option_replies(reader).back().type, 1u);
    EXPECT_EQ(read_option_replies(reader).back().type, 1u);
    EXPECT_EQ(read_option_replies(reader).size(), 4u);
    EXPECT_EQ(read_option_replies(reader).back().type, 0x80000006u);
    EXPECT_EQ(read_option_replies(reader).back().type, 1u);
    EXPECT_EQ(read_option_replies(reader).size(), 2u);
    EXPECT_EQ(read_option_replies(reader).back().type, 1u);
    EXPECT_EQ(ask(wire, request(kBlockStatus, 1, 0, 4096)).extents.size(), 1u);
    EXPECT_EQ(server->connections("one"), 1u);
    EXPECT_EQ(server->connections("two"), 0u);
}

TEST_F(NbdServerOnThree, WhatWasReadTooEarlyGoesWithTheSession) {
    serve("one", 1);
    Wire& wire = connect();
    wire.write(client_flags() + go("one") + request(kRead, 1, 0, 512) + write(2, 512, pattern(0, 512)));
    run();
    WireReader reader{wire.take()};
    EXPECT_EQ(read_option_replies(reader).back().type, 1u);
    Answers all;
    all.reads[1] = 512;
    all.read(reader);
    EXPECT_EQ(all.order.size(), 2u);
}

TEST_F(NbdServer, ManyClientsEachGetTheirOwnAnswers) {
    serve("vol");
    std::vector<Wire*> clients;
    for (int i = 0; i < 20; ++i) clients.push_back(&connect("vol", i % 2 == 0));
    for (std::uint64_t i = 0; i < 20; ++i) clients[i]->write(request(kRead, 1, i * 8192, 8192));
    for (std::uint64_t i = 0; i < 20; ++i) {
        EXPECT_EQ(answers(*clients[i], {{1, 8192}}).by_cookie[1].data, pattern(i * 8192, 8192));
    }
}

TEST_F(NbdServer, TheEmptyNameIsTheOnlyExport) {
    serve("vol");
    Wire& wire = connect("");
    EXPECT_EQ(ask(wire, request(kRead, 1, 0, 512), 512).data, pattern(0, 512));
    serve("second");
    Wire& other = connect();
    other.write(client_flags() + go(""));
    run();
    WireReader reader{other.take()};
    EXPECT_EQ(read_option_replies(reader).back().type, 0x80000006u);
    serve("");
    connect("");
}

TEST_F(NbdServer, ExportNamesAreUniqueAndValid) {
    SimDisk& disk = serve("vol");
    nbd::Export again{.name = "vol", .disk = &disk, .home = &reactor(0), .network = &network(0)};
    auto added = server->add(again);
    ASSERT_FALSE(added);
    EXPECT_EQ(added.error().code, Errc::exists);
    again.name = std::string(4097, 'x');
    EXPECT_EQ(server->add(again).error().code, Errc::bad_argument);
    again.name = std::string("a\0b", 3);
    EXPECT_EQ(server->add(again).error().code, Errc::bad_argument);
}

TEST_F(NbdServer, NewConnectionsSeeTheNewSize) {
    SimDisk& disk = serve("vol");
    Wire& before = connect("vol");
    disk.resize(whole_sectors(2 * kSize));
    Wire& after = connect("vol");
    EXPECT_EQ(ask(after, request(kRead, 1, kSize, 512), 512).error, 0u);
    EXPECT_EQ(ask(before, request(kRead, 1, kSize, 512), 512).error, 22u);
}

TEST_F(NbdServer, OffersWhatTheDiskCanDo) {
    const auto flags_of = [&](const std::string& name) {
        Wire& wire = connect();
        wire.write(client_flags() + option(6, info_data(name)));
        run();
        WireReader reader{wire.take()};
        const auto replies = read_option_replies(reader);
        WireReader info{replies.at(0).data};
        EXPECT_EQ(info.u16(), 0u);
        info.u64();
        return info.u16();
    };
    SimDisk& disk = serve("vol");
    EXPECT_EQ(flags_of("vol"), 1 | 4 | 8 | 32 | 64 | 256 | 1024 | 2048);
    disk.limits_to_set().discard = false;
    EXPECT_EQ(flags_of("vol"), 1 | 4 | 8 | 64 | 256 | 1024 | 2048);
    disk.limits_to_set().write_zeroes = false;
    EXPECT_EQ(flags_of("vol"), 1 | 4 | 8 | 256 | 1024);
    disk.limits_to_set().read_only = true;
    EXPECT_EQ(flags_of("vol"), 1 | 2 | 4 | 8 | 256 | 1024);
}

TEST_F(NbdServer, TheLastBytesThatAreNoBlockAreNotServed) {
    SimDisk& disk = add_disk(4096 * 10 + 512 * 3);
    disk.limits_to_set().logical_block = 4096;
    serve("vol", disk);
    Wire& wire = connect();
    wire.write(client_flags() + export_name("vol"));
    run();
    WireReader reader{wire.take()};
    EXPECT_EQ(reader.u64(), 4096u * 10);
}

// --- removal
// ----------------------------------------------------------------------------------------------------

TEST_F(NbdServerOnThree, RemovingAnExportAnswersWhatIsUnderWayAndThenCloses) {
    SimDisk& disk = serve("vol", 1);
    serve("other", 1);
    Wire& busy = connect("vol");
    Wire& idle = connect("vol");
    Wire& asking = connect();
    asking.write(client_flags() + option(6, info_data("vol")));
    Wire& other = connect("other");
    disk.set_latency(kSecond, kSecond);
    busy.write(write(1, 0, pattern(0, 4096, 8)));
    run_for(100 * kMillisecond);
    Told told;
    EXPECT_TRUE(server->remove("vol", told));
    EXPECT_FALSE(server->remove("vol", told));
    run_for(100 * kMillisecond);
    EXPECT_TRUE(idle.closed());
    EXPECT_TRUE(asking.closed());
    EXPECT_FALSE(busy.closed());
    EXPECT_EQ(told.times, 0);
    busy.write(request(kRead, 2, 0, 512));  // comes too late
    auto all = answers(busy, {{2, 512}});
    EXPECT_EQ(all.by_cookie[1].error, 0u);
    EXPECT_EQ(all.by_cookie[2].error, 108u);
    EXPECT_TRUE(busy.closed());
    EXPECT_EQ(told.times, 1);
    EXPECT_EQ(content_of(disk, 0, 4096), pattern(0, 4096, 8));
    EXPECT_EQ(ask(other, request(kRead, 1, 0, 512), 512).error, 0u);
    Wire& late = connect();
    late.write(client_flags() + go("vol"));
    run();
    WireReader reader{late.take()};
    EXPECT_EQ(read_option_replies(reader).back().type, 0x80000006u);
}

TEST_F(NbdServer, ARemovedExportWaitsForItsDiskEvenIfTheClientIsGone) {
    SimDisk& disk = serve("vol");
    Wire& wire = connect("vol");
    disk.stall();
    wire.write(write(1, 0, pattern(0, 4096, 8)));
    run();
    wire.vanish();
    Told told;
    server->remove("vol", told);
    run_for(60 * kSecond);
    EXPECT_TRUE(wire.closed());
    EXPECT_EQ(told.times, 0);
    disk.release();
    run();
    EXPECT_EQ(told.times, 1);
}

TEST_F(NbdServer, AClientThatDoesNotTakeItsLastRepliesIsClosedAfterAWhile) {
    serve("vol");
    Wire& wire = connect("vol");
    wire.set_reads(false);
    wire.write(request(kRead, 1, 0, 4096));
    run();
    Told told;
    server->remove("vol", told);
    run_for(5 * kSecond);
    EXPECT_EQ(told.times, 0);
    run_for(6 * kSecond);
    EXPECT_EQ(told.times, 1);
    EXPECT_TRUE(wire.closed());
}

TEST_F(NbdServerOnThree, RemovalAtAnyMomentOfTheHandshakeLosesNoSession) {
    // Every step of a client that moves about, met by a removal of the export.
    for (std::uint64_t steps = 0; steps < 60; ++steps) {
        const std::string name = "vol" + std::to_string(steps);
        serve(name, 1);
        serve(name + "x", 2);
        Wire& wire = connect();
        wire.write(client_flags() + structured() + option(6, info_data(name)) +
                   option(6, info_data(name + "x")) + set_meta(name, {"base:allocation"}) + go(name) +
                   request(kRead, 1, 0, 512));
        for (std::uint64_t i = 0; i < steps; ++i) timeline.step();
        Told told, other;
        server->remove(name, told);
        run();
        EXPECT_EQ(told.times, 1) << steps;
        wire.vanish();
        run();
        EXPECT_EQ(server->connections(), 0u) << steps;
        server->remove(name + "x", other);
        run();
        EXPECT_EQ(other.times, 1) << steps;
    }
}

TEST_F(NbdServerOnThree, StoppingAtAnyMomentLosesNoSession) {
    for (std::uint64_t steps = 0; steps < 60; ++steps) {
        SimDisk& disk = serve("vol", 1);
        disk.set_latency(1000, 1000);
        network(0).connect();
        Wire& wire = network(0).connect();
        wire.write(client_flags() + option(6, info_data("vol")) + option(3) + go("vol") +
                   request(kRead, 1, 0, 512));
        for (std::uint64_t i = 0; i < steps; ++i) timeline.step();
        Told told;
        server->stop(told);
        EXPECT_FALSE(network(0).listens());
        run();
        EXPECT_EQ(told.times, 1) << steps;
        EXPECT_TRUE(wire.closed()) << steps;
        EXPECT_EQ(server->connections(), 0u) << steps;
        server = std::make_unique<nbd::Server>(reactor(0), network(0));
        ASSERT_TRUE(server->listen({}));
    }
}

// --- limits
// -----------------------------------------------------------------------------------------------------

TEST_F(NbdServer, AClientThatDoesNotEndItsHandshakeIsClosed) {
    serve("vol");
    Wire& silent = connect();
    Wire& slow = connect();
    slow.write(client_flags() + go("vol").substr(0, 10));
    Wire& quick = connect("vol");
    run_for(31 * kSecond);
    EXPECT_TRUE(silent.closed());
    EXPECT_TRUE(slow.closed());
    EXPECT_FALSE(quick.closed());
    run_for(3600 * kSecond);
    EXPECT_FALSE(quick.closed());  // idle for an hour, and nothing wakes for it
    EXPECT_TRUE(timeline.idle());
}

class NbdServerForTwo : public NbdWorld {
  protected:
    static nbd::ServerLimits limits() {
        nbd::ServerLimits l;
        l.sessions = 2;
        return l;
    }
    NbdServerForTwo() : NbdWorld{1, limits()} {}
};

TEST_F(NbdServerForTwo, MoreClientsThanPlacesAreClosedAtOnce) {
    serve("vol");
    Wire& first = connect("vol");
    connect();
    Wire& third = network(0).connect();
    run();
    EXPECT_TRUE(third.closed());
    EXPECT_EQ(third.take(), "");
    EXPECT_EQ(server->refused(), 1u);
    first.write(request(kDisc, 1, 0, 0));
    run();
    Wire& fourth = connect("vol");
    EXPECT_EQ(ask(fourth, request(kRead, 1, 0, 512), 512).error, 0u);
}

// A client that takes all it may of the shared memory and then stalls; another that needs some of it.
TEST_F(NbdServer, AStalledClientCannotKeepWhatOthersWaitFor) {
    SimDisk& disk = add_disk(64 << 20);
    serve("vol", disk);
    Wire& reader = connect("vol");
    reader.set_reads(false);
    Wire& writer = connect("vol");
    reader.write(request(kRead, 1, 0, 32 << 20) + request(kRead, 2, 0, 8 << 20));
    writer.write(request(kWrite, 1, 0, 16 << 20) + "not all of it");
    run();
    Wire& other = connect("vol");
    EXPECT_EQ(ask(other, request(kRead, 1, 0, 65536), 65536).error, 0u);  // small ones always fit
    EXPECT_FALSE(reader.closed());
    other.write(request(kRead, 1, 0, 32 << 20));
    run_for(kSecond);
    EXPECT_TRUE(other.pending().empty());
    run_for(15 * kSecond);
    EXPECT_TRUE(reader.closed() || writer.closed());
    EXPECT_EQ(answers(other, {{1, 32 << 20}}).by_cookie[1].data.size(), 32u << 20);
    EXPECT_FALSE(other.closed());
}

struct Waiter final : nbd::Account::Owner {
    void memory_freed() noexcept override { ++freed; }
    Nanoseconds waits_for_client_since() const noexcept override { return 0; }
    void evict() noexcept override {}
    int freed = 0;
};

TEST(NbdMemory, WhoAsksAgainWhileHeWaitsKeepsHisPlace) {
    SimReactor reactor;
    nbd::MemoryBudget budget{reactor, {.shared = 100, .own = 10, .session = 110}};
    Waiter owners[3];
    nbd::Account holder{budget, owners[0]}, first{budget, owners[1]}, second{budget, owners[2]};
    ASSERT_TRUE(holder.take(110));
    EXPECT_FALSE(first.take(100));
    EXPECT_FALSE(second.take(60));
    EXPECT_FALSE(first.take(100));  // something else of its session has ended
    holder.give(60);                // enough for the second only
    EXPECT_EQ(owners[2].freed, 0);
    holder.give(50);
    EXPECT_EQ(owners[1].freed, 1);
    ASSERT_TRUE(first.take(100));
    first.give(100);
    EXPECT_EQ(owners[2].freed, 1);
}

TEST_F(NbdServer, AStalledClientAloneIsLeftInPeace) {
    serve("vol");
    Wire& wire = connect("vol");
    wire.set_reads(false);
    wire.write(request(kRead, 1, 0, 8 << 20) + request(kRead, 2, 0, 8 << 20));
    run_for(7200 * kSecond);
    EXPECT_FALSE(wire.closed());
    wire.set_reads(true);
    EXPECT_EQ(answers(wire, {{1, 8 << 20}, {2, 8 << 20}}).order.size(), 2u);
}

}  // namespace
}  // namespace udm::test
