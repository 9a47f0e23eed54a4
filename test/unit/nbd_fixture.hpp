// An NBD server in the simulated world: one or more reactors on one timeline, disks, and clients in memory.
#pragma once

#include <gtest/gtest.h>

#include <memory>

#include "exports/nbd/server.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_reactor.hpp"
#include "test/support/fake_net.hpp"
#include "test/support/nbd_bytes.hpp"

namespace udm::test {

struct Told final : nbd::Done {
    void done() noexcept override { ++times; }
    int times = 0;
};

// Deterministic content: each 8 bytes name their place.
inline std::string pattern(std::uint64_t offset, std::size_t length, std::uint64_t salt = 0) {
    std::string text(length, '\0');
    for (std::size_t i = 0; i < length; ++i) {
        const std::uint64_t word = ((offset + i) / 8 + 1) * 0x9e3779b97f4a7c15 + salt;
        text[i] = static_cast<char>(word >> (8 * ((offset + i) % 8)));
    }
    return text;
}

class NbdWorld : public testing::Test {
  protected:
    static constexpr std::uint64_t kSize = 16 << 20;

    explicit NbdWorld(unsigned reactors = 1, const nbd::ServerLimits& limits = {}) {
        for (unsigned i = 0; i < reactors; ++i) {
            reactors_.push_back(std::make_unique<SimReactor>(timeline));
            networks_.push_back(std::make_unique<FakeNetwork>(*reactors_.back(), wires));
        }
        reactor(0).enter();
        server = std::make_unique<nbd::Server>(reactor(0), network(0), limits);
        EXPECT_TRUE(server->listen({}));
    }
    ~NbdWorld() override { finish(); }

    // Stops the server and checks that nothing is left.
    void finish() {
        if (!server) return;
        release_all();
        Told told;
        server->stop(told);
        run();
        run_for(60 * kSecond);
        EXPECT_EQ(told.times, 1);
        EXPECT_EQ(server->connections(), 0u);
        server.reset();
        for (auto& r : reactors_) {
            EXPECT_EQ(r->ios_out(), 0u);
            EXPECT_EQ(r->buffers().bytes_out(), 0u);
        }
    }
    virtual void release_all() {
        for (auto& disk : disks_) disk->release();
    }

    SimReactor& reactor(unsigned i) { return *reactors_[i]; }
    FakeNetwork& network(unsigned i) { return *networks_[i]; }
    void run() { reactor(0).run_for(5 * kSecond); }
    void run_for(Nanoseconds time) { reactor(0).run_for(time); }

    SimDisk& add_disk(std::uint64_t bytes = kSize) {
        SimDisk::Options options;
        options.limits.size = whole_sectors(bytes);
        options.limits.discard = true;
        disks_.push_back(std::make_unique<SimDisk>(timeline, options));
        return *disks_.back();
    }
    // A disk with content, exported.
    SimDisk& serve(const std::string& name, unsigned home = 0, bool read_only = false) {
        SimDisk& disk = add_disk();
        static const std::string content = pattern(0, kSize);
        disk.write_now({{0}, whole_sectors(kSize)}, content.data());
        serve(name, disk, home, read_only);
        return disk;
    }
    void serve(const std::string& name, Disk& disk, unsigned home = 0, bool read_only = false,
               ExtentQuestions* questions = nullptr) {
        nbd::Export what{.name = name,
                         .disk = &disk,
                         .home = &reactor(home),
                         .network = &network(home),
                         .read_only = read_only,
                         .questions = questions};
        const auto added = server->add(std::move(what));
        ASSERT_TRUE(added) << added.error().message;
    }
    static std::string content_of(const SimDisk& disk, std::uint64_t offset, std::size_t length) {
        std::string text(length, '\0');
        disk.read_now({{offset / 512}, whole_sectors(length)}, text.data());
        return text;
    }

    // A connection past the greeting.
    Wire& connect() {
        Wire& wire = network(0).connect();
        run();
        EXPECT_EQ(wire.take(), "NBDMAGICIHAVEOPT" + u16(3));
        return wire;
    }
    // One in the transmission phase.
    Wire& connect(const std::string& name, bool structured_replies = false,
                  const std::vector<std::string>& contexts = {}) {
        Wire& wire = connect();
        std::string handshake = client_flags();
        if (structured_replies) handshake += structured();
        if (!contexts.empty()) handshake += set_meta(name, contexts);
        wire.write(handshake + go(name));
        run();
        WireReader reader{wire.take()};
        OptionReply last;
        while (!reader.empty()) last = read_option_reply(reader);
        EXPECT_EQ(last.option, 7u);
        EXPECT_EQ(last.type, 1u);
        return wire;
    }
    // Everything that came back until now.
    Answers answers(Wire& wire, std::map<std::uint64_t, std::uint32_t> reads = {}) {
        run();
        WireReader reader{wire.take()};
        Answers all;
        all.reads = std::move(reads);
        all.read(reader);
        return all;
    }
    // One request, answered.
    Answer ask(Wire& wire, const std::string& bytes, std::uint32_t read_length = 0) {
        wire.write(bytes);
        auto all = answers(wire, {{1, read_length}});
        EXPECT_EQ(all.order, std::vector<std::uint64_t>{1}) << "one answer, to cookie 1";
        return all.by_cookie[1];
    }

    Timeline timeline;
    Wires wires;
    std::vector<std::unique_ptr<SimReactor>> reactors_;
    std::vector<std::unique_ptr<FakeNetwork>> networks_;
    std::vector<std::unique_ptr<SimDisk>> disks_;
    std::unique_ptr<nbd::Server> server;
};

}  // namespace udm::test
