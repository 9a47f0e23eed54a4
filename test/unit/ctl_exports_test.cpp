// Exports beside what else happens to their devices; the server is one that only takes notes.
#include <atomic>
#include <future>
#include <semaphore>

#include "ctl/exports.hpp"
#include "test/unit/ctl_world.hpp"

namespace udm::ctl {
namespace {

class Nowhere final : public ExportServer {
  public:
    Result<std::vector<std::string>> look_up(const Address& address) override {
        if (address.host == "slow.example") {
            asked.release();
            answer.acquire();
        }
        return std::vector<std::string>{"127.0.0.1"};
    }
    Result<std::unique_ptr<Served>> serve(const ExportRequest& request, Device&, unsigned) override {
        class AtNowhere final : public Served {
          public:
            explicit AtNowhere(std::string uri) : uri_{std::move(uri)} {}
            void begin_end() override {}
            std::string uri() const override { return uri_; }
            std::size_t connections() const override { return 0; }

          private:
            const std::string uri_;
        };
        return std::make_unique<AtNowhere>("nbd+unix:///?socket=/" + request.name);
    }
    std::binary_semaphore asked{0}, answer{0};
};

class Exporting : public World {
  protected:
    std::string add(const std::string& device, const std::string& uri) { return exports.add(named(device), {.uri = uri}); }

    Nowhere server;
    Exports exports{*devices, &server};
};

TEST_F(Exporting, OfAnImageThatIsBeingDroppedIsRefusedFromTheFirstLookOn) {
    create("vol", "0 2048 linear " + file("disk") + " 0");
    Snapshots::Request request;
    request.redirect = true;
    request.origins = {{named("vol"), "still", std::nullopt}};
    snapshots->take(request);
    ASSERT_EQ(write("vol", 0, 'B'), IoStatus::ok);
    add("still", "nbd+unix:///e?socket=/s");
    EXPECT_EQ(refusal([&] { snapshots->drop(named("still")); }).code, Errc::busy);
    exports.remove(named("still"), {});
    const auto tried = std::make_shared<std::atomic<bool>>(false);
    const auto answer = std::make_shared<std::promise<Error>>();
    auto refused = answer->get_future();
    host->opening = [this, tried, answer] {    // in the middle of the drop; stays set, since another thread may be in it
        if (!tried->exchange(true)) answer->set_value(refusal([&] { add("still", "nbd+unix:///e?socket=/s"); }));
    };
    snapshots->drop(named("still"));
    EXPECT_EQ(refused.get().code, Errc::busy);
    while (devices->registry().try_find(named("still"))) std::this_thread::yield();
    settle();
    EXPECT_EQ(read("vol", 0), 'B');
}

TEST_F(Exporting, WaitsForASlowNameServiceAlone) {
    create("a", "0 8 zero");
    create("b", "0 8 zero");
    auto slow = std::async(std::launch::async, [&] { add("a", "nbd://slow.example:1/a"); });
    server.asked.acquire();
    auto quick = std::async(std::launch::async, [&] { add("b", "nbd+unix:///b?socket=/b"); });
    EXPECT_EQ(quick.wait_for(std::chrono::seconds{10}), std::future_status::ready);
    server.answer.release();
    slow.get();
    quick.get();
    EXPECT_EQ(exports.size(), 2u);
    exports.stop();
}

}  // namespace
}  // namespace udm::ctl
