// What the control plane needs of the machinery below it, given by the composition root (apps/udmd): reactors
// with their openers and target types, and a server for exports.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "core/device.hpp"
#include "core/target_type.hpp"
#include "port/disk.hpp"
#include "port/extent_question.hpp"
#include "port/net.hpp"
#include "port/reactor.hpp"

namespace udm::ctl {

class Host {
  public:
    virtual ~Host() = default;
    virtual unsigned reactor_count() const = 0;
    virtual Env& env(unsigned reactor) = 0;
    virtual const TargetTypes& types(unsigned reactor) = 0;
    // Opens what is no mapped device of ours. Any thread but the reactors'; may block.
    virtual DeviceOpener& opener(unsigned reactor) = 0;
    // What words stand for, without keeping it open; kind none if there is no such thing. May block.
    virtual DiskId identify(std::string_view words) = 0;
    // What may be set for the machinery (decision 16). Any thread.
    virtual std::vector<Parameter> parameters() const { return {}; }
    virtual bool set_parameter(std::string_view name, std::uint64_t value) {    // false: it has none of this name
        static_cast<void>(name);
        static_cast<void>(value);
        return false;
    }
    // The daemon stops: nobody waits for servers any more.
    virtual void stop_connecting() {}
    virtual std::string engine_name() const = 0;
    virtual std::vector<std::string> warnings() const = 0;  // what the machinery has to do without
    virtual std::vector<std::uint64_t> cpu_ns() const = 0;  // of each reactor, since its start
    // Descriptors of the daemon, and how many it may have; 0: no limit.
    struct OpenFiles {
        std::uint64_t open = 0, limit = 0;
    };
    virtual OpenFiles open_files() const = 0;
};

// One export as served.
class Served {
  public:
    // Waits until its clients have the answers to what is under way and are gone.
    virtual ~Served() = default;
    // Begins that, without waiting for it: no new clients. Not from two threads at a time.
    virtual void begin_end() = 0;
    virtual std::string uri() const = 0;          // as a client would use it, with the real port
    virtual std::size_t connections() const = 0;  // any thread
};

struct ExportRequest {
    Address address;
    std::string name;         // the export's name on the wire, decoded; may be empty
    std::string description;  // for lists: the device's name
    bool read_only = false;
    ExtentQuestions* questions = nullptr;  // of the device, for its home reactor; lives until the export is gone
};

class ExportServer {
  public:
    virtual ~ExportServer() = default;
    // The numbers of the host, for Address::numbers. Takes as long as the name service does. Errors: bad_argument.
    virtual Result<std::vector<std::string>> look_up(const Address& address) = 0;
    // Serves the device, whose home is `reactor`. Errors: exists (that name is served there), bad_argument,
    // denied …
    virtual Result<std::unique_ptr<Served>> serve(const ExportRequest& request, Device& device,
                                                  unsigned reactor) = 0;
};

}  // namespace udm::ctl
