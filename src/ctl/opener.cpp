#include "ctl/opener.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "port/remote_disk.hpp"
#include "ctl/call_on.hpp"
#include "ctl/failure.hpp"
#include "ctl/lost_stores.hpp"

namespace udm::ctl {
namespace {

constexpr std::string_view kOurs = "udm:";
constexpr std::string_view kMapper = "/dev/mapper/";

// Something that is no mapped device of ours; counted so that devices over the same file find each other's
// home.
class TrackedOpen final : public OpenDevice {
  public:
    TrackedOpen(std::unique_ptr<OpenDevice> inner, Registry& registry, Record& user, const Registry::Use& use)
        : inner_{std::move(inner)}, registry_{registry}, user_{user}, id_{inner_->id()}, use_{use} {
        registry_.note_use(id_, user_, use_);
        if (id_.kind == DiskId::Kind::file && inner_->words().starts_with('/'))
            registry_.note_file({id_, inner_->words(), to_bytes(inner_->disk().limits().size)});
    }
    ~TrackedOpen() override { registry_.forget_use(id_, user_, use_); }
    Disk& disk() noexcept override { return inner_->disk(); }
    const DiskId& id() const noexcept override { return inner_->id(); }
    const std::string& words() const noexcept override { return inner_->words(); }
    Result<bool> set(std::string_view word, std::string_view value) override { return inner_->set(word, value); }
    void draining(bool begins, bool noflush) noexcept override { inner_->draining(begins, noflush); }
    bool is_away() const noexcept override { return inner_->is_away(); }
    std::uint32_t major() const noexcept override { return inner_->major(); }
    std::uint32_t minor() const noexcept override { return inner_->minor(); }
    std::string cannot_grow() const override { return inner_->cannot_grow(); }
    void grow(Sectors to, DeviceGrowth& done) noexcept override { inner_->grow(to, done); }

  private:
    std::unique_ptr<OpenDevice> inner_;
    Registry& registry_;
    Record& user_;
    const DiskId id_;
    const Registry::Use use_;
};

// A mapped device of ours.
class MappedOpen final : public OpenDevice {
  public:
    MappedOpen(Registry& registry, Record& upper, RecordPtr lower, Device& device, std::string words,
               const Registry::Use& use, std::function<void(RecordPtr)> notify_unused)
        : registry_{registry},
          upper_{upper},
          lower_{std::move(lower)},
          device_{device},
          id_{lower_->id()},
          words_{std::move(words)},
          use_{use},
          notify_unused_{std::move(notify_unused)} {
        registry_.note_use(id_, upper_, use_);
    }
    ~MappedOpen() override {
        if (remote_) registry_.forget_remote(*remote_);
        remote_.reset();
        registry_.forget_use(id_, upper_, use_);
        if (registry_.close(upper_, *lower_)) notify_unused_(lower_);
    }
    void set_remote(std::unique_ptr<RemoteDisk> remote, unsigned home) {
        remote_ = std::move(remote);
        registry_.note_remote(*lower_, *remote_, home);
    }
    Disk& disk() noexcept override { return remote_ ? static_cast<Disk&>(*remote_) : device_; }
    const DiskId& id() const noexcept override { return id_; }
    const std::string& words() const noexcept override { return words_; }
    std::uint32_t major() const noexcept override { return kMajor; }
    std::uint32_t minor() const noexcept override { return lower_->minor; }
    std::string cannot_grow() const override { return "it is a mapped device; `udm resize` makes it larger"; }

  private:
    Registry& registry_;
    Record& upper_;
    RecordPtr lower_;
    Device& device_;
    const DiskId id_;
    const std::string words_;
    const Registry::Use use_;
    std::function<void(RecordPtr)> notify_unused_;
    std::unique_ptr<RemoteDisk> remote_;
};

}  // namespace

RecordPtr find_mapped(const Registry& registry, std::string_view words, bool* required) {
    if (required) *required = words.starts_with(kOurs);
    DeviceKey key;
    std::uint32_t minor = 0;
    if (words.starts_with(kOurs)) {
        key.name = words.substr(kOurs.size());
    } else if (words.starts_with(kMapper)) {
        key.name = words.substr(kMapper.size());
    } else if (parse_devno(words, key.major, minor) && key.major == kMajor) {
        key.minor = minor;
    } else {
        return nullptr;
    }
    return registry.try_find(key);
}

// Called by code without exceptions: none gets out.
Result<std::unique_ptr<OpenDevice>> TableOpener::open(std::string_view words, OpenMode mode) {
    try {
        return open_any(words, mode);
    } catch (const Failure& failure) {
        return std::unexpected(failure.error());
    } catch (const std::exception& error) {
        return fail(Errc::no_memory, error.what());
    }
}

Result<std::unique_ptr<OpenDevice>> TableOpener::open_any(std::string_view words, OpenMode mode) {
    RecordPtr lower;
    bool required = false;
    if (const auto known = config_.known.find(std::string{words}); known != config_.known.end()) {
        DeviceKey key;
        key.minor = known->second;
        lower = config_.registry.try_find(key);
        required = true;
    } else {
        lower = find_mapped(config_.registry, words, &required);
    }
    if (lower) return open_mapped(lower, words, mode);
    if (required)
        return fail(Errc::no_device, fmt::format("{}: there is no such device in this daemon", words));
    DeviceOpener& opener = config_.host.opener(config_.home);
    const auto away = config_.away.find(words);
    auto opened = away != config_.away.end() ? opener.open_away(words, away->second) : opener.open(words, mode);
    if (!opened) return opened;
    if (config_.lost_stores) config_.lost_stores->seen(words, (*opened)->id());
    const DiskId id = (*opened)->id();
    const Registry::Use use = use_of(words, mode);
    auto tracked = std::make_unique<TrackedOpen>(std::move(*opened), config_.registry, *config_.record, use);
    CHECK(check_family(words, id, use));
    return tracked;
}

Registry::Use TableOpener::use_of(std::string_view words, OpenMode mode) const {
    Registry::Use use{.home = config_.home, .writes = mode == OpenMode::write};
    if (const auto role = config_.bases.find(words); role != config_.bases.end()) {
        use.snapshot = role->second.snapshot;
        use.origin = role->second.origin || (use.snapshot && use.writes);  // discards it passes down
    }
    return use;
}

// Looked at when this use is noted already: of two that come at the same time, one at least sees the other.
Result<void> TableOpener::check_family(std::string_view words, const DiskId& id, const Registry::Use& use) const {
    if (!use.snapshot && !use.origin) return {};
    const Registry::Elsewhere elsewhere = config_.registry.family_elsewhere(id, use);
    if (elsewhere.count == 0) return {};
    std::string names = fmt::format("{}", fmt::join(elsewhere.names, ", "));
    if (elsewhere.count > elsewhere.names.size())
        names += fmt::format(" and {} more", elsewhere.count - elsewhere.names.size());
    return fail(Errc::busy,
                fmt::format("an origin and its snapshots share one reactor, but {} on {} {} on another: {}", names, words,
                            elsewhere.count == 1 ? "lives" : "live",
                            use.origin ? "snapshots of a base without an origin are spread over the reactors; remove them, "
                                         "load the origin, and create them again"
                                       : "remove this device and create it again"));
}

Result<std::unique_ptr<OpenDevice>> TableOpener::open_mapped(const RecordPtr& lower, std::string_view words,
                                                             OpenMode mode) {
    // Counted before anything else, so that it cannot be removed from here on.
    config_.registry.open(*config_.record, lower);
    Device* device = nullptr;
    try {
        device = &config_.ensure_device(lower, config_.home);
    } catch (...) {
        config_.registry.close(*config_.record, *lower);
        throw;
    }
    const Registry::Use use = use_of(words, mode);
    auto opened = std::make_unique<MappedOpen>(config_.registry, *config_.record, lower, *device,
                                               std::string{words}, use, config_.notify_unused);
    CHECK(check_family(words, lower->id(), use));
    unsigned lower_home = 0;
    bool read_only = false;
    {
        const std::lock_guard lock{config_.registry.mutex};
        lower_home = lower->home;
        // A merge writes the image that it makes an end of, which is nobody else's from then on.
        const bool ends = lower->merging.contains("layer");
        if (ends && lower->merging["layer"] != config_.record->minor)
            return fail(Errc::busy, fmt::format("{} is being dropped: what stands on it is merged into it", words));
        read_only = (lower->still && !ends) || (lower->live && lower->live->read_only);
    }
    if (mode == OpenMode::write && read_only)
        return fail(Errc::denied, fmt::format("{} is read-only", words));
    if (lower_home != config_.home) {
        Reactor& there = config_.host.env(lower_home).reactor;
        Limits limits;
        unsigned levels = 0;
        run_on(there, [&] {
            limits = device->limits();
            levels = device->levels();
        });
        opened->set_remote(std::make_unique<RemoteDisk>(config_.host.env(config_.home).reactor, there,
                                                        *device, limits, levels),
                           config_.home);
    }
    if (config_.lost_stores) config_.lost_stores->seen(words, opened->id());
    minors_[std::string{words}] = lower->minor;
    return opened;
}

}  // namespace udm::ctl
