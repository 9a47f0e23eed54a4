#include "test/bench/nbdecho/store.hpp"

#include <fcntl.h>
#include <liburing.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <stdexcept>
#include <system_error>
#include <utility>
#include <vector>

#include "test/support/nbd_client.hpp"

namespace echo {
namespace {

unsigned char* map_memory(std::size_t size) {
    void* p =
        ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::system_error(errno, std::system_category(), "mmap");
    return static_cast<unsigned char*>(p);
}

[[noreturn]] void fail(const std::string& what, int error = errno) {
    throw std::system_error(error, std::system_category(), what);
}

class NullStore final : public Store {
  public:
    explicit NullStore(std::uint64_t size) : zeroes_{map_memory(kScratchSize)} { size_ = size; }
    void execute(std::span<Op> batch) override {
        for (auto& op : batch)
            if (op.type == nbd::kRead) op.data = zeroes_;
    }

  private:
    unsigned char* zeroes_;
};

class MemoryStore final : public Store {
  public:
    explicit MemoryStore(std::uint64_t size) : memory_{map_memory(size)} { size_ = size; }
    void execute(std::span<Op> batch) override {
        for (auto& op : batch) {
            if (op.type == nbd::kRead)
                op.data = memory_ + op.offset;
            else if (op.type == nbd::kWrite)
                std::memcpy(memory_ + op.offset, op.data, op.length);
        }
    }

  private:
    unsigned char* memory_;
};

class FileStore : public Store {
  public:
    FileStore(const std::string& path, int flags) : scratch_{map_memory(kScratchSize)} {
        fd_ = ::open(path.c_str(), O_RDWR | O_CLOEXEC | flags);
        if (fd_ < 0) fail(path);
        struct stat s {};
        if (::fstat(fd_, &s) != 0) fail(path);
        size_ = static_cast<std::uint64_t>(s.st_size);
    }
    ~FileStore() override { ::close(fd_); }
    void execute(std::span<Op> batch) override {
        std::size_t used = 0;
        for (auto& op : batch) {
            if (op.type == nbd::kRead) {
                op.data = scratch_ + used;
                used += op.length;
                const ssize_t n = ::pread(fd_, op.data, op.length, static_cast<off_t>(op.offset));
                op.error = n == static_cast<ssize_t>(op.length) ? 0 : EIO;
            } else if (op.type == nbd::kWrite) {
                const ssize_t n = ::pwrite(fd_, op.data, op.length, static_cast<off_t>(op.offset));
                op.error = n == static_cast<ssize_t>(op.length) ? 0 : EIO;
            }
            if (op.type == nbd::kFlush || op.fua) op.error |= ::fdatasync(fd_) == 0 ? 0u : unsigned{EIO};
        }
    }

  protected:
    int fd_ = -1;
    unsigned char* scratch_;
};

// One submission for the batch, and one wait for all of it.
class DirectStore final : public FileStore {
  public:
    explicit DirectStore(const std::string& path) : FileStore(path, O_DIRECT) {
        int rc =
            ::io_uring_queue_init(kEntries, &ring_, IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN);
        if (rc < 0) rc = ::io_uring_queue_init(kEntries, &ring_, 0);
        if (rc < 0) fail("io_uring", -rc);
        const iovec buffer{scratch_, kRegistered};
        fixed_ = ::io_uring_register_buffers(&ring_, &buffer, 1) == 0;
        ::io_uring_register_files(&ring_, &fd_, 1);
    }
    ~DirectStore() override { ::io_uring_queue_exit(&ring_); }

    void execute(std::span<Op> batch) override {
        std::size_t used = 0;
        unsigned queued = 0;
        for (auto& op : batch) {
            if (op.type != nbd::kRead && op.type != nbd::kWrite) continue;
            if (queued == kEntries) {
                finish(queued);
                queued = 0;
            }
            unsigned char* at = scratch_ + used;
            used += (op.length + 4095ull) & ~4095ull;
            const bool fixed = fixed_ && used <= kRegistered;
            io_uring_sqe* sqe = ::io_uring_get_sqe(&ring_);
            if (op.type == nbd::kRead) {
                op.data = at;
                if (fixed)
                    ::io_uring_prep_read_fixed(sqe, 0, at, op.length, op.offset, 0);
                else
                    ::io_uring_prep_read(sqe, 0, at, op.length, op.offset);
            } else {
                std::memcpy(at, op.data, op.length);  // a payload within the stream is not aligned
                if (fixed)
                    ::io_uring_prep_write_fixed(sqe, 0, at, op.length, op.offset, 0);
                else
                    ::io_uring_prep_write(sqe, 0, at, op.length, op.offset);
                if (op.fua) sqe->rw_flags = RWF_DSYNC;
            }
            sqe->flags |= IOSQE_FIXED_FILE;
            ::io_uring_sqe_set_data(sqe, &op);
            ++queued;
        }
        if (queued > 0) finish(queued);
        for (auto& op : batch)
            if (op.type == nbd::kFlush) op.error = ::fdatasync(fd_) == 0 ? 0u : unsigned{EIO};
    }

  private:
    static constexpr unsigned kEntries = 512;
    static constexpr std::size_t kRegistered = 4 << 20;

    void finish(unsigned count) {
        const int rc = ::io_uring_submit_and_wait(&ring_, count);
        if (rc < 0) fail("io_uring_submit_and_wait", -rc);
        for (unsigned seen = 0; seen < count;) {
            io_uring_cqe* cqe = nullptr;
            if (::io_uring_wait_cqe(&ring_, &cqe) != 0) continue;
            auto& op = *static_cast<Op*>(::io_uring_cqe_get_data(cqe));
            if (cqe->res != static_cast<int>(op.length)) op.error = EIO;
            ::io_uring_cqe_seen(&ring_, cqe);
            ++seen;
        }
    }

    io_uring ring_{};
    bool fixed_ = false;
};

// The least that a mirror can do: writes and flushes go to all, reads to the first.
class AllOfThem final : public Store {
  public:
    explicit AllOfThem(std::vector<std::unique_ptr<Store>> stores) : stores_{std::move(stores)} {
        size_ = stores_.front()->size();
        for (const auto& store : stores_) size_ = std::min(size_, store->size());
    }
    void execute(std::span<Op> batch) override {
        stores_.front()->execute(batch);
        changes_.clear();
        for (const Op& op : batch)
            if (op.type == nbd::kWrite || op.type == nbd::kFlush) changes_.push_back(op);
        if (changes_.empty()) return;
        for (std::size_t i = 1; i < stores_.size(); ++i) stores_[i]->execute(changes_);
        for (std::size_t i = 0; auto& op : batch)
            if (op.type == nbd::kWrite || op.type == nbd::kFlush) op.error |= changes_[i++].error;
    }

  private:
    std::vector<std::unique_ptr<Store>> stores_;
    std::vector<Op> changes_;
};

std::unique_ptr<Store> make_one(const std::string& what, std::uint64_t size, bool direct) {
    if (what == "null") return std::make_unique<NullStore>(size);
    if (what == "memory") return std::make_unique<MemoryStore>(size);
    if (direct) return std::make_unique<DirectStore>(what);
    return std::make_unique<FileStore>(what, 0);
}

}  // namespace

std::unique_ptr<Store> make_store(std::span<char* const> what, std::uint64_t size, bool direct) {
    if (what.size() == 1) return make_one(what.front(), size, direct);
    std::vector<std::unique_ptr<Store>> stores;
    for (const char* one : what) stores.push_back(make_one(one, size, direct));
    return std::make_unique<AllOfThem>(std::move(stores));
}

}  // namespace echo
