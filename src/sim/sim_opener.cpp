#include "sim/sim_opener.hpp"

#include <utility>

namespace udm {
namespace {
constexpr std::uint32_t kDiskMajor = 7;
constexpr std::uint32_t kMappedMajor = 253;
}  // namespace

class SimOpener::Opened final : public OpenDevice, private Task {
  public:
    Opened(Entry& entry, std::string words) : entry_{entry}, words_{std::move(words)} { ++entry_.opens; }
    ~Opened() override {
        ASSERT(entry_.opens > 0);
        --entry_.opens;
    }
    Disk& disk() noexcept override { return *entry_.disk; }
    const DiskId& id() const noexcept override { return entry_.id; }
    const std::string& words() const noexcept override { return words_; }
    bool is_away() const noexcept override { return entry_.away; }
    std::uint32_t major() const noexcept override { return entry_.major; }
    std::uint32_t minor() const noexcept override { return entry_.minor; }
    std::string cannot_grow() const override { return entry_.mapped ? "it is no disk" : ""; }
    void grow(Sectors to, DeviceGrowth& done) noexcept override {
        to_ = to;
        known_ = entry_.disk->limits().size;
        done_ = &done;
        Reactor::current()->post(*this);
    }

  private:
    void run() noexcept override {
        auto& disk = *static_cast<SimDisk*>(entry_.disk);    // nothing else is added that is not mapped and grows
        const bool can = !disk.gone() && to_ <= entry_.grows_to && disk.size_to_come() >= known_;
        if (can && disk.size_to_come() < to_) disk.resize(to_);
        done_->grown(can ? Result<void>{} : fail(Errc::no_space, "the disk is full"));
    }
    Entry& entry_;
    std::string words_;
    Sectors to_{}, known_{};
    DeviceGrowth* done_ = nullptr;
};

SimOpener::~SimOpener() {
    for (const Entry& entry : entries_) ASSERT(entry.opens == 0);
}

DiskId SimOpener::add(std::string name, Disk& disk, DiskId id, bool mapped) {
    ASSERT(find(name) == nullptr);
    const std::uint32_t minor = mapped ? mapped_++ : disks_++;
    entries_.push_back({std::move(name), &disk, id, mapped, true, mapped ? kMappedMajor : kDiskMajor, minor, 0, {}});
    return id;
}

DiskId SimOpener::add(std::string name, Disk& disk) {
    return add(std::move(name), disk, {DiskId::Kind::file, kDiskMajor, disks_}, false);
}

DiskId SimOpener::next_mapped() const noexcept { return {DiskId::Kind::mapped, kMappedMajor, mapped_}; }

DiskId SimOpener::add_mapped(std::string name, Disk& disk, DiskId id) {
    if (id == DiskId{}) id = next_mapped();
    return add(std::move(name), disk, id, true);
}

void SimOpener::remove(std::string_view name) noexcept {
    Entry* entry = find(name);
    ASSERT(entry != nullptr);
    entry->known = false;
}

SimOpener::Entry* SimOpener::find(std::string_view words) noexcept {
    bool mapped_only = false;
    for (std::string_view prefix : {"sim:", "udm:", "/dev/mapper/"}) {
        if (!words.starts_with(prefix)) continue;
        words.remove_prefix(prefix.size());
        mapped_only = prefix != "sim:";
        break;
    }
    for (Entry& entry : entries_) {
        if (!entry.known || (mapped_only && !entry.mapped)) continue;
        if (entry.name == words) return &entry;
        if (std::to_string(entry.major) + ":" + std::to_string(entry.minor) == words) return &entry;
    }
    return nullptr;
}

Result<std::unique_ptr<OpenDevice>> SimOpener::open(std::string_view words, OpenMode mode) {
    Entry* entry = find(words);
    if (!entry) return fail(Errc::no_device, std::string{words} + ": no such device");
    if (entry->fail_once != Errc{}) {
        return fail(std::exchange(entry->fail_once, Errc{}), std::string{words} + ": cannot be opened");
    }
    if (mode == OpenMode::write && entry->disk->limits().read_only) {
        return fail(Errc::read_only, std::string{words} + ": is read-only");
    }
    return std::make_unique<Opened>(*entry, std::string{words});
}

unsigned SimOpener::open_count(std::string_view name) const noexcept {
    const Entry* entry = const_cast<SimOpener*>(this)->find(name);
    return entry ? entry->opens : 0;
}

void SimOpener::fail_open(std::string_view name, Errc code) {
    Entry* entry = find(name);
    ASSERT(entry != nullptr);
    entry->fail_once = code;
}

}  // namespace udm
