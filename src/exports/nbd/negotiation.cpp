#include "exports/nbd/negotiation.hpp"

#include <algorithm>

#include "base/assert.hpp"

namespace udm::nbd {
namespace {

constexpr std::uint32_t kContextsMax = 16;  // selected at once

bool is(std::uint32_t option, OptionType type) { return option == static_cast<std::uint32_t>(type); }

// Does this query of NBD_OPT_LIST_META_CONTEXT ask for `context`? A namespace alone asks for all of it ("udm:"), and so does
// what ours have in common ("udm:changed/").
bool lists(std::string_view query, std::string_view context) {
    const bool is_prefix = query.ends_with(':') || query.ends_with('/');
    return query == context || (is_prefix && context.starts_with(query));
}

}  // namespace

void Negotiation::greet(Bytes& out) { put_greeting(out); }

Negotiation::Next Negotiation::advance(ByteView in, std::size_t& used, Bytes& out) {
    used = 0;
    if (state_ == State::client_flags) return client_flags(in, used);
    ASSERT(state_ == State::option);
    if (skip_ != 0) {
        used = static_cast<std::size_t>(std::min<std::uint64_t>(skip_, in.size()));
        skip_ -= used;
        if (skip_ != 0) return Next::more;
        return refuse(ReplyType::err_too_big, "the option's data is too long", out);
    }
    message_size_ = kOptionHeaderSize;
    if (in.size() < kOptionHeaderSize) return Next::more;
    const auto header = parse_option_header(in.first(kOptionHeaderSize));
    // Without the magic nobody can tell where the next option starts.
    if (!header) return Next::close;
    if (header->length > bounds_.option_bytes) {
        // A name that long has no answer but the end of the connection.
        if (is(header->type, OptionType::export_name) || !fixed_ || ++options_ > bounds_.options)
            return Next::close;
        option_ = header->type;
        skip_ = header->length;
        const Next next = advance(in.subspan(kOptionHeaderSize), used, out);
        used += kOptionHeaderSize;
        return next;
    }
    message_size_ = kOptionHeaderSize + header->length;
    if (in.size() < message_size_) return Next::more;
    if (++options_ > bounds_.options) return Next::close;
    used = message_size_;
    message_size_ = kOptionHeaderSize;
    return option(*header, in.subspan(kOptionHeaderSize, header->length), out);
}

Negotiation::Next Negotiation::client_flags(ByteView in, std::size_t& used) {
    if (in.size() < kClientFlagsSize) return Next::more;
    be32 bytes;
    std::memcpy(&bytes, in.data(), sizeof bytes);
    const std::uint32_t flags = bytes;
    used = kClientFlagsSize;
    if ((flags & ~std::uint32_t{kFlagFixedNewstyle | kFlagNoZeroes}) != 0) return Next::close;
    fixed_ = (flags & kFlagFixedNewstyle) != 0;
    zeroes_ = (flags & kFlagNoZeroes) == 0;
    state_ = State::option;
    message_size_ = kOptionHeaderSize;
    return Next::reply;  // nothing to send
}

Negotiation::Next Negotiation::option(const OptionHeader& header, ByteView data, Bytes& out) {
    option_ = header.type;
    if (is(option_, OptionType::export_name)) {
        name_ = {reinterpret_cast<const char*>(data.data()), data.size()};
        return is_valid_string(name_) ? Next::look_up : Next::close;
    }
    if (!fixed_) return Next::close;  // such a client does not understand replies
    switch (static_cast<OptionType>(header.type)) {
        case OptionType::export_name:
            UNREACHABLE();
        case OptionType::abort:
            put_option_reply(out, option_, ReplyType::ack);  // whatever data came with it
            return Next::close;
        case OptionType::list:
            if (!data.empty()) return refuse(ReplyType::err_invalid, "NBD_OPT_LIST takes no data", out);
            return Next::list;
        case OptionType::starttls:
            if (!data.empty()) return refuse(ReplyType::err_invalid, "NBD_OPT_STARTTLS takes no data", out);
            return refuse(ReplyType::err_unsup, "this server has no TLS", out);
        case OptionType::info:
        case OptionType::go: {
            const auto request = parse_info_request(data);
            if (!request) return refuse(ReplyType::err_invalid, "the option's data is malformed", out);
            info_ = *request;
            name_ = info_.name;
            return Next::look_up;
        }
        case OptionType::structured_reply:
            if (!data.empty()) {
                return refuse(ReplyType::err_invalid, "NBD_OPT_STRUCTURED_REPLY takes no data", out);
            }
            structured_ = true;
            return acknowledge(out);
        case OptionType::list_meta_context:
        case OptionType::set_meta_context: {
            // Also where it fails, it ends what was chosen before.
            if (is(option_, OptionType::set_meta_context)) contexts_.clear();
            if (!structured_) {
                return refuse(ReplyType::err_invalid, "structured replies must be negotiated first", out);
            }
            auto request = parse_meta_request(data);
            if (!request) return refuse(ReplyType::err_invalid, "the option's data is malformed", out);
            meta_ = std::move(*request);
            for (std::string_view query : meta_.queries) {
                const auto colon = query.find(':');
                if (colon == 0 || colon == std::string_view::npos) {
                    return refuse(ReplyType::err_invalid, "a metadata context is NAMESPACE:NAME", out);
                }
            }
            name_ = meta_.name;
            return Next::look_up;
        }
    }
    return refuse(ReplyType::err_unsup, "this server doesn't know that option", out);
}

Negotiation::Next Negotiation::refuse(ReplyType type, std::string_view text, Bytes& out) {
    put_option_error(out, option_, type, text);
    return Next::reply;
}

Negotiation::Next Negotiation::acknowledge(Bytes& out) {
    put_option_reply(out, option_, ReplyType::ack);
    return Next::reply;
}

Negotiation::Next Negotiation::answer_list(std::span<const ListedExport> exports, Bytes& out) {
    for (const ListedExport& e : exports) put_server_reply(out, option_, e.name, e.description);
    return acknowledge(out);
}

bool Negotiation::lists_contexts() const noexcept { return is(option_, OptionType::list_meta_context); }

std::vector<std::string> Negotiation::contexts_in_question() const {
    if (!is(option_, OptionType::set_meta_context)) return contexts_;
    return {meta_.queries.begin(), meta_.queries.end()};
}

Negotiation::Next Negotiation::answer_export(const ExportFacts* facts, bool stopping, Bytes& out) {
    const bool by_name = is(option_, OptionType::export_name);
    if (!facts || stopping) {
        if (by_name) return Next::close;
        if (stopping) return refuse(ReplyType::err_shutdown, "the export is shutting down", out);
        // The name is said again where it is sure to be text.
        const bool plain =
            name_.size() <= 256 && std::ranges::all_of(name_, [](char c) { return c >= ' ' && c <= '~'; });
        if (!plain) return refuse(ReplyType::err_unknown, "there is no such export", out);
        std::string text = "there is no export called '";
        text.append(name_).append("'");
        return refuse(ReplyType::err_unknown, text, out);
    }
    if (lists_contexts() || is(option_, OptionType::set_meta_context)) {
        return answer_meta(*facts, out);
    }
    if (by_name || is(option_, OptionType::go)) {
        // Contexts count for the export they were chosen for, and only if it still has them.
        if (contexts_of_ != facts->name) contexts_.clear();
        for (const std::string& context : contexts_) {
            if (std::ranges::find(facts->contexts, context) != facts->contexts.end()) continue;
            if (by_name) return Next::close;
            return refuse(ReplyType::err_invalid, "a metadata context that was chosen is gone", out);
        }
    }
    if (!by_name) return answer_info(*facts, out);
    const std::uint16_t df = structured_ ? kSendDf : 0;
    put_export_name_reply(out, facts->size, facts->flags | df, zeroes_);
    state_ = State::done;
    return Next::transmission;
}

Negotiation::Next Negotiation::answer_info(const ExportFacts& facts, Bytes& out) {
    const std::uint16_t df = structured_ ? kSendDf : 0;
    put_info_export(out, option_, facts.size, facts.flags | df);
    if (info_.wants_name) put_info_text(out, option_, InfoType::name, facts.name);
    if (info_.wants_description && !facts.description.empty()) {
        put_info_text(out, option_, InfoType::description, facts.description);
    }
    // Asked for or not: ours differ from the defaults.
    put_info_block_size(out, option_, facts.block_min, facts.block_preferred, facts.block_max);
    acknowledge(out);
    if (is(option_, OptionType::info)) return Next::reply;
    state_ = State::done;
    return Next::transmission;
}

Negotiation::Next Negotiation::answer_meta(const ExportFacts& facts, Bytes& out) {
    if (is(option_, OptionType::list_meta_context)) {
        for (const std::string& context : facts.contexts) {
            const bool wanted =
                meta_.queries.empty() ||
                std::ranges::any_of(meta_.queries, [&](std::string_view q) { return lists(q, context); });
            if (wanted) put_meta_context(out, option_, 0, context);
        }
        return acknowledge(out);
    }
    for (std::string_view query : meta_.queries) {
        const bool there = std::ranges::find(facts.contexts, query) != facts.contexts.end();
        if (!there || std::ranges::find(contexts_, query) != contexts_.end()) continue;
        if (contexts_.size() == kContextsMax) {
            contexts_.clear();
            return refuse(ReplyType::err_too_big, "too many metadata contexts", out);
        }
        contexts_.emplace_back(query);
    }
    contexts_of_ = facts.name;
    for (std::uint32_t id = 0; id < contexts_.size(); ++id) put_meta_context(out, option_, id, contexts_[id]);
    return acknowledge(out);
}

}  // namespace udm::nbd
