#include "ctl/params.hpp"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "ctl/rpc.hpp"

namespace udm::ctl {
namespace {

RpcError wrong(const char* name, std::string_view what) {
    return {rpc_code::kBadParams, fmt::format("parameter {} is {}", name, what)};
}

std::string text_of(const Json& value, const char* name) {
    if (!value.is_string()) throw wrong(name, "a string");
    std::string text = value.get<std::string>();
    if (text.find('\0') != std::string::npos) throw wrong(name, "a string without NUL");
    return text;
}

std::uint64_t number_of(const Json& value, const char* name, std::uint64_t max) {
    if (!value.is_number_unsigned() || value.get<std::uint64_t>() > max) {
        throw wrong(name, max == ~std::uint64_t{0} ? std::string{"a whole number, 0 or more"}
                                                   : fmt::format("a whole number from 0 to {}", max));
    }
    return value.get<std::uint64_t>();
}

DeviceKey key_of(const Json& value, const char* name) {
    constexpr std::string_view kKeyForms =
        R"(a device's name, or exactly one of {"name":…}, {"uuid":…}, {"major":…,"minor":…})";
    DeviceKey key;
    if (value.is_string()) {
        key.name = text_of(value, name);
        return key;
    }
    if (!value.is_object()) throw wrong(name, kKeyForms);
    unsigned ways = 0;
    bool major = false;
    for (const auto& [word, member] : value.items()) {
        if (word == "name") {
            key.name = text_of(member, name);
            ++ways;
        } else if (word == "uuid") {
            key.uuid = text_of(member, name);
            ++ways;
        } else if (word == "minor") {
            key.minor = static_cast<std::uint32_t>(number_of(member, name, 0xFFFFFFFF));
            ++ways;
        } else if (word == "major") {
            key.major = static_cast<std::uint32_t>(number_of(member, name, 0xFFFFFFFF));
            major = true;
        } else {
            throw wrong(name, kKeyForms);
        }
    }
    if (ways != 1 || major != key.minor.has_value()) throw wrong(name, kKeyForms);
    return key;
}

}  // namespace

const Json* Params::any(const char* name) {
    known_.insert(name);
    const auto at = object_.find(name);
    return at == object_.end() ? nullptr : &*at;
}

const Json* Params::find(const char* name) {
    const Json* value = any(name);
    return value && !value->is_null() ? value : nullptr;
}

const Json& Params::required(const char* name) {
    if (const Json* value = find(name)) return *value;
    throw RpcError{rpc_code::kBadParams, fmt::format("parameter {} is missing", name)};
}

std::string Params::text(const char* name) { return text_of(required(name), name); }
std::optional<std::string> Params::text_if(const char* name) {
    const Json* value = find(name);
    return value ? std::optional{text_of(*value, name)} : std::nullopt;
}
std::uint64_t Params::number(const char* name) { return number_of(required(name), name, ~std::uint64_t{0}); }
std::optional<std::uint64_t> Params::number_if(const char* name, std::uint64_t max) {
    const Json* value = find(name);
    return value ? std::optional{number_of(*value, name, max)} : std::nullopt;
}
bool Params::flag(const char* name) {
    const Json* value = find(name);
    if (value && !value->is_boolean()) throw wrong(name, "true or false");
    return value && value->get<bool>();
}
DeviceKey Params::device(const char* name) { return key_of(required(name), name); }
std::optional<DeviceKey> Params::device_if(const char* name) {
    const Json* value = find(name);
    return value ? std::optional{key_of(*value, name)} : std::nullopt;
}
std::vector<TableLine> Params::table(const char* name) { return lines_of_json(required(name)); }
std::optional<std::vector<TableLine>> Params::table_if(const char* name) {
    const Json* value = find(name);
    return value ? std::optional{lines_of_json(*value)} : std::nullopt;
}

void Params::end() {
    for (const auto& [name, value] : object_.items()) {
        if (known_.contains(name)) continue;
        throw RpcError{rpc_code::kBadParams,
                       known_.empty() ? fmt::format("there is no parameter {}: this method has none", name)
                                      : fmt::format("there is no parameter {}; there are {}", name,
                                                    fmt::join(known_, ", "))};
    }
}

}  // namespace udm::ctl
