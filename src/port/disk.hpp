// The one seam: everything that can be read and written is a Disk. A file through io_uring, memory, a simulated
// disk, an NBD client, and a mapped device.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "base/units.hpp"
#include "port/io.hpp"

namespace udm {

// What a disk can do and wants. Bytes unless it says otherwise.
struct Limits {
    Sectors size{};
    std::uint32_t logical_block = kSectorSize;    // requests start and end on multiples of it
    std::uint32_t physical_block = kSectorSize;
    std::uint32_t optimal_io = 0;                 // 0: no wish
    std::uint32_t memory_alignment = 1;           // of the buffers' addresses; the disk copies what is not aligned
    Sectors max_transfer{};                       // of one read or write, 0: no limit (core splits); what moves no
                                                  // data may have any length
    std::uint32_t discard_granularity = 0;
    bool discard = false;                         // discards do something
    bool write_zeroes = true;                     // false: answered with `unsupported`
    bool fast_zeroes = false;                     // write_zeroes is quicker than writing
    bool volatile_cache = true;                   // flushes are needed
    bool read_only = false;
};

struct DiskId;

class Disk {
  public:
    virtual ~Disk() = default;
    // Exactly one completion of the topmost frame, later, from the reactor, never inside submit(). The extent
    // lies within limits().size (core has checked it; a leaf answers `invalid` when its file has shrunk since).
    //   runs on  home reactor of this disk
    virtual void submit(Io& io) noexcept = 0;
    // A request that begins here comes next: who has to look up where it goes can have that fetched into the caches
    // meanwhile. A hint and no more: any sector may be named, and nothing need come.
    //   runs on  home reactor
    virtual void expect(Sector at) const noexcept { static_cast<void>(at); }
    // May change at run time only in `size`. A leaf finds out again when asked by refresh().
    virtual const Limits& limits() const noexcept = 0;
    // Asks the system again for the size (a file that has grown). Cheap; may be called from the home reactor.
    virtual void refresh() noexcept {}
    // For mapped devices, to refuse tables that lead back to themselves or stack too high: whether requests can reach
    // `id` from here (through the live or the inactive table), and how many mapped devices are on the longest way down.
    //   runs on  home reactor
    virtual bool reaches(const DiskId& id) const noexcept {
        static_cast<void>(id);
        return false;
    }
    virtual unsigned levels() const noexcept { return 0; }
};

// What a device is, whatever it is called: device and inode of a file, number of a block device, number of a
// mapped device (decision 15). Two words that open the same thing give the same identity.
struct DiskId {
    enum class Kind : std::uint8_t { none, file, block, mapped, memory, remote } kind = Kind::none;
    std::uint64_t device = 0, inode = 0;
    auto operator<=>(const DiskId&) const = default;
};

// Where data lie in the end, on something that is no mapped device. Data in the same place are the same data: that two
// mapped devices have them there proves that they are equal, without reading (core/comparison.hpp).
struct Place {
    DiskId disk;    // kind none: they lie nowhere (zeroes), or nobody can tell
    Sector sector;
    std::array<char, 160> obstacle{};    // when the question failed: why, for people, if who failed it says so

    void explain(std::string_view why) noexcept {
        obstacle = {};
        why.copy(obstacle.data(), obstacle.size() - 1);
    }
};

enum class OpenMode : std::uint8_t { read, write };

// Told once what came of OpenDevice::grow(): later, on the home reactor.
class DeviceGrowth {
  public:
    virtual void grown(Result<void> result) noexcept = 0;

  protected:
    ~DeviceGrowth() = default;
};

// A device named in a table line, open as long as this lives. Belongs to the target that asked for it;
// destroyed on its home reactor (closing what may block happens elsewhere).
class OpenDevice {
  public:
    virtual ~OpenDevice() = default;
    virtual Disk& disk() noexcept = 0;
    virtual const DiskId& id() const noexcept = 0;
    // As given in the table, for status and table lines.
    virtual const std::string& words() const noexcept = 0;
    // A setting of the device itself (decision 23), "default" for what the daemon's is. False: it knows no such word. Home
    // reactor.
    virtual Result<bool> set(std::string_view word, std::string_view value) {
        static_cast<void>(word);
        static_cast<void>(value);
        return false;
    }
    // The device above waits for its requests to end, to be suspended; or no longer does. What would wait for something that is
    // away ends within some seconds then, with `requeue` if `noflush` (core keeps it), else with an error. Home reactor.
    virtual void draining(bool begins, bool noflush) noexcept {
        static_cast<void>(begins);
        static_cast<void>(noflush);
    }
    // It was opened with open_away(), and was not there since: requests fail. Home reactor.
    virtual bool is_away() const noexcept { return false; }
    // What info and deps show; stable for the device's life.
    virtual std::uint32_t major() const noexcept = 0;
    virtual std::uint32_t minor() const noexcept = 0;
    // Why it cannot be made larger from here; empty if it can.
    virtual std::string cannot_grow() const { return "it is no file"; }
    // Home reactor, if it can: makes it so large, durably, unless it is already. Stays open until `done` is told; the disk
    // finds the new size when it is asked to refresh().
    virtual void grow(Sectors to, DeviceGrowth& done) noexcept {
        static_cast<void>(to);
        static_cast<void>(done);
        UNREACHABLE();
    }
};

// Opens the devices of table lines. Control plane: may block; not on a reactor (in the simulated world there is
// one thread and nothing blocks).
class DeviceOpener {
  public:
    virtual ~DeviceOpener() = default;
    // Errors: no_device when there is none, busy when it is locked by others, read_only, denied, bad_argument.
    virtual Result<std::unique_ptr<OpenDevice>> open(std::string_view words, OpenMode mode) = 0;
    // The same for writing, of what need not be there now: its requests fail until it is. It is taken for a disk of blocks of 512 bytes
    // that knows no discards and no zeroes, and has `size`; what turns out not to be is not used. Errors: unsupported if it can't be waited for.
    virtual Result<std::unique_ptr<OpenDevice>> open_away(std::string_view words, Sectors size) {
        static_cast<void>(size);
        return fail(Errc::unsupported, std::string{words} + " cannot be opened before it is there");
    }
};

// Remembers, outside of the devices themselves, that a store must never be trusted again (decision 11): asked
// for when the store cannot be told so on its own disk. Synced when record() completes.
class LostStores {
  public:
    class Recorded {
      public:
        virtual void recorded(IoStatus status) noexcept = 0;

      protected:
        ~Recorded() = default;
    };
    virtual ~LostStores() = default;
    // Home reactor; answers later through `done`, on the caller's reactor, even if it cannot be kept.
    virtual void record(const DiskId& store, const std::string& words, Recorded& done) noexcept = 0;
    virtual bool is_lost(const DiskId& store) const noexcept = 0;    // any thread
    virtual void forget(const DiskId& store) noexcept = 0;           // any thread; after the store's own mark is durable
};

}  // namespace udm
