// The methods mirror.* of docs/protocol.md.
#include "ctl/api.hpp"
#include "ctl/params.hpp"

namespace udm::ctl {

void Api::add_mirror_methods() {
    add("mirror.scrub_start", [this](Params& p) {
        const DeviceKey key = p.device();
        const Scrubs::Wanted wanted{p.text("mode"), p.number_if("from").value_or(0)};
        p.end();
        if (wanted.mode != "check" && wanted.mode != "repair") throw RpcError{rpc_code::kBadParams, "mode is check or repair"};
        return scrubs_.start(key, wanted);
    });
    for (const char* const what : {"stop", "pause", "resume"}) {
        add(std::string{"mirror.scrub_"} + what, [this, message = std::string{"scrub_"} + what](Params& p) {
            const DeviceKey key = p.device();
            p.end();
            return scrubs_.tell(key, message.c_str());
        });
    }
    add("mirror.scrub_status", [this](Params& p) {
        const DeviceKey key = p.device();
        p.end();
        return scrubs_.status(key);
    });
}

}  // namespace udm::ctl
