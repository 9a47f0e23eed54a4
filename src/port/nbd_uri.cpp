#include "port/nbd_uri.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "base/parse.hpp"

namespace udm {
namespace {

constexpr std::string_view kForms = "use nbd://HOST:PORT/NAME or nbd+unix:///NAME?socket=PATH";

int hex_digit(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    if (c >= 'A' && c <= 'F') return c - 'A' + 10;
    return -1;
}

Result<std::string> decode(std::string_view text, std::string_view uri) {
    std::string plain;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '%') {
            plain += text[i];
            continue;
        }
        const int high = i + 2 < text.size() ? hex_digit(text[i + 1]) : -1;
        const int low = i + 2 < text.size() ? hex_digit(text[i + 2]) : -1;
        if (high < 0 || low < 0)
            return fail(Errc::bad_argument, fmt::format("{}: a % is followed by two hex digits", uri));
        plain += static_cast<char>(high << 4 | low);
        i += 2;
    }
    if (plain.find('\0') != std::string::npos)
        return fail(Errc::bad_argument, fmt::format("{}: %00 cannot be part of it", uri));
    return plain;
}

std::string lower(std::string_view text) {
    std::string low{text};
    std::transform(low.begin(), low.end(), low.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
    return low;
}

std::string encode(std::string_view plain, std::string_view also) {
    std::string text;
    for (const char c : plain) {
        const bool clear = std::isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '.' || c == '_' ||
                           c == '~' || also.find(c) != std::string_view::npos;
        if (clear) {
            text += c;
        } else {
            text += fmt::format("%{:02X}", static_cast<unsigned char>(c));
        }
    }
    return text;
}

// "host", "host:port", "[v6]:port", ":port".
Result<void> parse_authority(std::string_view text, std::string_view uri, Address& address) {
    std::string_view port;
    if (text.starts_with('[')) {
        const std::size_t end = text.find(']');
        if (end == std::string_view::npos)
            return fail(Errc::bad_argument, fmt::format("{}: the host lacks its ]", uri));
        address.host = lower(text.substr(1, end - 1));
        text.remove_prefix(end + 1);
        if (!text.empty() && text[0] != ':')
            return fail(Errc::bad_argument, fmt::format("{}: a : and the port follow the ]", uri));
        port = text.empty() ? text : text.substr(1);
    } else {
        const std::size_t colon = std::min(text.find(':'), text.size());
        if (text.find(':', colon + 1) != std::string_view::npos) {
            return fail(Errc::bad_argument, fmt::format("{}: write an IPv6 host in brackets, [::1]", uri));
        }
        TRY(address.host, decode(text.substr(0, colon), uri));
        address.host = lower(address.host);
        if (address.host == "localhost") address.host.clear();  // no host is loopback
        port = colon == text.size() ? std::string_view{} : text.substr(colon + 1);
    }
    address.port = kNbdPort;
    if (!port.empty()) {
        const auto number = parse_u32(port);
        if (!number || *number > 65535)
            return fail(Errc::bad_argument, fmt::format("{}: {} is no port (0 to 65535)", uri, port));
        address.port = static_cast<std::uint16_t>(*number);
    }
    return {};
}

}  // namespace

std::string percent_encode(std::string_view plain) { return encode(plain, {}); }
Result<std::string> percent_decode(std::string_view text) { return decode(text, text); }

bool is_nbd_uri(std::string_view words) {
    const std::size_t colon = words.find(':');
    if (colon == std::string_view::npos || !words.substr(colon).starts_with("://")) return false;
    const std::string scheme = lower(words.substr(0, colon));
    return scheme == "nbd" || scheme == "nbds" || scheme.starts_with("nbd+") || scheme.starts_with("nbds+");
}

Result<NbdUri> parse_nbd_uri(std::string_view uri) {
    NbdUri parsed;
    const std::size_t colon = uri.find("://");
    if (colon == std::string_view::npos)
        return fail(Errc::bad_argument, fmt::format("{} is no URI: {}", uri, kForms));
    const std::string scheme = lower(uri.substr(0, colon));
    std::string_view rest = uri.substr(colon + 3);
    if (rest.find('#') != std::string_view::npos)
        return fail(Errc::bad_argument, fmt::format("{}: write # as %23", uri));
    std::string_view query;
    if (const std::size_t mark = rest.find('?'); mark != std::string_view::npos) {
        query = rest.substr(mark + 1);
        rest = rest.substr(0, mark);
    }
    const std::size_t slash = std::min(rest.find('/'), rest.size());
    const std::string_view authority = rest.substr(0, slash);
    TRY(parsed.name, decode(slash == rest.size() ? std::string_view{} : rest.substr(slash + 1), uri));
    if (scheme == "nbd") {
        parsed.address.kind = Address::Kind::tcp;
        if (!query.empty())
            return fail(Errc::bad_argument, fmt::format("{}: nbd:// takes no parameters; {}", uri, kForms));
        CHECK(parse_authority(authority, uri, parsed.address));
        return parsed;
    }
    if (scheme.starts_with("nbds"))
        return fail(Errc::unsupported, fmt::format("{}: NBD over TLS is not supported; {}", uri, kForms));
    if (scheme != "nbd+unix")
        return fail(Errc::bad_argument, fmt::format("{}: this is no NBD URI; {}", uri, kForms));
    if (!authority.empty())
        return fail(Errc::bad_argument,
                    fmt::format("{}: nbd+unix has three slashes and no host; {}", uri, kForms));
    constexpr std::string_view kSocket = "socket=";
    if (!query.starts_with(kSocket))
        return fail(Errc::bad_argument, fmt::format("{}: ?socket=PATH is missing; {}", uri, kForms));
    TRY(parsed.address.path, decode(query.substr(kSocket.size()), uri));
    if (!parsed.address.path.starts_with('/')) {
        return fail(Errc::bad_argument, fmt::format("{}: the socket's path must be absolute", uri));
    }
    return parsed;
}

std::string to_text(const NbdUri& uri) {
    const std::string name = encode(uri.name, "/@:");
    if (uri.address.kind == Address::Kind::unix_socket) {
        return fmt::format("nbd+unix:///{}?socket={}", name, encode(uri.address.path, "/"));
    }
    std::string host = uri.address.host.empty() ? "localhost" : uri.address.host;
    if (host.find(':') != std::string::npos) host = '[' + host + ']';
    if (uri.address.port == kNbdPort) return fmt::format("nbd://{}/{}", host, name);
    return fmt::format("nbd://{}:{}/{}", host, uri.address.port, name);
}

}  // namespace udm
