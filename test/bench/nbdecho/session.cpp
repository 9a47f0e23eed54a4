#include "test/bench/nbdecho/session.hpp"

#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <new>

namespace echo {
namespace {

using udm::be16, udm::be32, udm::be64;

constexpr std::size_t kLargest = 32 << 20;  // of one request
constexpr std::size_t kInSize = kLargest + (1 << 20);
constexpr std::size_t kBatchMax = 512;  // two vectors a reply, IOV_MAX is 1024

}  // namespace

Session::Session(int fd, Store& store) : fd_{fd}, store_{store} {
    void* p =
        ::mmap(nullptr, kInSize, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) throw std::bad_alloc();
    in_ = static_cast<unsigned char*>(p);
    batch_.reserve(kBatchMax);
    headers_.resize(kBatchMax);
    out_.reserve(2 * kBatchMax);
}

Session::~Session() {
    ::close(fd_);
    ::munmap(in_, kInSize);
}

bool Session::receive_exactly(void* to, std::size_t size) {
    auto* p = static_cast<char*>(to);
    while (size > 0) {
        const ssize_t n = ::recv(fd_, p, size, MSG_WAITALL);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n <= 0) return false;
        p += n;
        size -= static_cast<std::size_t>(n);
    }
    return true;
}

bool Session::send_exactly(const void* from, std::size_t size) {
    return ::send(fd_, from, size, MSG_NOSIGNAL) == static_cast<ssize_t>(size);
}

bool Session::option_reply(std::uint32_t option, std::uint32_t type, const void* body, std::size_t size) {
    struct {
        be64 magic{nbd::kOptionReplyMagic};
        be32 option, type, length;
    } head;
    head.option = option;
    head.type = type;
    head.length = static_cast<std::uint32_t>(size);
    return send_exactly(&head, sizeof head) && (size == 0 || send_exactly(body, size));
}

bool Session::handshake() {
    const struct {
        be64 magic{nbd::kMagic}, option_magic{nbd::kOptionMagic};
        be16 flags{nbd::kHandshakeFixedNewstyle | nbd::kHandshakeNoZeroes};
    } greeting;
    be32 client_flags;
    if (!send_exactly(&greeting, sizeof greeting) || !receive_exactly(&client_flags, 4)) return false;
    for (;;) {
        struct {
            be64 magic;
            be32 option, length;
        } head;
        if (!receive_exactly(&head, sizeof head) || head.magic != nbd::kOptionMagic || head.length > 65536)
            return false;
        if (!receive_exactly(in_, head.length)) return false;
        if (head.option != nbd::kOptGo) {
            constexpr std::uint32_t kUnsupported = nbd::kReplyErrorBit | 1;
            if (!option_reply(head.option, kUnsupported, nullptr, 0)) return false;
            continue;
        }
        struct {
            be16 type{nbd::kInfoExport};
            be64 size;
            be16 flags{nbd::kHasFlags | nbd::kSendFlush | nbd::kSendFua | nbd::kCanMultiConn};
        } info;
        info.size = store_.size();
        return option_reply(nbd::kOptGo, nbd::kReplyInfo, &info, sizeof info) &&
               option_reply(nbd::kOptGo, nbd::kReplyAck, nullptr, 0);
    }
}

bool Session::serve_batch(int receive_flags) {
    const ssize_t n = ::recv(fd_, in_ + in_fill_, kInSize - in_fill_, receive_flags);
    if (n < 0) return errno == EAGAIN || errno == EINTR;
    if (n == 0) return false;
    in_fill_ += static_cast<std::size_t>(n);
    return parse() && !closing_;
}

bool Session::parse() {
    std::size_t at = 0, reading = 0;
    batch_.clear();
    for (;;) {
        nbd::Request request;
        bool whole = in_fill_ - at >= sizeof request;
        if (whole) {
            std::memcpy(&request, in_ + at, sizeof request);
            if (request.magic != nbd::kRequestMagic || request.length > kLargest) return false;
            if (request.type == nbd::kWrite) whole = in_fill_ - at >= sizeof request + request.length;
        }
        const bool full = batch_.size() == kBatchMax || reading + kLargest + 4096 > kScratchSize;
        if (!whole || full) {
            if (!batch_.empty()) {
                store_.execute(batch_);
                if (!reply()) return false;
                batch_.clear();
                reading = 0;
            }
            if (!whole) break;
        }
        at += sizeof request;
        if (request.type == nbd::kDisconnect) {
            closing_ = true;
            at = in_fill_;
            continue;
        }
        Op op{};
        op.type = request.type;
        op.fua = (request.flags & nbd::kCommandFua) != 0;
        op.length = request.length;
        op.handle = request.handle;
        op.offset = request.offset;
        op.data = in_ + at;
        if (op.type == nbd::kWrite) at += op.length;
        if (op.type == nbd::kRead) reading += (op.length + 4095) & ~std::size_t{4095};
        const bool known = op.type == nbd::kRead || op.type == nbd::kWrite || op.type == nbd::kFlush;
        if (!known || op.offset > store_.size() || op.length > store_.size() - op.offset) {
            op.type = 0xffff;  // no store knows it
            op.error = EINVAL;
        }
        batch_.push_back(op);
    }
    std::memmove(in_, in_ + at, in_fill_ - at);
    in_fill_ -= at;
    return true;
}

// Headers lie side by side, so that those without data share one vector.
bool Session::reply() {
    out_.clear();
    std::size_t left = 0;
    for (std::size_t i = 0; i < batch_.size(); ++i) {
        const Op& op = batch_[i];
        nbd::SimpleReply& header = headers_[i];
        header.error = op.error;
        header.handle = op.handle;
        const bool follows_header =
            !out_.empty() && static_cast<char*>(out_.back().iov_base) + out_.back().iov_len ==
                                 reinterpret_cast<char*>(&header);
        if (follows_header)
            out_.back().iov_len += sizeof header;
        else
            out_.push_back({&header, sizeof header});
        left += sizeof header;
        if (op.type == nbd::kRead && op.error == 0) {
            out_.push_back({op.data, op.length});
            left += op.length;
        }
    }
    msghdr message{};
    message.msg_iov = out_.data();
    message.msg_iovlen = out_.size();
    for (;;) {
        const ssize_t n = ::sendmsg(fd_, &message, MSG_NOSIGNAL);
        if (n < 0 && (errno == EINTR || errno == EAGAIN)) continue;
        if (n < 0) return false;
        left -= static_cast<std::size_t>(n);
        if (left == 0) return true;
        auto sent = static_cast<std::size_t>(n);
        while (sent >= message.msg_iov->iov_len) {
            sent -= message.msg_iov->iov_len;
            ++message.msg_iov;
            --message.msg_iovlen;
        }
        message.msg_iov->iov_base = static_cast<char*>(message.msg_iov->iov_base) + sent;
        message.msg_iov->iov_len -= sent;
    }
}

}  // namespace echo
