#include "exports/nbd/session.hpp"

#include <algorithm>
#include <bit>

#include "base/assert.hpp"

namespace udm::nbd {
namespace {

constexpr std::uint32_t kBlockMax = 32 << 20;
constexpr std::size_t kFirstRoom = 1024;
constexpr std::string_view kAllocation = "base:allocation";

Shape shape_of(const Export& what) noexcept {
    what.disk->refresh();  // a file may have grown
    const Limits& limits = what.disk->limits();
    Shape shape;
    shape.block_min = std::max(limits.logical_block, std::uint32_t{kSectorSize});
    shape.block_max = kBlockMax;
    shape.size = to_bytes(limits.size) & ~std::uint64_t{shape.block_min - 1};
    shape.flags = kHasFlags | kSendFlush | kSendFua | kCanMultiConn | kSendCache;
    if (what.read_only || limits.read_only) {
        shape.flags |= kReadOnly;
    } else {
        if (limits.discard) shape.flags |= kSendTrim;
        if (limits.write_zeroes) shape.flags |= kSendWriteZeroes | kSendFastZero;
    }
    return shape;
}

std::uint32_t preferred_block(const Limits& limits, const Shape& shape) noexcept {
    std::uint32_t preferred = std::max({std::uint32_t{4096}, shape.block_min, limits.physical_block});
    if (limits.optimal_io > preferred) preferred = limits.optimal_io;
    return std::min(std::bit_ceil(preferred), kBlockMax);
}

}  // namespace

Session::Session(Directory& directory)
    : directory_{directory}, reactor_{&directory.reactor}, negotiation_{directory.limits.handshake} {
    in_.resize(kFirstRoom);
}

Session::~Session() {
    ASSERT(!stream_ && !transmission_);
    if (step_.linked()) step_.unlink();
}

void Session::start(int fd) {
    stream_ = directory_.network.adopt(fd, *this);
    directory_.arrived(*this);
    deadline_ = reactor_->now() + directory_.limits.handshake_time;
    reactor_->arm(timer_, deadline_);
    negotiation_.greet(out_);
    send(After::go_on);
}

// --- the stream
// -------------------------------------------------------------------------------------------------

void Session::received(ssize_t n) noexcept {
    if (transmission_) return transmission_->received(n);
    if (n <= 0) return close();
    end_ += static_cast<std::size_t>(n);
    // Not here: the step may move the session, and the stream would end inside its own call.
    if (!step_.linked()) reactor_->post(step_);
}

void Session::sent(int status) noexcept {
    if (transmission_) return transmission_->sent(status);
    sending_ = false;
    out_.clear();
    if (status < 0) return close();
    if (!step_.linked()) reactor_->post(step_);
}

void Session::closed() noexcept {
    if (transmission_) return transmission_->closed();
    end_later();
}

void Session::step() noexcept {
    if (ending_) {
        transmission_.reset();
        stream_.reset();
        reactor_->cancel(timer_);
        move(Goal::end);
        return;
    }
    if (phase_ != Phase::negotiation) return;
    switch (after_) {
        case After::go_on:
            return negotiate();
        case After::transmission:
            return enter_transmission();
        case After::close:
            return close();
    }
}

// --- the handshake
// ----------------------------------------------------------------------------------------------

void Session::negotiate() noexcept {
    while (phase_ == Phase::negotiation) {
        std::size_t used = 0;
        const auto next = negotiation_.advance(ByteView{in_}.subspan(begin_, end_ - begin_), used, out_);
        begin_ += used;
        if (next == Negotiation::Next::reply && out_.empty()) continue;
        if (next == Negotiation::Next::more) return receive();
        return handle(next);
    }
}

void Session::handle(Negotiation::Next next) noexcept {
    switch (next) {
        case Negotiation::Next::more:
            UNREACHABLE();
        case Negotiation::Next::reply:
            return send(After::go_on);
        case Negotiation::Next::transmission:
            return send(After::transmission);
        case Negotiation::Next::close:
            return out_.empty() ? close() : send(After::close);
        case Negotiation::Next::list:
            return is_home() ? move(Goal::list) : handle(negotiation_.answer_list(directory_.list(), out_));
        case Negotiation::Next::look_up:
            if (is_home() && entry_->what.name == negotiation_.name()) return answer();
            return is_home() ? move(Goal::look_up) : look_up();
    }
}

void Session::receive() noexcept {
    if (begin_ != 0) {
        std::copy(in_.begin() + static_cast<std::ptrdiff_t>(begin_),
                  in_.begin() + static_cast<std::ptrdiff_t>(end_), in_.begin());
        end_ -= begin_;
        begin_ = 0;
    }
    // No longer than the negotiation's bound.
    if (in_.size() < negotiation_.message_size()) in_.resize(std::bit_ceil(negotiation_.message_size()));
    ASSERT(end_ < in_.size());
    stream_->recv(in_.data() + end_, in_.size() - end_);
}

void Session::send(After after) noexcept {
    ASSERT(!sending_ && !out_.empty());
    after_ = after;
    sending_ = true;
    out_piece_ = {out_.data(), out_.size()};
    stream_->send(&out_piece_, 1);
}

// On the server's reactor.
void Session::look_up() noexcept {
    Entry* entry = directory_.find(negotiation_.name());
    if (!entry) return handle(negotiation_.answer_export(nullptr, false, out_));
    entry_ = entry;
    ++entry->bound;
    move(Goal::answer);
}

// At the export's home.
void Session::answer() noexcept {
    if (entry_->stopping) {
        const auto next = negotiation_.answer_export(nullptr, true, out_);
        return handle(next == Negotiation::Next::reply ? Negotiation::Next::close : next);
    }
    const Export& what = entry_->what;
    shape_ = shape_of(what);
    std::vector<std::string> contexts{std::string{kAllocation}};
    if (what.questions && negotiation_.lists_contexts()) {
        for (std::string& name : what.questions->names()) contexts.push_back(std::move(name));
    } else if (what.questions) {
        for (std::string& name : negotiation_.contexts_in_question()) {
            if (what.questions->has(name)) contexts.push_back(std::move(name));
        }
    }
    ExportFacts facts;
    facts.name = what.name;
    facts.description = what.description;
    facts.size = shape_.size;
    facts.flags = shape_.flags;
    facts.block_min = shape_.block_min;
    facts.block_preferred = preferred_block(what.disk->limits(), shape_);
    facts.block_max = shape_.block_max;
    facts.contexts = contexts;
    handle(negotiation_.answer_export(&facts, false, out_));
}

void Session::enter_transmission() noexcept {
    reactor_->cancel(timer_);
    std::vector<Context> contexts;
    for (const std::string& name : negotiation_.contexts()) {
        if (name == kAllocation) {
            contexts.push_back(nullptr);
            continue;
        }
        auto question = entry_->what.questions->open(name);
        // It was there a moment ago; to leave it out would make the client wait for its chunk.
        if (!question) return close();
        contexts.push_back(std::move(question));
    }
    shape_.structured = negotiation_.structured();
    if (shape_.structured) shape_.flags |= kSendDf;
    shape_.contexts = static_cast<std::uint32_t>(contexts.size());
    phase_ = Phase::transmission;
    const Transmission::Setup setup{*reactor_,
                                    *entry_->what.disk,
                                    *stream_,
                                    *entry_->what.budget,
                                    shape_,
                                    directory_.limits.requests,
                                    directory_.limits.grace};
    Transmission::Owner& owner = *this;  // a private base: not for make_unique to see
    transmission_ = std::make_unique<Transmission>(setup, std::move(contexts), owner);
    transmission_->start(ByteView{in_}.subspan(begin_, end_ - begin_));
    Bytes{}.swap(in_);
    Bytes{}.swap(out_);
}

// --- moving
// -----------------------------------------------------------------------------------------------------

void Session::move(Goal goal) noexcept {
    goal_ = goal;
    const bool to_home = goal == Goal::answer;
    if (linked()) unlink();  // from the server's list, or the export's
    reactor_->cancel(timer_);
    Reactor& to = to_home ? *entry_->what.home : directory_.reactor;
    const bool here = &to == reactor_;
    if (stream_ && !here) {
        fd_ = stream_->release();
        stream_.reset();
    }
    reactor_ = &to;
    at_ = to_home ? Place::home : Place::server;
    if (here) {
        to.post(carrier_);
    } else {
        to.post_remote(carrier_);  // another thread may have it from here on
    }
}

void Session::arrive() noexcept {
    if (goal_ == Goal::end) return directory_.ended(*this);  // destroys this
    if (!stream_) stream_ = (is_home() ? *entry_->what.network : directory_.network).adopt(fd_, *this);
    fd_ = -1;
    reactor_->arm(timer_, deadline_);
    if (is_home()) {
        entry_->sessions.push_back(*this);
        return answer();
    }
    if (entry_) {
        Entry& left = *entry_;
        entry_ = nullptr;
        directory_.unbound(left);
    }
    directory_.arrived(*this);
    if (phase_ != Phase::negotiation) return;  // the server is stopping
    if (goal_ == Goal::look_up) return look_up();
    handle(negotiation_.answer_list(directory_.list(), out_));
}

// --- the end
// ----------------------------------------------------------------------------------------------------

void Session::stop() noexcept {
    if (transmission_) return transmission_->stop();
    close();
}

void Session::close() noexcept {
    if (transmission_) return transmission_->abort();
    if (phase_ == Phase::closing) return;
    phase_ = Phase::closing;
    stream_->close();
}

void Session::end_later() noexcept {
    ending_ = true;
    if (!step_.linked()) reactor_->post(step_);
}

}  // namespace udm::nbd
