// The pure parts of the NBD server: structures, the rules for one request, and the handshake.
#include <gtest/gtest.h>

#include "exports/nbd/negotiation.hpp"
#include "exports/nbd/replies.hpp"
#include "exports/nbd/validate.hpp"
#include "test/support/nbd_bytes.hpp"

namespace udm::nbd {
namespace {

using namespace udm::test;

ByteView view(const std::string& text) {
    return {reinterpret_cast<const std::byte*>(text.data()), text.size()};
}
std::string text_of(const Bytes& bytes) {
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

TEST(NbdCodec, ParsesARequestAsTheProtocolWritesIt) {
    const std::string bytes =
        request(kWriteZeroes, 0x0102030405060708, 0x1122334455667788, 0x99aabbcc, kFua | kNoHole);
    ASSERT_EQ(bytes.size(), kRequestSize);
    Request r{};
    ASSERT_TRUE(parse_request(view(bytes).data(), r));
    EXPECT_EQ(r.command, 6);
    EXPECT_EQ(r.flags, 3);
    EXPECT_EQ(r.cookie, 0x0102030405060708u);
    EXPECT_EQ(r.offset, 0x1122334455667788u);
    EXPECT_EQ(r.length, 0x99aabbccu);
    std::string wrong = bytes;
    wrong[0] = 0;
    EXPECT_FALSE(parse_request(view(wrong).data(), r));
}

TEST(NbdCodec, InfoRequestsMustFillTheirOptionExactly) {
    const std::string good = info_data("vol", {3, 1, 77});
    const auto parsed = parse_info_request(view(good));
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->name, "vol");
    EXPECT_TRUE(parsed->wants_block_size && parsed->wants_name);
    EXPECT_FALSE(parsed->wants_description);
    for (std::size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(parse_info_request(view(good).first(n))) << n;
    EXPECT_FALSE(parse_info_request(view(good + "x")));
    EXPECT_FALSE(parse_info_request(view(info_data(std::string("a\0b", 3)))));
    EXPECT_FALSE(parse_info_request(view(info_data(std::string(4097, 'a')))));
    EXPECT_TRUE(parse_info_request(view(info_data(std::string(4096, 'a')))));
}

TEST(NbdCodec, MetaRequestsMustFillTheirOptionExactly) {
    const std::string good = meta_data("vol", {"base:allocation", "x-y:z"});
    const auto parsed = parse_meta_request(view(good));
    ASSERT_TRUE(parsed);
    EXPECT_EQ(parsed->queries, (std::vector<std::string_view>{"base:allocation", "x-y:z"}));
    for (std::size_t n = 0; n < good.size(); ++n) EXPECT_FALSE(parse_meta_request(view(good).first(n))) << n;
    EXPECT_FALSE(parse_meta_request(view(good + "x")));
    // A count that promises gigabytes of queries reserves nothing.
    EXPECT_FALSE(parse_meta_request(view(u32(0) + u32(0xffffffff))));
}

TEST(NbdCodec, StatusesBecomeTheErrorsTheProtocolKnows) {
    EXPECT_EQ(to_wire(IoStatus::ok, false), WireError::none);
    EXPECT_EQ(to_wire(IoStatus::no_space, false), WireError::nospc);
    EXPECT_EQ(to_wire(IoStatus::read_only, false), WireError::perm);
    EXPECT_EQ(to_wire(IoStatus::removed, false), WireError::io);
    EXPECT_EQ(to_wire(IoStatus::unsupported, false), WireError::inval);  // ENOTSUP is for fast zeroes alone
    EXPECT_EQ(to_wire(IoStatus::unsupported, true), WireError::notsup);
}

// --- the rules for one request
// ----------------------------------------------------------------------------------

class NbdValidate : public testing::Test {
  protected:
    Shape shape{
        .size = 1 << 20,
        .flags = kHasFlags | kSendFlush | kSendFua | kSendTrim | kSendWriteZeroes | kSendFastZero | kSendDf,
        .block_min = 512,
        .block_max = 64 << 10,
        .structured = true,
        .contexts = 1};
    WireError of(std::uint16_t command, std::uint64_t offset, std::uint32_t length,
                 std::uint16_t flags = 0) const {
        return validate({flags, command, 1, offset, length}, shape).error;
    }
};

TEST_F(NbdValidate, WhatGoesBeyondTheEndGetsTheErrorOfItsCommand) {
    const std::uint64_t size = shape.size;
    for (std::uint64_t offset : {size, size - 512, size + 512, ~std::uint64_t{511}}) {
        EXPECT_EQ(of(kRead, offset, 1024), WireError::inval);
        EXPECT_EQ(of(kWrite, offset, 1024), WireError::nospc);
        EXPECT_EQ(of(kTrim, offset, 1024), WireError::inval);
        EXPECT_EQ(of(kCache, offset, 1024), WireError::inval);
        EXPECT_EQ(of(kWriteZeroes, offset, 1024), WireError::nospc);
        EXPECT_EQ(of(kBlockStatus, offset, 1024), WireError::inval);
    }
    EXPECT_EQ(of(kRead, size - 512, 512), WireError::none);
    EXPECT_EQ(of(kRead, size, 0), WireError::none);
}

TEST_F(NbdValidate, UnalignedRequestsAreInvalid) {
    for (std::uint16_t command : {kRead, kWrite, kTrim, kCache, kWriteZeroes, kBlockStatus}) {
        EXPECT_EQ(of(command, 256, 512), WireError::inval);
        EXPECT_EQ(of(command, 512, 100), WireError::inval);
        EXPECT_EQ(of(command, 512, 512), WireError::none);
    }
    shape.block_min = 4096;
    EXPECT_EQ(of(kRead, 512, 4096), WireError::inval);
}

TEST_F(NbdValidate, OnlyWhatMovesDataIsBoundedByTheMaximum) {
    const std::uint32_t more = shape.block_max + 512;
    EXPECT_EQ(of(kRead, 0, more), WireError::inval);
    EXPECT_EQ(of(kWrite, 0, more), WireError::inval);
    EXPECT_EQ(of(kCache, 0, more), WireError::inval);
    EXPECT_EQ(of(kWriteZeroes, 0, more), WireError::none);
    EXPECT_EQ(of(kWriteZeroes, 0, more, kFastZero), WireError::none);
    EXPECT_EQ(of(kTrim, 0, more), WireError::none);
    EXPECT_EQ(of(kBlockStatus, 0, more), WireError::none);
}

TEST_F(NbdValidate, EachCommandTakesItsOwnFlagsAndFua) {
    struct Row {
        std::uint16_t command, flags;
    };
    for (const Row& row :
         {Row{kRead, kFua | kDf}, Row{kWrite, kFua}, Row{kTrim, kFua}, Row{kCache, kFua},
          Row{kWriteZeroes, kFua | kNoHole | kFastZero}, Row{kBlockStatus, kFua | kReqOne}}) {
        for (unsigned bit = 0; bit < 16; ++bit) {
            const auto flag = static_cast<std::uint16_t>(1u << bit);
            EXPECT_EQ(of(row.command, 0, 512, flag), (row.flags & flag) ? WireError::none : WireError::inval)
                << row.command << " " << flag;
        }
    }
    EXPECT_EQ(of(kFlush, 0, 0, kFua), WireError::none);
    EXPECT_EQ(of(kFlush, 0, 0, kDf), WireError::inval);
}

TEST_F(NbdValidate, WhatWasNotOfferedIsInvalid) {
    shape.flags = kHasFlags;
    EXPECT_EQ(of(kTrim, 0, 512), WireError::inval);
    EXPECT_EQ(of(kWriteZeroes, 0, 512), WireError::inval);
    EXPECT_EQ(of(kRead, 0, 512, kDf), WireError::inval);
    shape.contexts = 0;
    EXPECT_EQ(of(kBlockStatus, 0, 512), WireError::inval);
    EXPECT_EQ(of(8, 0, 512), WireError::inval);
    EXPECT_EQ(of(0xffff, 0, 512), WireError::inval);
}

TEST_F(NbdValidate, WritesToAReadOnlyExportAreNotPermitted) {
    shape.flags = kHasFlags | kReadOnly;
    for (std::uint16_t command : {kWrite, kTrim, kWriteZeroes})
        EXPECT_EQ(of(command, 0, 512), WireError::perm);
    EXPECT_EQ(of(kRead, 0, 512), WireError::none);
    EXPECT_EQ(of(kFlush, 0, 0), WireError::none);
}

TEST_F(NbdValidate, EmptyRequestsAreGoodButForBlockStatusAndFlushesHaveNoExtent) {
    for (std::uint16_t command : {kRead, kWrite, kTrim, kCache, kWriteZeroes})
        EXPECT_EQ(of(command, 512, 0), WireError::none);
    EXPECT_EQ(of(kBlockStatus, 512, 0), WireError::inval);
    EXPECT_EQ(of(kFlush, 512, 0), WireError::inval);
    EXPECT_EQ(of(kFlush, 0, 512), WireError::inval);
}

// --- replies
// ----------------------------------------------------------------------------------------------------

TEST(NbdReplies, NeighbouringHeadersAreOnePieceAndPayloadsLieWhereTheyAre) {
    Replies replies;
    std::byte data[1024]{};
    replies.add_simple(1, WireError::none);
    replies.add_simple(2, WireError::io);
    replies.add_data({0, kRead, 3, 0, 1024}, false, data);
    replies.add_simple(4, WireError::none);
    EXPECT_EQ(replies.count(), 4u);
    const auto window = replies.window(1 << 20);
    ASSERT_EQ(window.count, 3u);
    EXPECT_EQ(window.pieces[0].iov_len, 48u);
    EXPECT_EQ(window.pieces[1].iov_base, data);
    EXPECT_EQ(window.pieces[2].iov_len, 16u);
    EXPECT_TRUE(replies.advance());
}

TEST(NbdReplies, AreCutIntoWindowsWithoutLosingAByte) {
    for (std::size_t size : {1u, 7u, 16u, 17u, 100u, 1000u}) {
        Replies replies;
        std::string data(300, 'x'), all, sent;
        for (std::uint64_t i = 0; i < 5; ++i) {
            replies.add_data({0, kRead, i, i * 512, 300}, true, reinterpret_cast<std::byte*>(data.data()));
            all += u32(0x668e33ef) + u16(1) + u16(1) + u64(i) + u32(308) + u64(i * 512) + data;
            replies.add_simple(i + 100, WireError::none);
            all += u32(0x67446698) + u32(0) + u64(i + 100);
        }
        do {
            const auto window = replies.window(size);
            std::size_t bytes = 0;
            for (std::uint32_t i = 0; i < window.count; ++i) {
                sent.append(static_cast<const char*>(window.pieces[i].iov_base), window.pieces[i].iov_len);
                bytes += window.pieces[i].iov_len;
            }
            ASSERT_LE(bytes, size);
        } while (!replies.advance());
        EXPECT_EQ(sent, all) << size;
        replies.clear();
        EXPECT_TRUE(replies.empty());
    }
}

TEST(NbdReplies, ErrorsCarryTheirTextWhereChunksWereNegotiated) {
    Replies replies;
    replies.add_error(5, {WireError::perm, "the export is read-only"}, true);
    replies.add_error(6, {WireError::perm, "the export is read-only"}, false);
    std::string sent;
    const auto window = replies.window(1 << 20);
    for (std::uint32_t i = 0; i < window.count; ++i) {
        sent.append(static_cast<const char*>(window.pieces[i].iov_base), window.pieces[i].iov_len);
    }
    WireReader reader{sent};
    Answers answers;
    answers.read(reader);
    EXPECT_EQ(answers.by_cookie[5].text, "the export is read-only");
    EXPECT_EQ(answers.by_cookie[5].error, 1u);
    EXPECT_EQ(answers.by_cookie[6].error, 1u);
    EXPECT_TRUE(answers.by_cookie[6].text.empty());
}

// --- the handshake
// ----------------------------------------------------------------------------------------------

class NbdNegotiation : public testing::Test {
  protected:
    using Next = Negotiation::Next;
    NbdNegotiation() {
        n.greet(out);
        EXPECT_EQ(text_of(out), "NBDMAGICIHAVEOPT" + u16(3));
        out.clear();
    }
    // Feeds bytes and answers questions from `exports`, until more is wanted or it ends.
    Next feed(const std::string& bytes) {
        in += bytes;
        for (;;) {
            std::size_t used = 0;
            const std::string now = in;
            Next next = n.advance(view(now), used, out);
            in.erase(0, used);
            if (next == Next::list) {
                const ListedExport listed[] = {{"vol", "a volume"}, {"other", ""}};
                next = n.answer_list(listed, out);
            }
            if (next == Next::look_up) {
                asked = n.name();
                const bool known = n.name() == "vol" || n.name().empty();
                next = n.answer_export(known ? &facts : nullptr, stopping, out);
            }
            if (next != Next::reply) return next;
        }
    }
    std::vector<OptionReply> replies() {
        WireReader reader{text_of(out)};
        out.clear();
        std::vector<OptionReply> all;
        while (!reader.empty()) all.push_back(read_option_reply(reader));
        return all;
    }
    std::uint32_t last_type() {
        const auto all = replies();
        return all.empty() ? 0 : all.back().type;
    }
    std::vector<std::string> contexts{"base:allocation", "udm:changed/monday"};
    ExportFacts facts{"vol", "a volume", 1 << 20, kHasFlags, 512, 4096, 32 << 20, contexts};
    bool stopping = false;
    Negotiation n{Negotiation::Bounds{.option_bytes = 8192, .options = 40}};
    std::string in, asked;
    Bytes out;
};

TEST_F(NbdNegotiation, GoAnswersWhatIsAskedAndTheBlockSizesAlways) {
    EXPECT_EQ(feed(client_flags() + go("vol", {1, 2, 9})), Next::transmission);
    const auto all = replies();
    ASSERT_EQ(all.size(), 5u);
    EXPECT_EQ(all[0].data, u16(0) + u64(1 << 20) + u16(kHasFlags));
    EXPECT_EQ(all[1].data, u16(1) + "vol");
    EXPECT_EQ(all[2].data, u16(2) + "a volume");
    EXPECT_EQ(all[3].data, u16(3) + u32(512) + u32(4096) + u32(32 << 20));
    EXPECT_EQ(all[4].type, 1u);
    EXPECT_FALSE(n.structured());
}

TEST_F(NbdNegotiation, InfoStaysInTheHandshake) {
    EXPECT_EQ(feed(client_flags() + option(6, info_data("vol"))), Next::more);
    EXPECT_EQ(last_type(), 1u);
    EXPECT_EQ(feed(go("vol")), Next::transmission);
}

TEST_F(NbdNegotiation, ByteAfterByteGivesTheSameAnswers) {
    const std::string all = client_flags() + structured() + option(3) + set_meta("vol", {"base:allocation"}) +
                            option(99, "what?") + option(6, info_data("none")) + go("vol");
    EXPECT_EQ(feed(all), Next::transmission);
    const std::string at_once = text_of(out);
    n = Negotiation{Negotiation::Bounds{.option_bytes = 8192, .options = 40}};
    out.clear();
    Next next = Next::more;
    for (char c : all) next = feed(std::string(1, c));
    EXPECT_EQ(next, Next::transmission);
    EXPECT_EQ(text_of(out), at_once);
}

TEST_F(NbdNegotiation, ExportNameIsFollowedByZeroesUnlessTheyWereDeclined) {
    EXPECT_EQ(feed(client_flags(1) + export_name("vol")), Next::transmission);
    EXPECT_EQ(text_of(out), u64(1 << 20) + u16(kHasFlags) + std::string(124, '\0'));
    out.clear();
    n = Negotiation{{}};
    EXPECT_EQ(feed(client_flags(3) + export_name("vol")), Next::transmission);
    EXPECT_EQ(text_of(out), u64(1 << 20) + u16(kHasFlags));
}

TEST_F(NbdNegotiation, UnknownExportsEndOnlyTheExportNameClient) {
    EXPECT_EQ(feed(client_flags() + go("none")), Next::more);
    EXPECT_EQ(last_type(), 0x80000006u);
    EXPECT_EQ(feed(export_name("none")), Next::close);
    EXPECT_TRUE(out.empty());
}

TEST_F(NbdNegotiation, AClientWithoutFixedNewstyleMayOnlyNameItsExport) {
    EXPECT_EQ(feed(client_flags(0) + option(3)), Next::close);
    n = Negotiation{{}};
    in.clear();
    EXPECT_EQ(feed(client_flags(2) + export_name("vol")), Next::transmission);
}

TEST_F(NbdNegotiation, UnknownClientFlagsAndAWrongMagicCloseTheConnection) {
    EXPECT_EQ(feed(client_flags(4)), Next::close);
    n = Negotiation{{}};
    in.clear();
    EXPECT_EQ(feed(client_flags() + "IHAVEOPX" + u32(3) + u32(0)), Next::close);
}

TEST_F(NbdNegotiation, OptionsThatTakeNoDataRefuseIt) {
    feed(client_flags());
    for (std::uint32_t type : {3u, 5u, 8u}) {
        EXPECT_EQ(feed(option(type, "x")), Next::more);
        EXPECT_EQ(last_type(), 0x80000003u) << type;
    }
    EXPECT_EQ(feed(option(2, "ignored")), Next::close);  // ABORT takes anything
    EXPECT_EQ(last_type(), 1u);
}

TEST_F(NbdNegotiation, TlsAndUnknownOptionsAreUnsupported) {
    feed(client_flags());
    for (const std::string& o : {option(5), option(4), option(11), option(0), option(0x80000000, "abc")}) {
        EXPECT_EQ(feed(o), Next::more);
        EXPECT_EQ(last_type(), 0x80000001u);
    }
}

TEST_F(NbdNegotiation, AnOptionThatIsTooLongIsSkippedAndRefused) {
    feed(client_flags());
    EXPECT_EQ(feed(option(7, std::string(8193, 'x'))), Next::more);
    EXPECT_EQ(last_type(), 0x80000009u);
    EXPECT_EQ(feed(option(12345, std::string(100000, 'x')) + go("vol")), Next::transmission);
    n = Negotiation{{.option_bytes = 8192}};
    in.clear();
    EXPECT_EQ(feed(client_flags() + export_name(std::string(8193, 'x'))), Next::close);
}

TEST_F(NbdNegotiation, TooManyOptionsCloseTheConnection) {
    feed(client_flags());
    for (int i = 0; i < 40; ++i) ASSERT_EQ(feed(option(3)), Next::more);
    EXPECT_EQ(feed(option(3)), Next::close);
}

TEST_F(NbdNegotiation, ListNamesAllExports) {
    EXPECT_EQ(feed(client_flags() + option(3)), Next::more);
    const auto all = replies();
    ASSERT_EQ(all.size(), 3u);
    EXPECT_EQ(all[0].type, 2u);
    EXPECT_EQ(all[0].data, u32(3) + "vol" + "a volume");
    EXPECT_EQ(all[1].data, u32(5) + "other");
    EXPECT_EQ(all[2].type, 1u);
}

TEST_F(NbdNegotiation, MetaContextsNeedStructuredRepliesFirst) {
    EXPECT_EQ(feed(client_flags() + set_meta("vol", {"base:allocation"})), Next::more);
    EXPECT_EQ(last_type(), 0x80000003u);
    EXPECT_EQ(feed(option(9, meta_data("vol", {}))), Next::more);
    EXPECT_EQ(last_type(), 0x80000003u);
}

TEST_F(NbdNegotiation, ListingContextsTakesWildcardsAndSelectingDoesNot) {
    feed(client_flags() + structured());
    out.clear();
    const auto listed = [&](const std::vector<std::string>& queries) {
        EXPECT_EQ(feed(option(9, meta_data("vol", queries))), Next::more);
        std::vector<std::string> names;
        for (const auto& reply : replies()) {
            if (reply.type == 4) names.push_back(reply.data.substr(4));
        }
        return names;
    };
    EXPECT_EQ(listed({}), contexts);
    EXPECT_EQ(listed({"base:"}), std::vector<std::string>{"base:allocation"});
    EXPECT_EQ(listed({"udm:"}), std::vector<std::string>{"udm:changed/monday"});
    EXPECT_EQ(listed({"x-unknown:y", "base:none"}), std::vector<std::string>{});
    EXPECT_EQ(feed(set_meta("vol", {"base:", "udm:"})), Next::more);
    EXPECT_EQ(last_type(), 1u);
    EXPECT_TRUE(n.contexts().empty());
    EXPECT_EQ(feed(set_meta("vol", {"udm:changed/monday", "qemu:dirty-bitmap:x", "base:allocation",
                                    "base:allocation"})),
              Next::more);
    EXPECT_EQ(replies()[0].data, u32(0) + "udm:changed/monday");
    EXPECT_EQ(n.contexts(), (std::vector<std::string>{"udm:changed/monday", "base:allocation"}));
}

TEST_F(NbdNegotiation, SelectedContextsEndWithAFailedSelectionAndWithAnotherExport) {
    feed(client_flags() + structured() + set_meta("vol", {"base:allocation"}));
    EXPECT_EQ(n.contexts().size(), 1u);
    EXPECT_EQ(feed(set_meta("none", {"base:allocation"})), Next::more);
    EXPECT_TRUE(n.contexts().empty());
    feed(set_meta("vol", {"base:allocation"}));
    EXPECT_EQ(feed(set_meta("vol", {"nocolon"})), Next::more);
    EXPECT_TRUE(n.contexts().empty());
    feed(set_meta("vol", {"base:allocation"}));
    facts.name = "another";
    EXPECT_EQ(feed(go("vol")), Next::transmission);
    EXPECT_TRUE(n.contexts().empty());
}

TEST_F(NbdNegotiation, AContextThatIsGoneByTheTimeOfGoIsRefused) {
    feed(client_flags() + structured() + set_meta("vol", {"udm:changed/monday"}));
    out.clear();
    facts.contexts = std::span{contexts}.first(1);
    EXPECT_EQ(feed(go("vol")), Next::more);
    EXPECT_EQ(last_type(), 0x80000003u);
}

TEST_F(NbdNegotiation, AStoppingExportSaysSo) {
    stopping = true;
    EXPECT_EQ(feed(client_flags() + go("vol")), Next::more);
    EXPECT_EQ(last_type(), 0x80000007u);
}

TEST_F(NbdNegotiation, DfIsOfferedWithStructuredRepliesOnly) {
    EXPECT_EQ(feed(client_flags() + structured() + go("vol")), Next::transmission);
    EXPECT_TRUE(n.structured());
    EXPECT_EQ(replies()[1].data, u16(0) + u64(1 << 20) + u16(kHasFlags | kSendDf));
}

TEST_F(NbdNegotiation, NamesWithANulAreInvalid) {
    feed(client_flags());
    EXPECT_EQ(feed(go(std::string("v\0l", 3))), Next::more);
    EXPECT_EQ(last_type(), 0x80000003u);
    EXPECT_EQ(feed(export_name(std::string("v\0l", 3))), Next::close);
}

}  // namespace
}  // namespace udm::nbd
