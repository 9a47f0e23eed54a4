// Decision 17: what this daemon has open is locked against other processes, once a file, however often it is
// open here. Any control thread; release() from reactors as well (it never blocks).
//
// Regular files: open-file-description locks. A writer holds a write lock on the whole file. A reader holds
// read locks on two bytes that QEMU's image locking gives a meaning (seen with qemu-io 7.2 and /proc/locks):
// it takes read locks on byte 100+p for a permission it uses and on 200+p for one it does not share (0
// consistent read, 1 write, 3 resize), and then looks whether anybody holds the opposite byte. So two of our
// readers, or one and a qemu reader, share a file; a qemu writer and we refuse each other, and so does
// whoever locks the whole file for writing. Block devices: O_EXCL for writing.
//
// A regular file is also open once only, however many devices of however many reactors use it: the descriptor
// that has the lock is the one that is read and written. So an image with ten thousand snapshots costs one, and
// each of their stores one.
//
// A daemon that was killed may hold its locks a little longer than its process lives: until the kernel has taken its
// rings down. A reader shares the file with such a lock at once, and a device that becomes writable soon after a restart
// meets it. So what stands in the way and has no living owner is waited for, in the first seconds.
#pragma once

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "base/result.hpp"
#include "engine/file_probe.hpp"
#include "engine/shared.hpp"
#include "port/disk.hpp"

namespace udm {

class FileLocks {
  public:
    // `patience`: how long from now on a lock without a living owner is waited for.
    FileLocks(EngineShared& shared, std::chrono::milliseconds patience) noexcept
        : shared_{shared}, patient_until_{std::chrono::steady_clock::now() + patience} {}
    // A descriptor, closed on a helper thread when its last user has gone.
    class Descriptor {
      public:
        Descriptor(EngineShared& shared, int fd, bool writable) noexcept;
        Descriptor(const Descriptor&) = delete;
        Descriptor& operator=(const Descriptor&) = delete;
        ~Descriptor();
        int fd() const noexcept { return fd_; }
        bool writable() const noexcept { return writable_; }

      private:
        EngineShared& shared_;
        const int fd_;
        const bool writable_;
    };
    using DescriptorPtr = std::shared_ptr<Descriptor>;

    // One use of a file. Destroyed from anywhere.
    class Lease {
      public:
        Lease() = default;
        Lease(FileLocks& locks, DiskId id, OpenMode mode, std::uint32_t number, DescriptorPtr file) noexcept
            : locks_{&locks}, id_{id}, mode_{mode}, number_{number}, file_{std::move(file)} {}
        Lease(Lease&& other) noexcept : Lease() { *this = std::move(other); }
        Lease& operator=(Lease&& other) noexcept {
            std::swap(locks_, other.locks_);
            std::swap(id_, other.id_);
            std::swap(mode_, other.mode_);
            std::swap(number_, other.number_);
            std::swap(file_, other.file_);
            return *this;
        }
        ~Lease() { release(); }
        void release() noexcept;
        // What to read and write by, until release().
        int fd() const noexcept { return file_->fd(); }
        // Tells files apart that are open now.
        std::uint32_t number() const noexcept { return number_; }

      private:
        FileLocks* locks_ = nullptr;
        DiskId id_{};
        OpenMode mode_{};
        std::uint32_t number_ = 0;
        DescriptorPtr file_;
    };

    // Takes over `fd`, which is open for `mode` on the file `id`; the message of an error names `path`. May wait. Error:
    // busy.
    Result<Lease> acquire(const DiskId& id, int fd, OpenMode mode, const std::string& path);
    // A use of a regular file that is open here already, and locked well enough; none if it isn't.
    std::optional<Lease> join(const DiskId& id, OpenMode mode);
    // What was found out about the file when it was opened for this: the same for all that use it so, but for
    // the size. It is forgotten with the last use.
    std::optional<FileTraits> traits(const DiskId& id, OpenMode mode) const;
    void note_traits(const DiskId& id, OpenMode mode, const FileTraits& traits);

  private:
    enum class Held : std::uint8_t { nothing, shared, exclusive };
    struct Entry {
        DescriptorPtr file;    // holds the lock; of block devices: the O_EXCL of a writer, which nobody reads by
        Held held = Held::nothing;
        unsigned readers = 0, writers = 0;
        std::uint32_t number = 0;
        std::optional<FileTraits> to_read, to_write;
        std::optional<FileTraits>& traits(OpenMode mode) { return mode == OpenMode::write ? to_write : to_read; }
    };
    // None: another's lock stands in the way.
    std::optional<Lease> acquire_file(const DescriptorPtr& opened, const DiskId& id, OpenMode mode, const std::string& path);
    Result<Lease> acquire_block(const DescriptorPtr& opened, const DiskId& id, OpenMode mode,
                                const std::string& path);
    int lock(Entry& entry, Held wanted) noexcept;  // 0 or an errno
    void release(const DiskId& id, OpenMode mode) noexcept;

    EngineShared& shared_;
    const std::chrono::steady_clock::time_point patient_until_;
    std::mutex acquiring_;      // one at a time, since opening may block; release() does not wait for it
    mutable std::mutex mutex_;  // of what is below, never held over what may block
    std::map<DiskId, Entry> entries_;
    std::uint32_t last_number_ = 0;
};

// "pid 4711 (qemu-io)" of another process that has the file open, or nothing.
std::string who_has_open(const DiskId& id);


}  // namespace udm
