// One thing the system is asked to do: what a disk or a stream hands to its loop. The io_uring loop makes a
// queue entry of it, the other loop a system call; both call done() with the same results.
#pragma once

#include <sys/socket.h>
#include <sys/uio.h>

#include <cstdint>

#include "base/intrusive.hpp"

namespace udm {

class Loop;

// A descriptor as its loop knows it.
struct File {
    int fd = -1;
    int slot = -1;  // place in the ring's table of files
};

class Operation : public ListHook {
  public:
    enum class Kind : std::uint8_t {
        read,      // vec, count, offset
        write,     // vec, count, offset, durable
        sync,      // fdatasync
        allocate,  // fallocate: mode, offset, length
        receive,   // vec[0], all
        send,      // message
        readable,  // poll: waits until there is something to read, or the socket has failed
        writable,  // poll: the same for room to write
        accept,    // may go on after done(): then `more` is set
        call,      // call(), which may block, on a helper thread
    };
    // Bytes, a descriptor or 0; or a negative errno. On the loop's thread, never inside start() or cancel().
    virtual void done(int n) noexcept = 0;
    virtual int call() noexcept { return 0; }  // Kind::call; helper thread

    Kind kind{};
    bool durable = false;
    bool all = false;   // receive: a hint that nothing less than everything is of use
    bool more = false;  // set by the loop, for done()
    bool cancelling = false;    // the loop's: linked for want of room for the word to end it
    int mode = 0;
    const File* file = nullptr;
    const iovec* vec = nullptr;
    std::uint32_t count = 0;
    std::uint64_t offset = 0;
    std::uint64_t length = 0;
    const msghdr* message = nullptr;

    // Where it goes back to; set by the loop. Without one, call() is the end of it.
    Loop* loop = nullptr;
    int result = 0;

  protected:
    ~Operation() = default;
};

}  // namespace udm
