// One NBD client and its server: the transmission phase, over sockets in memory and simulated disks.
#include "test/unit/nbd_fixture.hpp"

namespace udm::test {
namespace {

class NbdSession : public NbdWorld {};

TEST_F(NbdSession, ReadsWhatIsOnTheDiskWithSimpleReplies) {
    serve("vol");
    Wire& wire = connect("vol");
    const Answer answer = ask(wire, request(kRead, 1, 8192, 4096), 4096);
    EXPECT_EQ(answer.error, 0u);
    EXPECT_FALSE(answer.structured);
    EXPECT_EQ(answer.data, pattern(8192, 4096));
}

TEST_F(NbdSession, ReadsInOneChunkWithStructuredReplies) {
    serve("vol");
    Wire& wire = connect("vol", true);
    const Answer answer = ask(wire, request(kRead, 1, 8192, 4096, kDf));
    EXPECT_TRUE(answer.structured);
    EXPECT_EQ(answer.data, pattern(8192, 4096));
}

TEST_F(NbdSession, WritesOfEverySizeArriveWhole) {
    SimDisk& disk = serve("vol");
    Wire& wire = connect("vol");
    std::uint64_t offset = 0;
    for (std::size_t length : {512u, 4096u, 65536u, 65024u, 262144u, 1u << 20, 5u << 20}) {
        const std::string data = pattern(offset, length, 77);
        EXPECT_EQ(ask(wire, write(1, offset, data)).error, 0u) << length;
        EXPECT_EQ(content_of(disk, offset, length), data) << length;
        offset += length;
    }
    EXPECT_EQ(content_of(disk, offset, 4096), pattern(offset, 4096));
}

TEST_F(NbdSession, AnswersManyRequestsOfOneReceiveWithOneSend) {
    serve("vol");
    Wire& wire = connect("vol");
    const auto receives = wire.receives, sends = wire.sends;
    std::string bytes;
    std::map<std::uint64_t, std::uint32_t> reads;
    for (std::uint64_t i = 0; i < 32; ++i) {
        bytes += request(kRead, i, i * 4096, 4096);
        reads[i] = 4096;
    }
    wire.write(bytes);
    auto all = answers(wire, reads);
    EXPECT_EQ(all.order.size(), 32u);
    for (std::uint64_t i = 0; i < 32; ++i) EXPECT_EQ(all.by_cookie[i].data, pattern(i * 4096, 4096));
    EXPECT_EQ(wire.receives - receives, 1u);  // and the next, which waits
    EXPECT_EQ(wire.sends - sends, 1u);
}

// Notes what it is told to expect, and when.
class ForewarnedDisk final : public Disk {
  public:
    explicit ForewarnedDisk(Disk& below) : below_{below} {}
    void submit(Io& io) noexcept override {
        steps.push_back({'s', io.extent.first.v});
        below_.submit(io);
    }
    const Limits& limits() const noexcept override { return below_.limits(); }
    void expect(Sector at) const noexcept override { steps.push_back({'e', at.v}); }
    mutable std::vector<std::pair<char, std::uint64_t>> steps;

  private:
    Disk& below_;
};

TEST_F(NbdSession, TellsTheDiskWhereTheRequestBeginsThatIsHereAfterThisOne) {
    ForewarnedDisk disk{add_disk()};
    serve("vol", disk);
    Wire& wire = connect("vol");
    // A write with its payload, a read, and a write of which only half is there: nobody knows what follows that.
    const std::string last = write(3, 24576, pattern(24576, 4096));
    wire.write(write(1, 8192, pattern(8192, 4096)) + request(kRead, 2, 16384, 512) + last.substr(0, 2000));
    run();
    wire.write(last.substr(2000));
    run();
    const decltype(disk.steps) wanted{{'e', 32}, {'s', 16}, {'e', 48}, {'s', 32}, {'s', 48}};
    EXPECT_EQ(disk.steps, wanted);
    wire.take();
    finish();
}

TEST_F(NbdSession, AnswersOutOfOrderWhenTheDiskDoes) {
    SimDisk& disk = serve("vol");
    disk.set_latency(10'000, 5'000'000);
    Wire& wire = connect("vol");
    std::string bytes;
    std::map<std::uint64_t, std::uint32_t> reads;
    for (std::uint64_t i = 0; i < 100; ++i) {
        bytes += request(kRead, i, i * 512, 512);
        reads[i] = 512;
    }
    wire.write(bytes);
    auto all = answers(wire, reads);
    ASSERT_EQ(all.order.size(), 100u);
    EXPECT_FALSE(std::is_sorted(all.order.begin(), all.order.end()));
    for (std::uint64_t i = 0; i < 100; ++i) EXPECT_EQ(all.by_cookie[i].data, pattern(i * 512, 512));
}

TEST_F(NbdSession, PassesFlushFuaTrimAndZeroesOnWithTheirFlags) {
    SimDisk& disk = serve("vol");
    disk.keep_log(true);
    Wire& wire = connect("vol");
    disk.clear_log();
    EXPECT_EQ(ask(wire, write(1, 0, pattern(0, 512, 5), kFua)).error, 0u);
    EXPECT_EQ(ask(wire, request(kFlush, 1, 0, 0)).error, 0u);
    EXPECT_EQ(ask(wire, request(kTrim, 1, 4096, 8192, kFua)).error, 0u);
    EXPECT_EQ(ask(wire, request(kWriteZeroes, 1, 65536, 4096, kNoHole)).error, 0u);
    ASSERT_EQ(disk.log().size(), 4u);
    EXPECT_TRUE(disk.log()[0].op == Op::write && disk.log()[0].flags.fua);
    EXPECT_EQ(disk.log()[1].op, Op::flush);
    EXPECT_TRUE(disk.log()[2].op == Op::discard && disk.log()[2].flags.fua);
    EXPECT_TRUE(disk.log()[2].extent == (Extent{{8}, {16}}));
    EXPECT_TRUE(disk.log()[3].op == Op::write_zeroes && disk.log()[3].flags.no_hole);
    EXPECT_EQ(content_of(disk, 65536, 4096), std::string(4096, '\0'));
}

TEST_F(NbdSession, AFastZeroThatIsNotFastIsNotSupportedAndOnlyThat) {
    SimDisk& disk = serve("vol");
    Wire& wire = connect("vol");
    disk.fail_always(op_bit(Op::write_zeroes), IoStatus::unsupported);
    EXPECT_EQ(ask(wire, request(kWriteZeroes, 1, 0, 4096, kFastZero)).error, 95u);
    EXPECT_EQ(ask(wire, request(kWriteZeroes, 1, 0, 4096)).error, 22u);
    disk.clear_faults();
    disk.fail_always(op_bit(Op::discard), IoStatus::unsupported);
    EXPECT_EQ(ask(wire, request(kTrim, 1, 0, 4096)).error, 0u);  // a hint
}

TEST_F(NbdSession, ReportsWhatTheDiskReports) {
    SimDisk& disk = serve("vol");
    Wire& plain = connect("vol");
    Wire& chunks = connect("vol", true);
    struct Row {
        IoStatus status;
        std::uint32_t error;
    };
    for (const Row& row :
         {Row{IoStatus::io_error, 5}, Row{IoStatus::no_space, 28}, Row{IoStatus::read_only, 1},
          Row{IoStatus::invalid, 22}, Row{IoStatus::timed_out, 5}, Row{IoStatus::corrupt, 5}}) {
        disk.clear_faults();
        disk.fail_always(DiskFault::kAll, row.status);
        EXPECT_EQ(ask(plain, request(kRead, 1, 0, 512), 512).error, row.error);
        EXPECT_EQ(ask(plain, write(1, 0, pattern(0, 512))).error, row.error);
        EXPECT_EQ(ask(plain, request(kFlush, 1, 0, 0)).error, row.error);
        const Answer answer = ask(chunks, request(kRead, 1, 0, 512));
        EXPECT_EQ(answer.error, row.error);
        EXPECT_TRUE(answer.structured);
        EXPECT_FALSE(answer.text.empty());
        EXPECT_TRUE(answer.data.empty());
    }
}

TEST_F(NbdSession, RefusedWritesAreReadOverAndTheNextRequestIsAnswered) {
    SimDisk& disk = serve("vol");
    Wire& wire = connect("vol");
    // Beyond the end, unaligned, a wrong flag, too long: whatever the payload's size.
    wire.write(write(1, kSize, pattern(0, 4096)) + write(2, 100, pattern(0, 512)) +
               write(3, 0, pattern(0, 512), kDf) + write(4, 0, std::string((32u << 20) + 512, 'x')) +
               write(5, 0, pattern(0, 512, 9)));
    auto all = answers(wire);
    EXPECT_EQ(all.by_cookie[1].error, 28u);
    EXPECT_EQ(all.by_cookie[2].error, 22u);
    EXPECT_EQ(all.by_cookie[3].error, 22u);
    EXPECT_EQ(all.by_cookie[4].error, 22u);
    EXPECT_EQ(all.by_cookie[5].error, 0u);
    EXPECT_EQ(content_of(disk, 0, 512), pattern(0, 512, 9));
    EXPECT_EQ(content_of(disk, 512, 4096), pattern(512, 4096));
}

TEST_F(NbdSession, WritesToAReadOnlyExportAreNotPermitted) {
    SimDisk& disk = serve("vol", 0, true);
    Wire& wire = connect("vol");
    EXPECT_EQ(ask(wire, write(1, 0, pattern(0, 4096, 9))).error, 1u);
    EXPECT_EQ(ask(wire, request(kWriteZeroes, 1, 0, 512)).error, 1u);
    EXPECT_EQ(ask(wire, request(kTrim, 1, 0, 512)).error, 1u);
    EXPECT_EQ(ask(wire, request(kRead, 1, 0, 512), 512).data, pattern(0, 512));
    EXPECT_EQ(disk.count(Op::write).requests, 0u);
}

TEST_F(NbdSession, EmptyRequestsSucceedAndUnknownOnesAreInvalid) {
    SimDisk& disk = serve("vol");
    Wire& wire = connect("vol", true);
    disk.reset_counters();
    for (std::uint16_t command : {kRead, kWrite, kTrim, kCache, kWriteZeroes}) {
        EXPECT_EQ(ask(wire, request(command, 1, 512, 0)).error, 0u) << command;
    }
    EXPECT_EQ(ask(wire, request(kCache, 1, 512, 4096)).error, 0u);
    for (std::uint16_t command : std::initializer_list<std::uint16_t>{8, 9, 100, 65535})
        EXPECT_EQ(ask(wire, request(command, 1, 0, 0)).error, 22u);
    for (const auto& counter : disk.counters().by_op) EXPECT_EQ(counter.requests, 0u);
}

TEST_F(NbdSession, AWrongMagicEndsTheConnectionAfterTheAnswersBefore) {
    serve("vol");
    Wire& wire = connect("vol");
    std::string wrong = request(kRead, 2, 0, 512);
    wrong[0] = 'x';
    wire.write(request(kRead, 1, 0, 512) + wrong + request(kRead, 3, 0, 512));
    auto all = answers(wire, {{1, 512}});
    EXPECT_EQ(all.order, std::vector<std::uint64_t>{1});
    EXPECT_TRUE(wire.closed());
}

TEST_F(NbdSession, DisconnectFinishesWhatIsUnderWay) {
    SimDisk& disk = serve("vol");
    Wire& wire = connect("vol");
    disk.set_latency(kSecond, kSecond);
    wire.write(write(1, 0, pattern(0, 4096, 3)) + request(kRead, 2, 8192, 512) + request(kDisc, 3, 0, 0) +
               write(4, 0, pattern(0, 4096, 4)));
    auto all = answers(wire, {{2, 512}});
    EXPECT_EQ(all.order.size(), 2u);
    EXPECT_TRUE(wire.closed());
    EXPECT_EQ(content_of(disk, 0, 4096), pattern(0, 4096, 3));
}

TEST_F(NbdSession, AClientThatSendsNoMoreStillGetsItsAnswers) {
    serve("vol");
    Wire& wire = connect("vol");
    wire.write(request(kRead, 1, 0, 512));
    wire.end();
    EXPECT_EQ(answers(wire, {{1, 512}}).by_cookie[1].data, pattern(0, 512));
    EXPECT_TRUE(wire.closed());
}

TEST_F(NbdSession, AClientThatVanishesLeavesNothingBehind) {
    SimDisk& disk = serve("vol");
    disk.set_latency(kSecond, kSecond);
    for (int kind = 0; kind < 5; ++kind) {
        Wire& wire = connect("vol");
        switch (kind) {
            case 0:
                break;
            case 1:
                wire.write(request(kRead, 1, 0, 1 << 20) + write(2, 0, pattern(0, 4096)));
                break;
            case 2:
                wire.write(request(kWrite, 1, 0, 1 << 20) + "the beginning");
                break;  // large, not whole
            case 3:
                wire.write(request(kWrite, 1, 0, 4096) + "the beginning");
                break;
            case 4:
                wire.write(request(kRead, 1, 0, 4096).substr(0, 20));
                break;
        }
        run_for(100 * kMillisecond);
        wire.vanish();
        run();
        EXPECT_TRUE(wire.closed()) << kind;
        EXPECT_EQ(server->connections(), 0u) << kind;
        EXPECT_EQ(reactor(0).buffers().bytes_out(), 0u) << kind;
    }
    Wire& cut = connect("vol");
    cut.write(request(kWrite, 1, 0, 1 << 20) + "the beginning");
    run();
    cut.end();
    run();
    EXPECT_TRUE(cut.closed());
    EXPECT_EQ(content_of(disk, 0, 512), pattern(0, 512));  // written by request 2 above
}

TEST_F(NbdSession, ASlowReaderIsNotReadFromAndNothingGrows) {
    SimDisk& disk = serve("vol");
    Wire& wire = connect("vol");
    wire.set_reads(false);
    std::string bytes;
    std::map<std::uint64_t, std::uint32_t> reads;
    for (std::uint64_t i = 0; i < 2000; ++i) {
        bytes += request(kRead, i, (i % 100) * 4096, 4096);
        reads[i] = 4096;
    }
    wire.write(bytes);
    run();
    EXPECT_LE(disk.count(Op::read).requests, 2u * nbd::kRequestsMax);
    EXPECT_LE(reactor(0).buffers().bytes_out(), 2u << 20);
    wire.set_reads(true);
    auto all = answers(wire, reads);
    EXPECT_EQ(all.order.size(), 2000u);
    for (std::uint64_t i = 0; i < 2000; ++i)
        EXPECT_EQ(all.by_cookie[i].data, pattern((i % 100) * 4096, 4096));
}

TEST_F(NbdSession, LargeRequestsWaitForMemoryAndAllAreAnswered) {
    serve("vol");
    Wire& wire = connect("vol");
    std::string bytes;
    std::map<std::uint64_t, std::uint32_t> reads;
    for (std::uint64_t i = 0; i < 20; ++i) {
        bytes += request(kRead, i, 0, 8 << 20) + write(100 + i, 0, pattern(0, 1 << 20));
        reads[i] = 8 << 20;
    }
    wire.write(bytes);
    std::size_t most = 0;
    reactor(0).run_until(
        [&] {
            most = std::max(most, reactor(0).buffers().bytes_out());
            return false;
        },
        5 * kSecond);
    auto all = answers(wire, reads);
    EXPECT_EQ(all.order.size(), 40u);
    EXPECT_EQ(all.by_cookie[19].data, pattern(0, 8 << 20));
    EXPECT_GT(most, 32u << 20);
    EXPECT_LE(most, 48u << 20);
}

TEST_F(NbdSession, TheLargestRequestsFit) {
    SimDisk& disk = add_disk(64 << 20);
    serve("big", disk);
    Wire& wire = connect("big");
    const std::string data = pattern(0, 32 << 20, 1);
    EXPECT_EQ(ask(wire, write(1, 32 << 20, data)).error, 0u);
    const Answer answer = ask(wire, request(kRead, 1, 32 << 20, 32 << 20), 32 << 20);
    EXPECT_TRUE(answer.data == data);
    EXPECT_EQ(ask(wire, request(kRead, 1, 0, (32 << 20) + 512)).error, 22u);
}

// --- any cutting of the input gives the same answers
// --------------------------------------------------------------

TEST_F(NbdSession, RandomlyFragmentedInputGivesTheSameAnswers) {
    for (std::uint64_t seed = 1; seed <= 40; ++seed) {
        SimDisk& disk = serve("vol" + std::to_string(seed));
        disk.set_latency(1'000, 300'000);
        auto random = std::make_shared<Prng>(seed);
        Wire& wire = connect("vol" + std::to_string(seed), seed % 2 == 0);
        const std::uint64_t most = seed % 3 == 0 ? 40 : seed % 3 == 1 ? 5000 : 300000;
        wire.fragment = [random, most](std::size_t) { return random->between(1, most); };
        std::string bytes, model = content_of(disk, 0, kSize);
        std::map<std::uint64_t, std::uint32_t> reads;
        std::map<std::uint64_t, std::string> expected;
        Prng choice{seed * 7919};
        // Writes to the lower half, each place once; reads from the upper.
        std::uint64_t place = 0;
        for (std::uint64_t i = 0; i < 60; ++i) {
            const std::uint32_t sectors = static_cast<std::uint32_t>(
                choice.chance(1, 8) ? choice.between(128, 600) : choice.between(0, 40));
            const std::uint32_t length = sectors * 512;
            if (choice.chance(1, 2)) {
                const std::uint64_t offset = kSize / 2 + choice.below(4000) * 512;
                bytes += request(kRead, i, offset, length);
                reads[i] = length;
                expected[i] = pattern(offset, length);
            } else if (choice.chance(1, 6)) {
                bytes += write(i, kSize, pattern(0, length + 512));  // refused
            } else {
                const std::string data = pattern(place, length, seed);
                bytes += write(i, place, data);
                model.replace(place, length, data);
                place += length;
            }
        }
        wire.write(bytes);
        auto all = answers(wire, reads);
        ASSERT_EQ(all.order.size(), 60u) << seed;
        for (const auto& [cookie, data] : expected) EXPECT_TRUE(all.by_cookie[cookie].data == data) << seed;
        EXPECT_TRUE(content_of(disk, 0, kSize) == model) << seed;
        wire.end();
        Told told;
        server->remove("vol" + std::to_string(seed), told);
        run();
        EXPECT_EQ(told.times, 1);
    }
}

// --- block status
// -----------------------------------------------------------------------------------------------

// Answers extent_status in pieces from a list; what else it is asked ends well.
class ExtentDisk final : public Disk {
  public:
    explicit ExtentDisk(Reactor& reactor) : reactor_{reactor} { limits_.size = {1 << 20}; }
    struct Piece {
        std::uint64_t sectors;
        bool hole, zero;
    };
    std::vector<Piece> pieces;   // from sector 0 on; the rest is data
    std::uint64_t most = ~0ull;  // sectors of one answer
    std::uint64_t asked = 0;
    IoStatus status{IoStatus::ok};
    std::uint64_t fail_from = ~0ull;  // sector
    Limits limits_;

    const Limits& limits() const noexcept override { return limits_; }
    void submit(Io& io) noexcept override {
        if (io.op != Op::extent_status) return reactor_.complete_later(io, IoStatus::ok);
        ++asked;
        if (status != IoStatus::ok || io.extent.first.v >= fail_from) {
            return reactor_.complete_later(io, status != IoStatus::ok ? status : IoStatus::io_error);
        }
        std::uint64_t at = 0;
        Piece here{limits_.size.v, false, false};
        for (const Piece& piece : pieces) {
            if (io.extent.first.v < at + piece.sectors) {
                here = piece;
                here.sectors = at + piece.sectors - io.extent.first.v;
                break;
            }
            at += piece.sectors;
        }
        io.answer = {{std::min({here.sectors, io.extent.length.v, most})}, here.hole, here.zero};
        reactor_.complete_later(io, IoStatus::ok);
    }

  private:
    Reactor& reactor_;
};

TEST_F(NbdSession, BlockStatusListsExtentsAndMergesWhatIsAlike) {
    ExtentDisk disk{reactor(0)};
    disk.pieces = {{8, false, false}, {8, true, true}, {8, true, true}, {16, false, true}};
    disk.most = 3;  // each answer shorter than a piece
    serve("vol", disk);
    Wire& wire = connect("vol", true, {"base:allocation"});
    const Answer answer = ask(wire, request(kBlockStatus, 1, 0, 64 * 512));
    EXPECT_EQ(answer.extents.at(0),
              (std::vector<Extent32>{{8 * 512, 0}, {16 * 512, 3}, {16 * 512, 2}, {24 * 512, 0}}));
    const Answer one = ask(wire, request(kBlockStatus, 1, 8 * 512, 64 * 512, kReqOne));
    EXPECT_EQ(one.extents.at(0), (std::vector<Extent32>{{16 * 512, 3}}));
    const Answer part = ask(wire, request(kBlockStatus, 1, 8 * 512, 4 * 512));
    EXPECT_EQ(part.extents.at(0), (std::vector<Extent32>{{4 * 512, 3}}));
    finish();
}

TEST_F(NbdSession, BlockStatusOfAScatteredDiskIsCutWhereTheReplyIsFull) {
    ExtentDisk disk{reactor(0)};
    for (int i = 0; i < 5000; ++i) disk.pieces.push_back({1, i % 2 == 0, i % 2 == 0});
    serve("vol", disk);
    Wire& wire = connect("vol", true, {"base:allocation"});
    const Answer answer = ask(wire, request(kBlockStatus, 1, 0, 5000 * 512));
    const auto& extents = answer.extents.at(0);
    EXPECT_GT(extents.size(), 500u);
    EXPECT_LT(extents.size(), 5000u);
    for (std::size_t i = 0; i < extents.size(); ++i)
        EXPECT_EQ(extents[i], (Extent32{512, i % 2 == 0 ? 3u : 0u}));
    finish();
}

TEST_F(NbdSession, BlockStatusOfWhatIsNotKnownIsData) {
    ExtentDisk disk{reactor(0)};
    disk.status = IoStatus::unsupported;
    serve("vol", disk);
    Wire& wire = connect("vol", true, {"base:allocation"});
    EXPECT_EQ(ask(wire, request(kBlockStatus, 1, 512, 4096)).extents.at(0),
              (std::vector<Extent32>{{4096, 0}}));
    disk.status = IoStatus::io_error;
    const Answer failed = ask(wire, request(kBlockStatus, 1, 512, 4096));
    EXPECT_EQ(failed.error, 5u);
    EXPECT_TRUE(failed.extents.empty());
    disk.status = IoStatus::ok;
    disk.pieces = {{100, true, true}};
    disk.fail_from = 50;
    disk.most = 10;
    EXPECT_EQ(ask(wire, request(kBlockStatus, 1, 0, 100 * 512)).extents.at(0),
              (std::vector<Extent32>{{50 * 512, 3}}));
    finish();
}

TEST_F(NbdSession, BlockStatusKeepsToTheBlockSize) {
    ExtentDisk disk{reactor(0)};
    disk.limits_.logical_block = 4096;
    disk.pieces = {
        {4, true, true}, {20, true, true}, {8, false, false}};  // odd places: a block is data if a part is
    disk.most = 4;
    serve("vol", disk);
    Wire& wire = connect("vol", true, {"base:allocation"});
    std::uint64_t sum = 0;
    const Answer answer = ask(wire, request(kBlockStatus, 1, 0, 65536));
    for (const Extent32& e : answer.extents.at(0)) {
        EXPECT_EQ(e.length % 4096, 0u);
        sum += e.length;
    }
    EXPECT_EQ(sum, 65536u);
    EXPECT_EQ(answer.extents.at(0)[0].flags, 0u);
    finish();
}

TEST_F(NbdSession, BlockStatusWithoutAContextIsInvalid) {
    serve("vol");
    Wire& wire = connect("vol", true);
    EXPECT_EQ(ask(wire, request(kBlockStatus, 1, 0, 4096)).error, 22u);
    Wire& plain = connect("vol");
    EXPECT_EQ(ask(plain, request(kBlockStatus, 1, 0, 4096)).error, 22u);
}

// Questions beyond allocation: which sectors are odd, say.
class OddQuestions final : public ExtentQuestions {
  public:
    explicit OddQuestions(Reactor& reactor) : reactor_{reactor} {}
    std::vector<std::string> names() const override { return {"udm:changed/monday", "udm:changed/gone"}; }
    bool has(std::string_view name) const override { return name == "udm:changed/monday" || name == "udm:changed/gone"; }
    std::unique_ptr<ExtentQuestion> open(std::string_view name) override {
        if (name != "udm:changed/monday") return nullptr;
        ++opened;
        return std::make_unique<Question>(*this);
    }
    int opened = 0;

  private:
    struct Question final : ExtentQuestion {
        explicit Question(OddQuestions& of_) : of{of_} {}
        ~Question() override { --of.opened; }
        void ask(Io& io) noexcept override {
            io.answer = {.length = {1}, .flags = static_cast<std::uint32_t>(io.extent.first.v & 1)};
            of.reactor_.complete_later(io, IoStatus::ok);
        }
        OddQuestions& of;
    };
    Reactor& reactor_;
};

TEST_F(NbdSession, EveryContextIsAnsweredInAChunkOfItsOwn) {
    ExtentDisk disk{reactor(0)};
    disk.pieces = {{4, true, true}};
    OddQuestions questions{reactor(0)};
    serve("vol", disk, 0, false, &questions);
    Wire& wire = connect("vol", true, {"udm:changed/monday", "base:allocation"});
    EXPECT_EQ(questions.opened, 1);
    const Answer answer = ask(wire, request(kBlockStatus, 1, 0, 3 * 512));
    EXPECT_EQ(answer.extents.at(0), (std::vector<Extent32>{{512, 0}, {512, 1}, {512, 0}}));
    EXPECT_EQ(answer.extents.at(1), (std::vector<Extent32>{{3 * 512, 3}}));
    const Answer one = ask(wire, request(kBlockStatus, 1, 512, 3 * 512, kReqOne));
    EXPECT_EQ(one.extents.at(0), (std::vector<Extent32>{{512, 1}}));
    wire.write(request(kDisc, 2, 0, 0));
    run();
    EXPECT_EQ(questions.opened, 0);
    finish();
}

}  // namespace
}  // namespace udm::test
