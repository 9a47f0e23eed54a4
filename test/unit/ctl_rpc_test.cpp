// JSON-RPC lines in, lines out: what a well-behaved client gets, and what a hostile one does.
#include <gtest/gtest.h>

#include <string>

#include "ctl/rpc.hpp"

namespace udm::ctl {
namespace {

class EchoService final : public Service {
  public:
    Answer call(std::string_view method, const Json& params, Caller& caller) override {
        ++calls;
        if (method == "echo") return {params, nullptr};
        if (method == "fail") throw Failure{Errc::busy, "it is in use", "vol"};
        if (method == "badly") throw RpcError{rpc_code::kBadParams, "parameter x is missing"};
        if (method == "throws") throw std::runtime_error{"out of luck"};
        if (method == "odd") throw Failure{static_cast<Errc>(98), "\xff\xfe is no UTF-8"};
        if (method == "some") return {std::string(100 << 10, 'x'), nullptr};
        if (method == "long") return {std::string(2 << 20, 'x'), nullptr};
        if (method == "subscribe") {
            caller.subscribe(7);
            return {true, nullptr};
        }
        if (method == "wait") {
            auto pending = std::make_unique<Pending>();
            pending->check = [this]() -> std::optional<Json> {
                if (broken) throw Failure{Errc::not_found, "gone"};
                return happened ? std::optional<Json>{"now"} : std::nullopt;
            };
            if (params.contains("ms")) {
                pending->deadline = std::chrono::steady_clock::now() + std::chrono::milliseconds{params["ms"].get<int>()};
                pending->at_deadline = []() -> Json { throw Failure{Errc::timed_out, "too late"}; };
            }
            return {nullptr, std::move(pending)};
        }
        throw RpcError{rpc_code::kNoMethod, "there is no method " + std::string{method}};
    }
    int calls = 0;
    bool happened = false, broken = false;
};

class Rpc : public testing::Test, protected Caller {
  protected:
    void subscribe(std::uint64_t serial) override { subscribed = serial; }
    std::string raw(std::string_view line) {
        std::string out;
        session.handle_line(line, out);
        return out;
    }
    // The one answer to a line.
    Json ask(std::string_view line) {
        const std::string out = raw(line);
        EXPECT_EQ(out.find('\n'), out.size() - 1) << out;
        return Json::parse(out, nullptr, false);
    }
    int code_of(std::string_view line) {
        const Json answer = ask(line);
        EXPECT_FALSE(answer.contains("result")) << answer;
        return answer["error"]["code"].get<int>();
    }
    EchoService service;
    RpcSession session{service, *this};
    std::uint64_t subscribed = 0;
};

TEST_F(Rpc, AnswersARequestWithItsId) {
    EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":7,"method":"echo","params":{"a":[1,2]}})"),
              Json::parse(R"({"jsonrpc":"2.0","id":7,"result":{"a":[1,2]}})"));
    EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":"x","method":"echo"})")["result"], Json::object());
    EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":null,"method":"echo","params":[]})")["id"], nullptr);
    EXPECT_EQ(ask("{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"echo\"}\r")["id"], 1);
}

TEST_F(Rpc, CarriesOutANotificationWithoutAWord) {
    EXPECT_EQ(raw(R"({"jsonrpc":"2.0","method":"echo"})"), "");
    EXPECT_EQ(raw(R"({"jsonrpc":"2.0","method":"fail"})"), "");
    EXPECT_EQ(raw(""), "");
    EXPECT_EQ(service.calls, 2);
}

TEST_F(Rpc, SaysWhyTheDeviceMapperRefused) {
    const Json error = ask(R"({"jsonrpc":"2.0","id":1,"method":"fail"})")["error"];
    EXPECT_EQ(error["code"], -32000);
    EXPECT_EQ(error["message"], "it is in use");
    EXPECT_EQ(error["data"], Json::parse(R"({"errno":16,"name":"EBUSY","strerror":"Device or resource busy","device":"vol"})"));
}

TEST_F(Rpc, NamesEachKindOfProtocolError) {
    EXPECT_EQ(code_of("{"), -32700);
    EXPECT_EQ(code_of("nonsense"), -32700);
    EXPECT_EQ(code_of("{\"a\":\"\xff\"}"), -32700);
    EXPECT_EQ(code_of("12"), -32600);
    EXPECT_EQ(code_of("[]"), -32600);
    EXPECT_EQ(code_of(R"({"id":1,"method":"echo"})"), -32600);
    EXPECT_EQ(code_of(R"({"jsonrpc":"1.0","id":1,"method":"echo"})"), -32600);
    EXPECT_EQ(code_of(R"({"jsonrpc":"2.0","id":1})"), -32600);
    EXPECT_EQ(code_of(R"({"jsonrpc":"2.0","id":1,"method":5})"), -32600);
    EXPECT_EQ(code_of(R"({"jsonrpc":"2.0","id":{},"method":"echo"})"), -32600);
    EXPECT_EQ(code_of(R"({"jsonrpc":"2.0","id":1,"method":"echo","params":[1]})"), -32602);
    EXPECT_EQ(code_of(R"({"jsonrpc":"2.0","id":1,"method":"echo","params":7})"), -32602);
    EXPECT_EQ(code_of(R"({"jsonrpc":"2.0","id":1,"method":"badly"})"), -32602);
    EXPECT_EQ(code_of(R"({"jsonrpc":"2.0","id":1,"method":"none"})"), -32601);
    EXPECT_EQ(code_of(R"({"jsonrpc":"2.0","id":1,"method":"throws"})"), -32603);
}

TEST_F(Rpc, BoundsDepthLengthAndBatches) {
    EXPECT_EQ(code_of(std::string(kDepthMax + 1, '[') + std::string(kDepthMax + 1, ']')), -32600);
    EXPECT_EQ(code_of(std::string(500'000, '[')), -32600);
    EXPECT_EQ(code_of(std::string(500'000, '{')), -32600);
    EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":1,"method":"echo","params":{"s":")" + std::string(100, '[') + R"(\"[["}})")["id"], 1);
    EXPECT_EQ(code_of(std::string(kLineMax + 1, ' ') + "1"), -32600);
    std::string batch = "[1";
    for (std::size_t i = 0; i < kBatchMax; ++i) batch += ",1";
    EXPECT_EQ(code_of(batch + "]"), -32600);
    EXPECT_EQ(service.calls, 1);
}

TEST_F(Rpc, AnswersABatchTogether) {
    const Json answer = ask(R"([{"jsonrpc":"2.0","id":1,"method":"echo"}, 5, {"jsonrpc":"2.0","method":"echo"},
                               {"jsonrpc":"2.0","id":2,"method":"fail"}])");
    ASSERT_EQ(answer.size(), 3u);
    EXPECT_EQ(answer[0]["id"], 1);
    EXPECT_EQ(answer[1]["error"]["code"], -32600);
    EXPECT_EQ(answer[2]["error"]["data"]["name"], "EBUSY");
    EXPECT_EQ(raw(R"([{"jsonrpc":"2.0","method":"echo"}])"), "");
}

TEST_F(Rpc, RefusesAnAnswerThatIsTooLong) {
    const Json error = ask(R"({"jsonrpc":"2.0","id":9,"method":"long"})");
    EXPECT_EQ(error["id"], 9);
    EXPECT_EQ(error["error"]["data"]["name"], "E2BIG");
}

TEST_F(Rpc, MakesWordsThatAreNoUtf8Printable) {
    const Json error = ask(R"({"jsonrpc":"2.0","id":9,"method":"odd"})")["error"];
    EXPECT_EQ(error["message"], "\uFFFD\uFFFD is no UTF-8");
    EXPECT_EQ(error["data"]["name"], "EADDRINUSE");
}

TEST_F(Rpc, AWaitDoesNotHoldUpThoseBehindIt) {
    EXPECT_EQ(raw(R"({"jsonrpc":"2.0","id":1,"method":"wait"})"), "");
    EXPECT_TRUE(session.has_pending());
    EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":2,"method":"echo"})")["id"], 2);
    std::string out;
    session.check_pending(out);
    EXPECT_EQ(out, "");
    service.happened = true;
    session.check_pending(out);
    EXPECT_EQ(Json::parse(out), Json::parse(R"({"jsonrpc":"2.0","id":1,"result":"now"})"));
    EXPECT_FALSE(session.has_pending());
}

TEST_F(Rpc, AWaitForWhatHasHappenedIsAnsweredAtOnce) {
    service.happened = true;
    EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":1,"method":"wait"})")["result"], "now");
    EXPECT_FALSE(session.has_pending());
}

TEST_F(Rpc, AWaitEndsAtItsDeadlineOrWithItsReason) {
    EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":1,"method":"wait","params":{"ms":0}})")["error"]["data"]["name"], "ETIMEDOUT");
    EXPECT_EQ(raw(R"({"jsonrpc":"2.0","id":2,"method":"wait","params":{"ms":100000}})"), "");
    ASSERT_TRUE(session.next_deadline().has_value());
    service.broken = true;
    std::string out;
    session.check_pending(out);
    EXPECT_EQ(Json::parse(out)["error"]["data"]["name"], "ENXIO");
    EXPECT_FALSE(session.next_deadline().has_value());
}

TEST_F(Rpc, ABatchRunsNoFurtherThanItsAnswersFit) {
    std::string batch;
    for (int i = 0; i < 20; ++i) {
        batch += batch.empty() ? "[" : ",";
        batch += R"({"jsonrpc":"2.0","id":)" + std::to_string(i) + R"(,"method":"some"})";
    }
    const Json answers = ask(batch + "]");
    ASSERT_EQ(answers.size(), 20u);
    EXPECT_LT(service.calls, 8);
    for (int i = 0; i < 20; ++i) {
        const Json& answer = answers[static_cast<std::size_t>(i)];
        EXPECT_EQ(answer["id"], i);
        if (i < service.calls - 1) {
            EXPECT_EQ(answer["result"].get<std::string>().size(), 100u << 10);
        } else {
            EXPECT_EQ(answer["error"]["data"]["name"], "E2BIG");
        }
    }
}

TEST_F(Rpc, ABatchWithAWaitIsAnsweredWhenTheWaitIs) {
    EXPECT_EQ(raw(R"([{"jsonrpc":"2.0","id":1,"method":"wait"},{"jsonrpc":"2.0","id":2,"method":"echo"}])"), "");
    service.happened = true;
    std::string out;
    session.check_pending(out);
    EXPECT_EQ(Json::parse(out).size(), 2u);
}

TEST_F(Rpc, BoundsTheWaitsOfOneClient) {
    for (std::size_t i = 0; i < kWaitsMax; ++i) EXPECT_EQ(raw(R"({"jsonrpc":"2.0","id":1,"method":"wait"})"), "");
    EXPECT_EQ(ask(R"({"jsonrpc":"2.0","id":1,"method":"wait"})")["error"]["data"]["name"], "E2BIG");
    EXPECT_EQ(raw(R"({"jsonrpc":"2.0","method":"wait"})"), "");    // nobody waits for a notification's answer
}

TEST_F(Rpc, TellsTheCallerOfSubscriptions) {
    ask(R"({"jsonrpc":"2.0","id":1,"method":"subscribe"})");
    EXPECT_EQ(subscribed, 7u);
}

}  // namespace
}  // namespace udm::ctl
