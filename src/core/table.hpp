// A table: targets side by side, from sector 0 on without gap. Immutable once built.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "core/target_type.hpp"

namespace udm {

class Table {
  public:
    struct Entry {
        Extent extent;
        TargetType* type;
        TargetTraits traits;
        std::unique_ptr<Target> target;
    };

    // What every constructor of the table is given.
    struct Context {
        Env& env;
        const TargetTypes& types;
        DeviceOpener& opener;
        DeviceEvents& events;
        LostStores* lost_stores;
        std::string_view device_name;
        DiskId self;              // the device's own identity: a table that refers to it is refused
        std::uint32_t major = 0, minor = 0;    // of the device, for the words of the errors ("253:0")
    };

    // Checks the lines and makes the targets, in order; the texts of errors are Linux's ("Gap in table"), then
    // ours. Control plane: may block. No target has read anything yet.
    static Result<std::unique_ptr<Table>> build(std::span<const TableLine> lines, TableMode mode, const Context& context);
    ~Table();

    // Home reactor: each target's load(), in order; then the limits are stacked and the areas checked against the
    // devices ("vda too small for target: start=0, len=80192, dev_size=16384").
    Job<Result<void>> load();

    // The entry that has the sector; it must be within size().
    Entry& at(Sector sector) noexcept;
    std::span<Entry> entries() noexcept { return entries_; }
    std::span<const Entry> entries() const noexcept { return entries_; }
    Sectors size() const noexcept { return size_; }
    TableMode mode() const noexcept { return mode_; }
    const Limits& limits() const noexcept { return limits_; }
    // Each used device once, in the order of its first use.
    std::vector<OpenDevice*> devices() const;

  private:
    Table() = default;
    Result<void> stack_limits();

    std::vector<Entry> entries_;
    Sectors size_{};
    TableMode mode_{};
    Limits limits_{};
    std::string prefix_;    // "table: 253:0: "
};

// Limits of a device on top of parts of other devices.
void stack(Limits& upper, const Limits& lower, bool first) noexcept;

}  // namespace udm
