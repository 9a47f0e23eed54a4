#include "sim/machine.hpp"

#include <algorithm>

#include "base/parse.hpp"
#include "targets/all.hpp"

namespace udm {

Machine::Node::Node(World& world, std::uint64_t number)
    : reactor{world.timeline()},
      random{world.seed() ^ (0x3a1d << number) ^ world.cuts()},
      env{reactor, random, world.chaos()} {
    add_all_targets(types, env);
}

Machine::Machine(World& world, unsigned reactors) : world_{world} {
    ASSERT(reactors > 0);
    for (unsigned i = 0; i < reactors; ++i) nodes_.push_back(std::make_unique<Node>(world, i));
    nodes_[0]->reactor.enter();
    for (const auto& disk : world.disks()) opener_.add(disk->name(), *disk);
}

Machine::~Machine() {
    // Requests may be anywhere: nothing is waited for and nothing is expected to be tidy.
    const Abandoning abandoning;
    for (const auto& node : nodes_) node->reactor.cut();
    // Those that stand on others were made after them.
    while (!mapped_.empty()) mapped_.pop_back();
    nodes_.clear();
}

Machine::Mapped& Machine::create(std::string name, unsigned node) {
    ASSERT(find(name) == nullptr);
    Node& home = *nodes_[node];
    const DiskId id = opener_.next_mapped();
    auto device = std::make_unique<Device>(home.env, name, id);
    opener_.add_mapped(name, *device, id);
    mapped_.push_back(std::make_unique<Mapped>(
        Mapped{std::move(name), std::move(device), &home, id, static_cast<std::uint32_t>(id.inode)}));
    return *mapped_.back();
}

Machine::Mapped* Machine::find(std::string_view name) noexcept {
    for (const auto& mapped : mapped_) {
        if (mapped->name == name) return mapped.get();
    }
    return nullptr;
}

Result<std::vector<TableLine>> Machine::parse(std::string_view text) {
    std::vector<TableLine> lines;
    while (!text.empty()) {
        const std::size_t end = std::min(text.find('\n'), text.size());
        std::string_view line = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        if (line.empty()) continue;
        std::string_view parts[3];
        for (std::string_view& part : parts) {
            const std::size_t length = std::min(line.find(' '), line.size());
            part = line.substr(0, length);
            line.remove_prefix(std::min(length + 1, line.size()));
        }
        const auto begin = parse_u64(parts[0]), length = parse_u64(parts[1]);
        if (!begin || !length) return fail(Errc::bad_argument, "table line without begin and length");
        lines.push_back({{*begin}, {*length}, std::string{parts[2]}, std::string{line}});
    }
    return lines;
}

Job<Result<void>> Machine::load(Mapped& mapped, const std::string& text, TableMode mode) {
    auto lines = parse(text);
    if (!lines) co_return fail(lines);
    const Table::Context context{.env = mapped.node->env,
                                 .types = mapped.node->types,
                                 .opener = opener_,
                                 .events = *mapped.device,
                                 .lost_stores = &world_.lost_stores(),
                                 .device_name = mapped.name,
                                 .self = mapped.id,
                                 .major = 253,
                                 .minor = mapped.minor};
    auto table = Table::build(*lines, mode, context);
    if (!table) co_return fail(table);
    auto loading = (*table)->load();
    auto loaded = co_await loading;
    if (!loaded) co_return fail(loaded);
    mapped.device->set_inactive(std::move(*table));
    co_return Result<void>{};
}

Job<Result<void>> Machine::swap(Mapped& mapped, const std::string& text, TableMode mode) {
    CO_CHECK(load(mapped, text, mode));
    CO_CHECK(mapped.device->resume());
    co_return Result<void>{};
}

Job<void> Machine::remove(Mapped& mapped) {
    auto detaching = mapped.device->detach();
    co_await detaching;
    opener_.remove(mapped.name);
    std::erase_if(mapped_, [&mapped](const auto& one) { return one.get() == &mapped; });
}

std::string Machine::status(Mapped& mapped) {
    Table* table = mapped.device->live();
    if (!table || table->entries().empty()) return {};
    const Table::Entry& entry = table->entries().front();
    return std::string{entry.type->name()} + " " + entry.target->status();
}

}  // namespace udm
