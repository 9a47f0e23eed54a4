#include "targets/mirror/type.hpp"

#include <fmt/format.h>

#include "base/parse.hpp"
#include "core/target_args.hpp"
#include "services/dirty_log/make.hpp"
#include "targets/mirror/mirror.hpp"

namespace udm::mirror {
namespace {

constexpr std::string_view kThrottle = "raid1_resync_throttle";    // the kernel's
using Words = std::span<const std::string>;

Result<std::vector<Leg>> parse_legs(const TargetArgs& args, Words words) {
    std::vector<Leg> legs;
    for (std::size_t i = 0; i < words.size(); i += 2) {
        TRY(const Sector start, parse_offset(words[i + 1], "Invalid offset"));
        TRY(auto device, open_device(args, words[i], open_mode(args), "Device lookup failure"));
        Leg leg;
        leg.device = std::move(device);
        leg.start = start;
        legs.push_back(std::move(leg));
    }
    return legs;
}

// Takes what it has read off the words. A table of 2005 has none.
Result<Features> parse_features(Words& words) {
    Features features;
    if (words.empty()) return features;
    const auto count = parse_u32(words[0]);
    if (!count) return fail(Errc::bad_argument, fmt::format("Invalid number of features: '{}'", words[0]));
    words = words.subspan(1);
    if (*count > words.size()) {
        return fail(Errc::bad_argument, fmt::format("Not enough arguments to support feature count: {} are announced, {} words follow", *count, words.size()));
    }
    for (const std::string& word : words.first(*count)) {
        if (word == "handle_errors") {
            features.handle_errors = true;
        } else if (word == "keep_log") {
            features.keep_log = true;
        } else {
            return fail(Errc::bad_argument, fmt::format("Unrecognised feature requested: '{}' is neither handle_errors nor keep_log", word));
        }
    }
    words = words.subspan(*count);
    if (features.keep_log && !features.handle_errors) {
        return fail(Errc::bad_argument, "keep_log feature requires the handle_errors feature");
    }
    return features;
}

class MirrorType final : public TargetType {
  public:
    std::string_view name() const override { return "mirror"; }
    std::array<unsigned, 3> version() const override { return {1, 14, 0}; }
    Result<std::unique_ptr<Target>> make(const TargetArgs& args) override {
        Words words = args.words;
        if (words.size() < 2) {
            return fail(Errc::bad_argument, "Insufficient mirror log arguments: mirror takes LOG_TYPE #ARGS ARGS... #LEGS (DEVICE OFFSET)... [#FEATURES FEATURES...]");
        }
        const auto log_words = parse_u32(words[1]);
        if (!log_words) return fail(Errc::bad_argument, fmt::format("Invalid mirror log argument count: '{}'", words[1]));
        if (*log_words > words.size() - 2) {    // compared so that no count wraps (defect M42)
            return fail(Errc::bad_argument, fmt::format("Insufficient mirror log arguments: {} are announced, {} words follow", *log_words, words.size() - 2));
        }
        Mirror::Config config;
        TRY(config.log, dirty_log::make(args, words[0], words.subspan(2, *log_words)));
        words = words.subspan(2 + std::size_t{*log_words});

        const auto legs = words.empty() ? std::optional<std::uint32_t>{} : parse_u32(words[0]);
        if (!legs || *legs < 2 || *legs > kLegsMax) {
            return fail(Errc::bad_argument, fmt::format("Invalid number of mirrors: '{}' is none of 2 .. {}", words.empty() ? "" : words[0], kLegsMax));
        }
        words = words.subspan(1);
        if (words.size() < std::size_t{2} * *legs) {
            return fail(Errc::bad_argument, fmt::format("Too few mirror arguments: {} words for {} legs, {} were to come", words.size(), *legs, 2 * *legs));
        }
        TRY(config.legs, parse_legs(args, words.first(std::size_t{2} * *legs)));
        words = words.subspan(std::size_t{2} * *legs);
        TRY(config.features, parse_features(words));
        if (!words.empty()) return fail(Errc::bad_argument, fmt::format("Too many mirror arguments: nothing is to follow the features, not '{}'", words[0]));
        return std::make_unique<Mirror>(args, std::move(config), successions_, throttle_);
    }
    std::vector<Parameter> parameters() const override {
        return {{kThrottle, throttle_, 100, 1, 100, "percent of the time in which mirrors may be resynchronised"}};
    }
    void set_parameter(std::string_view name, std::uint64_t value) noexcept override {
        if (name == kThrottle) throttle_ = value;
    }

  private:
    Successions successions_;
    std::uint64_t throttle_ = 100;
};

}  // namespace

std::unique_ptr<TargetType> type() { return std::make_unique<MirrorType>(); }

}  // namespace udm::mirror
