// Mirrors on simulated disks.
#pragma once

#include <string>
#include <vector>

#include "targets/mirror/type.hpp"
#include "test/support/mapped_world.hpp"

namespace udm::test {

// Of most mirrors in these tests.
inline const std::string kFeatures = "2 handle_errors keep_log";

class MirrorTest : public ::testing::Test {
  public:
    static constexpr std::uint64_t kSectors = 16384, kRegion = 1024, kRegions = 16;

    MirrorTest() {
        if (!w.types.find("mirror")) w.types.add(mirror::type());
    }
    ~MirrorTest() override {
        for (Device* device : running) w.reactor.run(device->detach());
    }

    // Legs "leg0" … with different content, and a log "log".
    void disks(unsigned legs = 2, std::uint64_t sectors = kSectors) {
        for (unsigned i = 0; i < legs; ++i) {
            w.disk("leg" + std::to_string(i), sectors).fill_now({{0}, {sectors}}, static_cast<std::uint8_t>(0x10 + i));
        }
        w.disk("log", 64);
    }
    SimDisk& leg(unsigned i) { return *w.disks.at("leg" + std::to_string(i)); }
    SimDisk& log() { return *w.disks.at("log"); }

    static std::string line(const std::string& params, std::uint64_t length = kSectors) { return "0 " + std::to_string(length) + " mirror " + params; }
    // "disk 2 log 1024 2 leg0 0 leg1 0"
    static std::string params(const std::string& log = "disk 2 log 1024", unsigned legs = 2, const std::string& features = "") {
        std::string text = log + " " + std::to_string(legs);
        for (unsigned i = 0; i < legs; ++i) text += " leg" + std::to_string(i) + " 0";
        return text + (features.empty() ? "" : " " + features);
    }
    Device& make(const std::string& params_of_it, const std::string& name = "m") {
        Device& device = w.start(name, line(params_of_it));
        running.push_back(&device);
        return device;
    }
    // In sync from the start: legs are alike.
    Device& make_in_sync(unsigned legs = 2, const std::string& features = "", const std::string& log_words = "disk 3 log 1024 nosync") {
        disks(legs);
        for (unsigned i = 0; i < legs; ++i) leg(i).fill_now({{0}, {kSectors}}, 0x10);
        return make(params(log_words, legs, features));
    }
    void remove(Device& device) {
        w.reactor.run(device.detach());
        std::erase(running, &device);
    }
    Result<void> swap(Device& device, const std::string& params_of_it) {
        auto loaded = w.load(device, line(params_of_it));
        if (!loaded) return loaded;
        return w.resume(device);
    }
    static Target& target(Device& device) { return *device.live()->entries()[0].target; }
    static std::string status(Device& device) { return target(device).status(); }
    // The part between the devices and the log: "16/16 1 AA".
    static std::string state(Device& device) {
        const std::string text = status(device);
        const auto slash = text.find('/', text.find("leg"));
        const auto begin = text.rfind(' ', slash) + 1;
        return text.substr(begin, text.find(' ', text.find(" 1 ", slash) + 3) - begin);
    }
    static bool in_sync(Device& device) {
        const std::string text = state(device);
        return text.substr(0, text.find(' ')) == "16/16";
    }
    bool comes_in_sync(Device& device, Nanoseconds time = 300 * kSecond) {
        return w.reactor.run_until([&] { return in_sync(device); }, time);
    }
    static std::uint64_t detail(Device& device, std::string_view name) {
        for (const TargetDetail& one : target(device).details()) {
            if (one.name == name) return one.value;
        }
        return 0;
    }
    bool legs_equal(unsigned a = 0, unsigned b = 1, std::uint64_t sectors = kSectors) {
        Memory of_a{sectors}, of_b{sectors};
        leg(a).read_now({{0}, {sectors}}, of_a.at());
        leg(b).read_now({{0}, {sectors}}, of_b.at());
        return of_a == of_b;
    }
    int on_leg(unsigned i, std::uint64_t sector) {
        Memory memory{1};
        leg(i).read_now({{sector}, {1}}, memory.at());
        return memory.bytes[0];
    }
    bool event(std::string_view text) { return count_events(text) != 0; }
    std::size_t count_events(std::string_view text) {
        return static_cast<std::size_t>(std::count_if(w.events.begin(), w.events.end(), [&](const MappedWorld::Event& e) { return e.what.find(text) != std::string::npos; }));
    }
    static DiskFault broken(unsigned ops = DiskFault::kAll) { return {.ops = ops}; }
    bool tell(Device& device, const std::vector<std::string>& words) {
        auto reply = w.message(device, 0, words);
        EXPECT_TRUE(reply.has_value()) << (reply ? "" : reply.error().message);
        return reply.has_value();
    }

    MappedWorld w;
    std::vector<Device*> running;
};

}  // namespace udm::test
