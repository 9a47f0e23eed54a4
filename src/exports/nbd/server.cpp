#include "exports/nbd/server.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace udm::nbd {

// An export's record, with the tasks that carry its removal to its home and back.
struct Server::Record final : Entry {
    Record(Server& server_, Export what_) : Entry{.what = std::move(what_)}, server{server_} {}

    struct Stop final : Task {
        explicit Stop(Record& of_) noexcept : of{of_} {}
        void run() noexcept override {  // at the home
            of.stopping = true;
            for (Session& session : of.sessions) session.stop();
            of.server.reactor.post_remote(of.back);
        }
        Record& of;
    };
    struct Back final : Task {
        explicit Back(Record& of_) noexcept : of{of_} {}
        void run() noexcept override {
            of.home_stopped = true;
            of.server.check_removed(of);
        }
        Record& of;
    };
    Server& server;
    Stop stop{*this};
    Back back{*this};
};

// A connection there is no place for: closed at once, by the engine, as sockets are.
class Server::Closer final : private StreamHandler, private Task {
  public:
    Closer(Server& server, int fd) : server_{server}, stream_{server.network.adopt(fd, *this)} {
        ++server_.refusing_;
        stream_->close();
    }

  private:
    void received(ssize_t) noexcept override {}
    void sent(int) noexcept override {}
    void closed() noexcept override { server_.reactor.post(*this); }
    void run() noexcept override {
        Server& server = server_;
        delete this;
        --server.refusing_;
        server.check_stopped();
    }
    Server& server_;
    std::unique_ptr<Stream> stream_;
};

Server::Server(Reactor& reactor_in, Network& network_in, const ServerLimits& limits_in)
    : Directory{reactor_in, network_in, limits_in} {}

Server::~Server() { ASSERT(connections_ == 0 && refusing_ == 0); }

Result<void> Server::listen(const Address& address) {
    TRY(auto listener, network.listen(address, *this));
    listener_ = std::move(listener);
    address_ = address;
    if (address_.kind == Address::Kind::tcp) address_.port = listener_->port();
    return {};
}

Result<void> Server::add(Export what) {
    if (!is_valid_string(what.name)) {
        return fail(Errc::bad_argument, "export name: at most 4096 bytes, and no NUL");
    }
    if (record_of(what.name)) return fail(Errc::exists, "export '" + what.name + "' exists already");
    ASSERT(what.disk && what.home && what.network && !stopped_);
    if (what.description.size() > kStringMax) what.description.resize(kStringMax);
    if (!what.budget) what.budget = &budget_of(*what.home);
    entries_.push_back(std::make_unique<Record>(*this, std::move(what)));
    return {};
}

MemoryBudget& Server::budget_of(Reactor& home) {
    for (const OwnBudget& own : budgets_) {
        if (own.home == &home) return *own.budget;
    }
    budgets_.push_back({&home, std::make_unique<MemoryBudget>(home, limits.memory)});
    return *budgets_.back().budget;
}

Server::Record* Server::record_of(std::string_view name) const noexcept {
    for (const auto& record : entries_) {
        if (record->what.name == name) return record.get();
    }
    return nullptr;
}

bool Server::remove(std::string_view name, Done& done) {
    Record* record = record_of(name);
    if (!record || record->removed) return false;
    start_removal(*record, done);
    return true;
}

void Server::start_removal(Record& record, Done& done) noexcept {
    record.removed = &done;
    record.what.home->post_remote(record.stop);
}

void Server::check_removed(Record& record) noexcept {
    if (!record.removed || !record.home_stopped || record.bound != 0) return;
    Done* done = record.removed;
    std::erase_if(entries_, [&](const auto& e) { return e.get() == &record; });
    done->done();
    check_stopped();
}

namespace {
// Stopping needs no word about each export.
struct Nobody final : Done {
    void done() noexcept override {}
};
Nobody nobody;
}  // namespace

void Server::stop(Done& done) {
    ASSERT(!stopped_);
    stopped_ = &done;
    listener_.reset();
    for (const auto& record : entries_) {
        if (!record->removed) start_removal(*record, nobody);
    }
    for (Session& session : negotiating_) session.stop();
    check_stopped();
}

// Told from a task of its own: whoever is told may destroy the server.
void Server::check_stopped() noexcept {
    if (!stopped_ || connections_ != 0 || refusing_ != 0 || !entries_.empty() || told_) return;
    told_ = true;
    reactor.post(tell_);
}

void Server::Tell::run() noexcept { of.stopped_->done(); }

std::uint32_t Server::connections(std::string_view name) const noexcept {
    const Record* record = record_of(name);
    return record ? record->bound : 0;
}

// --- sessions
// ---------------------------------------------------------------------------------------------------

void Server::accepted(int fd) noexcept {
    if (connections_ < limits.sessions && !stopped_) {
        ++connections_;
        (new Session{*this})->start(fd);
        return;
    }
    ++refused_;
    new Closer{*this, fd};  // ends itself
}

Entry* Server::find(std::string_view name) noexcept {
    Record* record = record_of(name);
    // The empty name is that of the default export: the only one there is.
    if (!record && name.empty() && entries_.size() == 1) record = entries_.front().get();
    return record && !record->removed ? record : nullptr;
}

std::vector<ListedExport> Server::list() const {
    std::vector<ListedExport> listed;
    for (const auto& record : entries_) {
        if (!record->removed) listed.push_back({record->what.name, record->what.description});
    }
    return listed;
}

void Server::arrived(Session& session) noexcept {
    negotiating_.push_back(session);
    if (stopped_) session.stop();
}

void Server::ended(Session& session) noexcept {
    Entry* entry = session.entry();
    delete &session;
    --connections_;
    if (entry) unbound(*entry);
    check_stopped();
}

void Server::unbound(Entry& entry) noexcept {
    ASSERT(entry.bound != 0);
    --entry.bound;
    check_removed(static_cast<Record&>(entry));
}

}  // namespace udm::nbd
