// A table: targets side by side, from sector 0 on without gap. Immutable once built.
#pragma once

#include <array>
#include <cstdint>
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
        // Of each Op (index), up to how many sectors core passes on as they are, if the target takes them and they
        // lie in this line; 0: there is more to do than that. After load().
        std::array<std::uint32_t, 6> plain{};
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

    // Home reactor: refuses what would lead back to the device itself or stack too high; each target's load(), in
    // order; then the limits are stacked and the areas checked against the devices
    // ("vda too small for target: start=0, len=80192, dev_size=16384").
    Job<Result<void>> load();
    // Home reactor, before it is destroyed: each target's close(), last first.
    Job<void> close();

    // Where the last request went: it may have the next one's sector, too.
    Entry& hint() noexcept { return entries_[last_]; }
    // The entry that has the sector; it must be within size().
    Entry& at(Sector sector) noexcept {
        Entry& last = entries_[last_];
        if (last.extent.first <= sector && sector < last.extent.end()) return last;
        return search(sector);
    }
    std::span<Entry> entries() noexcept { return entries_; }
    std::span<const Entry> entries() const noexcept { return entries_; }
    Sectors size() const noexcept { return size_; }
    TableMode mode() const noexcept { return mode_; }
    const Limits& limits() const noexcept { return limits_; }
    // Each used device once, in the order of its first use.
    const std::vector<OpenDevice*>& devices() const noexcept { return devices_; }
    // As Disk::reaches() and Disk::levels(), over all devices used. Home reactor.
    bool reaches(const DiskId& id) const noexcept;
    unsigned levels() const noexcept;
    void refresh() noexcept;    // the devices' sizes

    // Mapped devices on top of each other. Every level costs stack when requests go down and come up.
    static constexpr unsigned kLevelsMax = 64;
    // 2^54 sectors are 2^63 bytes.
    static constexpr Sectors kLengthMax{std::uint64_t{1} << 54};
    static constexpr std::size_t kTargetsMax = 1'048'576;

  private:
    Table() = default;
    void note_devices();
    static Result<Entry> make_entry(const TableLine& line, TableMode mode, const Context& context);
    Entry& search(Sector sector) noexcept;
    Result<void> check_stack() const;
    Result<void> stack_limits();
    Result<Limits> entry_limits(Entry& entry) const;
    Result<void> check_alignment() const;
    void settle_plain() noexcept;

    std::vector<Entry> entries_;
    std::vector<OpenDevice*> devices_;
    std::size_t last_ = 0;              // where the last request went
    DiskId self_{};
    Sectors size_{};
    TableMode mode_{};
    Limits limits_{};
    std::string prefix_;    // "table: 253:0: "
};

// Limits of a device on top of parts of other devices.
void stack(Limits& upper, const Limits& lower, bool first) noexcept;

}  // namespace udm
