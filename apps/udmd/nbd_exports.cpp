#include "apps/udmd/nbd_exports.hpp"

#include <fmt/format.h>

#include <condition_variable>
#include <utility>

#include "ctl/call_on.hpp"
#include "engine/listen_socket.hpp"
#include "port/nbd_uri.hpp"

namespace udm::daemon {
namespace {

std::string key_of(const Address& address) {
    return address.kind == Address::Kind::unix_socket ? address.path
                                                      : fmt::format("{}:{}", address.host, address.port);
}

// Waits for the end of something that a server announces on its reactor.
class WaitDone final : public nbd::Done {
  public:
    void done() noexcept override {
        const std::lock_guard lock{mutex_};
        done_ = true;
        changed_.notify_one();
    }
    void wait() {
        std::unique_lock lock{mutex_};
        changed_.wait(lock, [this] { return done_; });
    }

  private:
    std::mutex mutex_;
    std::condition_variable changed_;
    bool done_ = false;
};

}  // namespace

// A server with its listener. Lives on one reactor; used from clients' threads through run_on().
class NbdExports::Listening {
  public:
    Listening(EngineHost& host, unsigned reactor)
        : reactor_{host.env(reactor).reactor}, network_{host.network(reactor)} {
        ctl::run_on(reactor_, [&] { server_ = std::make_unique<nbd::Server>(reactor_, network_); });
    }
    ~Listening() {
        WaitDone stopped;
        ctl::run_on(reactor_, [&] { server_->stop(stopped); });
        stopped.wait();
        ctl::run_on(reactor_, [&] { server_.reset(); });
    }
    Result<void> listen(const Address& address) { return server_->listen(address); }
    Address address() const { return server_->address(); }
    Result<void> add(nbd::Export what) {
        return ctl::run_on(reactor_, [&] { return server_->add(std::move(what)); });
    }
    // False: there is no such export; `removed` is not told.
    bool remove(const std::string& name, nbd::Done& removed) {
        return ctl::run_on(reactor_, [&] { return server_->remove(name, removed); });
    }
    std::size_t connections(const std::string& name) const {
        return ctl::run_on(reactor_, [&] { return std::size_t{server_->connections(name)}; });
    }
    std::string key;
    unsigned exports = 0;  // under NbdExports::mutex_

  private:
    Reactor& reactor_;
    Network& network_;
    std::unique_ptr<nbd::Server> server_;
};

class NbdExports::ServedExport final : public ctl::Served {
  public:
    ServedExport(NbdExports& exports, ListeningPtr listening, std::string name)
        : exports_{exports}, listening_{std::move(listening)}, name_{std::move(name)} {}
    ~ServedExport() override {
        begin_end();
        if (ending_) removed_.wait();
        exports_.leave(listening_);
    }
    void begin_end() override {
        if (!std::exchange(begun_, true)) ending_ = listening_->remove(name_, removed_);
    }
    std::string uri() const override { return to_text({listening_->address(), name_}); }
    std::size_t connections() const override { return listening_->connections(name_); }

  private:
    NbdExports& exports_;
    ListeningPtr listening_;
    const std::string name_;
    bool begun_ = false;
    bool ending_ = false;
    WaitDone removed_;
};

NbdExports::NbdExports(EngineHost& host) : host_{host} {
    for (unsigned i = 0; i < host.reactor_count(); ++i) {
        Reactor& reactor = host.env(i).reactor;
        ctl::run_on(reactor, [&] { budgets_.push_back(std::make_unique<nbd::MemoryBudget>(reactor)); });
    }
}

NbdExports::~NbdExports() {
    for (unsigned i = 0; i < budgets_.size(); ++i) {
        ctl::run_on(host_.env(i).reactor, [&] { budgets_[i].reset(); });
    }
}

// The mutex is held.
Result<NbdExports::ListeningPtr> NbdExports::listening_for(const Address& address, unsigned reactor) {
    const bool any_port = address.kind == Address::Kind::tcp && address.port == 0;
    if (const auto at = listeners_.find(key_of(address)); !any_port && at != listeners_.end())
        return at->second;
    auto listening = std::make_shared<Listening>(host_, reactor);
    CHECK(listening->listen(address));
    listening->key = key_of(listening->address());
    listeners_[listening->key] = listening;
    return listening;
}

Result<std::vector<std::string>> NbdExports::look_up(const Address& address) { return look_up_host(address.host); }

Result<std::unique_ptr<ctl::Served>> NbdExports::serve(const ctl::ExportRequest& request, Device& device,
                                                       unsigned reactor) {
    ListeningPtr listening;
    {
        const std::lock_guard lock{mutex_};
        TRY(listening, listening_for(request.address, reactor));
        ++listening->exports;
    }
    nbd::Export what;
    what.name = request.name;
    what.description = request.description;
    what.disk = &device;
    what.home = &host_.env(reactor).reactor;
    what.network = &host_.network(reactor);
    what.read_only = request.read_only;
    what.questions = request.questions;
    what.budget = budgets_[reactor].get();
    if (auto added = listening->add(std::move(what)); !added) {
        leave(listening);
        return fail(added);
    }
    return std::make_unique<ServedExport>(*this, std::move(listening), request.name);
}

// One export less; the last one takes its listener along.
void NbdExports::leave(const ListeningPtr& listening) {
    const std::lock_guard lock{mutex_};
    if (--listening->exports == 0) listeners_.erase(listening->key);
}

}  // namespace udm::daemon
