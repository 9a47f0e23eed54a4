// Hostile clients of the control socket: lines of JSON-RPC to the real methods, over a daemon without reactors, so that what
// needs one is refused and everything before that is run. Every line gets JSON back, or nothing.
#include <algorithm>
#include <string>
#include <string_view>

#include "ctl/api.hpp"

using namespace udm;
using namespace udm::ctl;

namespace {

class NullHost final : public Host {
  public:
    unsigned reactor_count() const override { return 0; }
    Env& env(unsigned) override { __builtin_trap(); }
    const TargetTypes& types(unsigned) override { __builtin_trap(); }
    DeviceOpener& opener(unsigned) override { __builtin_trap(); }
    DiskId identify(std::string_view) override { return {}; }
    std::string engine_name() const override { return "none"; }
    std::vector<std::string> warnings() const override { return {}; }
    std::vector<std::uint64_t> cpu_ns() const override { return {}; }
    OpenFiles open_files() const override { return {}; }
};

class Deaf final : public Caller {
  public:
    void subscribe(std::uint64_t) override {}
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    NullHost host;
    EventHub hub;
    State state;
    Devices devices{host, hub, state};
    Exports exports{devices, nullptr};
    Api api{devices, exports, [] {}};
    Deaf caller;
    RpcSession session{api, caller};
    std::string_view rest{reinterpret_cast<const char*>(data), size};
    while (!rest.empty()) {
        const std::size_t end = std::min(rest.find('\n'), rest.size());
        std::string out;
        session.handle_line(rest.substr(0, end), out);
        session.check_pending(out);
        for (std::size_t from = 0; from < out.size();) {    // an earlier wait may be answered here as well
            const std::size_t newline = out.find('\n', from);
            if (newline == std::string::npos) __builtin_trap();
            if (Json::parse(out.substr(from, newline - from), nullptr, false).is_discarded()) __builtin_trap();
            from = newline + 1;
        }
        rest.remove_prefix(std::min(end + 1, rest.size()));
    }
    devices.stop();
    return 0;
}
