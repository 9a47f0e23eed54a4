// An export of an NBD server, as the daemon uses it: its connections, the requests under way, and what happens when the server
// is away. One for each export, however many tables name it; lives on one loop.
//
// A connection that is lost is made again, and what was not answered is sent again: nobody hears of it unless that takes longer
// than the time-out. What a server has answered it may still lose when it dies; decision 33 says what comes of that. In short:
// writes are counted for each disk, and what the last flush covered; if all connections are lost with writes beyond that, the
// disk's next flush fails, once. Connections are taken in beside others only after one of those has answered a flush that was
// sent later than the new one was made: it is the same server then, alive.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/pool.hpp"
#include "engine/loop.hpp"
#include "engine/nbd/connection.hpp"
#include "engine/nbd/settings.hpp"
#include "port/disk.hpp"

namespace udm {

class NbdClient;

// One user of the export. Requests come on the client's loop.
class NbdDisk final : public Disk, public ListHook {
  public:
    NbdDisk(NbdClient& client, bool read_only) noexcept;
    ~NbdDisk() override {
        if (linked()) unlink();
    }
    void submit(Io& io) noexcept override;
    const Limits& limits() const noexcept override { return limits_; }
    void refresh() noexcept override;
    // Any thread; as OpenDevice::draining().
    void set_draining(bool begins, bool noflush) noexcept {
        draining_.store(!begins ? Draining::no : noflush ? Draining::to_keep : Draining::to_end);
    }

  private:
    friend class NbdClient;
    enum class Draining : std::uint8_t { no, to_end, to_keep };
    std::atomic<Draining> draining_{Draining::no};
    std::uint64_t draining_ticks_ = 0;
    NbdClient& client_;
    Limits limits_;
    std::uint64_t written_ = 0;     // writes, as they are answered
    std::uint64_t flushed_ = 0;     // how many of them the last completed flush covers
    bool doubt_ = false;            // some that were not flushed may be lost, and nobody was told yet
    bool told_ = false;             // by a flush that was under way then
};

// A request while it is under way.
class NbdRequest final : public ListHook {
  public:
    NbdRequest(NbdDisk& its_disk, Io& its_io) noexcept : disk{its_disk}, io{its_io} {}
    NbdDisk& disk;
    Io& io;
    std::uint64_t total = 0, at = 0;    // bytes, and how many of them are handed out
    unsigned outstanding = 0;           // pieces
    IoStatus status{IoStatus::ok};
    bool flush_after = false;           // for a server without FUA
    bool syncing = false;               // that flush is under way
    bool again = false;                 // some of it was sent more than once
    std::uint64_t since = 0;            // tick
};

class NbdClient final : private NbdConnection::Owner {
  public:
    // Any thread; begin() then, on the loop. Without a handle in `first` the server is away: its facts are what is taken for granted.
    NbdClient(Loop& loop, Workers& connectors, const std::atomic<bool>& stopping, const NbdSettings& settings, NbdUri uri,
              std::string words, NbdConnected first);
    ~NbdClient();    // on the loop; no requests are under way
    void begin() noexcept;

    // Any thread.
    Loop& loop() noexcept { return loop_; }
    NbdFacts facts() const {    // as at first; while it is not known, what is taken for granted
        const std::lock_guard lock{facts_mutex_};
        return facts_;
    }
    bool known() const noexcept { return known_.load(); }    // it was there once
    void expect_size(std::uint64_t bytes) {                   // at least, of one that is not known
        const std::lock_guard lock{facts_mutex_};
        if (!known()) facts_.size = std::max(facts_.size, bytes);
    }
    static constexpr std::uint32_t kLikeDaemon = ~std::uint32_t{0};
    void set_timeout(std::uint32_t seconds) noexcept { timeout_s_.store(seconds); }

    // On the loop, for NbdDisk.
    void start(NbdDisk& disk, Io& io) noexcept;
    std::uint64_t size() const noexcept { return known() ? size_ : facts().size; }

  private:
    class Attempt;
    class Tick final : public Timer {
      public:
        explicit Tick(NbdClient& client) noexcept : client_{client} {}
        void expired() noexcept override { client_.tick(); }

      private:
        NbdClient& client_;
    };
    class Retry final : public Timer {
      public:
        explicit Retry(NbdClient& client) noexcept : client_{client} {}
        void expired() noexcept override { client_.fill(); }

      private:
        NbdClient& client_;
    };

    // requests (client.cpp)
    void piece_done(NbdPiece& piece) noexcept override;
    void advance(NbdRequest& request) noexcept;
    NbdPiece& next_piece(NbdRequest& request) noexcept;
    void plan_transfer(NbdRequest& request, NbdPiece& piece) noexcept;
    void note_answer(NbdRequest& request, NbdPiece& piece) noexcept;
    void give_piece(NbdPiece& piece) noexcept;
    void finish(NbdRequest& request) noexcept;
    void dispatch() noexcept;
    NbdConnection* pick() noexcept;

    // connections (client_life.cpp)
    void connection_lost(NbdConnection& connection, const std::string& why) noexcept override;
    void connected(Result<NbdConnected> result) noexcept;
    std::string changed(const NbdFacts& facts) const;
    void join(NbdConnection& connection) noexcept;
    void prove() noexcept;
    void proved(int error) noexcept;
    void drop_candidate() noexcept;
    void fill() noexcept;
    void retry_later() noexcept;
    void close_all() noexcept;
    void note_losses() noexcept;
    void tick() noexcept;
    void give_up(const std::string& why) noexcept;
    void hurry_drained() noexcept;
    void go_offline(const std::string& why) noexcept;
    template <class Which>
    unsigned fail_waiting(IoStatus status, Which which) noexcept;
    Nanoseconds patience() const noexcept;    // 0: without end
    bool is_given_up() const noexcept;
    std::size_t wanted() const noexcept;
    void log(const std::string& text) noexcept;

    static constexpr Nanoseconds kTick = 250 * kMillisecond;

    Loop& loop_;
    Workers& connectors_;
    const std::atomic<bool>& stopping_;
    const NbdSettings& settings_;
    const NbdUri uri_;
    const std::string words_;
    mutable std::mutex facts_mutex_;    // to change facts_, and to read them elsewhere than on the loop
    NbdFacts facts_;
    std::atomic<bool> known_;
    NbdConnected first_;
    std::atomic<std::uint32_t> timeout_s_{kLikeDaemon};

    Pool<NbdRequest> request_pool_;
    Pool<NbdPiece> piece_pool_;
    List<NbdRequest> requests_;    // all
    List<NbdPiece> waiting_;       // for a connection
    List<NbdDisk> disks_;          // that ever asked for anything
    std::uint64_t size_;
    std::uint64_t answers_ = 0;

    std::vector<NbdConnection*> members_;
    std::size_t next_member_ = 0;
    NbdConnection* candidate_ = nullptr;
    NbdPiece* proof_ = nullptr;
    bool proof_is_old_ = false;        // it was sent before the candidate stood
    Attempt* attempt_ = nullptr;
    unsigned retries_ = 0;
    bool multi_conn_;
    bool failed_ = false;              // nobody waits until there is a connection again
    Nanoseconds offline_since_ = 0;
    Nanoseconds joined_at_ = 0;        // the newest connection
    unsigned sent_again_ = 0;
    std::string last_trouble_;
    Tick tick_{*this};
    Retry retry_{*this};
    std::uint64_t ticks_ = 0, quiet_since_ = 0, answers_seen_ = 0;
};

}  // namespace udm
