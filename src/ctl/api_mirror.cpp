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

void Api::add_leg_methods() {
    const auto new_leg = [](Params& p) {
        Mirroring::NewOne wanted;
        wanted.device = p.text("new");
        wanted.offset = {p.number_if("offset").value_or(0)};
        wanted.overwrite = p.flag("overwrite");
        return wanted;
    };
    add("mirror.add_leg", [this, new_leg](Params& p) {
        const DeviceKey key = p.device();
        Mirroring::NewOne wanted = new_leg(p);
        wanted.log = p.text_if("log");
        p.end();
        return mirroring_.add_leg(key, wanted);
    });
    add("mirror.replace_leg", [this, new_leg](Params& p) {
        const DeviceKey key = p.device();
        const std::string leg = p.text("leg");
        const Mirroring::NewOne wanted = new_leg(p);
        p.end();
        return mirroring_.replace_leg(key, leg, wanted);
    });
    add("mirror.drop_leg", [this](Params& p) {
        const DeviceKey key = p.device();
        const std::string leg = p.text("leg");
        p.end();
        return mirroring_.drop_leg(key, leg);
    });
    add("mirror.readd", [this](Params& p) {
        const DeviceKey key = p.device();
        const auto leg = p.text_if("leg");
        p.end();
        return mirroring_.readd(key, leg);
    });
}

}  // namespace udm::ctl
