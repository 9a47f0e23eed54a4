// What an NBD client puts on the wire and what it reads from it, written apart from the server's own codec.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace udm::test {

template <class T>
std::string big(T value) {
    std::string bytes;
    for (int shift = static_cast<int>(sizeof(T)) * 8 - 8; shift >= 0; shift -= 8) {
        bytes.push_back(static_cast<char>((static_cast<std::uint64_t>(value) >> shift) & 0xff));
    }
    return bytes;
}
inline std::string u16(std::uint64_t v) { return big(static_cast<std::uint16_t>(v)); }
inline std::string u32(std::uint64_t v) { return big(static_cast<std::uint32_t>(v)); }
inline std::string u64(std::uint64_t v) { return big(v); }

// --- handshake
// --------------------------------------------------------------------------------------------------

inline std::string client_flags(std::uint32_t flags = 3) { return u32(flags); }
inline std::string option(std::uint32_t type, std::string_view data = {}) {
    return "IHAVEOPT" + u32(type) + u32(data.size()) + std::string{data};
}
inline std::string info_data(std::string_view name, const std::vector<std::uint16_t>& infos = {}) {
    std::string data = u32(name.size()) + std::string{name} + u16(infos.size());
    for (auto info : infos) data += u16(info);
    return data;
}
inline std::string meta_data(std::string_view name, const std::vector<std::string>& queries) {
    std::string data = u32(name.size()) + std::string{name} + u32(queries.size());
    for (const auto& query : queries) data += u32(query.size()) + query;
    return data;
}
inline std::string export_name(std::string_view name) { return option(1, name); }
inline std::string go(std::string_view name, const std::vector<std::uint16_t>& infos = {3}) {
    return option(7, info_data(name, infos));
}
inline std::string structured() { return option(8); }
inline std::string set_meta(std::string_view name, const std::vector<std::string>& queries) {
    return option(10, meta_data(name, queries));
}

// --- transmission
// -----------------------------------------------------------------------------------------------

enum : std::uint16_t { kRead, kWrite, kDisc, kFlush, kTrim, kCache, kWriteZeroes, kBlockStatus };
enum : std::uint16_t { kFua = 1, kNoHole = 2, kDf = 4, kReqOne = 8, kFastZero = 16 };

inline std::string request(std::uint16_t command, std::uint64_t cookie, std::uint64_t offset,
                           std::uint32_t length, std::uint16_t flags = 0) {
    return u32(0x25609513) + u16(flags) + u16(command) + u64(cookie) + u64(offset) + u32(length);
}
inline std::string write(std::uint64_t cookie, std::uint64_t offset, std::string_view data,
                         std::uint16_t flags = 0) {
    return request(kWrite, cookie, offset, static_cast<std::uint32_t>(data.size()), flags) +
           std::string{data};
}

// --- reading
// ----------------------------------------------------------------------------------------------------

// Throws where bytes are missing: a test that reads too much fails with the reason.
class WireReader {
  public:
    explicit WireReader(std::string bytes) : bytes_{std::move(bytes)} {}
    std::uint64_t number(std::size_t width) {
        std::uint64_t v = 0;
        for (char c : text(width)) v = v << 8 | static_cast<unsigned char>(c);
        return v;
    }
    std::uint16_t u16() { return static_cast<std::uint16_t>(number(2)); }
    std::uint32_t u32() { return static_cast<std::uint32_t>(number(4)); }
    std::uint64_t u64() { return number(8); }
    std::string text(std::size_t n) {
        if (left() < n) throw std::runtime_error("the server sent too little");
        std::string t = bytes_.substr(at_, n);
        at_ += n;
        return t;
    }
    std::size_t left() const { return bytes_.size() - at_; }
    bool empty() const { return left() == 0; }

  private:
    std::string bytes_;
    std::size_t at_ = 0;
};

struct OptionReply {
    std::uint32_t option = 0, type = 0;
    std::string data;
    bool is_error() const { return (type & 0x80000000) != 0; }
};
inline OptionReply read_option_reply(WireReader& r) {
    if (r.u64() != 0x3e889045565a9) throw std::runtime_error("not the magic of an option's reply");
    OptionReply reply;
    reply.option = r.u32();
    reply.type = r.u32();
    reply.data = r.text(r.u32());
    return reply;
}
// Up to and with the final one of the option.
inline std::vector<OptionReply> read_option_replies(WireReader& r) {
    std::vector<OptionReply> replies;
    do replies.push_back(read_option_reply(r));
    while (replies.back().type != 1 && !replies.back().is_error());
    return replies;
}

struct Extent32 {
    std::uint32_t length, flags;
    bool operator==(const Extent32&) const = default;
};

// What one request was answered, all its chunks together.
struct Answer {
    std::uint32_t error = 0;
    std::string text;                                        // of an error chunk
    std::string data;                                        // of a read
    std::map<std::uint32_t, std::vector<Extent32>> extents;  // of block status, by context
    bool structured = false;
    bool done = false;
};

// Reads replies until the bytes are used up. `reads`: length of the reads under way, by cookie (a simple
// reply doesn't say whether data follow).
class Answers {
  public:
    std::map<std::uint64_t, std::uint32_t> reads;
    std::map<std::uint64_t, Answer> by_cookie;
    std::vector<std::uint64_t> order;  // in which they ended

    void read(WireReader& r) {
        while (!r.empty()) read_one(r);
    }
    void read_one(WireReader& r) {
        const std::uint32_t magic = r.u32();
        if (magic == 0x67446698) {
            const std::uint32_t error = r.u32();
            const std::uint64_t cookie = r.u64();
            Answer& answer = open(cookie);
            answer.error = error;
            if (error == 0 && reads.contains(cookie)) answer.data = r.text(reads[cookie]);
            end(cookie, answer);
            return;
        }
        if (magic != 0x668e33ef) throw std::runtime_error("not the magic of a reply");
        const std::uint16_t flags = r.u16();
        const std::uint16_t type = r.u16();
        const std::uint64_t cookie = r.u64();
        const std::uint32_t length = r.u32();
        WireReader payload{r.text(length)};
        Answer& answer = open(cookie);
        answer.structured = true;
        if (type == 1) {
            payload.u64();
            answer.data += payload.text(payload.left());
        } else if (type == 2) {
            payload.u64();
            answer.data.append(payload.u32(), '\0');
        } else if (type == 5) {
            auto& extents = answer.extents[payload.u32()];
            while (!payload.empty()) {
                const std::uint32_t n = payload.u32();
                extents.push_back({n, payload.u32()});
            }
        } else if (type == 0x8001) {
            answer.error = payload.u32();
            answer.text = payload.text(payload.u16());
            if (!payload.empty()) throw std::runtime_error("an error chunk with something behind it");
        } else if (type != 0 || length != 0) {
            throw std::runtime_error("a chunk of an unexpected type");
        }
        if (flags & 1) end(cookie, answer);
    }

  private:
    Answer& open(std::uint64_t cookie) {
        Answer& answer = by_cookie[cookie];
        if (answer.done) throw std::runtime_error("answered twice");
        return answer;
    }
    void end(std::uint64_t cookie, Answer& answer) {
        answer.done = true;
        order.push_back(cookie);
    }
};

}  // namespace udm::test
