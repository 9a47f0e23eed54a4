// User data of a queue entry is its Operation, or null for what nobody waits for (cancellations).
//
// in_flight_ counts operations whose last completion has not come. A ring is closed only at zero: the kernel
// may write to their memory until then.
#include "engine/uring_loop.hpp"

#include <fmt/format.h>
#include <poll.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

namespace udm {
namespace {

constexpr unsigned kEntries = 512;
constexpr unsigned kEntriesMin = 8;
constexpr unsigned kBuffersMax = 4096;  // of 1 MiB each, mostly
constexpr unsigned kFilesMax = 16384;
constexpr unsigned kReapMax = 512;

constexpr unsigned kNeeded[] = {
    IORING_OP_READV,  IORING_OP_WRITEV,    IORING_OP_READ,         IORING_OP_WRITE, IORING_OP_READ_FIXED,
    IORING_OP_FSYNC,  IORING_OP_FALLOCATE, IORING_OP_RECV,         IORING_OP_SEND,  IORING_OP_WRITE_FIXED,
    IORING_OP_ACCEPT, IORING_OP_SENDMSG,   IORING_OP_ASYNC_CANCEL, IORING_OP_POLL_ADD,
};

std::unexpected<Error> not_to_be_had(int rc) {
    const char* where = rc == -ENOMEM
                            ? "too little memory may be locked, see `ulimit -l`"
                            : "see /proc/sys/kernel/io_uring_disabled and the container's seccomp filter";
    return fail(Errc::unsupported,
                fmt::format("io_uring is not to be had here: {} ({})", std::strerror(-rc), where));
}

}  // namespace

UringLoop::~UringLoop() { ASSERT(!opened_); }

Result<void> UringLoop::probe() {
    io_uring ring;
    const int rc = io_uring_queue_init(4, &ring, 0);
    if (rc < 0) {
        return not_to_be_had(rc);
    }
    Result<void> answer{};
    constexpr unsigned kFeatures = IORING_FEAT_NODROP | IORING_FEAT_FAST_POLL | IORING_FEAT_EXT_ARG;
    if ((ring.features & kFeatures) != kFeatures) {
        answer = fail(Errc::unsupported, "io_uring of this kernel is too old (5.11 is needed)");
    } else if (io_uring_probe* ops = io_uring_get_probe_ring(&ring)) {
        for (const unsigned op : kNeeded) {
            if (!io_uring_opcode_supported(ops, static_cast<int>(op))) {
                answer = fail(Errc::unsupported, fmt::format("io_uring here lacks operation {}", op));
            }
        }
        io_uring_free_probe(ops);
    }
    io_uring_queue_exit(&ring);
    return answer;
}

int UringLoop::set_up(unsigned entries) noexcept {
    struct Variant {
        unsigned flags;
        bool deferred, task_flag;
    };
    static constexpr Variant kVariants[] = {
        {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
             IORING_SETUP_SUBMIT_ALL,
         true, true},
        {IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL, false, true},
        {0, false, false},
    };
    int rc = -EINVAL;
    for (const Variant& variant : kVariants) {
        if (plain_ && variant.flags != 0) continue;
        io_uring_params params{};
        params.flags = variant.flags | IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP;
        params.cq_entries = entries * 8;
        rc = io_uring_queue_init_params(entries, &ring_, &params);
        deferred_ = variant.deferred;
        task_flag_ = variant.task_flag;
        if (rc != -EINVAL) break;
    }
    return rc;
}

Result<void> UringLoop::open() {
    int rc = set_up(kEntries);
    // Newer kernels count the ring itself as locked memory.
    for (unsigned entries = kEntries / 4; rc == -ENOMEM && entries >= kEntriesMin; entries /= 4) {
        rc = set_up(entries);
        if (rc == 0)
            shared().warn("io_uring has a small queue only (`ulimit -l` limits it): somewhat slower");
    }
    if (rc < 0) return not_to_be_had(rc);
    opened_ = true;
    multishot_ = task_flag_;  // as old as these: Linux 5.19
    if (!deferred_ && !plain_)
        shared().warn("io_uring without deferred task running (Linux 6.1 has it): somewhat slower");
    if (!plain_) io_uring_register_ring_fd(&ring_);
    register_tables();

    wake_.kind = Operation::Kind::read;
    wake_.loop = this;
    wake_.eventfd.fd = wake_fd();
    wake_.file = &wake_.eventfd;
    wake_.vec = &wake_.piece;
    wake_.count = 1;
    start(wake_);
    return {};
}

void UringLoop::register_tables() {
    if (plain_) return;
    rlimit files{};
    ::getrlimit(RLIMIT_NOFILE, &files);
    const unsigned slots = files.rlim_cur < kFilesMax ? static_cast<unsigned>(files.rlim_cur) : kFilesMax;
    if (const int rc = io_uring_register_files_sparse(&ring_, slots); rc < 0) {
        shared().warn(
            fmt::format("files are not registered with io_uring ({}): somewhat slower", std::strerror(-rc)));
    } else {
        free_slots_.reserve(slots);
        for (unsigned i = slots; i-- > 0;) free_slots_.push_back(static_cast<int>(i));
    }
    if (const int rc = io_uring_register_buffers_sparse(&ring_, kBuffersMax); rc < 0) {
        shared().warn(fmt::format("buffers are not registered with io_uring ({}): somewhat slower",
                                  std::strerror(-rc)));
    } else {
        buffers_max_ = kBuffersMax;
        buffers().set_listener(this);
    }
}

void UringLoop::slab_added(std::byte* start, std::size_t bytes, std::size_t buffer_size) noexcept {
    // Large buffers' pages are given back to the system when idle (BufferPool::trim), which a registration
    // would not notice; and a large request hardly feels the difference.
    if (buffers_used_ >= buffers_max_ || buffer_size >= BufferPool::kTrimmed) return;
    iovec piece{start, bytes};
    const __u64 tag = 0;
    const int rc = io_uring_register_buffers_update_tag(&ring_, buffers_used_, &piece, &tag, 1);
    if (rc == 1) {
        slabs_.add(start, bytes, buffers_used_++);
        return;
    }
    buffers_max_ = 0;
    shared().warn(fmt::format(
        "not all buffers are registered with io_uring ({}; `ulimit -l` limits them): somewhat slower",
        std::strerror(rc < 0 ? -rc : EINVAL)));
}

void UringLoop::attach(File& file) noexcept {
    ASSERT(is_current() && file.slot < 0);
    if (free_slots_.empty()) return;
    const int slot = free_slots_.back();
    if (io_uring_register_files_update(&ring_, static_cast<unsigned>(slot), &file.fd, 1) != 1) return;
    free_slots_.pop_back();
    file.slot = slot;
}

void UringLoop::detach(File& file) noexcept {
    if (file.slot < 0 || !opened_) return;
    ASSERT(is_current());
    const int none = -1;
    // Cannot fail for a slot that is in use; if it did, the slot would only be lost.
    if (io_uring_register_files_update(&ring_, static_cast<unsigned>(file.slot), &none, 1) == 1) {
        free_slots_.push_back(file.slot);
    }
    file.slot = -1;
}

void UringLoop::submit() noexcept {
    // EBUSY, EAGAIN: completions must be taken first. What is not taken now stays in the queue for the next
    // turn.
    [[maybe_unused]] const int rc =
        deferred_ ? io_uring_submit_and_get_events(&ring_) : io_uring_submit(&ring_);
}

io_uring_sqe* UringLoop::next_entry() noexcept {
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (sqe) return sqe;
    submit();
    return io_uring_get_sqe(&ring_);
}

void UringLoop::start(Operation& op) noexcept {
    ASSERT(is_current());
    if (op.kind == Operation::Kind::call) return perform_later(op);
    if (op.kind == Operation::Kind::send) return sends_.push_back(op);
    enqueue(op);
}

void UringLoop::enqueue(Operation& op) noexcept {
    io_uring_sqe* sqe = waiting_.empty() ? next_entry() : nullptr;
    if (!sqe) {
        waiting_.push_back(op);
        return;
    }
    fill(*sqe, op);
}

void UringLoop::fill(io_uring_sqe& sqe, Operation& op) noexcept {
    ++in_flight_;
    const int fd = op.file->slot >= 0 ? op.file->slot : op.file->fd;
    switch (op.kind) {
        case Operation::Kind::read:
        case Operation::Kind::write: {
            const bool read = op.kind == Operation::Kind::read;
            if (op.count == 1) {
                const auto length = static_cast<unsigned>(op.vec->iov_len);
                if (const int index = slabs_.find(op.vec->iov_base, length); index >= 0) {
                    read ? io_uring_prep_read_fixed(&sqe, fd, op.vec->iov_base, length, op.offset, index)
                         : io_uring_prep_write_fixed(&sqe, fd, op.vec->iov_base, length, op.offset, index);
                } else {
                    read ? io_uring_prep_read(&sqe, fd, op.vec->iov_base, length, op.offset)
                         : io_uring_prep_write(&sqe, fd, op.vec->iov_base, length, op.offset);
                }
            } else {
                read ? io_uring_prep_readv(&sqe, fd, op.vec, op.count, op.offset)
                     : io_uring_prep_writev(&sqe, fd, op.vec, op.count, op.offset);
            }
            sqe.rw_flags = op.durable ? RWF_DSYNC : 0;
            break;
        }
        case Operation::Kind::sync:
            io_uring_prep_fsync(&sqe, fd, IORING_FSYNC_DATASYNC);
            break;
        case Operation::Kind::allocate:
            io_uring_prep_fallocate(&sqe, fd, op.mode, static_cast<off_t>(op.offset),
                                    static_cast<off_t>(op.length));
            break;
        case Operation::Kind::receive:
            io_uring_prep_recv(&sqe, fd, op.vec->iov_base, op.vec->iov_len, op.all ? MSG_WAITALL : 0);
            break;
        case Operation::Kind::send:
            if (op.message->msg_iovlen == 1) {
                io_uring_prep_send(&sqe, fd, op.message->msg_iov->iov_base, op.message->msg_iov->iov_len,
                                   MSG_NOSIGNAL | MSG_WAITALL);
            } else {
                io_uring_prep_sendmsg(&sqe, fd, op.message, MSG_NOSIGNAL | MSG_WAITALL);
            }
            break;
        case Operation::Kind::readable:
            io_uring_prep_poll_add(&sqe, fd, POLLIN);
            break;
        case Operation::Kind::writable:
            io_uring_prep_poll_add(&sqe, fd, POLLOUT);
            break;
        case Operation::Kind::accept:
            if (multishot_) {
                io_uring_prep_multishot_accept(&sqe, fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
            } else {
                io_uring_prep_accept(&sqe, fd, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
            }
            break;
        case Operation::Kind::call:
            UNREACHABLE();
    }
    if (op.file->slot >= 0) sqe.flags |= IOSQE_FIXED_FILE;
    io_uring_sqe_set_data(&sqe, &op);
}

void UringLoop::cancel(Operation& op) noexcept {
    ASSERT(is_current());
    if (op.cancelling) return;
    if (op.linked()) {  // not submitted yet
        op.unlink();
        op.loop = this;
        finished(op, -ECANCELED);
        return;
    }
    op.cancelling = true;
    cancels_.push_back(op);
    start_cancels();
}

// What there is no room for now waits: nobody else would end a receive from a client that says nothing.
void UringLoop::start_cancels() noexcept {
    while (!cancels_.empty()) {
        io_uring_sqe* sqe = next_entry();
        if (!sqe) return;
        Operation& op = cancels_.pop_front();
        op.cancelling = false;
        io_uring_prep_cancel(sqe, &op, 0);
        io_uring_sqe_set_data(sqe, nullptr);
    }
}

// A send to a socket that has room ends at once, so a call to the ring that sends does not wait, and another
// one has to. A single send goes by a call of its own, and the ring's only call waits (measured: 2 to 5 % of the
// CPU at depth 1, 6 to 11 % for writes at depth 32). Several are cheaper by the ring, all in one.
void UringLoop::start_sends() noexcept {
    Operation* op = sends_.pop_front_or_null();
    if (op && sends_.empty()) {
        const ssize_t n = ::sendmsg(op->file->fd, op->message, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (n >= 0) {
            op->done(static_cast<int>(n));  // which starts the rest, if it was not all
            op = sends_.pop_front_or_null();
        }
    }
    for (; op; op = sends_.pop_front_or_null()) enqueue(*op);
}

void UringLoop::turn(bool wait_allowed, Nanoseconds deadline) noexcept {
    start_sends();
    // What ended by that may have given us something to do, or a timer.
    if (has_ready()) wait_allowed = false;
    if (has_timers()) deadline = std::min(deadline, next_deadline());
    start_cancels();
    while (!waiting_.empty()) {
        io_uring_sqe* sqe = next_entry();
        if (!sqe) break;
        fill(*sqe, waiting_.pop_front());
    }
    if (wait_allowed && io_uring_cq_ready(&ring_) == 0 && waiting_.empty() && cancels_.empty() && fall_asleep()) {
        wait(deadline);
        wake_up();
    } else if (io_uring_sq_ready(&ring_) != 0 || io_uring_cq_has_overflow(&ring_)) {
        submit();
    } else if (task_flag_ && (IO_URING_READ_ONCE(*ring_.sq.kflags) & IORING_SQ_TASKRUN)) {
        io_uring_get_events(&ring_);
    }
    reap();
}

void UringLoop::wait(Nanoseconds deadline) noexcept {
    if (deadline == kForever) {
        io_uring_submit_and_wait(&ring_, 1);
        return;
    }
    const Nanoseconds time = now();
    const Nanoseconds left = deadline > time ? deadline - time : 0;
    __kernel_timespec timeout{.tv_sec = static_cast<long long>(left / kSecond),
                              .tv_nsec = static_cast<long long>(left % kSecond)};
    io_uring_cqe* cqe = nullptr;
    io_uring_submit_and_wait_timeout(&ring_, &cqe, 1, &timeout, nullptr);
}

void UringLoop::reap() noexcept {
    unsigned head;
    unsigned count = 0;
    io_uring_cqe* cqe;
    io_uring_for_each_cqe(&ring_, head, cqe) {
        ++count;
        if (auto* op = static_cast<Operation*>(io_uring_cqe_get_data(cqe))) {
            op->more = (cqe->flags & IORING_CQE_F_MORE) != 0;
            if (!op->more) {
                --in_flight_;
                if (op->cancelling) [[unlikely]] {    // it ended by itself
                    op->cancelling = false;
                    op->unlink();
                }
            }
            op->done(cqe->res);
        }
        if (count == kReapMax) break;
    }
    io_uring_cq_advance(&ring_, count);
}

void UringLoop::drop_all() noexcept {
    waiting_.abandon();
    cancels_.abandon();
    sends_.abandon();
    io_uring_sqe* sqe = next_entry();
    if (sqe) {
        if (plain_) {
            io_uring_prep_cancel(sqe, &wake_, 0);
        } else {
            io_uring_prep_cancel(sqe, nullptr, IORING_ASYNC_CANCEL_ANY);
        }
        io_uring_sqe_set_data(sqe, nullptr);
    }
    // Disk operations end by themselves; a receive that nobody closed may not where CANCEL_ANY is unknown.
    const Nanoseconds give_up = now() + 5 * kSecond;
    while (in_flight_ != 0 && now() < give_up) {
        wait(now() + 100 * kMillisecond);
        unsigned head;
        unsigned count = 0;
        io_uring_cqe* cqe;
        io_uring_for_each_cqe(&ring_, head, cqe) {
            ++count;
            const bool counted = io_uring_cqe_get_data(cqe) != nullptr;
            if (counted && (cqe->flags & IORING_CQE_F_MORE) == 0) --in_flight_;
            const auto* op = static_cast<Operation*>(io_uring_cqe_get_data(cqe));
            if (op && op->kind == Operation::Kind::accept && cqe->res >= 0) ::close(cqe->res);
        }
        io_uring_cq_advance(&ring_, count);
    }
}

void UringLoop::close() noexcept {
    if (!opened_) return;
    buffers().set_listener(nullptr);
    drop_all();
    io_uring_queue_exit(&ring_);
    opened_ = false;
}

}  // namespace udm
