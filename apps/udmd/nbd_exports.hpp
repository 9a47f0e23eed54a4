// Exports over NBD: one server a listener, several exports a server, and memory for payloads a reactor.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "apps/udmd/engine_host.hpp"
#include "exports/nbd/server.hpp"

namespace udm::daemon {

class NbdExports final : public ctl::ExportServer {
  public:
    explicit NbdExports(EngineHost& host);
    ~NbdExports() override;  // after everything served is gone

    Result<std::vector<std::string>> look_up(const Address& address) override;
    Result<std::unique_ptr<ctl::Served>> serve(const ctl::ExportRequest& request, Device& device,
                                               unsigned reactor) override;

  private:
    class Listening;
    class ServedExport;
    using ListeningPtr = std::shared_ptr<Listening>;
    Result<ListeningPtr> listening_for(const Address& address, unsigned reactor);
    void leave(const ListeningPtr& listening);

    EngineHost& host_;
    std::mutex mutex_;
    std::map<std::string, ListeningPtr> listeners_;            // by address
    std::vector<std::unique_ptr<nbd::MemoryBudget>> budgets_;  // by reactor
};

}  // namespace udm::daemon
