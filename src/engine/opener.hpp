// Opens the devices of table lines for one reactor. What several have in common - locks, memory with a name,
// and connections to NBD servers - is the engine's.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "engine/file_locks.hpp"
#include "engine/loop.hpp"
#include "engine/nbd/servers.hpp"
#include "engine/ram_disk.hpp"
#include "port/disk.hpp"

namespace udm {

// Memory by name, as long as anything refers to it.
class NamedMemory {
  public:
    struct Found {
        std::shared_ptr<Memory> memory;
        DiskId id;
    };
    // Error: bad_argument if the name exists in another size, naming both.
    Result<Found> take(const std::string& name, std::uint64_t bytes);
    DiskId id_of(const std::string& name);
    static DiskId new_id(std::uint64_t number) noexcept { return {DiskId::Kind::memory, 0, number}; }
    DiskId unnamed_id();

  private:
    struct Entry {
        std::weak_ptr<Memory> memory;
        std::uint64_t number = 0;  // stays the name's
    };
    std::mutex mutex_;
    std::map<std::string, Entry> entries_;
    std::uint64_t last_number_ = 0;
};

class Opener final : public DeviceOpener {
  public:
    Opener(Loop& loop, FileLocks& locks, NamedMemory& memory, NbdServers& servers) noexcept
        : loop_{loop}, locks_{locks}, memory_{memory}, servers_{servers} {}
    Result<std::unique_ptr<OpenDevice>> open(std::string_view words, OpenMode mode) override;
    Result<std::unique_ptr<OpenDevice>> open_away(std::string_view words, Sectors size) override;

  private:
    Result<std::unique_ptr<OpenDevice>> open_memory(const std::string& words);
    Result<std::unique_ptr<OpenDevice>> open_path(const std::string& words, const std::string& path,
                                                  OpenMode mode);

    Loop& loop_;
    FileLocks& locks_;
    NamedMemory& memory_;
    NbdServers& servers_;
};

// Engine::identify().
Result<DiskId> identify_device(std::string_view words, NamedMemory& memory);

}  // namespace udm
