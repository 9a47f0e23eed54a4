// What is served: an export, and the server's record of it.
#pragma once

#include <string>

#include "base/intrusive.hpp"
#include "exports/nbd/budget.hpp"
#include "port/disk.hpp"
#include "port/extent_question.hpp"
#include "port/net.hpp"
#include "port/reactor.hpp"

namespace udm::nbd {

struct Export {
    std::string name;            // as clients ask for it; may be empty
    std::string description{};   // for people, may be empty
    Disk* disk = nullptr;        // lives until the export's removal is done
    Reactor* home = nullptr;     // of the disk
    Network* network = nullptr;  // of `home`
    bool read_only = false;
    ExtentQuestions* questions = nullptr;  // besides base:allocation; may be null
    MemoryBudget* budget = nullptr;        // of `home`; null: the server's own for that reactor
};

// Told once, on the server's reactor, when something has come to its end.
class Done {
  public:
    virtual void done() noexcept = 0;

  protected:
    ~Done() = default;
};

class Session;

// The server's record of an export. `what` never changes; the rest has two owners.
struct Entry {
    Export what;

    // The server's reactor.
    std::uint32_t bound = 0;    // sessions that refer to it, wherever they are
    Done* removed = nullptr;    // set: on its way out, and told then
    bool home_stopped = false;  // home knows

    // The export's home.
    List<Session> sessions;  // those that are there
    bool stopping = false;   // no new ones
};

}  // namespace udm::nbd
