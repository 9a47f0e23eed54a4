// Where devices differ, as far as that can be proven without reading them (core/comparison.hpp): for people and scripts
// (snapshot.diff), and for clients of exports (metadata context udm:changed/NAME). docs/protocol.md has both.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "ctl/devices.hpp"
#include "port/extent_question.hpp"

namespace udm::ctl {

class Changes {
  public:
    explicit Changes(Devices& devices) : devices_{devices} {}

    struct Request {
        DeviceKey device;
        std::optional<DeviceKey> against;    // else what the snapshot was taken of
        std::uint64_t offset = 0;            // bytes
        std::uint64_t limit = kExtentsMax;
    };
    static constexpr std::uint64_t kExtentsMax = 10'000;    // of one answer: a line of the protocol has 1 MiB
    // The extents from `offset` on that may differ, and where to go on. Throws Failure.
    Json diff(const Request& request) const;

    // What clients may ask of this device's exports. Lives as long as they; its members are for the device's home reactor.
    std::unique_ptr<ExtentQuestions> questions_of(const RecordPtr& record) const;

  private:
    RecordPtr origin_of(const RecordPtr& snapshot) const;
    void check(const Record& record) const;

    Devices& devices_;
};

}  // namespace udm::ctl
