#include "targets/snapshot/type.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <bit>
#include <cctype>

#include "base/parse.hpp"
#include "targets/snapshot/format.hpp"
#include "targets/snapshot/merge_target.hpp"
#include "targets/snapshot/snapshot_target.hpp"

namespace udm::snapshot {
namespace {

bool same_word(std::string_view a, std::string_view b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
        return std::tolower(x) == std::tolower(y);
    });
}

constexpr std::string_view kCowThreshold = "snapshot_cow_threshold", kCopyThrottle = "snapshot_copy_throttle";    // the kernel's
constexpr std::string_view kCopyMemory = "snapshot_copy_memory";

// Owns the origins, since it is made first and destroyed last of the two.
class OriginType final : public TargetType {
  public:
    explicit OriginType(std::unique_ptr<Origins> origins) : origins_{std::move(origins)} {}
    std::string_view name() const override { return "snapshot-origin"; }
    std::array<unsigned, 3> version() const override { return {1, 9, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override {
        if (args.words.size() != 1) {
            return fail(Errc::bad_argument, fmt::format("origin: incorrect number of arguments: it takes DEVICE, not {} words", args.words.size()));
        }
        auto origin = args.opener.open(args.words[0], args.mode == TableMode::read_only ? OpenMode::read : OpenMode::write);
        if (!origin) return fail(origin.error().code, "Cannot get target device: " + origin.error().message);
        return std::make_unique<OriginTarget>(*origins_, std::move(*origin), args.extent());
    }
    std::vector<Parameter> parameters() const override {
        const CopyLimits& limits = origins_->copies().limits;
        static constexpr CopyLimits kStandard{};
        return {{kCowThreshold, limits.per_store, kStandard.per_store, 0, 1'000'000, "copies under way for one snapshot at most; 0: one at a time"},
                {kCopyThrottle, limits.percent, kStandard.percent, 1, 100, "percent of the time in which snapshots' data may be copied"},
                {kCopyMemory, limits.bytes, kStandard.bytes, 0, std::uint64_t{1} << 40, "bytes of memory for all copies at most; 0: one at a time", true}};
    }
    void set_parameter(std::string_view name, std::uint64_t value) noexcept override {
        CopyLimits& limits = origins_->copies().limits;
        if (name == kCowThreshold) limits.per_store = value;
        if (name == kCopyThrottle) limits.percent = value;
        if (name == kCopyMemory) limits.bytes = value;
        origins_->copies().look_again();
    }

  private:
    std::unique_ptr<Origins> origins_;
};

class SnapshotType final : public TargetType {
  public:
    explicit SnapshotType(Origins& origins) : origins_{origins} {}
    std::string_view name() const override { return "snapshot"; }
    std::array<unsigned, 3> version() const override { return {1, 16, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override;
    // What a line of either target says, its devices opened: the origin for writing if it is merged into, or gets discards.
    Result<Snapshot::Config> parse(const TargetArgs& args, OpenMode origin_mode) const;
    Origins& origins() const noexcept { return origins_; }

  private:
    Result<void> parse_store(const TargetArgs& args, Snapshot::Config& config) const;
    Result<void> parse_features(std::span<const std::string> words, Snapshot::Config& config) const;
    Origins& origins_;
};

Result<std::unique_ptr<Target>> SnapshotType::make(const TargetArgs& args) {
    TRY(Snapshot::Config config, parse(args, OpenMode::read));
    return std::make_unique<SnapshotTarget>(args.env, origins_, std::move(config), args);
}

Result<Snapshot::Config> SnapshotType::parse(const TargetArgs& args, OpenMode origin_mode) const {
    if (args.words.size() < 4) {
        return fail(Errc::bad_argument, fmt::format("requires 4 or more arguments: ORIGIN COW P|PO|N CHUNK_SECTORS [features], not {} words",
                                                    args.words.size()));
    }
    Snapshot::Config config;
    config.extent = args.extent();
    CHECK(parse_features(args.words.subspan(4), config));
    if (config.discard_passdown && args.mode == TableMode::read_write) origin_mode = OpenMode::write;
    auto origin = args.opener.open(args.words[0], origin_mode);
    if (!origin) return fail(origin.error().code, "Cannot get origin device: " + origin.error().message);
    config.origin = std::move(*origin);
    // What the origin's writes push out goes to the store also when nobody may write to the snapshot.
    auto cow = args.opener.open(args.words[1], OpenMode::write);
    if (!cow && args.mode == TableMode::read_only) cow = args.opener.open(args.words[1], OpenMode::read);
    if (!cow) return fail(cow.error().code, "Cannot get COW device: " + cow.error().message);
    config.cow = std::move(*cow);
    if (config.cow->id() == config.origin->id()) {
        return fail(Errc::bad_argument, fmt::format("COW device cannot be the same as origin device: {} and {}", args.words[0], args.words[1]));
    }
    CHECK(parse_store(args, config));
    return config;
}

class MergeType final : public TargetType {
  public:
    explicit MergeType(SnapshotType& snapshot) : snapshot_{snapshot} {}
    std::string_view name() const override { return "snapshot-merge"; }
    std::array<unsigned, 3> version() const override { return {1, 5, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override {
        TRY(Snapshot::Config config, snapshot_.parse(args, OpenMode::write));
        if (!config.persistent) return fail(Errc::bad_argument, "Snapshot exception store does not support snapshot-merge.");
        return std::make_unique<MergeTarget>(args.env, snapshot_.origins(), std::move(config), args);
    }

  private:
    SnapshotType& snapshot_;
};

// The kernel overwrites every error of a store with one text, but for a transient store without a chunk size.
Result<void> SnapshotType::parse_store(const TargetArgs& args, Snapshot::Config& config) const {
    const auto bad = [](std::string why) { return fail(Errc::bad_argument, "Couldn't create exception store: " + std::move(why)); };
    const std::string& kind = args.words[2];
    const char letter = static_cast<char>(std::toupper(static_cast<unsigned char>(kind[0])));
    if (letter == 'P') {
        config.overflow_supported = kind.size() > 1 && std::toupper(static_cast<unsigned char>(kind[1])) == 'O';
        if (kind.size() > 1 && !config.overflow_supported) return bad(fmt::format("store '{}' is not P, PO or N", kind));
    } else if (letter == 'N') {
        config.persistent = false;
    } else {
        return bad(fmt::format("store '{}' is not P, PO or N", kind));
    }
    const auto chunk = parse_u32(args.words[3]);
    if (!chunk) return bad(fmt::format("chunk size '{}' is not a number of sectors", args.words[3]));
    if (*chunk == 0) {
        if (!config.persistent) return fail(Errc::bad_argument, "Chunk size not set: a store without persistence needs one");
        return {};
    }
    if (!std::has_single_bit(*chunk)) return bad(fmt::format("chunk size {} is not a power of two", *chunk));
    if (*chunk > kChunkSectorsMax) return bad(fmt::format("chunk size {} is above {} sectors", *chunk, kChunkSectorsMax));
    // That it is a multiple of the devices' blocks is looked at on the home reactor, to which mapped devices belong.
    config.chunk = {*chunk};
    return {};
}

Result<void> SnapshotType::parse_features(std::span<const std::string> words, Snapshot::Config& config) const {
    if (words.empty()) return {};
    const auto count = parse_u32(words[0]);
    if (!count || *count > 2 || *count > words.size() - 1) {
        return fail(Errc::bad_argument, fmt::format("Invalid number of feature arguments: '{}' with {} words after it; 0 to 2 are known",
                                                    words[0], words.size() - 1));
    }
    for (const std::string& word : words.subspan(1, *count)) {
        if (same_word(word, "discard_zeroes_cow")) {
            config.discard_zeroes_cow = true;
        } else if (same_word(word, "discard_passdown_origin")) {
            config.discard_passdown = true;
        } else {
            return fail(Errc::bad_argument, fmt::format("Unrecognised feature requested: '{}'; known are discard_zeroes_cow and "
                                                        "discard_passdown_origin", word));
        }
    }
    if (config.discard_passdown && !config.discard_zeroes_cow) {
        return fail(Errc::bad_argument, "discard_passdown_origin feature depends on discard_zeroes_cow");
    }
    return {};
}

}  // namespace

void add_types(TargetTypes& types, Env& env) {
    auto origins = std::make_unique<Origins>(env);
    Origins& shared = *origins;
    types.add(std::make_unique<OriginType>(std::move(origins)));
    auto snapshot = std::make_unique<SnapshotType>(shared);
    SnapshotType& parser = *snapshot;
    types.add(std::move(snapshot));
    types.add(std::make_unique<MergeType>(parser));
}

}  // namespace udm::snapshot
