#include "ctl/changes.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "core/comparison.hpp"
#include "ctl/call_on.hpp"
#include "port/nbd_uri.hpp"
#include "ctl/failure.hpp"
#include "ctl/opener.hpp"
#include "ctl/record_disk.hpp"

namespace udm::ctl {
namespace {

constexpr std::string_view kChangedSince = "udm:changed/";
constexpr std::size_t kListed = 256;            // names for one client that wants to see all
constexpr std::uint64_t kQuestions = 65'536;    // of one call: it is some ten milliseconds

// co_await of one question.
class AskWait final : Layer {
  public:
    AskWait(Reactor& reactor, ExtentQuestion& question, Extent extent) noexcept
        : reactor_{reactor}, question_{question}, extent_{extent} {}
    bool await_ready() const noexcept { return false; }
    void await_suspend(std::coroutine_handle<> awaiting) noexcept {
        awaiting_ = awaiting;
        Io& io = reactor_.take_io();
        io.op = Op::extent_status;
        io.extent = extent_;
        io.answer.place = &place_;
        io.push(*this);
        question_.ask(io);
    }
    IoStatus await_resume() const noexcept { return status_; }
    const ExtentAnswer& answer() const noexcept { return answer_; }
    const Place& place() const noexcept { return place_; }

  private:
    void on_complete(Io& io, Frame&) noexcept override {
        status_ = io.status;
        answer_ = io.answer;
        reactor_.give_io(io);
        awaiting_.resume();
    }
    Reactor& reactor_;
    ExtentQuestion& question_;
    const Extent extent_;
    std::coroutine_handle<> awaiting_;
    IoStatus status_{IoStatus::ok};
    ExtentAnswer answer_{};
    Place place_{};
};

// One call of diff() at work on the home of `one`.
struct Walk {
    Reactor* reactor;
    RecordDisk* one;
    RecordDisk* other;
    std::uint64_t limit;
    Sector at{};
    Sectors size{};
    std::vector<Extent> extents{};
    bool failed_other = false;
    std::string why{};
};

Job<IoStatus> walk(Walk* w) {
    Comparison comparison{*w->reactor, *w->one, *w->other};
    w->size = w->one->limits().size;
    for (std::uint64_t asked = 0; w->at.v < w->size.v && asked < kQuestions; ++asked) {
        AskWait ask{*w->reactor, comparison, {w->at, Sectors{w->size.v - w->at.v}}};
        const IoStatus status = co_await ask;
        if (status != IoStatus::ok) {
            w->failed_other = ask.answer().flags != 0;
            w->why = ask.place().obstacle[0] != 0 ? std::string{ask.place().obstacle.data()} : std::string{to_string(status)};
            co_return status;
        }
        const Extent said{w->at, ask.answer().length};
        if (ask.answer().flags & Comparison::kChanged) {
            if (!w->extents.empty() && w->extents.back().end() == said.first) {
                w->extents.back().length += said.length;
            } else if (w->extents.size() == w->limit) {
                break;
            } else {
                w->extents.push_back(said);
            }
        }
        w->at += said.length;
    }
    co_return IoStatus::ok;
}

class Changed final : public ExtentQuestion {
  public:
    Changed(Reactor& here, Device& device, Host& host, Registry& registry, RecordPtr against)
        : against_{here, host, registry, std::move(against)}, comparison_{here, device, against_} {}
    void ask(Io& io) noexcept override { comparison_.ask(io); }

  private:
    RecordDisk against_;
    Comparison comparison_;
};

class ChangedQuestions final : public ExtentQuestions {
  public:
    ChangedQuestions(Host& host, Registry& registry, RecordPtr record)
        : host_{host}, registry_{registry}, record_{std::move(record)} {}

    std::vector<std::string> names() const override {
        std::vector<std::string> names = registry_.names_on_its_disks(*record_, kListed);
        for (std::string& name : names) name = std::string{kChangedSince} + percent_encode(name);
        return names;
    }
    bool has(std::string_view name) const override { return find(name) != nullptr; }
    std::unique_ptr<ExtentQuestion> open(std::string_view name) override {
        const RecordPtr against = find(name);
        if (!against || !record_->owned) return nullptr;
        return std::make_unique<Changed>(record_->owned->env().reactor, *record_->owned, host_, registry_, against);
    }

  private:
    RecordPtr find(std::string_view name) const {
        if (!name.starts_with(kChangedSince)) return nullptr;
        const std::string_view leaf = name.substr(kChangedSince.size());
        auto decoded = percent_decode(leaf);
        if (!decoded || percent_encode(*decoded) != leaf) return nullptr;    // one name for each thing
        DeviceKey key;
        key.name = std::move(*decoded);
        const RecordPtr found = registry_.try_find(key);
        if (!found || found == record_ || !registry_.share_a_disk(*record_, *found)) return nullptr;
        return found;
    }

    Host& host_;
    Registry& registry_;
    const RecordPtr record_;
};

}  // namespace

std::unique_ptr<ExtentQuestions> Changes::questions_of(const RecordPtr& record) const {
    return std::make_unique<ChangedQuestions>(devices_.host(), devices_.registry(), record);
}

// What `udm snapshot list` calls its origin; of a snapshot made by hand, the device that keeps it up to date.
RecordPtr Changes::origin_of(const RecordPtr& snapshot) const {
    Registry& registry = devices_.registry();
    Json noted;
    std::string base;
    {
        const std::lock_guard lock{registry.mutex};
        noted = snapshot->snapshot;
        if (snapshot->live && snapshot->live->lines.size() == 1 && !snapshot_cow(snapshot->live->lines[0]).empty())
            base = snapshot_base(snapshot->live->lines[0]);
    }
    if (noted.is_object() && noted.contains("origin")) {
        DeviceKey key;
        key.minor = noted["origin"].get<std::uint32_t>();
        if (RecordPtr origin = registry.try_find(key)) return origin;
    }
    const std::string name = devices_.name_of(*snapshot);
    if (base.empty()) throw Failure{Errc::bad_argument, fmt::format("{} is no snapshot: name what it is to be compared with", name), name};
    if (RecordPtr origin = find_mapped(registry, base)) return origin;
    for (const RecordPtr& user : registry.users_of(devices_.host().identify(base))) {
        const std::lock_guard lock{registry.mutex};
        if (user != snapshot && user->live && user->live->lines.size() == 1 && user->live->lines[0].type == "snapshot-origin") return user;
    }
    throw Failure{Errc::not_found, fmt::format("the origin of {}, {}, is no device here: name what it is to be compared with", name, base), name};
}

// A question to a device that is suspended waits for its resume.
void Changes::check(const Record& record) const {
    const std::lock_guard lock{devices_.registry().mutex};
    if (!record.held_because.empty()) {
        throw Failure{Errc::busy, fmt::format("{} is held: {}", record.name, record.held_because), record.name};
    }
    if (!record.live || !record.device) throw Failure{Errc::bad_argument, fmt::format("{} has no table", record.name), record.name};
    if (record.suspended) throw Failure{Errc::busy, fmt::format("{} is suspended", record.name), record.name};
}

Json Changes::diff(const Request& request) const {
    Registry& registry = devices_.registry();
    const RecordPtr one = registry.find(request.device);
    const RecordPtr other = request.against ? registry.find(*request.against) : origin_of(one);
    const std::string name = devices_.name_of(*one), other_name = devices_.name_of(*other);
    if (one == other) throw Failure{Errc::bad_argument, fmt::format("{} and {} are the same device", name, other_name), name};
    check(*one);
    check(*other);
    if (!registry.share_a_disk(*one, *other)) {
        throw Failure{Errc::bad_argument,
                      fmt::format("{} and {} have nothing in common: neither is a snapshot of the other, nor both of one volume", name,
                                  other_name),
                      name};
    }
    unsigned home = 0;
    std::uint64_t other_size = 0;
    {
        const std::lock_guard lock{registry.mutex};
        home = one->home;
        other_size = to_bytes(other->size);
    }
    if (request.offset % kSectorSize != 0) {
        throw Failure{Errc::bad_argument, fmt::format("offset {} is no multiple of {}", request.offset, kSectorSize), name};
    }
    Reactor& reactor = devices_.host().env(home).reactor;
    // Neither device is held: one may be removed in the midst of it.
    std::unique_ptr<RecordDisk> one_disk, other_disk;
    Walk w{.reactor = &reactor, .one = nullptr, .other = nullptr, .limit = std::clamp<std::uint64_t>(request.limit, 1, kExtentsMax)};
    w.at = {request.offset >> kSectorShift};
    const bool there = run_on(reactor, [&] {
        {
            const std::lock_guard lock{registry.mutex};
            if (!one->device || one->home != home) return false;    // while it is asked here, nothing takes it away
        }
        one_disk = std::make_unique<RecordDisk>(reactor, devices_.host(), registry, one, one->owned->limits());
        other_disk = std::make_unique<RecordDisk>(reactor, devices_.host(), registry, other);
        w.one = one_disk.get();
        w.other = other_disk.get();
        return true;
    });
    if (!there) throw Failure{Errc::not_found, fmt::format("{} was removed", name), name};
    const IoStatus status = call_on(reactor, [&] { return walk(&w); });
    run_on(reactor, [&] {
        one_disk.reset();
        other_disk.reset();
    });
    if (status != IoStatus::ok) {
        const std::string& failed = w.failed_other ? other_name : name;
        throw Failure{Errc::io, fmt::format("where {} and {} differ cannot be told: {}: {}", name, other_name, failed, w.why), failed};
    }
    Json extents = Json::array();
    for (const Extent& extent : w.extents) extents.push_back({to_bytes(extent.first), to_bytes(extent.length)});
    return {{"device", name},
            {"against", other_name},
            {"size", to_bytes(w.size)},
            {"against_size", other_size},
            {"extents", std::move(extents)},
            {"next", w.at.v < w.size.v ? Json(to_bytes(w.at)) : Json(nullptr)}};
}

}  // namespace udm::ctl
