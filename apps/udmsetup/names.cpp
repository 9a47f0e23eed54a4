#include "apps/udmsetup/names.hpp"

#include <fmt/format.h>

#include <cctype>

namespace udm::udmsetup {
namespace {

bool stands_for_itself(char c) {
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
           std::string_view{"#+-.:=@_"}.find(c) != std::string_view::npos;
}

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

}  // namespace

std::string mangled(std::string_view plain) {
    std::string text;
    for (char c : plain) {
        if (stands_for_itself(c)) {
            text += c;
        } else {
            text += fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
        }
    }
    return text;
}

std::optional<std::string> plain_name(std::string_view given, Mangling mode) {
    if (mode != Mangling::automatic || given.find("\\x") == std::string_view::npos) return std::string{given};
    std::string plain;
    for (std::size_t i = 0; i < given.size(); ++i) {
        if (stands_for_itself(given[i])) {
            plain += given[i];
            continue;
        }
        if (given[i] != '\\' || i + 3 >= given.size() || given[i + 1] != 'x') return std::nullopt;
        const int high = hex_digit(given[i + 2]), low = hex_digit(given[i + 3]);
        if (high < 0 || low < 0) return std::nullopt;
        plain += static_cast<char>(high * 16 + low);
        i += 3;
    }
    return plain;
}

NameParts split_name(std::string_view name, std::string_view subsystem) {
    NameParts parts;
    if (subsystem != "LVM") return parts;
    std::string* const fields[] = {&parts.vg, &parts.lv, &parts.layer};
    std::size_t field = 0;
    for (std::size_t i = 0; i < name.size(); ++i) {
        if (name[i] == '-' && i + 1 < name.size()) {
            if (name[i + 1] == '-') {
                ++i;  // a doubled hyphen is one within a part
            } else {
                if (++field == std::size(fields)) break;
                continue;
            }
        }
        *fields[field] += name[i];
    }
    return parts;
}

std::string subsystem_of(std::string_view uuid) {
    const auto hyphen = uuid.find('-');
    return hyphen == std::string_view::npos ? std::string{} : std::string{uuid.substr(0, hyphen)};
}

}  // namespace udm::udmsetup
