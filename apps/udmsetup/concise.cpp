#include "apps/udmsetup/concise.hpp"

#include <fmt/format.h>

#include "apps/udmsetup/names.hpp"
#include "base/parse.hpp"
#include "core/target_type.hpp"
#include "ctl/client_table.hpp"

namespace udm::udmsetup {
namespace {

std::string_view trimmed(std::string_view text) {
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    while (!text.empty() && is_space(text.back())) text.remove_suffix(1);
    return text;
}

// Splits at `separator` outside of quotes; quotes stay.
std::vector<std::string_view> split_unquoted(std::string_view text, char separator) {
    std::vector<std::string_view> parts;
    std::size_t start = 0;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\') {
            ++i;
        } else if (text[i] == separator) {
            parts.push_back(text.substr(start, i - start));
            start = i + 1;
        }
    }
    parts.push_back(text.substr(start));
    return parts;
}

std::string unquoted(std::string_view text) {
    std::string plain;
    while (!text.empty() && is_space(text.front())) text.remove_prefix(1);
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 1 < text.size()) ++i;
        plain += text[i];
    }
    return plain;
}

ConciseDevice concise_device(std::string_view entry) {
    const auto fields = split_unquoted(entry, ',');
    const auto said = [&] {
        const auto field = [&](std::size_t i) {
            return i < fields.size() ? unquoted(fields[i]) : std::string{"(null)"};
        };
        return fmt::format("Parsed {} fields: name: {} uuid: {} minor: {} flags: {} table: {}",
                           std::min<std::size_t>(fields.size(), 5), field(0), field(1), field(2), field(3),
                           field(4));
    };
    if (fields.size() < 5)
        throw BadTable{"Five comma-separated fields are required for each device\n" + said()};
    ConciseDevice device;
    device.name = unquoted(fields[0]);
    device.uuid = unquoted(fields[1]);
    if (const std::string minor = unquoted(fields[2]); !minor.empty()) {
        device.minor = parse_u32(trimmed(minor));
        if (!device.minor)
            throw BadTable{fmt::format("Invalid minor number '{}' must be a number or empty.", minor)};
    }
    const std::string flags = unquoted(fields[3]);
    if (flags == "ro") {
        device.read_only = true;
    } else if (!flags.empty() && flags != "rw") {
        throw BadTable{fmt::format("Invalid flags parameter '{}' must be 'ro' or 'rw' or empty.", flags)};
    }
    for (std::size_t i = 4; i < fields.size(); ++i) {
        if (i > 4) device.table += '\n';
        device.table += unquoted(fields[i]);
    }
    if (trimmed(device.table).empty()) {
        throw BadTable{"Incomplete entry: five comma-separated fields are required for each device\n" +
                       said()};
    }
    return device;
}

}  // namespace

std::vector<ConciseDevice> parse_concise(std::string_view text) {
    std::vector<ConciseDevice> devices;
    auto entries = split_unquoted(text, ';');
    if (trimmed(entries.back()).empty()) entries.pop_back();  // nothing at all, or a semicolon at the end
    for (std::string_view entry : entries) devices.push_back(concise_device(entry));
    return devices;
}

std::string quote_concise(std::string_view text) {
    std::string quoted;
    for (char c : text) {
        if (c == ',' || c == ';' || c == '\\') quoted += '\\';
        quoted += c;
    }
    return quoted;
}

}  // namespace udm::udmsetup
