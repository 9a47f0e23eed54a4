#include "core/target_args.hpp"

#include <fmt/format.h>

#include "base/parse.hpp"
#include "core/table.hpp"

namespace udm {

Result<std::unique_ptr<OpenDevice>> open_device(const TargetArgs& args, std::string_view words, OpenMode mode,
                                                std::string_view text) {
    auto device = args.opener.open(words, mode);
    if (!device) return fail(device.error().code, fmt::format("{}: {}", text, device.error().message));
    return device;
}

Result<Sector> parse_offset(std::string_view word, std::string_view text) {
    const auto sector = parse_u64(word);
    if (!sector || *sector > Table::kLengthMax.v) {
        return fail(Errc::bad_argument, fmt::format("{}: '{}' is no number of sectors", text, word));
    }
    return Sector{*sector};
}

std::string device_words(const OpenDevice& device) { return quote_word(device.words()); }

}  // namespace udm
