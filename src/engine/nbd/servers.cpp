#include "engine/nbd/servers.hpp"

#include <fmt/format.h>

#include <filesystem>
#include <utility>

#include "base/parse.hpp"
#include "engine/nbd/client.hpp"
#include "port/remote_disk.hpp"

namespace udm {
namespace {

constexpr std::uint32_t kNbdMajor = 43;    // as Linux numbers its NBD devices
constexpr std::uint32_t kTimeoutMax = 86'400;

// What lives on the client's loop, and ends there.
struct Use {
    Use(std::shared_ptr<NbdClient> its_client, bool read_only) : client{std::move(its_client)}, disk{*client, read_only} {}
    std::shared_ptr<NbdClient> client;    // goes after the disk
    NbdDisk disk;
};

class EndUse final : public Task {
  public:
    explicit EndUse(std::unique_ptr<Use> use) noexcept : use_{std::move(use)} {}
    void run() noexcept override { delete this; }

  private:
    ~EndUse() = default;
    std::unique_ptr<Use> use_;
};

struct EndOnLoop {
    void operator()(Use* use) const noexcept {
        Loop& loop = use->client->loop();
        std::unique_ptr<Use> ending{use};
        if (loop.is_current() || !loop.running()) return;
        loop.post_remote(*new EndUse{std::move(ending)});
    }
};

class BeginClient final : public Task {
  public:
    explicit BeginClient(std::shared_ptr<NbdClient> client) noexcept : client_{std::move(client)} {}
    void run() noexcept override {
        client_->begin();
        delete this;
    }

  private:
    ~BeginClient() = default;
    std::shared_ptr<NbdClient> client_;
};

class OpenNbd final : public OpenDevice {
  public:
    OpenNbd(Loop& loop, std::shared_ptr<NbdClient> client, const DiskId& id, std::uint32_t number, bool read_only, std::string words)
        : use_{new Use{std::move(client), read_only}}, id_{id}, number_{number}, words_{std::move(words)} {
        Loop& home = use_->client->loop();
        if (&home != &loop) hop_ = std::make_unique<RemoteDisk>(loop, home, use_->disk, use_->disk.limits(), 0);
    }
    Disk& disk() noexcept override { return hop_ ? static_cast<Disk&>(*hop_) : use_->disk; }
    const DiskId& id() const noexcept override { return id_; }
    const std::string& words() const noexcept override { return words_; }
    std::uint32_t major() const noexcept override { return kNbdMajor; }
    std::uint32_t minor() const noexcept override { return number_; }
    std::string cannot_grow() const override { return "it is an NBD export; make it larger at its server"; }
    bool is_away() const noexcept override { return !use_->client->known(); }
    Result<bool> set(std::string_view word, std::string_view value) override {
        if (word != "nbd_timeout") return false;
        std::uint32_t seconds = NbdClient::kLikeDaemon;
        if (value != "default") {
            const auto number = parse_u32(value);
            if (!number || *number > kTimeoutMax) {
                return fail(Errc::bad_argument,
                            fmt::format("'{}' is no time; use seconds from 1 to {}, 0 to wait without end, or default", value, kTimeoutMax));
            }
            seconds = *number;
        }
        use_->client->set_timeout(seconds);
        return true;
    }

    void draining(bool begins, bool noflush) noexcept override { use_->disk.set_draining(begins, noflush); }

  private:
    std::unique_ptr<Use, EndOnLoop> use_;
    std::unique_ptr<RemoteDisk> hop_;    // goes first
    const DiskId id_;
    const std::uint32_t number_;
    const std::string words_;
};

std::uint64_t hash_of(std::string_view text, std::uint64_t basis) noexcept {
    for (const char c : text) basis = (basis ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    basis ^= basis >> 32;
    return basis * 0x9e3779b97f4a7c15u;
}

// A socket's folder may have several paths; the socket itself need not be there.
std::string key_of(NbdUri uri) {
    if (uri.address.kind == Address::Kind::unix_socket) {
        const std::filesystem::path path = std::filesystem::path{uri.address.path}.lexically_normal();
        std::error_code failed;
        const auto folder = std::filesystem::canonical(path.parent_path(), failed);
        uri.address.path = failed ? path.string() : (folder / path.filename()).string();
    }
    return to_text(uri);
}

Result<NbdUri> parse(std::string_view words) {
    auto uri = parse_nbd_uri(words);
    if (uri && uri->address.kind == Address::Kind::tcp && uri->address.port == 0)
        return fail(Errc::bad_argument, fmt::format("{}: 0 is no port to connect to (1 to 65535)", words));
    return uri;
}

DiskId id_of_key(const std::string& key) noexcept {
    return {DiskId::Kind::remote, hash_of(key, 0xcbf29ce484222325u), hash_of(key, 0x84222325cbf29ce4u)};
}

}  // namespace

Result<DiskId> NbdServers::identify(std::string_view words) {
    TRY(NbdUri uri, parse(words));
    return id_of_key(key_of(std::move(uri)));
}

NbdServers::Entry& NbdServers::entry_of(const std::string& key) {
    const std::lock_guard lock{mutex_};
    Entry& entry = entries_[key];
    if (entry.number == 0) entry.number = static_cast<std::uint32_t>(entries_.size());
    return entry;
}

Result<std::shared_ptr<NbdClient>> NbdServers::client_of(Entry& entry, Loop& loop, const NbdUri& uri, const std::string& words) {
    const std::lock_guard lock{entry.opening};
    if (auto client = entry.client.lock()) {
        if (client->known()) return client;
        return fail(Errc::no_device, fmt::format("{}: its server is away, as it is for a mirror that went on without it", words));
    }
    TRY(NbdConnected first, connect_nbd(uri, words, settings_.connect_timeout_s.load() * kSecond, stopping_));
    const NbdFacts& facts = first.facts;
    if (const std::uint64_t rest = facts.size % facts.block; rest != 0)
        loop.shared().log(fmt::format("{}: its last {} bytes are not used: the size is not a multiple of {}", words, rest, facts.block));
    if (!facts.flush && !facts.read_only) {
        loop.shared().log(fmt::format("{}: the server has no flush{}", words,
                                      facts.fua ? ": each write is sent with FUA, and durable when it is answered"
                                                : ": what it has answered may be lost when it dies, and udm can do nothing about it"));
    }
    return begin_client(entry, loop, uri, words, std::move(first));
}

std::shared_ptr<NbdClient> NbdServers::begin_client(Entry& entry, Loop& loop, const NbdUri& uri, const std::string& words, NbdConnected first) {
    auto client = std::make_shared<NbdClient>(loop, connectors_, stopping_, settings_, uri, words, std::move(first));
    loop.post_remote(*new BeginClient{client});
    entry.client = client;
    return client;
}

Result<std::unique_ptr<OpenDevice>> NbdServers::open(Loop& loop, const std::string& words, OpenMode mode) {
    TRY(const NbdUri uri, parse(words));
    const std::string key = key_of(uri);
    Entry& entry = entry_of(key);
    TRY(auto client, client_of(entry, loop, uri, words));
    if (mode == OpenMode::write && client->facts().read_only) {
        auto refused = fail(Errc::read_only, fmt::format("{}: the server serves it read-only; so must the table be", words));
        // Its connection ends where it lives.
        std::unique_ptr<Use, EndOnLoop> use{new Use{std::move(client), true}};
        return refused;
    }
    return std::make_unique<OpenNbd>(loop, std::move(client), id_of_key(key), entry.number, mode == OpenMode::read, words);
}

Result<std::unique_ptr<OpenDevice>> NbdServers::open_away(Loop& loop, const std::string& words, Sectors size) {
    TRY(const NbdUri uri, parse(words));
    const std::string key = key_of(uri);
    Entry& entry = entry_of(key);
    std::shared_ptr<NbdClient> client;
    {
        const std::lock_guard lock{entry.opening};
        client = entry.client.lock();
        if (!client) client = begin_client(entry, loop, uri, words, {.handle = nullptr, .facts = {.flush = true}});
        client->expect_size(to_bytes(size));
    }
    return std::make_unique<OpenNbd>(loop, std::move(client), id_of_key(key), entry.number, false, words);
}

void NbdServers::stop() noexcept {
    stopping_.store(true);
    connectors_.stop();
}

}  // namespace udm
