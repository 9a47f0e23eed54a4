// Names and uuids as dmsetup writes them: characters that udev doesn't take as \xNN ("mangled"). The daemon
// keeps plain names; here what is given mangled is taken for what it stands for.
#pragma once

#include <cctype>
#include <optional>
#include <string>
#include <string_view>

#include "apps/udmsetup/options.hpp"

namespace udm::udmsetup {

// "a b" is "a\x20b"; letters, digits and #+-.:=@_ stand for themselves.
std::string mangled(std::string_view plain);
// What a name on the command line means. Mode auto: \xNN is the character NN, a name that mixes \xNN with
// characters that would have to be mangled is refused (nothing). Other modes: as given.
std::optional<std::string> plain_name(std::string_view given, Mangling mode);

// A device name of LVM taken apart: "vg--a-lv--b-x" is vg-a, lv-b, x. All empty for other subsystems.
struct NameParts {
    std::string vg, lv, layer;
};
NameParts split_name(std::string_view name, std::string_view subsystem);
// Of a uuid like LVM-…, the part before the first hyphen; empty if there is none.
std::string subsystem_of(std::string_view uuid);

inline bool is_space(char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; }

}  // namespace udm::udmsetup
