// Text as a table: refused with a text that names the target, or a device that can be used, and whose own table line makes the
// same again.

#include <cstdint>
#include <optional>

#include "base/parse.hpp"
#include "test/fuzz/machine.hpp"

namespace {

using namespace udm;

// "BEGIN LENGTH TYPE PARAMETERS", a line each.
std::vector<TableLine> lines_of(std::string_view text) {
    std::vector<TableLine> lines;
    while (!text.empty()) {
        std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        std::array<std::string_view, 3> words;
        for (auto& word : words) {
            line.remove_prefix(std::min(line.size(), line.find_first_not_of(' ')));
            word = line.substr(0, line.find(' '));
            line.remove_prefix(word.size());
        }
        line.remove_prefix(std::min(line.size(), line.find_first_not_of(' ')));
        const auto begin = parse_u64(words[0]), length = parse_u64(words[1]);
        if (!begin || !length) break;
        lines.push_back({{*begin}, {*length}, std::string{words[2]}, std::string{line}});
    }
    return lines;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const std::vector<TableLine> lines = lines_of({reinterpret_cast<const char*>(data), size});
    std::vector<TableLine> again;
    {
        test::Machine machine{Sectors{16384}, Sectors{4096}};
        Device& device = machine.add("device");
        const auto started = machine.start(device, lines);
        if (!started) {
            ASSERT(!started.error().message.empty());
            return 0;
        }
        for (const Table::Entry& entry : device.live()->entries()) {
            static_cast<void>(entry.target->status());
            again.push_back({entry.extent.first, entry.extent.length, std::string{entry.type->name()}, entry.target->table()});
        }
        const std::uint64_t end = device.limits().size.v;
        ASSERT(end > 0);
        for (const Op op : {Op::read, Op::write, Op::write_zeroes, Op::discard}) {
            machine.request(device, op, {{0}, {std::min<std::uint64_t>(end, 64)}});
            machine.request(device, op, {{end - 1}, {1}});
        }
        machine.request(device, Op::flush, {});
    }
    // What a device prints is a table that makes the same device.
    test::Machine machine{Sectors{16384}, Sectors{4096}};
    Device& device = machine.add("device");
    const auto started = machine.start(device, again);
    ASSERT(started);
    for (std::size_t i = 0; i < again.size(); ++i) {
        ASSERT(device.live()->entries()[i].target->table() == again[i].params);
    }
    return 0;
}
