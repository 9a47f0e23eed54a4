#include "ctl/file_watch.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <exception>
#include <utility>

#include "ctl/log.hpp"

namespace udm::ctl {
namespace {

constexpr std::size_t kAtATime = 256, kDevicesAtATime = 64;
constexpr std::chrono::milliseconds kBetweenRounds{2000};
constexpr std::chrono::milliseconds kForEachFile{1};

struct Found {
    DiskId id;
    std::uint64_t bytes = 0;
};

Found look_for(const std::string& path) {
    struct stat about {};
    if (::stat(path.c_str(), &about) != 0 || !S_ISREG(about.st_mode)) return {};
    return {{DiskId::Kind::file, about.st_dev, about.st_ino}, static_cast<std::uint64_t>(about.st_size)};
}

std::string words_for(const std::string& name, const Devices::FileUse& use, const Found& found) {
    if (found.id != use.id) {
        const std::string what = fmt::format("{} is gone: it was removed, moved, or replaced by another file. {} works on until udmd ends",
                                             use.path, name);
        if (use.role == Devices::FileUse::Role::store) {
            return fmt::format("{0}, and is lost then. Put the file back if it was moved; else `udm snapshot drop {1}`, and take another", what,
                               name);
        }
        if (use.role == Devices::FileUse::Role::merging) return what + ": let its merge end before that";
        return fmt::format("{}. Put the file back if it was moved; else copy all there is in {} before that", what, name);
    }
    if (found.bytes < use.needed) {
        return fmt::format("{} was cut off: it has {} bytes, and {} uses {}. What lay there is lost; `truncate -s {} {}` makes it as long as it was",
                           use.path, found.bytes, name, use.needed, use.needed, use.path);
    }
    return {};
}

}  // namespace

void FileWatch::start() { thread_ = std::thread{[this] { run(); }}; }

void FileWatch::stop() {
    {
        const std::lock_guard lock{mutex_};
        stopping_ = true;
        wake_.notify_one();
    }
    if (thread_.joinable()) thread_.join();
}

bool FileWatch::pause(std::chrono::milliseconds time) {
    std::unique_lock lock{mutex_};
    return !wake_.wait_for(lock, time, [this] { return stopping_; });
}

void FileWatch::run() {
    std::chrono::milliseconds between = kBetweenRounds;
    while (pause(between)) {
        try {
            between = std::max(kBetweenRounds, kForEachFile * static_cast<int>(look_at_files()));
        } catch (const std::exception& error) {
            log_error("", "looking at files: {}", error.what());
        }
    }
}

// The reactors are asked only where something is odd, so that what is at rest stays at rest.
std::size_t FileWatch::look_at_files() {
    std::map<DiskId, std::uint64_t> sizes;
    std::map<std::uint64_t, RecordPtr> odd;    // by serial
    for (const RecordPtr& record : devices_.registry().troubled()) odd.emplace(record->serial, record);
    DiskId after{};
    for (;;) {
        const auto files = devices_.registry().files_after(after, kAtATime);
        for (const Registry::OpenFile& file : files) {
            const Found found = look_for(file.path);
            const auto known = sizes_.find(file.id);
            const std::uint64_t before = known == sizes_.end() ? file.bytes : known->second;
            sizes[file.id] = found.id == file.id ? found.bytes : before;
            if (found.id == file.id && found.bytes >= before) continue;
            for (const RecordPtr& user : devices_.registry().users_of(file.id)) odd.emplace(user->serial, user);
        }
        if (files.size() < kAtATime) break;
        after = files.back().id;
    }
    sizes_ = std::move(sizes);
    std::vector<RecordPtr> some;    // a reactor is kept from its requests for a few dozen at a time
    for (const auto& [serial, record] : odd) {
        some.push_back(record);
        if (some.size() == kDevicesAtATime) look_at(std::exchange(some, {}));
    }
    if (!some.empty()) look_at(some);
    return sizes_.size();
}

void FileWatch::look_at(const std::vector<RecordPtr>& records) {
    const auto uses = devices_.look_at_files(records);
    std::map<std::string, Found> seen;    // many may share one
    for (std::size_t i = 0; i < records.size(); ++i) {
        std::string trouble;
        for (const Devices::FileUse& use : uses[i]) {
            const auto [at, is_new] = seen.try_emplace(use.path);
            if (is_new) at->second = look_for(use.path);
            const std::string words = words_for(devices_.name_of(*records[i]), use, at->second);
            if (!words.empty()) trouble += (trouble.empty() ? "" : "; ") + words;
        }
        note(records[i], std::move(trouble));
    }
}

void FileWatch::note(const RecordPtr& record, std::string trouble) {
    {
        Registry& registry = devices_.registry();
        const std::lock_guard lock{registry.mutex};
        if (record->gone || record->trouble == trouble) return;
        registry.set_trouble_locked(*record, trouble);
    }
    if (trouble.empty()) {
        devices_.raise(*record, EventKind::progress, "its files are there again");
    } else {
        devices_.raise(*record, EventKind::target, trouble);
    }
}

}  // namespace udm::ctl
