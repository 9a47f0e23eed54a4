// Decision 17: what this daemon has open is locked against other processes, once a file, however often it is
// open here. Any control thread; release() from reactors as well (it never blocks).
//
// Regular files: open-file-description locks. A writer holds a write lock on the whole file. A reader holds
// read locks on two bytes that QEMU's image locking gives a meaning (seen with qemu-io 7.2 and /proc/locks):
// it takes read locks on byte 100+p for a permission it uses and on 200+p for one it does not share (0
// consistent read, 1 write, 3 resize), and then looks whether anybody holds the opposite byte. So two of our
// readers, or one and a qemu reader, share a file; a qemu writer and we refuse each other, and so does
// whoever locks the whole file for writing. Block devices: O_EXCL for writing.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "base/result.hpp"
#include "engine/shared.hpp"
#include "port/disk.hpp"

namespace udm {

class FileLocks {
  public:
    explicit FileLocks(EngineShared& shared) noexcept : shared_{shared} {}
    ~FileLocks();

    // One use of a file. Destroyed from anywhere.
    class Lease {
      public:
        Lease() = default;
        Lease(FileLocks& locks, DiskId id, OpenMode mode, std::uint32_t number) noexcept
            : locks_{&locks}, id_{id}, mode_{mode}, number_{number} {}
        Lease(Lease&& other) noexcept : Lease() { *this = std::move(other); }
        Lease& operator=(Lease&& other) noexcept {
            std::swap(locks_, other.locks_);
            std::swap(id_, other.id_);
            std::swap(mode_, other.mode_);
            std::swap(number_, other.number_);
            return *this;
        }
        ~Lease() { release(); }
        void release() noexcept;
        // Tells files apart that are open now.
        std::uint32_t number() const noexcept { return number_; }

      private:
        FileLocks* locks_ = nullptr;
        DiskId id_{};
        OpenMode mode_{};
        std::uint32_t number_ = 0;
    };

    // `fd` is open for `mode` on the file `id`; the message of an error names `path`. Error: busy.
    Result<Lease> acquire(const DiskId& id, int fd, OpenMode mode, const std::string& path);

  private:
    enum class Held : std::uint8_t { nothing, shared, exclusive };
    struct Entry {
        int fd = -1;            // holds the lock
        bool writable = false;  // the descriptor
        Held held = Held::nothing;
        unsigned readers = 0, writers = 0;
        std::uint32_t number = 0;
    };
    // Takes over `fresh`, a new descriptor of the file, or closes it.
    Result<Lease> acquire_with(int fresh, bool writable, const DiskId& id, OpenMode mode,
                               const std::string& path);
    bool join(const DiskId& id, OpenMode mode, Lease& lease);        // what is locked well enough already
    int lock(Entry& entry, const DiskId& id, Held wanted) noexcept;  // 0 or an errno
    void release(const DiskId& id, OpenMode mode) noexcept;

    EngineShared& shared_;
    std::mutex acquiring_;  // one at a time, since opening may block; release() does not wait for it
    std::mutex mutex_;      // of what is below, never held over what may block
    std::map<DiskId, Entry> entries_;
    std::uint32_t last_number_ = 0;
};

// "pid 4711 (qemu-io)" of another process that has the file open, or nothing.
std::string who_has_open(const DiskId& id);

// Closes it on a helper thread: closing may block.
void close_elsewhere(EngineShared& shared, int fd) noexcept;

}  // namespace udm
