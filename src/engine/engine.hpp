// The real implementation of port/: reactors on threads of their own, files and block devices, memory,
// sockets, clocks. Two engines behind one face: io_uring, and epoll with worker threads where io_uring is
// forbidden (decision 20). All that is above the system calls is shared by both.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "engine/nbd/settings.hpp"
#include "port/disk.hpp"
#include "port/net.hpp"
#include "port/reactor.hpp"

namespace udm {

struct EngineConfig {
    unsigned reactors = 0;  // 0: one per core
    enum class Kind : std::uint8_t { automatic, uring, threads } kind = Kind::automatic;
    // io_uring without what newer kernels added to it: shows that old ones are served as well.
    bool plain_ring = false;
    // Told, from any thread, what someone should read: a file that shrank, bytes that are not served. Without
    // it such lines go to standard error.
    std::function<void(const std::string&)> log = {};
    // How long after the start locks on files are waited for that have no living owner: what is left of a daemon that was killed.
    std::chrono::milliseconds patience_with_locks{0};
};

class Engine {
  public:
    // Finds out what the system offers, raises the soft limit of open files, and starts the reactors'
    // threads. Errors: unsupported when Kind::uring was asked for and io_uring is not to be had (the message
    // says why).
    static Result<std::unique_ptr<Engine>> start(const EngineConfig& config);
    virtual ~Engine() = default;  // stops

    virtual unsigned size() const noexcept = 0;
    virtual Reactor& reactor(unsigned i) noexcept = 0;
    virtual Network& network(unsigned i) noexcept = 0;
    // Opens for that reactor: absolute paths of files and block devices, MAJ:MIN, `ram:SIZE`,
    // `ram:NAME:SIZE`, NBD URIs. Any control thread may call it; never a reactor.
    virtual DeviceOpener& opener(unsigned i) noexcept = 0;
    // What opener().open() would open, without locking it. Errors: no_device, bad_argument.
    virtual Result<DiskId> identify(std::string_view words) = 0;
    virtual const char* kind_name() const noexcept = 0;  // "uring", "threads"
    // What had to be done without: registered buffers, a higher limit of open files, deferred task running.
    virtual std::vector<std::string> warnings() const = 0;
    // Descriptors of this process, and how many it may have; 0: no limit.
    struct OpenFiles {
        std::uint64_t open = 0, limit = 0;
    };
    virtual OpenFiles open_files() const = 0;
    // CPU time of each reactor's thread, since its start.
    virtual std::vector<std::uint64_t> cpu_ns() const = 0;
    // Any thread.
    virtual NbdSettings& nbd_settings() noexcept = 0;
    // The end is near: attempts to connect to servers end now, and requests do not wait for them for more than some seconds.
    virtual void stop_connecting() noexcept = 0;
    // Ends the reactors' threads. Devices, streams and listeners are closed before: what is still under way
    // is cancelled and never heard of.
    virtual void stop() noexcept = 0;
};

}  // namespace udm
