#include "exports/nbd/codec.hpp"

namespace udm::nbd {
namespace {

// Takes integers and strings off the front of option data; every step checks the length.
class Reader {
  public:
    explicit Reader(ByteView data) noexcept : data_{data} {}
    template <class T>
    bool integer(T& to) noexcept {
        Stored<T, true> bytes;
        if (data_.size() < sizeof bytes) return false;
        std::memcpy(&bytes, data_.data(), sizeof bytes);
        data_ = data_.subspan(sizeof bytes);
        to = bytes;
        return true;
    }
    bool text(std::size_t length, std::string_view& to) noexcept {
        if (data_.size() < length) return false;
        to = {reinterpret_cast<const char*>(data_.data()), length};
        data_ = data_.subspan(length);
        return true;
    }
    std::size_t left() const noexcept { return data_.size(); }

  private:
    ByteView data_;
};

template <class T>
void put(Bytes& out, T value) {
    const Stored<T, true> bytes{value};
    const auto* from = reinterpret_cast<const std::byte*>(&bytes);
    out.insert(out.end(), from, from + sizeof bytes);
}

void put_text(Bytes& out, std::string_view text) {
    const auto* from = reinterpret_cast<const std::byte*>(text.data());
    out.insert(out.end(), from, from + text.size());
}

void put_reply_header(Bytes& out, std::uint32_t option, ReplyType type, std::size_t length) {
    put<std::uint64_t>(out, kOptionReplyMagic);
    put<std::uint32_t>(out, option);
    put<std::uint32_t>(out, static_cast<std::uint32_t>(type));
    put<std::uint32_t>(out, static_cast<std::uint32_t>(length));
}

void put_info_header(Bytes& out, std::uint32_t option, InfoType type, std::size_t payload) {
    put_reply_header(out, option, ReplyType::info, 2 + payload);
    put<std::uint16_t>(out, static_cast<std::uint16_t>(type));
}

}  // namespace

std::optional<OptionHeader> parse_option_header(ByteView from) noexcept {
    Reader reader{from};
    std::uint64_t magic = 0;
    OptionHeader header{};
    if (!reader.integer(magic) || !reader.integer(header.type) || !reader.integer(header.length)) return {};
    if (magic != kOptionMagic) return {};
    return header;
}

std::optional<InfoRequest> parse_info_request(ByteView data) noexcept {
    Reader reader{data};
    InfoRequest request;
    std::uint32_t name_length = 0;
    std::uint16_t count = 0;
    if (!reader.integer(name_length) || !reader.text(name_length, request.name) || !reader.integer(count))
        return {};
    if (reader.left() != std::size_t{2} * count) return {};
    for (unsigned i = 0; i < count; ++i) {
        std::uint16_t type = 0;
        if (!reader.integer(type)) return {};
        // Those we don't know are ignored, as the text wants.
        if (type == static_cast<std::uint16_t>(InfoType::name)) request.wants_name = true;
        if (type == static_cast<std::uint16_t>(InfoType::description)) request.wants_description = true;
        if (type == static_cast<std::uint16_t>(InfoType::block_size)) request.wants_block_size = true;
    }
    if (!is_valid_string(request.name)) return {};
    return request;
}

std::optional<MetaRequest> parse_meta_request(ByteView data) {
    Reader reader{data};
    MetaRequest request;
    std::uint32_t name_length = 0;
    std::uint32_t count = 0;
    if (!reader.integer(name_length) || !reader.text(name_length, request.name) || !reader.integer(count))
        return {};
    if (count > reader.left() / 4) return {};  // before anything is reserved for them
    request.queries.reserve(count);
    for (std::uint32_t i = 0; i < count; ++i) {
        std::uint32_t length = 0;
        std::string_view query;
        if (!reader.integer(length) || !reader.text(length, query) || !is_valid_string(query)) return {};
        request.queries.push_back(query);
    }
    if (reader.left() != 0 || !is_valid_string(request.name)) return {};
    return request;
}

bool is_valid_string(std::string_view text) noexcept {
    return text.size() <= kStringMax && text.find('\0') == std::string_view::npos;
}

void put_greeting(Bytes& out) {
    put<std::uint64_t>(out, kInitMagic);
    put<std::uint64_t>(out, kOptionMagic);
    put<std::uint16_t>(out, kFlagFixedNewstyle | kFlagNoZeroes);
}

void put_export_name_reply(Bytes& out, std::uint64_t size, std::uint16_t flags, bool zeroes) {
    put<std::uint64_t>(out, size);
    put<std::uint16_t>(out, flags);
    if (zeroes) out.insert(out.end(), 124, std::byte{0});
}

void put_option_reply(Bytes& out, std::uint32_t option, ReplyType type, ByteView data) {
    put_reply_header(out, option, type, data.size());
    out.insert(out.end(), data.begin(), data.end());
}

void put_option_error(Bytes& out, std::uint32_t option, ReplyType type, std::string_view text) {
    text = text.substr(0, kStringMax);
    put_reply_header(out, option, type, text.size());
    put_text(out, text);
}

void put_server_reply(Bytes& out, std::uint32_t option, std::string_view name, std::string_view description) {
    put_reply_header(out, option, ReplyType::server, 4 + name.size() + description.size());
    put<std::uint32_t>(out, static_cast<std::uint32_t>(name.size()));
    put_text(out, name);
    put_text(out, description);
}

void put_info_export(Bytes& out, std::uint32_t option, std::uint64_t size, std::uint16_t flags) {
    put_info_header(out, option, InfoType::export_, 10);
    put<std::uint64_t>(out, size);
    put<std::uint16_t>(out, flags);
}

void put_info_text(Bytes& out, std::uint32_t option, InfoType type, std::string_view text) {
    put_info_header(out, option, type, text.size());
    put_text(out, text);
}

void put_info_block_size(Bytes& out, std::uint32_t option, std::uint32_t min, std::uint32_t preferred,
                         std::uint32_t max) {
    put_info_header(out, option, InfoType::block_size, 12);
    put<std::uint32_t>(out, min);
    put<std::uint32_t>(out, preferred);
    put<std::uint32_t>(out, max);
}

void put_meta_context(Bytes& out, std::uint32_t option, std::uint32_t id, std::string_view name) {
    put_reply_header(out, option, ReplyType::meta_context, 4 + name.size());
    put<std::uint32_t>(out, id);
    put_text(out, name);
}

WireError to_wire(IoStatus status, bool fast_zero) noexcept {
    switch (status) {
        case IoStatus::ok:
            return WireError::none;
        case IoStatus::no_space:
            return WireError::nospc;
        case IoStatus::unsupported:
            return fast_zero ? WireError::notsup : WireError::inval;
        case IoStatus::invalid:
            return WireError::inval;
        case IoStatus::read_only:
            return WireError::perm;
        case IoStatus::io_error:
        case IoStatus::timed_out:
        case IoStatus::removed:
        case IoStatus::corrupt:
        case IoStatus::requeue:
            return WireError::io;
    }
    return WireError::io;
}

std::string_view describe(WireError error) noexcept {
    switch (error) {
        case WireError::none:
            return "";
        case WireError::perm:
            return "the export is read-only";
        case WireError::io:
            return "the device reported an I/O error";
        case WireError::nomem:
            return "out of memory";
        case WireError::inval:
            return "invalid request: command, flags, alignment or range";
        case WireError::nospc:
            return "no space, or beyond the end of the export";
        case WireError::overflow:
            return "too long for one chunk";
        case WireError::notsup:
            return "not faster than writing";
        case WireError::shutdown:
            return "the export is shutting down";
    }
    return "";
}

}  // namespace udm::nbd
