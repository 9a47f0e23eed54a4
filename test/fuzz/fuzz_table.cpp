// Table text: whatever the lines say, there is a table or an error that says something, nothing else.
#include <cstring>
#include <string>
#include <vector>

#include "base/parse.hpp"
#include "core/device.hpp"
#include "sim/sim_disk.hpp"
#include "sim/sim_opener.hpp"
#include "sim/sim_reactor.hpp"
#include "targets/all.hpp"

using namespace udm;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    SimReactor reactor;
    Prng random{1};
    Chaos chaos;
    Env env{reactor, random, chaos};
    SimDisk a{reactor, Sectors{4096}}, b{reactor, Sectors{1024}};
    SimOpener opener;
    opener.add("a", a);
    opener.add("b", b);
    TargetTypes types;
    add_all_targets(types, env);
    {
        Device device{env, "fuzz", DiskId{DiskId::Kind::mapped, 253, 0}};
        std::vector<TableLine> lines;
        std::string_view text{reinterpret_cast<const char*>(data), size};
        while (!text.empty() && lines.size() < 64) {
            const std::string_view line = text.substr(0, text.find('\n'));
            text.remove_prefix(std::min(text.size(), line.size() + 1));
            // start length type params, as a client sends them
            const auto words = split_words(line);
            if (!words || words->size() < 3) continue;
            const auto start = parse_u64((*words)[0]), length = parse_u64((*words)[1]);
            if (!start || !length) continue;
            const std::size_t type_at = line.find((*words)[2]);
            const std::size_t params = type_at == std::string_view::npos ? line.size() : type_at + (*words)[2].size();
            lines.push_back({{*start}, {*length}, (*words)[2], std::string{line.substr(params)}});
        }
        auto table = Table::build(lines, TableMode::read_write,
                                  {env, types, opener, device, nullptr, device.name(), device.id(), 253, 0});
        if (!table) {
            if (table.error().message.empty()) __builtin_trap();
        } else {
            auto loaded = reactor.run((*table)->load());
            if (!loaded) {
                if (loaded.error().message.empty()) __builtin_trap();
                table->reset();
            } else {
                for (const auto& entry : (*table)->entries()) {
                    // What is printed as a table is taken as one again.
                    if (!split_words(entry.target->table())) __builtin_trap();
                    static_cast<void>(entry.target->status());
                }
                device.set_inactive(std::move(*table));
                static_cast<void>(reactor.run(device.resume()));
                if (device.live() && device.limits().size.v != 0) {
                    std::byte sector[kSectorSize]{};
                    static_cast<void>(reactor.io(device, Op::write, {{0}, {device.limits().logical_block / kSectorSize}}, sector));
                }
            }
            reactor.run(device.detach());
        }
        reactor.run_until_idle();
    }
    reactor.run_until_idle();
    return 0;
}
