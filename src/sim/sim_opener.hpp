// Opens the devices of table lines by name, among simulated disks and mapped devices. "NAME", "sim:NAME", for mapped
// devices also "udm:NAME" and "/dev/mapper/NAME", and "MAJ:MIN": 7:0, 7:1 ... for disks in the order they were added,
// 253:0 ... for mapped devices.
#pragma once

#include <deque>
#include <memory>
#include <string>
#include <string_view>

#include "port/disk.hpp"
#include "sim/sim_disk.hpp"

namespace udm {

class SimOpener final : public DeviceOpener {
  public:
    SimOpener() = default;
    SimOpener(const SimOpener&) = delete;
    SimOpener& operator=(const SimOpener&) = delete;
    ~SimOpener() override;    // nothing may be open any more

    // The disk stays the caller's and must live as long as it is known here. Returns its identity.
    DiskId add(std::string name, Disk& disk);
    // A mapped device, to stack on; its identity is the one it was made with, if one is given.
    DiskId add_mapped(std::string name, Disk& disk, DiskId id = {});
    // No longer to be found; what is open stays open.
    void remove(std::string_view name) noexcept;
    // The identity that add_mapped() would give to the next one.
    DiskId next_mapped() const noexcept;

    Result<std::unique_ptr<OpenDevice>> open(std::string_view words, OpenMode mode) override;

    unsigned open_count(std::string_view name) const noexcept;
    // The next open of that name fails so, once.
    void fail_open(std::string_view name, Errc code);
    // As if it had been opened with open_away(). Its requests are the disk's business.
    void set_away(std::string_view name, bool away) { find(name)->away = away; }
    // What is open under that name cannot be made larger than that.
    void limit_growth(std::string_view name, Sectors most) { find(name)->grows_to = most; }

  private:
    struct Entry {
        std::string name;
        Disk* disk;
        DiskId id;
        bool mapped;
        bool known = true;
        std::uint32_t major, minor;
        unsigned opens = 0;
        Errc fail_once{};
        Sectors grows_to{~std::uint64_t{0}};
        bool away = false;
    };
    class Opened;
    DiskId add(std::string name, Disk& disk, DiskId id, bool mapped);
    Entry* find(std::string_view name) noexcept;

    std::deque<Entry> entries_;
    std::uint32_t disks_ = 0;
    std::uint32_t mapped_ = 0;
};

}  // namespace udm
