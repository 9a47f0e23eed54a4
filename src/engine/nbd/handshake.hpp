// Connecting to an NBD server: names are looked up and the handshake is made, which may block. What comes of it is a handle
// of libnbd that is ready for requests, and what the server told about the export.
#pragma once

#include <libnbd.h>

#include <atomic>
#include <memory>
#include <string>

#include "base/result.hpp"
#include "base/units.hpp"
#include "port/nbd_uri.hpp"

namespace udm {

// Bytes.
struct NbdFacts {
    std::uint64_t size = 0;
    std::uint32_t block = kSectorSize;         // requests start and end on multiples of it
    std::uint32_t preferred = 0;               // 0: no wish
    std::uint32_t payload_max = 32u << 20;     // of one read or write
    bool read_only = false;
    bool flush = false;
    bool fua = false;
    bool trim = false;
    bool zero = false;
    bool fast_zero = false;
    bool multi_conn = false;    // a flush on one connection is one for all of them
    bool extents = false;       // base:allocation can be asked
};

struct NbdClose {
    void operator()(nbd_handle* handle) const noexcept { nbd_close(handle); }
};
using NbdHandle = std::unique_ptr<nbd_handle, NbdClose>;

struct NbdConnected {
    NbdHandle handle;
    NbdFacts facts;
};

// Blocks for `patience` at most (but for the system's look-up of a name), or until `stop`. `words` is the URI as given, for the
// errors: no_device (there is no such host, socket or export), io (nobody answers, or not in NBD), timed_out, unsupported
// (what is served has a block size that no disk has).
Result<NbdConnected> connect_nbd(const NbdUri& uri, const std::string& words, Nanoseconds patience, const std::atomic<bool>& stop);

// The last error of libnbd on this thread, without the function's name in front.
std::string nbd_error_text();

}  // namespace udm
