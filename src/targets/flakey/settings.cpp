#include "targets/flakey/settings.hpp"

#include <fmt/format.h>
#include <strings.h>

#include <limits>

#include "base/parse.hpp"

namespace udm {
namespace {

bool same_word(const std::string& a, const char* b) { return ::strcasecmp(a.c_str(), b) == 0; }

Result<FlakeySettings::Corrupt> parse_corrupt(std::span<const std::string> words) {
    if (words.empty()) {
        return fail(Errc::bad_argument, "Feature corrupt_bio_byte requires parameters: NTH_BYTE, r or w, VALUE, FLAGS");
    }
    const auto word = [&words](std::size_t i) { return i < words.size() ? words[i] : std::string{}; };
    const auto nth = parse_u32(word(0));
    if (!nth || *nth == 0) {
        return fail(Errc::bad_argument, fmt::format("Invalid corrupt bio byte: '{}'; the first byte is 1", word(0)));
    }
    const bool writes = same_word(word(1), "w");
    if (!writes && !same_word(word(1), "r")) {
        return fail(Errc::bad_argument, fmt::format("Invalid corrupt bio direction (r or w): '{}'", word(1)));
    }
    const auto value = parse_u32(word(2));
    if (!value || *value > std::numeric_limits<std::uint8_t>::max()) {
        return fail(Errc::bad_argument, fmt::format("Invalid corrupt value to write into bio byte (0-255): '{}'", word(2)));
    }
    const auto flags = parse_u32(word(3));
    if (!flags) return fail(Errc::bad_argument, fmt::format("Invalid corrupt bio flags mask: '{}'", word(3)));
    return FlakeySettings::Corrupt{*nth, writes, static_cast<std::uint8_t>(*value), *flags};
}

Result<void> parse_features(std::span<const std::string> words, FlakeySettings& settings) {
    while (!words.empty()) {
        const std::string& word = words.front();
        words = words.subspan(1);
        if (same_word(word, "drop_writes")) {
            if (settings.drop_writes) return fail(Errc::bad_argument, "Feature drop_writes duplicated");
            if (settings.error_writes) {
                return fail(Errc::bad_argument, "Feature drop_writes conflicts with feature error_writes");
            }
            settings.drop_writes = true;
        } else if (same_word(word, "error_writes")) {
            if (settings.error_writes) return fail(Errc::bad_argument, "Feature error_writes duplicated");
            if (settings.drop_writes) {
                return fail(Errc::bad_argument, "Feature error_writes conflicts with feature drop_writes");
            }
            settings.error_writes = true;
        } else if (same_word(word, "corrupt_bio_byte")) {
            if (settings.corrupt) return fail(Errc::bad_argument, "Feature corrupt_bio_byte duplicated");
            TRY(settings.corrupt, parse_corrupt(words));
            words = words.subspan(4);
        } else {
            return fail(Errc::bad_argument,
                        fmt::format("Unrecognised flakey feature requested: '{}' is none of drop_writes, error_writes and "
                                    "corrupt_bio_byte",
                                    word));
        }
    }
    if (settings.corrupt && settings.corrupt->writes && settings.drop_writes) {
        return fail(Errc::bad_argument, "drop_writes is incompatible with corrupt_bio_byte with the WRITE flag set");
    }
    if (settings.corrupt && settings.corrupt->writes && settings.error_writes) {
        return fail(Errc::bad_argument, "error_writes is incompatible with corrupt_bio_byte with the WRITE flag set");
    }
    return {};
}

}  // namespace

Result<FlakeySettings> FlakeySettings::parse(std::span<const std::string> words) {
    FlakeySettings settings;
    // Linux says "up" of both.
    for (std::size_t i = 0; i < 2; ++i) {
        const auto seconds = parse_u32(words[i]);
        if (!seconds) {
            return fail(Errc::bad_argument, fmt::format("Invalid up interval: '{}', of the {} interval, is no number of seconds",
                                                        words[i], i == 0 ? "up" : "down"));
        }
        (i == 0 ? settings.up_s : settings.down_s) = *seconds;
    }
    if (settings.period_s() == 0) return fail(Errc::bad_argument, "Total (up + down) interval is zero");
    if (words.size() == 2) return settings;
    // What comes after the features is ignored, as Linux does.
    const auto count = parse_u32(words[2]);
    if (!count || *count > words.size() - 3) {
        return fail(Errc::bad_argument,
                    fmt::format("Invalid number of feature args: '{}', and {} words follow", words[2], words.size() - 3));
    }
    CHECK(parse_features(words.subspan(3, *count), settings));
    return settings;
}

std::string FlakeySettings::words() const {
    std::string features;
    unsigned count = 0;
    if (drop_writes) {
        features += "drop_writes ";
        count += 1;
    }
    if (error_writes) {
        features += "error_writes ";
        count += 1;
    }
    if (corrupt) {
        features += fmt::format("corrupt_bio_byte {} {} {} {} ", corrupt->nth, corrupt->writes ? 'w' : 'r',
                                unsigned{corrupt->value}, corrupt->flags);
        count += 5;
    }
    return fmt::format("{} {} {} {}", up_s, down_s, count, features);
}

}  // namespace udm
