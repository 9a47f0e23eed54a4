// Connections: made, proved, lost and made again; and the end of patience.
#include <fmt/format.h>

#include <algorithm>

#include "engine/nbd/client.hpp"

namespace udm {
namespace {

constexpr Nanoseconds kRetryFirst = 100 * kMillisecond;
constexpr Nanoseconds kRetryLast = 5 * kSecond;
constexpr Nanoseconds kLastingConnection = 5 * kSecond;    // a server that dies sooner after each start is not hurried
constexpr Nanoseconds kPatienceDraining = 10 * kSecond;
constexpr Nanoseconds kPatienceAtEnd = 3 * kSecond;    // when the daemon stops

double seconds(Nanoseconds time) { return static_cast<double>(time / kMillisecond) / 1000; }

}  // namespace

// On a helper thread: the client may be gone when it ends.
class NbdClient::Attempt final : public Loop::Leftover {
  public:
    Attempt(NbdClient& its_client, Nanoseconds patience)
        : client{&its_client}, call_{*this}, uri_{its_client.uri_}, words_{its_client.words_}, patience_{patience},
          stopping_{its_client.stopping_} {}
    ~Attempt() override {
        if (call_.linked()) call_.unlink();    // it had ended, and the loop with it
    }
    void begin(Loop& loop, Workers& workers) noexcept {
        call_.kind = Operation::Kind::call;
        call_.loop = &loop;
        loop.leave(*this);
        workers.submit(call_);
    }
    NbdClient* client;

  private:
    class Call final : public Operation {
      public:
        explicit Call(Attempt& attempt) noexcept : attempt_{attempt} {}
        int call() noexcept override {
            attempt_.result_ = connect_nbd(attempt_.uri_, attempt_.words_, attempt_.patience_, attempt_.stopping_);
            return 0;
        }
        void done(int) noexcept override {
            if (NbdClient* client = attempt_.client) {
                client->attempt_ = nullptr;
                client->connected(std::move(attempt_.result_));
            }
            delete &attempt_;
        }

      private:
        Attempt& attempt_;
    };
    Call call_;
    const NbdUri uri_;
    const std::string words_;
    const Nanoseconds patience_;
    const std::atomic<bool>& stopping_;
    Result<NbdConnected> result_;
};

NbdClient::NbdClient(Loop& loop, Workers& connectors, const std::atomic<bool>& stopping, const NbdSettings& settings, NbdUri uri,
                     std::string words, NbdConnected first)
    : loop_{loop},
      connectors_{connectors},
      stopping_{stopping},
      settings_{settings},
      uri_{std::move(uri)},
      words_{std::move(words)},
      facts_{first.facts},
      known_{first.handle != nullptr},
      first_{std::move(first)},
      size_{facts_.size},
      multi_conn_{facts_.multi_conn} {}

void NbdClient::begin() noexcept {
    ASSERT(loop_.is_current());
    offline_since_ = loop_.now();
    if (first_.handle) return join(*new NbdConnection{loop_, *this, std::move(first_.handle)});
    failed_ = true;    // nobody waits for it
    last_trouble_ = "it is away";
    log("it is away: requests fail until it is there");
    retry_later();
}

NbdClient::~NbdClient() {
    ASSERT(requests_.empty() && waiting_.empty());
    loop_.cancel(tick_);
    loop_.cancel(retry_);
    if (attempt_) attempt_->client = nullptr;
    drop_candidate();
    for (NbdConnection* connection : members_) connection->close(true, waiting_);
    while (NbdPiece* piece = waiting_.pop_front_or_null()) give_piece(*piece);    // a proof's
    ASSERT(disks_.empty());
}

void NbdClient::log(const std::string& text) noexcept { loop_.shared().log(fmt::format("{}: {}", words_, text)); }

Nanoseconds NbdClient::patience() const noexcept {
    const std::uint32_t own = timeout_s_.load(std::memory_order_relaxed);
    const Nanoseconds time = (own != kLikeDaemon ? own : settings_.timeout_s.load(std::memory_order_relaxed)) * kSecond;
    const bool hurry = stopping_.load(std::memory_order_relaxed);
    return hurry && (time == 0 || time > kPatienceAtEnd) ? kPatienceAtEnd : time;
}

std::size_t NbdClient::wanted() const noexcept {
    return multi_conn_ ? std::max(1u, settings_.connections.load(std::memory_order_relaxed)) : 1;
}

bool NbdClient::is_given_up() const noexcept {
    if (!members_.empty()) return false;
    if (failed_) return true;
    const Nanoseconds patience_left = patience();
    return patience_left != 0 && loop_.now() - offline_since_ >= patience_left;
}

// --- making connections ---------------------------------------------------------------------------------------------

void NbdClient::fill() noexcept {
    if (attempt_ || candidate_ || retry_.armed() || members_.size() >= wanted() || stopping_.load()) return;
    attempt_ = new Attempt{*this, settings_.connect_timeout_s.load(std::memory_order_relaxed) * kSecond};
    attempt_->begin(loop_, connectors_);
}

void NbdClient::retry_later() noexcept {
    const Nanoseconds pause = retries_ == 0 ? 0 : std::min(kRetryFirst << std::min(retries_ - 1, 10u), kRetryLast);
    ++retries_;
    loop_.arm(retry_, loop_.now() + pause);
}

void NbdClient::connected(Result<NbdConnected> result) noexcept {
    if (!result) {
        if (members_.empty() && last_trouble_ != result.error().message) {
            last_trouble_ = result.error().message;
            loop_.shared().log(last_trouble_);
        }
        return retry_later();
    }
    if (const std::string why = changed(result->facts); !why.empty()) {
        nbd_aio_disconnect(result->handle.get(), 0);
        if (members_.empty()) {
            if (last_trouble_ != why) log(why);
            give_up("what is served there is not what was opened");
        }
        last_trouble_ = why;
        return retry_later();
    }
    size_ = result->facts.size;
    {
        const std::lock_guard lock{facts_mutex_};
        if (!known_.exchange(true)) facts_ = result->facts;
        facts_.payload_max = std::min(facts_.payload_max, result->facts.payload_max);
    }
    multi_conn_ = result->facts.multi_conn;
    if (!members_.empty() && !multi_conn_) {
        nbd_aio_disconnect(result->handle.get(), 0);
        return;
    }
    auto* connection = new NbdConnection{loop_, *this, std::move(result->handle)};
    if (members_.empty() || !facts_.flush) return join(*connection);
    candidate_ = connection;
    connection->begin();
    if (candidate_ && !proof_) prove();
}

// Why this is not the export any more that was opened; empty if it is. What was taken from its limits must still hold.
std::string NbdClient::changed(const NbdFacts& now) const {
    if (!known()) {
        const NbdFacts wanted = facts();
        if (now.size < wanted.size) return fmt::format("the export has {} bytes, and a table needs {}: requests fail until it has them", now.size, wanted.size);
        if (now.read_only) return "the export is read-only: requests fail until it can be written";
        if (now.block > wanted.block) return fmt::format("the export has blocks of {} bytes: load the table again", now.block);
        return {};
    }
    if (now.size < size_) return fmt::format("the export has {} bytes now, and had {}: requests fail until it has them again", now.size, size_);
    if (now.read_only && !facts_.read_only) return "the export is read-only now, and was not: requests fail until it can be written again";
    if (now.block > facts_.block)
        return fmt::format("the export has blocks of {} bytes now, and had {}: load the table again", now.block, facts_.block);
    struct {
        bool before, after;
        const char* name;
    } const abilities[] = {{facts_.flush, now.flush, "flushes"}, {facts_.fua, now.fua, "FUA"},
                           {facts_.trim, now.trim, "trim"},      {facts_.zero, now.zero, "write-zeroes"},
                           {facts_.fast_zero, now.fast_zero, "fast zeroes"}, {facts_.extents, now.extents, "block status"}};
    for (const auto& ability : abilities) {
        if (ability.before && !ability.after)
            return fmt::format("the server knows no {} any more: requests fail until it does, or the table is loaded again", ability.name);
    }
    return {};
}

void NbdClient::join(NbdConnection& connection) noexcept {
    const bool back = members_.empty();
    joined_at_ = loop_.now();
    members_.push_back(&connection);
    if (back) {
        if (!last_trouble_.empty()) {
            log(fmt::format("connected again after {:.1f} s; {} requests are sent again", seconds(loop_.now() - offline_since_), sent_again_));
        }
        last_trouble_.clear();
        sent_again_ = 0;
        failed_ = false;
        quiet_since_ = ticks_;
    }
    connection.begin();
    dispatch();
    fill();
}

// The candidate's server is that of the others if one of them answers now.
void NbdClient::prove() noexcept {
    ASSERT(candidate_ && !proof_);
    if (members_.empty()) return join(*std::exchange(candidate_, nullptr));
    proof_ = &piece_pool_.take();
    proof_->kind = NbdPiece::Kind::flush;
    members_.front()->issue(*proof_);
}

void NbdClient::proved(int error) noexcept {
    if (std::exchange(proof_is_old_, false)) {
        if (candidate_) prove();
        return;
    }
    if (!candidate_) return;
    if (error == 0) return join(*std::exchange(candidate_, nullptr));
    drop_candidate();
    retry_later();
}

void NbdClient::drop_candidate() noexcept {
    if (!candidate_) return;
    proof_is_old_ = proof_ != nullptr;
    List<NbdPiece> none;
    std::exchange(candidate_, nullptr)->close(true, none);
}

// --- losing them ----------------------------------------------------------------------------------------------------

void NbdClient::connection_lost(NbdConnection& connection, const std::string& why) noexcept {
    List<NbdPiece> unanswered;
    connection.close(false, unanswered);
    if (&connection == candidate_) {
        candidate_ = nullptr;
        proof_is_old_ = proof_ != nullptr;
        return retry_later();
    }
    std::erase(members_, &connection);
    bool proof_lost = false;
    List<NbdPiece> again;
    while (NbdPiece* piece = unanswered.pop_front_or_null()) {
        if (piece == proof_) {
            proof_lost = true;
            proof_is_old_ = false;
            piece_pool_.give(*std::exchange(proof_, nullptr));
            continue;
        }
        piece->again = true;
        piece->request->again = true;
        ++sent_again_;
        again.push_back(*piece);
    }
    again.take_all(waiting_);
    waiting_.take_all(again);
    if (members_.empty()) {
        offline_since_ = loop_.now();
        last_trouble_ = why;
        log(fmt::format("{}: connecting again", why));
        note_losses();
    }
    if (loop_.now() - joined_at_ >= kLastingConnection) retries_ = 0;
    if (proof_lost && candidate_) prove();
    dispatch();
    if (!attempt_ && !candidate_ && !retry_.armed()) retry_later();
}

// All connections are gone, perhaps because the server is, with what it had in its memory.
void NbdClient::note_losses() noexcept {
    bool any = false;
    for (NbdDisk& disk : disks_) {
        if (disk.written_ == disk.flushed_) continue;
        disk.flushed_ = disk.written_;
        disk.doubt_ = any = true;
    }
    if (any) {
        log("writes that were not flushed may be lost with the server that answered them: the next flush fails, once, so that "
            "whoever wrote them knows");
    }
    List<NbdPiece> all;
    all.take_all(waiting_);
    while (NbdPiece* piece = all.pop_front_or_null()) {
        NbdRequest& request = *piece->request;
        if (request.flush_after) {    // from its beginning
            give_piece(*piece);
            request.at = 0;
            request.syncing = false;
            if (--request.outstanding == 0) advance(request);
        } else if (piece->kind == NbdPiece::Kind::flush && request.disk.doubt_) {
            request.disk.told_ = true;
            request.status = IoStatus::io_error;
            give_piece(*piece);
            --request.outstanding;
            advance(request);
        } else {
            waiting_.push_back(*piece);
        }
    }
    for (NbdDisk& disk : disks_) {
        if (std::exchange(disk.told_, false)) disk.doubt_ = false;    // a flush that comes later need not be
    }
}

void NbdClient::close_all() noexcept {
    drop_candidate();
    List<NbdPiece> unanswered;
    for (NbdConnection* connection : members_) connection->close(false, unanswered);
    members_.clear();
    while (NbdPiece* piece = unanswered.pop_front_or_null()) {
        if (piece == proof_) {
            piece_pool_.give(*std::exchange(proof_, nullptr));
            proof_is_old_ = false;
        } else {
            waiting_.push_back(*piece);
        }
    }
}

// --- the end of patience --------------------------------------------------------------------------------------------

void NbdClient::tick() noexcept {
    ++ticks_;
    if (requests_.empty()) return;
    if (answers_ != answers_seen_) {
        answers_seen_ = answers_;
        quiet_since_ = ticks_;
    }
    loop_.arm(tick_, loop_.now() + kTick);
    hurry_drained();
    const Nanoseconds limit = patience();
    if (limit == 0) return;
    if ((ticks_ - quiet_since_) * kTick >= limit) return give_up(fmt::format("no answer for {:.0f} s", seconds(limit)));
    for (std::size_t i = members_.size(); i-- > 0;) {
        if (i >= members_.size() || members_[i]->quiet_ticks() * kTick < limit) continue;
        log(fmt::format("no answer for {:.0f} s on one of {} connections: it is made again", seconds(limit), members_.size()));
        connection_lost(*members_[i], "no answer");
    }
    // One that is always under way when the connection breaks does not wait for ever because others come through.
    fail_waiting(IoStatus::io_error, [&](const NbdRequest& request) { return request.again && (ticks_ - request.since) * kTick >= limit; });
}

void NbdClient::give_up(const std::string& why) noexcept {
    go_offline(why);
    failed_ = true;
    if (const unsigned count = fail_waiting(IoStatus::io_error, [](const NbdRequest&) { return true; }); count != 0)
        log(fmt::format("{}: {} requests fail, and so do others until it answers again", why, count));
    if (!attempt_ && !retry_.armed()) retry_later();
}

// However long requests may wait: who suspends a device shall not.
void NbdClient::hurry_drained() noexcept {
    const bool quiet = (ticks_ - quiet_since_) * kTick >= kPatienceDraining;
    for (NbdDisk& disk : disks_) {
        const auto draining = disk.draining_.load(std::memory_order_relaxed);
        disk.draining_ticks_ = draining == NbdDisk::Draining::no ? 0 : disk.draining_ticks_ + 1;
        if (!quiet || disk.draining_ticks_ * kTick < kPatienceDraining) continue;
        go_offline("no answer, and a device is to be suspended");
        const IoStatus status = draining == NbdDisk::Draining::to_keep ? IoStatus::requeue : IoStatus::io_error;
        fail_waiting(status, [&disk](const NbdRequest& request) { return &request.disk == &disk; });
    }
}

void NbdClient::go_offline(const std::string& why) noexcept {
    if (members_.empty()) return;
    close_all();
    offline_since_ = loop_.now();
    last_trouble_ = why;
    log(why);
    note_losses();
    if (!attempt_ && !retry_.armed()) retry_later();
}

// Of requests that wait for a connection, with all their pieces.
template <class Which>
unsigned NbdClient::fail_waiting(IoStatus status, Which which) noexcept {
    unsigned count = 0;
    List<NbdPiece> all;
    all.take_all(waiting_);
    while (NbdPiece* piece = all.pop_front_or_null()) {
        NbdRequest& request = *piece->request;
        if (!which(request)) {
            waiting_.push_back(*piece);
            continue;
        }
        request.status = first_error(request.status, status);
        give_piece(*piece);
        --request.outstanding;
        if (request.outstanding == 0) {
            ++count;
            finish(request);
        }
    }
    return count;
}

}  // namespace udm
